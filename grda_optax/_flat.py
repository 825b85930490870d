r"""The flat directions of a loss, by a stated meaning: the projection :math:`P_0`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._checks import PyTree, check_number
from ._filter import phi
from ._spectrum import SpectralFilter, lanczos_function
from ._vectors import MatVec, check_alike, check_vector, checked, size_of, widened


class FlatProjection(NamedTuple):
    """A vector's part in the flat directions.

    Attributes:
        value: :math:`P_0 v`, a tree like ``v``.
        error: an estimate of the error's length, as in :class:`SpectralValue`; 0 for given
            eigenvectors.
        products: how many products with the curvature it took.
    """

    value: PyTree
    error: float
    products: int


def flat_projection(
    matvec: MatVec | None,
    vector: PyTree,
    *,
    time: float | None = None,
    mu: float | None = None,
    cut: float | None = None,
    ridge: float | None = None,
    eigenvectors: PyTree | None = None,
    num_iters: int = 80,
) -> FlatProjection:
    r"""The part of a vector that lies in the flat directions of a loss, by one stated meaning.

    Exactly one of four:

    - ``time`` and ``mu``: the filter that gRDA applies by itself (see :func:`grda`). After training
      time :math:`t = n \gamma`,

      .. math::
          P_0 = \phi_\mu(t H), \qquad
          \phi_\mu(x) = \mu \int_0^1 e^{-x (1 - u)} u^{\mu - 1} du,

      1 on flat directions, about :math:`\mu / x` on steep ones: flat is what is below about
      :math:`1 / t`. At eigenvalues below 0, where :math:`\phi_\mu` would grow exponentially, it
      is :math:`2 - \phi_\mu(-x)`: above 1, with the same slope at 0, and never above 2.
    - ``cut``: all directions with :math:`|\lambda| \le \text{cut} \cdot |\lambda|_{\max}`. A jump
      within a dense spectrum is resolved slowly; the error says how well.
    - ``ridge``: :math:`P_0 = (\delta / (|H| + \delta))^2`, :math:`\delta = \text{ridge} \cdot
      |\lambda|_{\max}`, a smooth cut that fewer products resolve.
    - ``eigenvectors``: the steep ones, which are taken off, :math:`P_0 = I - U U^\top`.

    Args:
        matvec: :math:`u \mapsto H u` for the symmetric curvature :math:`H`, trees to trees, such as
            ``functools.partial(hvp, loss, params, batches=batches)``. Not used with
            ``eigenvectors``: ``None`` will do.
        vector: :math:`v`, a tree of real floating point arrays.
        time: :math:`t > 0`, steps times learning rate.
        mu: :math:`\mu > 0` of the threshold, given with ``time``.
        cut: in (0, 1), such as ``1e-3``, relative to the largest eigenvalue in magnitude.
        ridge: in (0, 1), relative to it as well.
        eigenvectors: orthonormal, a tree like ``vector`` whose leaves have one leading axis more:
            ``top_eigenpairs(...).vectors``.
        num_iters: products with the curvature; no more than the dimension are taken.

    Returns:
        :class:`FlatProjection`.

    Raises:
        ValueError: not exactly one of the four is given, a number is out of its range, or the
            vectors and products do not fit each other.

    Examples:
        >>> import jax.numpy as jnp
        >>> from grda_optax import flat_projection
        >>> curvature = jnp.array([0.0, 0.01, 100.0])
        >>> flat = flat_projection(lambda u: curvature * u, jnp.ones(3), cut=1e-3)
        >>> print(*(f"{abs(x):.3f}" for x in flat.value))
        1.000 1.000 0.000
        >>> flat = flat_projection(lambda u: curvature * u, jnp.ones(3), time=10.0, mu=0.6)
        >>> print(*(f"{x:.3f}" for x in flat.value))
        1.000 0.940 0.001
    """
    meanings = {"time": time, "cut": cut, "ridge": ridge, "eigenvectors": eigenvectors}
    given = [name for name, value in meanings.items() if value is not None]
    if len(given) != 1:
        raise ValueError(
            "exactly one of time, cut, ridge and eigenvectors must be given, "
            f"got {', '.join(given) or 'none'}."
        )
    if (mu is None) != (time is None):
        raise ValueError(f"time and mu must be given together, got time={time!r}, mu={mu!r}.")
    check_vector("vector", vector)
    if eigenvectors is not None:
        return FlatProjection(_deflated(eigenvectors, vector), 0.0, 0)
    if matvec is None:
        raise ValueError("matvec must be given unless eigenvectors are, got None.")
    check_number("num_iters", num_iters, at_least=1, integer=True, static=True)
    if time is not None and mu is not None:
        check_number("time", time, above=0, static=True)
        check_number("mu", mu, above=0, static=True)
        function = in_training_time(time, mu)
    elif cut is not None:
        check_number("cut", cut, above=0, below=1, static=True)
        function = below(cut)
    else:
        check_number("ridge", ridge, above=0, below=1, static=True)
        function = ridged(float(ridge))  # type: ignore[arg-type]  # one of the four is given
    result = lanczos_function(
        checked(matvec, vector), vector, function, min(num_iters, size_of(vector)), True
    )
    return FlatProjection(*result)


def in_training_time(time: float, mu: float) -> SpectralFilter:
    """What training time leaves of a direction, by its eigenvalue."""
    return lambda values: phi(time * values, mu)


def below(cut: float) -> SpectralFilter:
    """1 up to the cut and 0 beyond; the largest eigenvalue is the largest of those it is given."""
    return lambda values: (np.abs(values) <= cut * np.abs(values).max()).astype(np.float64)


def ridged(ridge: float) -> SpectralFilter:
    """A smooth cut: one quarter there, and falling with the square beyond."""

    def function(values: np.ndarray) -> np.ndarray:
        # Of a matrix that is zero everything is flat.
        delta = ridge * max(float(np.abs(values).max()), float(np.finfo(np.float64).tiny))
        result: np.ndarray = (delta / (np.abs(values) + delta)) ** 2
        return result

    return function


def _deflated(eigenvectors: PyTree, vector: PyTree) -> PyTree:
    """The vector without its part along each of them."""
    leaves = jax.tree.leaves(eigenvectors)
    count = jnp.shape(leaves[0])[0] if leaves and jnp.ndim(leaves[0]) else 0
    like = jax.tree.map(lambda x: jnp.zeros((count, *jnp.shape(x))), vector)
    check_alike("eigenvectors", eigenvectors, "one row for each of them", like)
    vector = widened(vector)
    along = sum(
        jax.tree.leaves(
            jax.tree.map(
                lambda u, x: jnp.tensordot(u, x, x.ndim, precision="highest"), eigenvectors, vector
            )
        )
    )
    return jax.tree.map(
        lambda u, x: x - jnp.tensordot(along, u, 1, precision="highest").astype(x.dtype),
        eigenvectors,
        vector,
    )
