"""Masks that are there before the first update."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax

from experiments import data
from experiments.interventions import Intervention
from experiments.methods._allocation import Group
from experiments.methods._masks import impose, without_lowest

if TYPE_CHECKING:
    from experiments.train import Job, State

PyTree = Any
MASKS = 1  # the key of what is drawn for masks; the weights are drawn from the seed itself


def prune_at_start(
    groups: Sequence[Group],
    scores: Callable[["Job", "State"], PyTree],
    gradient_evaluations: int = 0,
) -> Intervention:
    """Before the first update the weights of lowest score go, as many as each group says."""

    def apply(job: "Job", state: "State") -> "State":
        gone = [group.zeros for group in groups]
        return impose(state, without_lowest(scores(job, state), state.opt_state.keep, groups, gone))

    return Intervention(0, apply, gradient_evaluations)


def random_scores(job: "Job", state: "State") -> PyTree:
    """Uniform on [0, 1), from the seed of the config."""
    leaves, structure = jax.tree.flatten(state.params)
    keys = jax.random.split(mask_key(job), len(leaves))
    drawn = [jax.random.uniform(key, x.shape) for key, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, drawn)


def mask_key(job: "Job") -> jax.Array:
    """What masks are drawn from."""
    return jax.random.fold_in(jax.random.key(job.config.seed), MASKS)


def mean_over_batches(
    job: "Job", function: Callable[[PyTree, data.Split], PyTree], at: PyTree, batches: int
) -> PyTree:
    """The mean of ``function(at, batch)`` over the first batches of training.

    Args:
        job: whose batches and devices are used.
        function: of one device, with its mean taken over ``DEVICE_AXIS``.
        at: any tree, such as params and statistics.
        batches: how many.
    """
    compiled = job.parallel.wrap(function)
    placed = job.parallel.replicate(at)
    values = [job.parallel.unreplicate(compiled(placed, job.batch(i))) for i in range(batches)]
    return jax.tree.map(lambda *xs: sum(xs) / batches, *values)
