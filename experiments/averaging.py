"""The mean of the weights over the last part of a run, and BatchNorm's statistics that fit it.

Izmailov, Podoprikhin, Garipov, Vetrov and Wilson, *Averaging weights leads to wider optima and
better generalization*, UAI 2018, algorithm 1.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments import data
from experiments.checks import check, check_integer

if TYPE_CHECKING:
    from experiments.train import Job, State

PyTree = Any
STATISTICS_BATCHES = 100
"""After so many BatchNorm has forgotten all but 0.9^100 of what it knew before."""


class AverageState(NamedTuple):
    """The mean so far, and the state of the optimizer whose weights it is of."""

    count: jax.Array  # type: ignore[assignment]  # a tuple has a method of this name
    taken: jax.Array
    average: PyTree
    inner: optax.OptState


def average_weights(
    tx: optax.GradientTransformationExtraArgs, start: int, every: int, total: int
) -> optax.GradientTransformationExtraArgs:
    r"""Trains as ``tx`` does, and keeps the mean of its weights beside them.

    .. math:: \bar w_k = \bar w_{k-1} + (w - \bar w_{k-1}) / k

    Entries that are zero each time have the mean ``+0.0``.

    Args:
        tx: from gradients to updates.
        start: from 0 to ``total``; weights after fewer updates do not enter.
        every: updates between two weights that enter.
        total: the update after which the last ones enter.

    Raises:
        ValueError: ``start`` or ``every`` is out of range.
    """
    check(0 <= start <= total, "start", start, f"from 0 to {total}")
    check_integer("every", every, 1)

    def init(params: PyTree) -> AverageState:
        zero = jnp.zeros([], jnp.int32)
        mean = jax.tree.map(
            lambda p: jnp.zeros(p.shape, jnp.promote_types(p.dtype, jnp.float32)), params
        )
        return AverageState(zero, zero, mean, tx.init(params))

    def update(
        gradient: PyTree, state: AverageState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, AverageState]:
        updates, inner = tx.update(gradient, state.inner, params, **extra)
        n = state.count + 1
        due = (n >= start) & ((total - n) % every == 0)
        taken = state.taken + due

        def mean(average: jax.Array, p: jax.Array) -> jax.Array:
            moved = average + (p - average) / jnp.maximum(taken, 1).astype(average.dtype)
            return jnp.where(due, jnp.where(taken == 1, p.astype(average.dtype), moved), average)

        average = jax.tree.map(mean, state.average, optax.apply_updates(params, updates))
        return updates, AverageState(n, taken, average, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def use_average(job: "Job", state: "State") -> "State":
    """Puts the mean in the place of the weights, with statistics of its own."""
    average = jax.tree.map(lambda x, p: x.astype(p.dtype), state.opt_state.average, state.params)
    return recompute_statistics(job, state._replace(params=average))


def recompute_statistics(job: "Job", state: "State") -> "State":
    """BatchNorm's statistics of the weights as they are."""
    return state._replace(statistics=statistics_of(job)(state.params, state.statistics))


def statistics_of(job: "Job") -> Callable[[PyTree, PyTree], PyTree]:
    """From the params and any statistics to those of BatchNorm that fit the params.

    They are running means as those in training are, over the 100 batches that would come next.
    """

    def forward(at: tuple[PyTree, PyTree], batch: data.Split) -> tuple[PyTree, PyTree]:
        return at[0], job.loss(*at, batch)[1]

    compiled = job.parallel.wrap(forward)

    def fitting(params: PyTree, statistics: PyTree) -> PyTree:
        if not jax.tree.leaves(statistics):
            return statistics
        at = job.parallel.replicate((params, statistics))
        for i in range(STATISTICS_BATCHES):
            at = compiled(at, job.batch(job.total_steps + i))
        return job.parallel.unreplicate(at)[1]

    return fitting
