r"""Eigenpairs and functions of a symmetric matrix, by Lanczos.

:math:`m` products with a vector give an orthonormal basis :math:`Q` of its Krylov space and the
small matrix :math:`T = Q^\top H Q`. The eigenvalues of :math:`T` approach the outermost ones of
:math:`H` first, and :math:`|v|\, Q f(T) e_1` approaches :math:`f(H) v` for every smooth :math:`f`,
as well as the best polynomial of degree :math:`m - 1` does (Golub and Meurant, *Matrices, Moments
and Quadrature*, 2010).
"""

import functools
import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import _lanczos
from ._checks import PyTree, check_number
from ._lanczos import Krylov
from ._trees import finfo
from ._vectors import (
    MatVec,
    check_vector,
    checked,
    dot,
    dtype_of_sums,
    norm,
    random_like,
    size_of,
    widened,
)

SpectralFilter = Callable[[np.ndarray], np.ndarray]
"""From eigenvalues to the values of a function there, entry by entry."""
STEPS_BETWEEN_ESTIMATES = 5


class Eigenpairs(NamedTuple):
    r"""The outermost eigenpairs of a symmetric matrix.

    Attributes:
        values: shape ``(k,)``, float64, in the order that was asked for.
        vectors: a tree like the vectors of the matrix with a leading axis of length ``k``; row
            ``i`` is the ``i``-th eigenvector, of length 1.
        residuals: shape ``(k,)``, :math:`|H u - \lambda u|`, measured by one more product each.
        products: how many products with the matrix it took.
    """

    values: np.ndarray
    vectors: PyTree
    residuals: np.ndarray
    products: int


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


def top_eigenpairs(
    matvec: MatVec,
    like: PyTree,
    k: int,
    *,
    which: Literal["largest", "smallest", "magnitude"] = "largest",
    tolerance: float | None = None,
    num_vectors: int | None = None,
    max_products: int | None = None,
    key: jax.Array | None = None,
) -> Eigenpairs:
    r"""The ``k`` outermost eigenpairs of a symmetric matrix, each with its residual.

    Lanczos from a random start with full reorthogonalisation, restarted with the best Ritz vectors
    whenever ``num_vectors`` are reached (thick restart: Wu and Simon, 2000), until every pair has

    .. math:: |H u - \lambda u| \le \text{tolerance} \cdot |\lambda|_{\max}.

    In exact arithmetic one start finds one vector of each eigenspace; further copies of a multiple
    eigenvalue come in by rounding, after more products.

    Args:
        matvec: :math:`u \mapsto H u` for symmetric :math:`H`, trees to trees, such as
            ``functools.partial(hvp, loss, params, batches=batches)``.
        like: a tree with the structure, the shapes and the dtypes of the vectors: the params.
        k: how many pairs, at most the dimension.
        which: ``"largest"`` and ``"smallest"`` by value, in falling and in rising order;
            ``"magnitude"`` the largest in magnitude, in falling order of it.
        tolerance: by default 1e-5 in float32 and 1e-9 in float64.
        num_vectors: the size of the basis, above ``k``; by default ``2 k + 20``. The memory is
            about that many params (and a second time ``k`` of them).
        max_products: where to stop at the latest; by default 30 times the size of the basis. What
            has not converged shows in its residual.
        key: of the random start; by default ``jax.random.key(0)``.

    Returns:
        :class:`Eigenpairs`, with the residuals as measured at the end.

    Raises:
        ValueError: a number is out of range (``k`` and ``num_vectors`` over the dimension),
            ``like`` is not real floating point, ``which`` is unknown, or products have another
            structure or are not finite.

    Examples:
        >>> import jax.numpy as jnp
        >>> from grda_optax import top_eigenpairs
        >>> diagonal = jnp.array([3.0, -5.0, 1.0, 2.0])
        >>> found = top_eigenpairs(lambda u: diagonal * u, jnp.zeros(4), k=2)
        >>> found.values.round(3)
        array([3., 2.])
    """
    check_vector("like", like)
    dimension = size_of(like)
    check_number("k", k, at_least=1, at_most=dimension, integer=True)
    if which not in ("largest", "smallest", "magnitude"):
        raise ValueError(f"which must be 'largest', 'smallest' or 'magnitude', got {which!r}.")
    if num_vectors is None:
        num_vectors = min(dimension, 2 * k + 20)
    least = min(k + 1, dimension)
    check_number("num_vectors", num_vectors, at_least=least, at_most=dimension, integer=True)
    dtype = dtype_of_sums(like)
    if tolerance is None:
        tolerance = 1e-9 if dtype == jnp.float64 else 1e-5
    check_number("tolerance", tolerance, above=0)
    if max_products is None:
        max_products = 30 * num_vectors
    check_number("max_products", max_products, at_least=num_vectors, integer=True)

    product = checked(matvec, like)
    key = jax.random.key(0) if key is None else key
    space = _lanczos.krylov(product, random_like(key, like), num_vectors)
    keep = min(num_vectors - 1, k + max(1, (num_vectors - k) // 2))
    while True:
        while len(space.projected) < num_vectors:  # closed: other eigenvectors lie beside it
            key, draw = jax.random.split(key)
            space = _lanczos.with_next(space, random_like(draw, like))
            space = _lanczos.extend(product, space, num_vectors)
        values, mixing = _ritz(space, which)
        estimates = space.residual * np.abs(mixing[-1, :k])
        converged = (estimates <= tolerance * float(np.abs(values).max())).all()
        at_the_limit = space.products + num_vectors - keep > max_products
        if converged or at_the_limit or num_vectors == dimension:
            break
        space = _restarted(space, mixing[:, :keep], values[:keep])
        space = _lanczos.extend(product, space, num_vectors)
    return _measured(product, _rotated(space, mixing[:, :k]), values[:k], space.products)


def _ritz(space: Krylov, which: str) -> tuple[np.ndarray, np.ndarray]:
    """All eigenpairs of the projected matrix, the wanted first."""
    if not np.isfinite(space.projected).all():
        raise ValueError("matvec must return finite numbers, got NaN or inf.")
    values, mixing = np.linalg.eigh(space.projected)
    order = {"largest": -values, "smallest": values, "magnitude": -np.abs(values)}[which]
    chosen = np.argsort(order, kind="stable")
    return values[chosen], mixing[:, chosen]


def _rotated(space: Krylov, mixing: np.ndarray) -> PyTree:
    """The basis vectors mixed by the columns of a matrix, one row each."""
    return _lanczos.combined(space.basis, _lanczos.padded(mixing.T, space.basis))


def _restarted(space: Krylov, mixing: np.ndarray, values: np.ndarray) -> Krylov:
    """The Ritz vectors that are kept, and after them the direction that was next."""
    direction = _lanczos.row(space.basis, len(space.projected))
    basis = _lanczos.chunked(_rotated(space, mixing))
    return _lanczos.with_next(
        Krylov(basis, np.diag(values), space.residual, space.products), direction
    )


def _measured(product: MatVec, vectors: PyTree, values: np.ndarray, products: int) -> Eigenpairs:
    """The pairs with their residuals, one product each."""
    residuals = []
    for i, value in enumerate(values):
        u = jax.tree.map(lambda x, i=i: x[i], vectors)
        off = jax.tree.map(lambda h, x, value=value: h - value * x, widened(product(u)), u)
        residuals.append(float(norm(off) / norm(u)))
    return Eigenpairs(values, vectors, np.array(residuals), products + len(values))


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
    check_number("num_iters", num_iters, at_least=1, integer=True)
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
