"""Optimal Brain Damage: what the removal of a weight costs, from the diagonal of the Hessian."""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._checks import PyTree, check_number
from ._objective import Batch, Loss, Objective, check_finite_curvature


class Saliency(NamedTuple):
    """What each weight is worth: an estimate of the loss that its removal costs.

    Attributes:
        values: a tree like the params, in float32 or wider. Weights that the mask leaves out are
            at infinity: no pruner takes them.
        standard_error: a tree like it for an estimate from random samples, ``None`` for what is
            not one.
    """

    values: PyTree
    standard_error: PyTree | None


def obd_saliency(
    loss: Loss,
    params: PyTree,
    batches: Sequence[Batch],
    *,
    method: str = "exact",
    num_samples: int = 100,
    key: jax.Array | None = None,
    chunk_size: int = 16,
    mask: PyTree | None = None,
) -> Saliency:
    r"""Optimal Brain Damage: the loss that a weight's removal costs, from the Hessian's diagonal.

    .. math:: s_j = \tfrac12 H_{jj} w_j^2

    is the change of the loss :math:`L` to second order when :math:`w_j` alone is set to zero at a
    minimum, where the gradient is zero. :math:`H` is the Hessian of the mean loss over the
    examples. Its diagonal can have negative entries away from a minimum, and so can :math:`s`.

    ``"exact"`` multiplies :math:`H` with every basis vector. ``"stochastic"`` is an unbiased
    estimate from :math:`n` vectors :math:`z` of independent random signs,

    .. math::
        H_{jj} \approx \frac1n \sum_{i=1}^n z_{ij} (H z_i)_j, \qquad
        \operatorname{Var} = \frac1n \sum_{k \neq j} H_{jk}^2.

    That variance grows with the network. Where most values are smaller than their standard error
    the estimate says nothing, and negative ones, which are removed first, do harm. Then take
    ``obs_saliency(..., inverse="block", block_size=1)``, with the diagonal of the empirical Fisher
    matrix in the place of :math:`H`'s: it is never negative, and one pass over the examples.

    Cost, with :math:`d` weights under the mask: ``"exact"`` takes :math:`d` products with the
    Hessian, ``"stochastic"`` ``num_samples``. A product is a pass over all batches, and takes the
    time of two to three gradients. Memory: that of ``chunk_size`` gradients at once, beside a few
    vectors like the params.

    Args:
        loss: ``loss(params, batch) -> scalar``, the mean over the examples of a batch.
        params: :math:`w`, any tree. Its real floating point leaves are differentiated, in float32
            or wider; others are constants of the loss.
        batches: a list of batches, each a tree with the examples along the first axis of its first
            leaf. The batches' losses are averaged with weights proportional to their examples.
        method: ``"exact"`` or ``"stochastic"``.
        num_samples: :math:`n \ge 2`, for ``"stochastic"``.
        key: of ``jax.random``, for ``"stochastic"``.
        chunk_size: :math:`\ge 1`, how many products are computed at a time.
        mask: which leaves may be pruned: a tree of bools with the structure of ``params`` or a
            prefix of it, a function from params to one, or a regular expression that is searched in
            the path of every leaf. ``None`` is every leaf.

    Returns:
        A :class:`Saliency`, with the standard error of every value for ``"stochastic"``.

    Raises:
        ValueError: the loss is no scalar, or it or its second derivatives are not finite;
            ``batches`` is no list or empty; ``method`` is unknown; ``key`` is missing; a number is
            out of its range; the mask does not fit, or leaves no weight.

    Examples:
        >>> import jax.numpy as jnp
        >>> from grda_optax import obd_saliency
        >>> inputs = jnp.array([[2.0, 0.0], [0.0, 1.0]])
        >>> def loss(w, inputs):
        ...     return jnp.mean((inputs @ w - jnp.array([2.0, 3.0])) ** 2)
        >>> obd_saliency(loss, jnp.array([1.0, 3.0]), [inputs]).values
        Array([2. , 4.5], dtype=float32)

    References:
        LeCun, Denker and Solla, *Optimal Brain Damage*, NeurIPS 1989 (the saliency).
        Bekas, Kokiopoulou and Saad, *An estimator for the diagonal of a matrix*, Applied Numerical
        Mathematics, 2007 (the stochastic estimate).
    """
    if not isinstance(method, str) or method not in ("exact", "stochastic"):
        raise ValueError(f"method must be 'exact' or 'stochastic', got {method!r}.")
    check_number("num_samples", num_samples, at_least=2, integer=True, static=True)
    check_number("chunk_size", chunk_size, at_least=1, integer=True, static=True)
    if method == "stochastic" and key is None:
        raise ValueError("key must be given for method='stochastic', got None.")
    objective = Objective(loss, params, batches, mask)
    if method == "exact" or key is None:
        indices = np.flatnonzero(objective.prunable)
        diagonal = np.zeros(objective.size)
        diagonal[indices] = objective.diagonal(indices, chunk_size)
        w = np.asarray(objective.point, np.float64)
        return Saliency(saliency_tree(objective, 0.5 * w**2 * diagonal), None)

    mean, error = _stochastic_diagonal(objective, key, num_samples, chunk_size)
    flags = objective.split(objective.prunable)
    scales = [0.5 * jnp.square(leaf) for leaf in objective.leaves]
    values = [jnp.where(f, s * x, jnp.inf) for f, s, x in zip(flags, scales, mean, strict=True)]
    errors = [jnp.where(f, s * x, 0) for f, s, x in zip(flags, scales, error, strict=True)]
    return Saliency(objective.rebuild(values, jnp.inf), objective.rebuild(errors, 0.0))


def saliency_tree(objective: Objective, values: np.ndarray) -> PyTree:
    """A vector of the host as a tree like the params; at infinity where the mask leaves out."""
    values = np.where(objective.prunable, values, np.inf)
    parts = zip(objective.split(values), objective.leaves, strict=True)
    return objective.rebuild([jnp.asarray(x, leaf.dtype) for x, leaf in parts], jnp.inf)


def _stochastic_diagonal(
    objective: Objective, key: jax.Array, num_samples: int, chunk_size: int
) -> tuple[list[jax.Array], list[jax.Array]]:
    """The mean of ``z * (H z)`` and its standard error, for every leaf."""
    mean = [jnp.zeros_like(leaf) for leaf in objective.leaves]
    squares = mean
    keys = jax.random.split(key, num_samples)
    chunk_size = min(chunk_size, num_samples)
    for first in range(0, num_samples, chunk_size):
        # One shape for all, since a second one would be compiled again; what is over is cut off.
        places = np.arange(first, first + chunk_size)
        signs = _signs(keys[places % num_samples], objective.leaves)
        count = min(chunk_size, num_samples - first)
        products = objective.products(signs)
        mean, squares = _with_samples(mean, squares, signs, products, first, count=count)
    for leaf in mean:
        check_finite_curvature(np.asarray(leaf))
    count = num_samples * (num_samples - 1)
    return mean, [jnp.sqrt(x / count) for x in squares]


@jax.jit
def _signs(keys: jax.Array, leaves: list[jax.Array]) -> list[jax.Array]:
    """For every key random signs in the shapes of the leaves, along a first axis."""
    sizes = [leaf.size for leaf in leaves]
    ends = list(itertools.accumulate(sizes))[:-1]

    def draw(key: jax.Array) -> list[jax.Array]:
        parts = jnp.split(jax.random.rademacher(key, (sum(sizes),), jnp.int8), ends)
        return [
            part.reshape(leaf.shape).astype(leaf.dtype)
            for part, leaf in zip(parts, leaves, strict=True)
        ]

    return jax.vmap(draw)(keys)


@functools.partial(jax.jit, static_argnames="count")
def _with_samples(
    mean: list[jax.Array],
    squares: list[jax.Array],
    signs: list[jax.Array],
    products: list[jax.Array],
    seen: jax.typing.ArrayLike,
    *,
    count: int,
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Mean and sum of squared deviations after more samples; stable where they are many."""
    means, sums = [], []
    for m, s, z, p in zip(mean, squares, signs, products, strict=True):
        x = (z * p)[:count]
        new = jnp.mean(x, axis=0)
        step = new - m
        share = (count / jnp.add(seen, count)).astype(m.dtype)
        means.append(m + step * share)
        within = jnp.sum(jnp.square(x - new[None]), axis=0)
        sums.append(s + within + jnp.square(step) * (seen * share))
    return means, sums
