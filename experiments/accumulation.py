"""The batch of an update in parts, for batches that do not fit: the mean gradient makes the update.

Whatever the way, a *step* is an update: schedules, thresholds, epochs and interventions count as
they do without.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from experiments.checks import check

if TYPE_CHECKING:
    from experiments import data
    from experiments.config import Config

PyTree = Any


def check_accumulation(config: "Config") -> None:
    """Refuses what cannot be done together, or not with this optax."""
    if config.accumulate == 1:
        return
    by, wanted = "accumulate_by", None
    if config.accumulate_by == "multi_steps":
        # Its sum is set back by a product with zero, which a NaN survives.
        if config.skip_nonfinite is not None or config.loss_scale is not None:
            wanted = "microbatch where updates can be skipped (skip_nonfinite, loss_scale)"
    elif not hasattr(optax, "microbatch"):
        wanted = f"multi_steps, since optax {optax.__version__} has no microbatch"
    check(wanted is None, by, config.accumulate_by, wanted or "")


def by_multi_steps(config: "Config") -> bool:
    """Whether every part is a call of the compiled step, of which the last makes the update."""
    return config.accumulate > 1 and config.accumulate_by == "multi_steps"


def parts(config: "Config", batch: "data.Split") -> list["data.Split"]:
    """What the compiled step is given for one update, call by call."""
    if not by_multi_steps(config):
        return [batch]
    size = len(batch.labels) // config.accumulate
    cuts = [slice(i * size, (i + 1) * size) for i in range(config.accumulate)]
    return [batch._replace(inputs=batch.inputs[x], labels=batch.labels[x]) for x in cuts]


def joined(metrics: list[dict[str, jax.Array]]) -> dict[str, jax.Array]:
    """The metrics of an update from those of its parts: the mean loss, the rest as at its end."""
    if len(metrics) == 1:
        return metrics[0]
    total = functools.reduce(jnp.add, [x["loss"] for x in metrics])
    return metrics[-1] | {"loss": total / len(metrics)}


def multi_steps(
    tx: optax.GradientTransformation, every: int
) -> optax.GradientTransformationExtraArgs:
    """``optax.MultiSteps``, with a float32 mean where the params are not."""
    wrapped = optax.MultiSteps(tx, every)

    def init(params: PyTree) -> optax.MultiStepsState:
        mean = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
        return wrapped.init(params)._replace(acc_grads=mean)

    return optax.GradientTransformationExtraArgs(init, wrapped.update)


def mean_gradient(gradients: PyTree, opt_state: optax.OptState) -> PyTree:
    """The gradient of the update so far: the mean over its parts, with this one."""
    if not isinstance(opt_state, optax.MultiStepsState):
        return gradients
    count = opt_state.mini_step + 1
    return jax.tree.map(lambda g, mean: mean + (g - mean) / count, gradients, opt_state.acc_grads)


def updates_made(opt_state: optax.OptState) -> Any:
    """1 where the step that has led to this state made an update, 0 where it only added to it."""
    if not isinstance(opt_state, optax.MultiStepsState):
        return 1
    return (opt_state.mini_step == 0).astype(jnp.int32)


def in_microbatches(
    config: "Config", batch: "data.Split", differentiate: Callable[..., PyTree]
) -> Callable[..., PyTree]:
    """``differentiate(trained, statistics, batch)`` of one device, microbatch by microbatch.

    All outputs are means: the loss, the gradients, and the statistics, each microbatch of which is
    normalised by itself.
    """
    if config.accumulate == 1 or by_multi_steps(config):
        return differentiate
    split: Callable[..., PyTree] = optax.microbatch(
        differentiate,
        argnums=2,
        microbatch_size=len(batch.labels) // config.accumulate,
        accumulator=optax.microbatching.AccumulationType.MEAN,
    )
    return split
