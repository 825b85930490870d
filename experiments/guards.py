"""What keeps a run going through gradients that are not finite: skipped updates, a loss scale."""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.remat import Loss

if TYPE_CHECKING:
    from experiments.config import Config

PyTree = Any
GROW_EVERY = 2000
"""Good updates in a row after which the loss scale is doubled (Micikevicius et al., 2018)."""
LARGEST_SCALE = 2.0**24
MOST_SKIPPED = 40
"""Updates in a row that a loss scale may skip: it reaches 1 from the largest in 24."""


class LossScaled(NamedTuple):
    """The factor of the loss, good updates since it last changed, and the optimizer's state."""

    scale: jax.Array
    good: jax.Array
    inner: optax.ApplyIfFiniteState


def guard(
    config: "Config", tx: optax.GradientTransformationExtraArgs
) -> optax.GradientTransformationExtraArgs:
    """``tx``, with updates skipped and the loss scaled as the config asks."""
    most = skipped_in_a_row(config)
    if most is None:
        return tx
    guarded = optax.apply_if_finite(tx, most)
    if config.loss_scale is None:
        return guarded
    return with_loss_scale(guarded, config.loss_scale)


def skipped_in_a_row(config: "Config") -> int | None:
    """How many updates in a row may be skipped, ``None`` where none is."""
    if config.skip_nonfinite is None and config.loss_scale is not None:
        return MOST_SKIPPED
    return config.skip_nonfinite


def with_loss_scale(
    tx: optax.GradientTransformationExtraArgs, start: float
) -> optax.GradientTransformationExtraArgs:
    """Adapts the factor of the loss, whose gradients ``tx`` is given without it.

    Micikevicius et al., *Mixed precision training*, ICLR 2018: it is halved when a gradient is not
    finite, where ``tx`` skips the update, and doubled after 2,000 good updates in a row.
    """

    def init(params: PyTree) -> LossScaled:
        return LossScaled(jnp.float32(start), jnp.zeros([], jnp.int32), tx.init(params))

    def update(
        gradients: PyTree, state: LossScaled, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, LossScaled]:
        updates, inner = tx.update(gradients, state.inner, params, **extra)
        good = jnp.where(inner.last_finite, state.good + 1, 0)
        grows = good == GROW_EVERY
        larger = jnp.minimum(2 * state.scale, LARGEST_SCALE)
        scale = jnp.where(grows, larger, state.scale)
        scale = jnp.where(inner.last_finite, scale, jnp.maximum(state.scale / 2, 1.0))
        return updates, LossScaled(scale, jnp.where(grows, 0, good), inner)

    return optax.GradientTransformationExtraArgs(init, update)


def scaled(loss: Loss, scale: jax.Array) -> Loss:
    """The loss times the scale, so that its gradients are, before they can underflow."""

    def multiplied(*arguments: Any) -> tuple[jax.Array, PyTree]:
        value, statistics = loss(*arguments)
        return scale * value, statistics

    return multiplied


def loss_scale(opt_state: optax.OptState) -> jax.Array | None:
    """The factor of the loss, ``None`` where there is none."""
    return opt_state.scale if isinstance(opt_state, LossScaled) else None


def skipped(config: "Config", opt_state: optax.OptState) -> jax.Array | None:
    """Whether the update that has led to this state was skipped; ``None`` where none can be."""
    most = skipped_in_a_row(config)
    if most is None:
        return None
    state = opt_state.inner if isinstance(opt_state, LossScaled) else opt_state
    is_skipped: jax.Array = ~state.last_finite & (state.notfinite_count <= most)
    return is_skipped
