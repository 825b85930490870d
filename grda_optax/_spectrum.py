r"""Functions of a symmetric matrix, by Lanczos.

:math:`m` products with a vector give an orthonormal basis :math:`Q` of its Krylov space and the
small matrix :math:`T = Q^\top H Q`; :math:`|v|\, Q f(T) e_1` approaches :math:`f(H) v` for every
smooth :math:`f`, as well as the best polynomial of degree :math:`m - 1` does (Golub and Meurant,
*Matrices, Moments and Quadrature*, 2010).
"""

import functools
import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import _lanczos
from ._checks import PyTree, check_flag, check_function, check_number
from ._trees import finfo
from ._vectors import (
    MatVec,
    check_vector,
    checked,
    dot,
    dtype_of_sums,
    norm,
    size_of,
    widened,
)

SpectralFilter = Callable[[np.ndarray], np.ndarray]
"""From eigenvalues to the values of a function there, entry by entry."""
STEPS_BETWEEN_ESTIMATES = 5


class SpectralValue(NamedTuple):
    r"""A function of a matrix times a vector, and how far it may be off.

    Attributes:
        value: :math:`f(H) v`, a tree like ``v``.
        error: an estimate of :math:`|f(H) v - \text{value}|`: how far the last five products moved
            it. It is no bound.
        products: how many products it took.
    """

    value: PyTree
    error: float
    products: int


def spectral_function(
    matvec: MatVec,
    vector: PyTree,
    function: SpectralFilter,
    num_iters: int,
    *,
    keep_basis: bool = True,
) -> SpectralValue:
    r"""A function of a symmetric matrix times a vector, by Lanczos from that vector.

    .. math:: f(H) v \approx |v|\, Q f(T) e_1

    exact for polynomials of degree below ``num_iters``. It is good where the function is smooth on
    the scale of the spectrum (``exp(-H)`` and the like in 20 to 50 products), and slow where it
    jumps within a dense part of it.

    Args:
        matvec: :math:`u \mapsto H u` for symmetric :math:`H`, trees to trees.
        vector: :math:`v`, a tree of real floating point arrays.
        function: :math:`f`, from a float64 array of eigenvalues to an array of the same shape. It
            is called on the host with the eigenvalues of :math:`T`; on which side rounding puts a
            zero eigenvalue is for it to stand.
        num_iters: how many products, at least 1. More than the dimension are clamped to it, with a
            warning; fewer are taken if the space is closed earlier.
        keep_basis: with the basis the memory is ``num_iters`` times the params, and the result is
            good to rounding. Without it five vectors are held and every product is taken twice; as
            nothing is reorthogonalised, converged eigenvalues come again, which costs some
            products more but is not wrong.

    Returns:
        :class:`SpectralValue`: the value in float32 or the vector's own dtype, whichever is wider,
        an estimate of its error, and the number of products.

    Raises:
        ValueError: ``num_iters`` is not an integer of at least 1, the vector is not real floating
            point, or products have another structure or are not finite.

    Examples:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from grda_optax import spectral_function
        >>> diagonal = jnp.array([0.0, 1.0, 2.0])
        >>> result = spectral_function(lambda u: diagonal * u, jnp.ones(3), np.exp, num_iters=3)
        >>> print(*(f"{x:.3f}" for x in result.value))
        1.000 2.718 7.389
    """
    check_vector("vector", vector)
    check_function("function", function)
    check_flag("keep_basis", keep_basis)
    check_number("num_iters", num_iters, at_least=1, integer=True, static=True)
    dimension = size_of(vector)
    if num_iters > dimension:
        warnings.warn(
            f"num_iters is clamped to the dimension, {dimension}, got {num_iters}.", stacklevel=2
        )
        num_iters = dimension
    return lanczos_function(checked(matvec, vector), vector, function, num_iters, keep_basis)


def lanczos_function(
    product: MatVec, vector: PyTree, function: SpectralFilter, num_iters: int, keep_basis: bool
) -> SpectralValue:
    """As ``spectral_function``, whose checks have been made."""
    vector = widened(vector)
    length = float(norm(vector))
    if length == 0:
        return SpectralValue(vector, 0.0, 0)
    if not np.isfinite(length):
        raise ValueError("vector must be finite, got NaN or inf.")
    if not keep_basis:
        return _two_passes(product, vector, length, function, num_iters)
    space = _lanczos.krylov(product, vector, num_iters)
    weights = _function_weights(space.projected, function)
    return SpectralValue(
        _lanczos.combined(space.basis, _lanczos.padded(length * weights, space.basis)),
        length * _error(space.projected, function, weights, vector, closed=space.residual == 0),
        space.products,
    )


def _function_weights(projected: np.ndarray, function: SpectralFilter) -> np.ndarray:
    """The first column of f(T)."""
    if not np.isfinite(projected).all():
        raise ValueError("matvec must return finite numbers, got NaN or inf.")
    values, mixing = np.linalg.eigh(projected)
    column: np.ndarray = mixing @ (np.asarray(function(values), np.float64) * mixing[0])
    return column


def _error(
    projected: np.ndarray,
    function: SpectralFilter,
    weights: np.ndarray,
    vector: PyTree,
    *,
    closed: bool,
) -> float:
    """By how much the last products moved a unit vector's result, and what rounding may do."""
    size = len(projected)
    largest = float(np.abs(function(np.linalg.eigvalsh(projected))).max())
    rounding = size * float(finfo(dtype_of_sums(vector)).eps) * largest
    if closed:  # of a space that no product leaves, the result is exact
        return rounding
    before = size - min(STEPS_BETWEEN_ESTIMATES, size - 1)
    shorter = np.zeros(size)
    if before < size:
        shorter[:before] = _function_weights(projected[:before, :before], function)
    return float(np.linalg.norm(weights - shorter)) + rounding


@jax.jit
def _three_term(
    product: PyTree, vector: PyTree, before: PyTree, length: jax.Array
) -> tuple[PyTree, jax.Array, jax.Array]:
    """The next vector of the recurrence and the row of the tridiagonal matrix."""
    along = dot(product, vector)
    left = jax.tree.map(lambda p, q, b: p - along * q - length * b, product, vector, before)
    direction, following = _lanczos.unit(left)
    direction = jax.tree.map(lambda x: jnp.where(following > 0, x, jnp.zeros_like(x)), direction)
    return direction, along, following


@functools.partial(jax.jit, donate_argnums=0)
def _added(total: PyTree, vector: PyTree, weight: jax.Array) -> PyTree:
    return jax.tree.map(lambda t, q: t + weight.astype(t.dtype) * q, total, vector)


def _two_passes(
    product: MatVec, vector: PyTree, length: float, function: SpectralFilter, num_iters: int
) -> SpectralValue:
    """Once for the matrix, once more for the sum: both by the same programs, to the bit.

    With other programs the second basis drifts away from the first as orthogonality is lost.
    """

    def vectors(count: int):  # type: ignore[no-untyped-def]
        q, _ = _lanczos.unit(vector)
        before, following = jax.tree.map(jnp.zeros_like, q), jnp.zeros([], dtype_of_sums(q))
        for _ in range(count):
            after, along, next_length = _three_term(widened(product(q)), q, before, following)
            # A loop that runs ahead of the device would hold the vectors of all steps to come.
            jax.block_until_ready(after)  # type: ignore[no-untyped-call]
            yield q, along, next_length
            before, q, following = q, after, next_length

    rows = jax.device_get([(a, b) for _, a, b in vectors(num_iters)])
    diagonal = np.array([a for a, _ in rows], np.float64)
    beside = np.array([b for _, b in rows], np.float64)
    eps = float(finfo(dtype_of_sums(vector)).eps)
    closed = np.flatnonzero(~(beside > 10 * eps * max(np.abs(diagonal).max(), beside.max())))
    used = int(closed[0]) + 1 if closed.size else num_iters
    projected = np.diag(diagonal[:used])
    projected += np.diag(beside[: used - 1], 1) + np.diag(beside[: used - 1], -1)
    weights = _function_weights(projected, function)
    total = jax.tree.map(jnp.zeros_like, vector)
    dtype = dtype_of_sums(vector)
    for weight, (q, _, _) in zip(length * weights, vectors(used), strict=True):
        total = _added(total, q, jnp.asarray(weight, dtype))
    error = length * _error(projected, function, weights, vector, closed=bool(closed.size))
    return SpectralValue(total, error, num_iters + used)
