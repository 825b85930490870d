r"""The density of a matrix's eigenvalues from products with random vectors: stochastic Lanczos.

From a random unit vector :math:`q`, :math:`m` steps of Lanczos give a tridiagonal matrix whose
eigenvalues :math:`\theta_j`, with the squares :math:`\tau_j` of the first entries of its
eigenvectors, are a Gauss quadrature of :math:`f \mapsto q^\top f(H) q`. Its mean over random
vectors is :math:`\operatorname{tr} f(H) / d`:

.. math:: \frac1d \sum_i f(\lambda_i) \approx \frac1n \sum_{k \le n} \sum_{j \le m}
    \tau_j^{(k)} f(\theta_j^{(k)}).

Golub and Welsch, *Calculation of Gauss quadrature rules*, 1969; Lin, Saad and Yang, *Approximating
spectral densities of large matrices*, 2016; of networks: Ghorbani, Krishnan and Xiao, *An
investigation into neural net optimization via Hessian eigenvalue density*, ICML 2019.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

PyTree = Any
MatVec = Callable[[PyTree], PyTree]


class Quadrature(NamedTuple):
    """Where a random vector sees eigenvalues, and which share of it sees each; float64."""

    nodes: np.ndarray
    weights: np.ndarray
    """They sum to 1."""


def quadrature(matvec: MatVec, like: PyTree, size: int, seed: int) -> Quadrature:
    """One random vector's, after so many products, or fewer where its space is closed before.

    Args:
        matvec: a symmetric matrix times a tree.
        like: a tree of the shapes of its vectors.
        size: how many products, at least 1.
        seed: of the normal vector.
    """
    flat, unravel = ravel_pytree(like)
    q = np.random.default_rng(seed).normal(size=flat.size).astype(np.float32)
    q /= np.linalg.norm(q)
    size = min(size, flat.size)
    basis = np.zeros((size, flat.size), np.float32)
    diagonal: list[float] = []
    beside: list[float] = []
    for k in range(size):
        basis[k] = q
        product = np.asarray(ravel_pytree(matvec(unravel(jnp.asarray(q))))[0], np.float32)
        diagonal.append(float(np.dot(product, q)))
        for _ in range(2):  # orthogonal to all before, or converged eigenvalues would come again
            product = product - basis[: k + 1].T @ (basis[: k + 1] @ product)
        length = float(np.linalg.norm(product))
        if length <= 1e-6 * max(map(abs, diagonal)) or k == size - 1:
            break
        beside.append(length)
        q = product / np.float32(length)
    tridiagonal = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
    nodes, vectors = np.linalg.eigh(tridiagonal)
    return Quadrature(nodes, vectors[0] ** 2)


def mean_of(found: Sequence[Quadrature], function: Callable[[np.ndarray], np.ndarray]) -> float:
    """The mean of a function over the eigenvalues: its trace over the dimension."""
    return float(np.mean([np.sum(x.weights * function(x.nodes)) for x in found]))


def density(found: Sequence[Quadrature], grid: np.ndarray, width: float) -> np.ndarray:
    """The density on a grid, each eigenvalue as a Gaussian with this standard deviation."""

    def gaussians(x: Quadrature) -> np.ndarray:
        scaled = (grid[:, None] - x.nodes) / width
        values: np.ndarray = (np.exp(-0.5 * scaled**2) * x.weights).sum(1)
        return np.asarray(values / (width * np.sqrt(2 * np.pi)))

    mean: np.ndarray = np.mean([gaussians(x) for x in found], axis=0)
    return mean


def above(found: Sequence[Quadrature], grid: np.ndarray) -> np.ndarray:
    """The share of the eigenvalues that are above each point of a grid."""
    shares = [((x.nodes > grid[:, None]) * x.weights).sum(1) for x in found]
    mean: np.ndarray = np.mean(shares, axis=0)
    return mean
