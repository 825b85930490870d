"""What the config puts around a method's optimizer, and how to see through it."""

from typing import TYPE_CHECKING, Any

import optax

from experiments import accumulation, guards, precision

if TYPE_CHECKING:
    from experiments.config import Config


def wrap(
    config: "Config", tx: optax.GradientTransformationExtraArgs
) -> optax.GradientTransformationExtraArgs:
    """The optimizer as the loop calls it: by default it is the method's own."""
    if config.clip_norm is not None:
        tx = clipped(tx, config.clip_norm)
    if config.param_dtype != "float32":
        tx = precision.updates_in_float32(tx)
    tx = guards.guard(config, tx)
    if accumulation.by_multi_steps(config):
        tx = accumulation.multi_steps(tx, config.accumulate)
    return tx


def clipped(
    tx: optax.GradientTransformationExtraArgs, max_norm: float
) -> optax.GradientTransformationExtraArgs:
    """The same optimizer, with the same state, on gradients whose norm is at most this."""
    clip = optax.clip_by_global_norm(max_norm)

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        updates, _ = clip.update(updates, optax.EmptyState())
        updates, state = tx.update(updates, state, params, **extra_args)
        return updates, state

    return optax.GradientTransformationExtraArgs(tx.init, update)


def inner_state(opt_state: optax.OptState) -> optax.OptState:
    """The state of the method's own optimizer, which is what its interventions know."""
    field = _field(opt_state)
    return opt_state if field is None else inner_state(getattr(opt_state, field))


def with_inner_state(opt_state: optax.OptState, inner: optax.OptState) -> optax.OptState:
    """The same state around another one of the method's optimizer."""
    field = _field(opt_state)
    if field is None:
        return inner
    return opt_state._replace(**{field: with_inner_state(getattr(opt_state, field), inner)})


def _field(opt_state: optax.OptState) -> str | None:
    """Where a wrapper keeps the state of what is inside."""
    if isinstance(opt_state, optax.MultiStepsState):
        return "inner_opt_state"
    if isinstance(opt_state, optax.ApplyIfFiniteState):
        return "inner_state"
    return "inner" if isinstance(opt_state, guards.LossScaled) else None
