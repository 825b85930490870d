r"""The outermost eigenpairs of a symmetric matrix, by Lanczos with restarts.

:math:`m` products give an orthonormal basis :math:`Q` of a Krylov space and the small matrix
:math:`T = Q^\top H Q`, whose eigenvalues approach the outermost ones of :math:`H` first.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import _lanczos
from ._checks import PyTree, check_number
from ._lanczos import Krylov
from ._vectors import (
    MatVec,
    check_vector,
    checked,
    dtype_of_sums,
    norm,
    random_like,
    size_of,
    widened,
)


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
    check_number("k", k, at_least=1, at_most=dimension, integer=True, static=True)
    if not isinstance(which, str) or which not in ("largest", "smallest", "magnitude"):
        raise ValueError(f"which must be 'largest', 'smallest' or 'magnitude', got {which!r}.")
    if num_vectors is None:
        num_vectors = min(dimension, 2 * k + 20)
    least = min(k + 1, dimension)
    check_number(
        "num_vectors", num_vectors, at_least=least, at_most=dimension, integer=True, static=True
    )
    dtype = dtype_of_sums(like)
    if tolerance is None:
        tolerance = 1e-9 if dtype == jnp.float64 else 1e-5
    check_number("tolerance", tolerance, above=0, static=True)
    if max_products is None:
        max_products = 30 * num_vectors
    check_number("max_products", max_products, at_least=num_vectors, integer=True, static=True)

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
