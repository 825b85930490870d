"""Pruning along a cubic ramp (Zhu and Gupta, ICLR workshop 2018): by the network or by layer."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.checks import check, check_finite, check_integer
from experiments.methods._allocation import Group
from experiments.methods._masks import Moment, Rule, magnitudes, without_lowest

PyTree = Any


def check_ramp(method: str, ramp_end: float, update_every: int) -> None:
    """Refuses settings of a ramp that are out of range."""
    check_finite(f"{method}.ramp_end", ramp_end)
    check(ramp_end <= 1, f"{method}.ramp_end", ramp_end, "at most 1")
    check_integer(f"{method}.update_every", update_every, 1)


def cubic_ramp(groups: Sequence[Group], n: jax.Array, end_step: int) -> list[jax.Array]:
    r"""How many zeros each group has after :math:`n` updates, from no zeros to all at :math:`N`.

    .. math:: s (1 - (1 - n / N)^3)

    of its weights, rounded; from :math:`N` on exactly ``group.zeros``.
    """
    left = 1 - jnp.minimum(n / max(end_step, 1), 1.0)
    on_the_way = (jnp.round(g.sparsity * (1 - left**3) * g.size).astype(jnp.int32) for g in groups)
    return [jnp.where(n < end_step, x, g.zeros) for x, g in zip(on_the_way, groups, strict=True)]


def ramp_is_due(n: jax.Array, end_step: int, update_every: int) -> jax.Array:
    """Whether weights go after update :math:`n`: at every so many, and at the end of the ramp."""
    return ((n % update_every == 0) & (n < end_step)) | (n == end_step)


def prune_along_ramp(groups: Sequence[Group], end_step: int, update_every: int) -> Rule:
    """Every ``update_every`` updates the smallest weights of each group go for good.

    Args:
        groups: leaves that compete, each with its sparsity in the end.
        end_step: the update after which that is reached.
        update_every: updates between two prunings.
    """

    def rule(moment: Moment) -> tuple[PyTree, PyTree]:
        n, keep = moment.count, moment.keep

        def prune() -> PyTree:
            gone = cubic_ramp(groups, n, end_step)
            return without_lowest(magnitudes(moment.weights), keep, groups, gone)

        due = ramp_is_due(n, end_step, update_every)
        return jax.lax.cond(due, prune, lambda: keep), moment.weights

    return rule
