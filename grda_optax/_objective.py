"""The loss over the data and its derivatives, where the params are one vector.

Whatever is computed here goes batch by batch, so that the data may be any number of batches; the
results are those of all of it at once.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ._checks import PyTree, broadcast_mask, check_function, structure
from ._curvature import hessian_product
from ._nonzero import beside_zero
from ._trees import check_leaves, dtype_of, wide

Batch = Any
Loss = Callable[[PyTree, Batch], jax.Array]


class Objective:
    """The mean loss over batches as a function of those params that are real floating point.

    Other leaves are constants of the loss. The params are in float32 or wider, since half a
    precision is not enough for second derivatives.

    Attributes:
        leaves: the params that can move.
        dtypes: those that they came in.
        point: the leaves as one vector; ``unravel`` cuts it again.
        size: how many weights they are, :math:`d`.
        prunable: which of the weights are under the mask, a boolean vector on the host.
        shares: the part of the examples that is in each batch.
    """

    def __init__(self, loss: Loss, params: PyTree, batches: Sequence[Batch], mask: PyTree | None):
        check_function("loss", loss)
        flags = broadcast_mask(mask, params)
        check_leaves(params, flags)
        self._all, self._treedef = jax.tree.leaves(params), structure(params)
        self._moving = [jnp.issubdtype(dtype_of(leaf), jnp.floating) for leaf in self._all]
        flagged = zip(self._all, self._moving, jax.tree.leaves(flags), strict=True)
        moving = [(leaf, flag) for leaf, moves, flag in flagged if moves]
        self.leaves = [wide(leaf, None) for leaf, _ in moving]
        self.dtypes = [dtype_of(leaf) for leaf, _ in moving]
        self.prunable = np.concatenate(
            [np.full(np.size(leaf), flag) for leaf, flag in moving] or [np.zeros(0, bool)]
        )
        self.size = self.prunable.size
        if not self.prunable.any():
            raise ValueError("params must have weights that are penalised, got none.")
        self.batches = checked_batches(batches)
        self.examples = [number_of_examples(batch) for batch in self.batches]
        self.shares = [n / sum(self.examples) for n in self.examples]
        self.point, self.unravel = ravel_pytree(self.leaves)

        def moved(leaves: list[jax.Array], batch: Batch) -> jax.Array:
            value: jax.Array = loss(self.rebuild(leaves), batch)
            return value

        def flat(point: jax.Array, batch: Batch) -> jax.Array:
            return moved(self.unravel(point), batch)

        def product(point: jax.Array, index: jax.Array, batch: Batch) -> jax.Array:
            basis = jnp.zeros_like(point).at[index].set(1)
            column: jax.Array = hessian_product(flat, point, basis, batch)
            return column

        def entry(point: jax.Array, index: jax.Array, batch: Batch) -> jax.Array:
            return product(point, index, batch)[index]

        # Compiled once for an objective, however many rounds it is asked in.
        self._value = jax.jit(moved)
        self._rows = jax.jit(jax.vmap(product, (None, 0, None)))
        self._entries = jax.jit(jax.vmap(entry, (None, 0, None)))
        self._gradients = jax.jit(jax.vmap(jax.grad(flat), (None, 0)))
        self._products = jax.jit(
            jax.vmap(lambda w, batch, u: hessian_product(moved, w, u, batch), (None, None, 0))
        )
        self._check_loss(moved)

    def rebuild(self, leaves: Sequence[Any], fill: float | None = None) -> PyTree:
        """Params with these leaves for those that can move; the others as they are, or filled."""
        rest = iter(leaves)
        pairs = zip(self._all, self._moving, strict=True)
        leaves = [
            next(rest) if moves else x if fill is None else jnp.full(np.shape(x), fill)
            for x, moves in pairs
        ]
        return jax.tree.unflatten(self._treedef, leaves)

    def in_dtypes(self, point: jax.Array, zero: np.ndarray) -> PyTree:
        """The vector as params in their own dtypes; of the prunable those at zero, no others."""
        flags = zip(self.split(zero), self.split(self.prunable), self.dtypes, strict=True)
        leaves = []
        for leaf, (gone, prunable, dtype) in zip(self.unravel(point), flags, strict=True):
            narrow = leaf.astype(dtype)
            narrow = jnp.where(prunable, beside_zero(narrow, leaf), narrow)
            leaves.append(jnp.where(gone, jnp.zeros_like(narrow), narrow))
        return self.rebuild(leaves)

    def split(self, vector: np.ndarray) -> list[np.ndarray]:
        """A vector of the host, cut and shaped like ``leaves``."""
        ends = np.cumsum([leaf.size for leaf in self.leaves])[:-1]
        parts = zip(np.split(vector, ends), self.leaves, strict=True)
        return [part.reshape(leaf.shape) for part, leaf in parts]

    def products(self, vectors: list[jax.Array]) -> list[jax.Array]:
        """The Hessian times several vectors, in the shapes of ``leaves`` after a first axis."""
        mean: list[jax.Array] = self._mean(
            lambda batch: self._products(self.leaves, batch, vectors)
        )
        return mean

    def diagonal(self, indices: np.ndarray, chunk_size: int) -> np.ndarray:
        """Entries of the Hessian's diagonal, with one product for each."""
        result = np.empty(len(indices))
        for at, part in self._in_chunks(self._entries, self.point, indices, chunk_size):
            result[at] = part
        check_finite_curvature(result)
        return result

    def hessian(self, point: jax.Array, indices: np.ndarray, chunk_size: int) -> np.ndarray:
        """The Hessian on some of the weights, in float64 on the host."""
        result = np.empty((len(indices), len(indices)))
        for at, part in self._in_chunks(self._rows, point, indices, chunk_size):
            result[at] = part[:, indices]
        check_finite_curvature(result)
        return result

    def gradients(
        self, point: jax.Array, number: int, group: int, chunk_size: int
    ) -> Iterator[jax.Array]:
        """Gradients of groups of consecutive examples, spread evenly over the data.

        Args:
            point: where, a vector of ``size``.
            number: of gradients, at most.
            group: how many examples each averages.
            chunk_size: how many gradients at a time.
        """
        places = self._places(number, group)
        chunk_size = min(chunk_size, max(len(rows) for rows in places))
        for batch, rows in zip(self.batches, places, strict=True):
            for first in range(0, len(rows), chunk_size):
                some = rows[first : first + chunk_size]
                # One shape for all, since a second one would be compiled again.
                filled = np.concatenate([some, np.repeat(some[:1], chunk_size - len(some), 0)])
                examples = jax.tree.map(lambda x, places=filled: x[places], batch)
                yield self._gradients(point, examples)[: len(some)]

    def _places(self, number: int, group: int) -> list[np.ndarray]:
        """For every batch which of its examples are in which of the groups, row by row."""
        counts = [n // group for n in self.examples]
        if not any(counts):
            raise ValueError(
                "examples_per_gradient must be at most the examples of a batch, "
                f"{max(self.examples)}, got {group}."
            )
        for batch, n in zip(self.batches, self.examples, strict=True):
            for leaf in jax.tree.leaves(batch):
                if np.shape(leaf)[:1] != (n,):
                    raise ValueError(
                        "batches must have the examples along the first axis of every leaf, "
                        f"{n} of them, got the shape {np.shape(leaf)}."
                    )
        total = sum(counts)
        taken = min(number, total)
        chosen = np.arange(taken) * total // taken
        ends = np.cumsum([0, *counts])
        return [
            (chosen[(chosen >= a) & (chosen < b)] - a)[:, None] * group + np.arange(group)[None]
            for a, b in itertools.pairwise(ends)
        ]

    def _mean(self, function: Callable[[Batch], Any]) -> Any:
        """Over the data, of what is a mean over the examples of a batch."""
        total = None
        for batch, share in zip(self.batches, self.shares, strict=True):
            total = _with_share(total, function(batch), share)
        return total

    def _in_chunks(
        self, function: Any, point: jax.Array, indices: np.ndarray, chunk_size: int
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """Where each part of the result belongs, and the part."""
        chunk_size = max(1, min(chunk_size, len(indices)))
        for first in range(0, len(indices), chunk_size):
            some = indices[first : first + chunk_size]
            filled = np.concatenate([some, np.repeat(some[:1], chunk_size - len(some))])
            part = self._mean(functools.partial(function, point, filled))
            yield slice(first, first + len(some)), np.asarray(part)[: len(some)]

    def _check_loss(self, loss: Loss) -> None:
        out = jax.eval_shape(loss, self.leaves, self.batches[0])
        if not hasattr(out, "shape"):
            raise ValueError(f"loss must return a scalar, got a {type(out).__name__}.")
        if out.shape != () or not jnp.issubdtype(out.dtype, jnp.floating):
            raise ValueError(
                f"loss must return a real floating point scalar, got {out.dtype}{list(out.shape)}."
            )
        value = float(self._mean(lambda batch: self._value(self.leaves, batch)))
        if not np.isfinite(value):
            raise ValueError(f"loss must be finite at params, got {value:g}.")


@jax.jit
def _with_share(total: PyTree | None, part: PyTree, share: float) -> PyTree:
    """Adds this part's share of a mean to the total."""
    scaled = jax.tree.map(lambda x: share * x, part)
    return scaled if total is None else jax.tree.map(jnp.add, total, scaled)


def check_finite_curvature(values: np.ndarray) -> None:
    """Raises a ValueError where the derivatives of the loss are NaN or infinite."""
    if not np.isfinite(values).all():
        raise ValueError("loss must have finite derivatives at params, got some that are not.")


def checked_batches(batches: Sequence[Batch]) -> Sequence[Batch]:
    """A list or tuple of at least one batch."""
    if not isinstance(batches, list | tuple):
        raise ValueError(f"batches must be a list of batches, got a {type(batches).__name__}.")
    if not batches:
        raise ValueError("batches must hold at least one batch, got none.")
    return batches


def number_of_examples(batch: Batch) -> int:
    """The length of the first leaf's leading axis."""
    leaves = jax.tree.leaves(batch)
    shape = np.shape(leaves[0]) if leaves else ()
    if not shape or not shape[0]:
        found = f"the shape {shape}" if leaves else "no array"
        raise ValueError(f"batches must have the examples along their first axis, got {found}.")
    return int(shape[0])
