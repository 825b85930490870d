"""Dynamic sparse training: at times some weights are dropped, and as many grow elsewhere."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.checks import check, check_finite, check_integer
from experiments.methods._allocation import Group
from experiments.methods._masks import Moment, Rule, rank

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Rewiring:
    """When the topology changes, and how much of it."""

    update_every: int = 100
    """Steps between two changes."""
    stop: float = 0.75
    """The fraction of training after which the topology stands."""
    drop_fraction: float = 0.3
    """How many of the weights that are left go at once."""

    def check(self, method: str) -> None:
        """Refuses what is out of range, in the name of a method."""
        check_integer(f"{method}.update_every", self.update_every, 1)
        for name in ("stop", "drop_fraction"):
            value = getattr(self, name)
            check_finite(f"{method}.{name}", value)
            check(value <= 1, f"{method}.{name}", value, "at most 1")


def cosine_fraction(start: float, n: jax.Array, stop_step: int) -> jax.Array:
    r""":math:`\alpha / 2 (1 + \cos(\pi n / N))`: from ``start`` to 0 at ``stop_step``."""
    return start / 2 * (1 + jnp.cos(jnp.pi * n / max(1, stop_step)))


def drop_and_grow(
    keep: jax.Array, weights: jax.Array, fraction: jax.Array | float, growth: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The mask of a leaf without its smallest weights, and with as many others.

    Among those that can grow are the weights which have just been dropped. They are preferred where
    the growth scores are equal, above all where these are zero: a weight that grows from zero and
    has no gradient would stay zero.

    Args:
        keep: the mask so far.
        weights: of which the smallest in magnitude are dropped.
        fraction: how many of the weights that are left are dropped, rounded down.
        growth: the largest of these grow.

    Returns:
        The new mask, with as many weights as the old one; and where it has grown.
    """
    k = jnp.floor(fraction * jnp.sum(keep)).astype(jnp.int32)
    size = jnp.where(keep, jnp.abs(weights), jnp.inf).ravel()
    dropped = (rank(size) < k).reshape(keep.shape) & keep
    survives = keep & ~dropped
    score = jnp.where(survives, jnp.inf, -growth).ravel()
    grown = (rank(~dropped.ravel(), score) < k).reshape(keep.shape) & ~survives
    return survives | grown, grown


def rewire(
    groups: Sequence[Group],
    due: Callable[[jax.Array], jax.Array],
    fraction: Callable[[jax.Array], jax.Array | float],
    growth: Callable[[Moment, int], jax.Array],
    value: Callable[[Moment, int, jax.Array], jax.Array] | None = None,
) -> Rule:
    """The rule of dynamic sparse training.

    Args:
        groups: whose leaves are rewired, each on its own.
        due: from the number of updates to whether the topology changes after them.
        fraction: from the same to how many weights are dropped.
        growth: from a moment and the place of a leaf to the scores of growth.
        value: from the same and where the leaf has grown to the leaf's weights. By default a new
            weight starts from zero; one that has just been dropped stays as it was.
    """

    def rule(moment: Moment) -> tuple[PyTree, PyTree]:
        def change() -> tuple[PyTree, PyTree]:
            keep, weights = jax.tree.leaves(moment.keep), jax.tree.leaves(moment.weights)
            for i in (i for group in groups for i in group.leaves):
                keep[i], grown = drop_and_grow(
                    keep[i], weights[i], fraction(moment.count), growth(moment, i)
                )
                weights[i] = weights[i] if value is None else value(moment, i, grown)
            return (
                jax.tree.unflatten(jax.tree.structure(moment.keep), keep),
                jax.tree.unflatten(jax.tree.structure(moment.weights), weights),
            )

        after: tuple[PyTree, PyTree] = jax.lax.cond(
            due(moment.count), change, lambda: (moment.keep, moment.weights)
        )
        return after

    return rule
