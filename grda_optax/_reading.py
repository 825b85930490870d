"""How dual averaging reads its accumulator: weight by weight, or group by group.

A threshold rule sees the *magnitudes*: the accumulator itself, or the norms of its groups.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ._checks import PyTree, structure
from ._families import Leaves, follow_groups, read_groups
from ._groups import Groups
from ._nonzero import beside_zero
from ._resolve import families_of, grouped
from ._trees import is_masked, penalised

Operator: TypeAlias = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""From values, thresholds and the number of the update to values."""


class Entrywise:
    """Every weight is zero or not by itself."""

    flags: PyTree = None
    scales: PyTree = None

    def __init__(self, prox: Operator):
        """Takes the operator that reads the weights out."""
        self._prox = prox

    def magnitudes(self, accumulator: PyTree) -> PyTree:
        """What a threshold rule sees of it; the sign does not matter."""
        return accumulator

    def weights(
        self, accumulator: PyTree, magnitudes: Any, heights: Any, count: jax.Array
    ) -> PyTree:
        """The weights, at a threshold for every leaf."""
        del magnitudes
        return penalised(lambda v, h: self._prox(v, h, count), accumulator, heights)

    def settled(
        self, accumulator: PyTree, magnitudes: Any, heights: Any, count: jax.Array, chosen: Any
    ) -> PyTree:
        """The weights of which exactly the chosen ones are zero."""
        w = self.weights(accumulator, magnitudes, heights, count)
        kept = penalised(lambda w, v: jnp.where(v == 0, w, beside_zero(w, v)), w, accumulator)
        return penalised(lambda w, zero: jnp.where(zero, jnp.zeros_like(w), w), kept, chosen)

    def held(self, total: PyTree, accumulator: PyTree) -> PyTree:
        """``total``, in which the weights that are zero are those of ``accumulator``."""
        return penalised(
            lambda x, v: jnp.where(v == 0, jnp.zeros_like(v), beside_zero(x, v)),
            total,
            accumulator,
        )


class Grouped:
    """Groups of weights are zero together."""

    def __init__(self, groups: tuple[Groups, ...], prox: Operator, params: optax.Params):
        """Finds the groups in the params; nothing but shapes and paths is looked at."""
        self._prox = prox
        self.families = families_of(groups, params)
        self.flags: PyTree = grouped(self.families, params)
        self.scales: PyTree = tuple(family.scale for family in self.families)
        # Where `optax.partition` has masked a leaf out there is none to be counted.
        flat = jax.tree.leaves(params, is_leaf=is_masked)
        self._slots = [i for i, x in enumerate(flat) if not is_masked(x)]

    def magnitudes(self, accumulator: PyTree) -> tuple[jax.Array, ...]:
        """What a threshold rule sees of it."""
        leaves = self._leaves(accumulator)
        norms = tuple(family.magnitudes(leaves) for family in self.families)
        # The norms that are counted are those that are read out, to the last bit.
        fixed: tuple[jax.Array, ...] = jax.lax.optimization_barrier(norms)  # type: ignore[no-untyped-call]
        return fixed

    def weights(
        self, accumulator: PyTree, magnitudes: Any, heights: Any, count: jax.Array
    ) -> PyTree:
        """The weights, at thresholds of every family."""
        leaves = self._leaves(accumulator)
        out = read_groups(self.families, leaves, magnitudes, heights, self._prox, count)
        return self._like(accumulator, out)

    def settled(
        self,
        accumulator: PyTree,
        magnitudes: Any,
        heights: Any,
        count: jax.Array,
        chosen: Any,
    ) -> PyTree:
        """The weights of which exactly the chosen groups are zero."""
        leaves = self._leaves(accumulator)
        out = list(leaves)
        rows = zip(self.families, magnitudes, heights, chosen, strict=True)
        gone = [
            family.settle(leaves, out, r, h, lambda v, h: self._prox(v, h, count), flags)
            for family, r, h, flags in rows
        ]
        follow_groups(self.families, out, gone)
        return self._like(accumulator, out)

    def held(self, total: PyTree, accumulator: PyTree) -> PyTree:
        """``total``, in which the groups that are zero are those of ``accumulator``."""
        leaves, old = self._leaves(total), self._leaves(accumulator)
        gone = [family.hold(leaves, old) for family in self.families]
        follow_groups(self.families, leaves, gone)
        return self._like(total, leaves)

    def _leaves(self, tree: PyTree) -> Leaves:
        flat = jax.tree.leaves(tree, is_leaf=is_masked)
        return [flat[i] for i in self._slots]

    def _like(self, tree: PyTree, leaves: Leaves) -> PyTree:
        flat, treedef = jax.tree.flatten(tree, is_leaf=is_masked)
        for i, leaf in zip(self._slots, leaves, strict=True):
            flat[i] = leaf
        return jax.tree.unflatten(treedef, flat)


Reading: TypeAlias = Entrywise | Grouped


class Readings:
    """From params to how they are read; for the same shapes it is the same object."""

    def __init__(self, groups: tuple[Groups, ...] | None, prox: Operator):
        """Takes what is known before the params are."""
        self._groups, self._prox = groups, prox
        self._entrywise = Entrywise(prox)
        self._found: dict[Any, Grouped] = {}

    def __call__(self, params: optax.Params) -> Reading:
        """Finds the groups in the params, where there are some."""
        leaves = jax.tree.leaves(params)
        if self._groups is None or not leaves:
            return self._entrywise
        key = structure(params), tuple(np.shape(x) for x in leaves)
        if key not in self._found:
            self._found[key] = Grouped(self._groups, self._prox, params)
        return self._found[key]
