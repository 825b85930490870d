r"""The l1-smallest point of the flat valley: where gRDA goes when many weights are zero."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ._checks import PyTree, broadcast_mask, check_function, check_number
from ._prox import soft_threshold
from ._vectors import check_alike, check_vector, norm, widened


class ValleyPoint(NamedTuple):
    r"""Where the search in the flat valley has ended.

    Attributes:
        params: the weights; zeros are ``+0.0``.
        residual: :math:`|(I - P_0)(x - w)| / |w|`, how far it has left the valley.
        iterations: how many projections it took.
    """

    params: PyTree
    residual: float
    iterations: int


def valley_prune(
    params: PyTree,
    project: Callable[[PyTree], PyTree],
    strength: float,
    *,
    mask: PyTree | None = None,
    tolerance: float = 1e-4,
    max_iterations: int = 10_000,
) -> ValleyPoint:
    r"""Walks within the flat directions to the point with the smallest l1 norm.

    .. math::
        \operatorname*{argmin}_x \tfrac12 |x - w|^2 + \lambda |x|_1
        \quad \text{subject to} \quad (I - P_0)(x - w) = 0.

    gRDA converges to this point as :math:`1/t`, with the same zeros; :func:`directional_prune` is
    its limit for a small :math:`\lambda`. The constraint has a multiplier :math:`z` in the steep
    directions, and :math:`x = S_\lambda(w + z)` with the soft threshold; its dual is solved by
    accelerated gradient steps :math:`z \leftarrow z - (I - P_0)(x - w)` with restarts (O'Donoghue
    and Candes, *Adaptive Restart for Accelerated Gradient Schemes*, 2015). gRDA takes the same
    steps, scaled by the curvature.

    Args:
        params: :math:`w`, the trained weights.
        project: :math:`u \mapsto P_0 u` on trees, a projection: such as
            ``lambda u: flat_projection(None, u, eigenvectors=steep).value``.
        strength: :math:`\lambda \ge 0`.
        mask: which leaves are penalised, as in :func:`dual_averaging`; by default all. The others
            move in the valley without a threshold.
        tolerance: of the residual, at least what the dtype resolves.
        max_iterations: where to stop at the latest, at least 1.

    Returns:
        :class:`ValleyPoint`; its residual says whether the tolerance was met.

    Raises:
        ValueError: a number is out of range, ``mask`` does not fit, or ``project`` gives another
            structure.

    Examples:
        The loss sees only the sum of two weights, so they may be moved against each other: the
        smaller goes, and the larger takes over what it did.

        >>> import jax.numpy as jnp
        >>> from grda_optax import valley_prune
        >>> def flat(u):
        ...     return u - jnp.mean(u)
        >>> valley_prune(jnp.array([2.0, -1.0]), flat, strength=1.5).params.round(3)
        Array([1., 0.], dtype=float32)
    """
    check_vector("params", params)
    check_function("project", project)
    flags = broadcast_mask(mask, params)
    check_number("strength", strength, at_least=0, static=True)
    check_number("tolerance", tolerance, above=0, static=True)
    check_number("max_iterations", max_iterations, at_least=1, integer=True, static=True)
    wide_params = widened(params)
    leaves = tuple(map(bool, jax.tree.leaves(flags)))
    length = max(float(norm(wide_params)), float(jnp.finfo(jnp.float32).tiny))  # type: ignore[no-untyped-call]

    multiplier = jax.tree.map(jnp.zeros_like, wide_params)
    ahead, momentum, residual, iterations = multiplier, 1.0, jnp.inf, 0
    x = wide_params
    while iterations < max_iterations:
        x, off = _left_behind(wide_params, ahead, strength, leaves)
        flat = project(off)
        if iterations == 0:
            check_alike("the result of project", flat, "params", params)
        iterations += 1
        following = 0.5 * (1 + (1 + 4 * momentum**2) ** 0.5)
        multiplier, ahead, size, rises = _stepped(
            multiplier, ahead, off, flat, (momentum - 1) / following
        )
        residual = float(size) / length
        if residual <= tolerance:
            break
        # The momentum points away from the optimum: start it anew.
        momentum = 1.0 if float(rises) > 0 else following
    own = jax.tree.map(lambda new, w: new.astype(jnp.asarray(w).dtype), x, params)
    return ValleyPoint(own, float(residual), iterations)


@functools.partial(jax.jit, static_argnums=3)
def _left_behind(
    params: PyTree, multiplier: PyTree, strength: float, flags: tuple[bool, ...]
) -> tuple[PyTree, PyTree]:
    """The point that belongs to a multiplier, and its way from the start."""
    leaves, treedef = jax.tree.flatten(params)
    moved = [
        soft_threshold(w + z, strength) if flag else w + z
        for w, z, flag in zip(leaves, jax.tree.leaves(multiplier), flags, strict=True)
    ]
    x = jax.tree.unflatten(treedef, moved)
    return x, jax.tree.map(jnp.subtract, x, params)


@jax.jit
def _stepped(
    multiplier: PyTree, ahead: PyTree, off: PyTree, flat: PyTree, momentum: jax.Array
) -> tuple[PyTree, PyTree, jax.Array, Any]:
    """One accelerated step; how far the point was off, and whether the momentum hurts."""
    steep = jax.tree.map(jnp.subtract, off, flat)
    after = jax.tree.map(jnp.subtract, ahead, steep)
    change = jax.tree.map(jnp.subtract, after, multiplier)
    rises = sum(jax.tree.leaves(jax.tree.map(lambda s, c: jnp.sum(s * c), steep, change)))
    momentum = jnp.where(rises > 0, 0.0, momentum)
    farther = jax.tree.map(lambda z, c: z + momentum.astype(z.dtype) * c, after, change)
    return after, farther, norm(steep), rises
