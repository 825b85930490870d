"""Krylov spaces of a symmetric matrix that is only known by its products.

The loop runs on the host, so that a product may go through the data batch by batch; what it does
with the vectors is compiled. The basis is one array for every leaf, whose first axis runs over the
basis vectors and whose others are split over devices as the leaf is.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._checks import PyTree
from ._vectors import MatVec, dtype_of_sums, norm, widened

Array = np.ndarray
STEPS_BETWEEN_LOOKS = 8


class Krylov(NamedTuple):
    """An orthonormal basis, and the matrix in it: row ``i`` of ``basis`` is vector ``i``."""

    basis: PyTree
    """With room for one more than there are vectors at most: the next direction."""
    projected: Array
    """Symmetric, as many rows as there are vectors; float64."""
    residual: float
    """The length of what the last product had outside of the space; 0 if it is closed."""
    products: int
    """How many products were taken, in all."""


def allocate(like: PyTree, size: int) -> PyTree:
    """Room for so many vectors."""
    return jax.tree.map(lambda x: jnp.zeros((size, *x.shape), x.dtype), like)


def unit(vector: PyTree) -> tuple[PyTree, jax.Array]:
    """The direction and the length."""
    length = norm(vector)
    return jax.tree.map(lambda x: (x / length).astype(x.dtype), vector), length


def row(basis: PyTree, i: int | jax.Array) -> PyTree:
    """One vector of the basis."""
    return jax.tree.map(lambda q: q[i], basis)


@functools.partial(jax.jit, donate_argnums=0)
def put(basis: PyTree, vector: PyTree, i: jax.Array) -> PyTree:
    """The basis with this vector in that place, in the same memory."""
    return jax.tree.map(
        lambda q, x: jax.lax.dynamic_update_index_in_dim(q, x.astype(q.dtype), i, 0), basis, vector
    )


def coefficients(basis: PyTree, vector: PyTree) -> jax.Array:
    """The inner product with every vector of the basis."""
    parts = jax.tree.map(
        lambda q, x: jnp.tensordot(q, x, x.ndim, precision="highest"), basis, vector
    )
    return sum(jax.tree.leaves(parts), start=jnp.zeros([], dtype_of_sums(vector)))


def combine(basis: PyTree, weights: jax.Array) -> PyTree:
    """The sum of the basis vectors, each times its weight."""
    return jax.tree.map(
        lambda q: jnp.tensordot(weights.astype(q.dtype), q, 1, precision="highest"), basis
    )


@functools.partial(jax.jit, static_argnums=(2, 3))
def orthogonalised(
    basis: PyTree, vector: PyTree, used: int, passes: int = 2
) -> tuple[PyTree, jax.Array]:
    """What the first vectors of the basis leave of this one, and the coefficients on them.

    A second pass takes off what rounding left of the first; a third changes nothing ("twice is
    enough", Parlett, *The Symmetric Eigenvalue Problem*, 1980, section 6.9).
    """
    first = jax.tree.map(lambda q: q[:used], basis)
    total = jnp.zeros([], dtype_of_sums(vector))
    for _ in range(passes):
        along = coefficients(first, vector)
        vector = jax.tree.map(jnp.subtract, vector, combine(first, along))
        total = total + along
    return vector, total


@functools.partial(jax.jit, donate_argnums=0, static_argnums=3)
def _extended(
    basis: PyTree, product: PyTree, at: jax.Array, used: int
) -> tuple[PyTree, PyTree, jax.Array, jax.Array]:
    """The next vector put in its place, itself, its length, and the coefficients before it."""
    left, along = orthogonalised(basis, product, used)
    direction, length = unit(left)
    direction = jax.tree.map(lambda x: jnp.where(length > 0, x, jnp.zeros_like(x)), direction)
    return put(basis, direction, at), direction, length, along


def _rounded(count: int, capacity: int) -> int:
    """So many vectors or some more, which are zero: each number is a program to be compiled."""
    step = max(16, capacity // 4)
    return min(capacity, -(-count // step) * step)


def extend(matvec: MatVec, space: Krylov, size: int) -> Krylov:
    """Takes products until there are ``size`` vectors, or until one stays within the space.

    The first product is that of the vector behind those whose products are known.
    """
    basis, start = space.basis, len(space.projected)
    capacity = jax.tree.leaves(basis)[0].shape[0]
    vector = row(basis, start)
    lengths: list[jax.Array] = []
    columns: list[jax.Array] = []
    for k in range(start, size):
        product = widened(matvec(vector))
        basis, vector, length, along = _extended(
            basis, product, jnp.asarray(k + 1), _rounded(k + 1, capacity)
        )
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


def _closed(lengths: list[jax.Array], columns: list[jax.Array], space: Krylov) -> int | None:
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
    return space._replace(basis=_with_next(space.basis, vector, jnp.asarray(used)))


@functools.partial(jax.jit, donate_argnums=0)
def _with_next(basis: PyTree, vector: PyTree, used: jax.Array) -> PyTree:
    """The first vectors of the basis, then this one made orthogonal to them, then zeros."""

    def first(q: jax.Array) -> jax.Array:
        there = jnp.arange(q.shape[0]) < used
        return jnp.where(there.reshape(-1, *[1] * (q.ndim - 1)), q, jnp.zeros_like(q))

    basis = jax.tree.map(first, basis)
    left, _ = orthogonalised(basis, vector, jax.tree.leaves(basis)[0].shape[0])
    return put(basis, unit(left)[0], used)


def krylov(matvec: MatVec, start: PyTree, size: int) -> Krylov:
    """The space that a vector spans with its products: Lanczos, fully reorthogonalised."""
    vector, _ = unit(start)
    basis = put(allocate(vector, size + 1), vector, jnp.asarray(0))
    return extend(matvec, Krylov(basis, np.zeros((0, 0)), 0.0, 0), size)
