"""Krylov spaces of a symmetric matrix that is only known by its products.

The loop runs on the host, so that a product may go through the data batch by batch; what it does
with the vectors is compiled. The basis is kept in chunks of a few vectors: arrays with one leading
axis, whose others are split over devices as the leaf is. A step reads the chunks that there are,
and writes into the last.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._checks import PyTree
from ._vectors import MatVec, dot, dtype_of_sums, norm, widened

Array = np.ndarray
Basis = tuple[PyTree, ...]
CHUNK = 16
STEPS_BETWEEN_LOOKS = 8


class Krylov(NamedTuple):
    """An orthonormal basis, and the matrix in it: vector ``i`` belongs to row ``i``."""

    basis: Basis
    """Behind the vectors comes the next direction, unless the space is closed."""
    projected: Array
    """Symmetric, as many rows as there are vectors; float64."""
    residual: float
    """The length of what the last product had outside of the space; 0 if it is closed."""
    products: int
    """How many products were taken, in all."""


def unit(vector: PyTree) -> tuple[PyTree, jax.Array]:
    """The direction and the length."""
    length = norm(vector)
    return jax.tree.map(lambda x: (x / length).astype(x.dtype), vector), length


def row(basis: Basis, i: int) -> PyTree:
    """One vector of the basis."""
    return jax.tree.map(lambda q: q[i % CHUNK], basis[i // CHUNK])


def placed(basis: Basis, vector: PyTree, i: int) -> Basis:
    """The basis with this vector in that place, at most one behind its last chunk."""
    if i // CHUNK == len(basis):
        basis = (*basis, jax.tree.map(lambda x: jnp.zeros((CHUNK, *x.shape), x.dtype), vector))
    chunks = list(basis)
    chunks[i // CHUNK] = _put(chunks[i // CHUNK], vector, jnp.asarray(i % CHUNK))
    return tuple(chunks)


@functools.partial(jax.jit, donate_argnums=0)
def _put(chunk: PyTree, vector: PyTree, i: jax.Array) -> PyTree:
    return jax.tree.map(
        lambda q, x: jax.lax.dynamic_update_index_in_dim(q, x.astype(q.dtype), i, 0), chunk, vector
    )


def truncated(basis: Basis, used: int) -> Basis:
    """The first vectors alone, with zeros behind them."""
    whole, rest = divmod(used, CHUNK)
    if not rest:
        return basis[:whole]
    last = jax.tree.map(lambda q: q.at[rest:].set(0), basis[whole])
    return (*basis[:whole], last)


def coefficients(basis: Basis, vector: PyTree) -> jax.Array:
    """The inner product with every vector of the basis, and 0 for the places behind them."""

    def of_chunk(chunk: PyTree) -> jax.Array:
        parts = jax.tree.map(
            lambda q, x: jnp.tensordot(q, x, x.ndim, precision="highest"), chunk, vector
        )
        return sum(jax.tree.leaves(parts), start=jnp.zeros([], dtype_of_sums(vector)))

    return jnp.concatenate([of_chunk(chunk) for chunk in basis])


def combine(basis: Basis, weights: jax.Array) -> PyTree:
    """The sum of the basis vectors, each times its weight; of several rows of weights likewise."""
    total = None
    for i, chunk in enumerate(basis):
        mine = weights[..., i * CHUNK : (i + 1) * CHUNK]
        part = jax.tree.map(
            lambda q, mine=mine: jnp.tensordot(mine.astype(q.dtype), q, 1, precision="highest"),
            chunk,
        )
        total = part if total is None else jax.tree.map(jnp.add, total, part)
    return total


def padded(weights: Array, basis: Basis) -> jax.Array:
    """Weights along the last axis as ``combine`` takes them."""
    behind = len(basis) * CHUNK - weights.shape[-1]
    widths = [(0, 0)] * (weights.ndim - 1) + [(0, behind)]
    return jnp.asarray(np.pad(weights, widths), dtype_of_sums(basis))


combined = jax.jit(combine)


def chunked(rows: PyTree) -> Basis:
    """Rows along the first axis as a basis."""
    count = jax.tree.leaves(rows)[0].shape[0]

    def chunk(q: jax.Array, first: int) -> jax.Array:
        mine = q[first : first + CHUNK]
        behind = [(0, CHUNK - mine.shape[0])] + [(0, 0)] * (q.ndim - 1)
        return jnp.pad(mine, behind)

    return tuple(
        jax.tree.map(lambda q, first=first: chunk(q, first), rows)
        for first in range(0, count, CHUNK)
    )


@functools.partial(jax.jit, static_argnums=2)
def orthogonalised(basis: Basis, vector: PyTree, passes: int = 2) -> tuple[PyTree, jax.Array]:
    """What the basis leaves of a vector, and the coefficients on it.

    A second pass takes off what rounding left of the first; a third changes nothing ("twice is
    enough", Parlett, *The Symmetric Eigenvalue Problem*, 1980, section 6.9).
    """
    total = jnp.zeros([], dtype_of_sums(vector))
    for _ in range(passes):
        along = coefficients(basis, vector)
        vector = jax.tree.map(jnp.subtract, vector, combine(basis, along))
        total = total + along
    return vector, total


@functools.partial(jax.jit, static_argnums=5)
def _next_direction(
    basis: Basis, product: PyTree, vector: PyTree, before: PyTree, at: jax.Array, passes: int
) -> tuple[PyTree, jax.Array, jax.Array]:
    """The direction in which a product leaves the space, how far, and what it has within.

    Most of it lies along the last two vectors. Taken off first, they stand for the first of two
    passes over the whole basis.
    """
    last, second = dot(vector, product), dot(before, product)
    left = jax.tree.map(lambda p, q, b: p - last * q - second * b, product, vector, before)
    left, along = orthogonalised(basis, left, passes)
    along = along.at[at].add(last).at[jnp.maximum(at - 1, 0)].add(second)
    direction, length = unit(left)
    direction = jax.tree.map(lambda x: jnp.where(length > 0, x, jnp.zeros_like(x)), direction)
    return direction, length, along


def extend(matvec: MatVec, space: Krylov, size: int) -> Krylov:
    """Takes products until there are ``size`` vectors, or until one stays within the space.

    The first product is that of the vector behind those whose products are known.
    """
    basis, start = space.basis, len(space.projected)
    vector = row(basis, start)
    before = jax.tree.map(jnp.zeros_like, vector)
    lengths: list[jax.Array] = []
    columns: list[jax.Array] = []
    for k in range(start, size):
        product = widened(matvec(vector))
        # After a restart the first product lies along all vectors that were kept.
        passes = 2 if k == start else 1
        direction, length, along = _next_direction(
            basis, product, vector, before, jnp.asarray(k), passes
        )
        basis = placed(basis, direction, k + 1)
        before, vector = vector, direction
        lengths.append(length)
        columns.append(along)
        # To wait for each number would leave the device idle; at times is enough to stop early.
        if len(lengths) % STEPS_BETWEEN_LOOKS == 0 and _closed(lengths, columns, space) is not None:
            break
    closed = _closed(lengths, columns, space)
    used = len(lengths) if closed is None else closed + 1
    projected = np.zeros((start + used, start + used))
    projected[:start, :start] = space.projected
    for k, column in zip(range(start, start + used), jax.device_get(columns), strict=False):
        projected[: k + 1, k] = projected[k, : k + 1] = np.asarray(column[: k + 1], np.float64)
    residual = float(lengths[-1]) if closed is None else 0.0
    return Krylov(basis, projected, residual, space.products + len(lengths))


def _closed(
    lengths: Sequence[jax.Array], columns: Sequence[jax.Array], space: Krylov
) -> int | None:
    """The first of these products that has nothing outside of the space but rounding."""
    sizes = np.asarray(jax.device_get(lengths), np.float64)
    scale = max(
        float(np.abs(space.projected).max(initial=0.0)),
        float(sizes.max()),
        *(float(np.abs(column).max()) for column in jax.device_get(columns)),
    )
    within = np.flatnonzero(sizes <= 10 * float(np.finfo(columns[0].dtype).eps) * scale)
    return int(within[0]) if within.size else None


def with_next(space: Krylov, vector: PyTree) -> Krylov:
    """The space with another direction to go on from, made orthogonal to it."""
    used = len(space.projected)
    basis = truncated(space.basis, used)
    left = orthogonalised(basis, vector)[0] if basis else vector
    return space._replace(basis=placed(basis, unit(left)[0], used))


def krylov(matvec: MatVec, start: PyTree, size: int) -> Krylov:
    """The space that a vector spans with its products: Lanczos, fully reorthogonalised."""
    return extend(matvec, with_next(Krylov((), np.zeros((0, 0)), 0.0, 0), start), size)
