r"""Directional pruning: the flat directions of the loss, and the weights that lie along them.

With :math:`\mathrm{sg} = \operatorname{sign}(w)` and :math:`P_0` the projection on the directions
in which the loss is flat, a weight has the score :math:`s_j = \mathrm{sg}_j (P_0 \mathrm{sg})_j`.
Moved by :math:`-\lambda P_0 \mathrm{sg}`, inside the flat directions, the weights with
:math:`s_j > 0` go to zero and the loss stays (Chao, Wang, Xing and Cheng, *Directional Pruning of
Deep Neural Networks*, NeurIPS 2020). Which directions count as flat is never left unsaid here: it
is an argument.
"""

import math

import jax
import jax.numpy as jnp

from ._checks import PyTree, broadcast_mask, check_number
from ._flat import flat_projection
from ._move import move_to_count, penalised_size, reachable, zeros_of, zeros_wanted
from ._vectors import MatVec, check_alike, check_vector, widened


def directional_scores(
    params: PyTree,
    matvec: MatVec | None,
    *,
    mask: PyTree | None = None,
    time: float | None = None,
    mu: float | None = None,
    cut: float | None = None,
    ridge: float | None = None,
    eigenvectors: PyTree | None = None,
    num_iters: int = 80,
) -> PyTree:
    r"""How far the flat directions carry each weight towards zero.

    .. math:: s_j = \operatorname{sign}(w_j) \, (P_0 \operatorname{sign}(w))_j

    With ``cut``, ``ridge`` or ``eigenvectors`` these are the scores of the paper, with ``time`` and
    ``mu`` those that gRDA has realised after training time :math:`t`; their difference falls as
    :math:`1/t`. A weight with :math:`s_j \le 0` grows as the others shrink, and cannot be removed.

    Args:
        params: :math:`w`, the trained weights. A weight that is zero has the score 0.
        matvec: the curvature, as in :func:`flat_projection`.
        mask: which leaves may be pruned, as in :func:`dual_averaging`; by default all. The others
            have the sign 0, and move where the flat directions take them.
        time: as in :func:`flat_projection`, like all that follow.
        mu: with ``time``.
        cut: relative to the largest eigenvalue.
        ridge: relative to the largest eigenvalue.
        eigenvectors: the steep ones.
        num_iters: products with the curvature.

    Returns:
        A tree like ``params``, in float32 or the params' own dtype, whichever is wider.

    Raises:
        ValueError: as in :func:`flat_projection`, or ``mask`` does not fit.

    Examples:
        Two weights with a loss that sees only their sum. Of equal sign, one can only shrink where
        the other grows; of opposite signs both go.

        >>> import jax.numpy as jnp
        >>> from grda_optax import directional_scores
        >>> def curvature(u):
        ...     return jnp.sum(u) * jnp.ones(2)
        >>> directional_scores(jnp.array([2.0, 1.0]), curvature, cut=0.5).round(3) + 0.0
        Array([0., 0.], dtype=float32)
        >>> directional_scores(jnp.array([2.0, -1.0]), curvature, cut=0.5).round(3)
        Array([1., 1.], dtype=float32)
    """
    signs = masked_signs(params, mask)
    flat = flat_projection(
        matvec,
        signs,
        time=time,
        mu=mu,
        cut=cut,
        ridge=ridge,
        eigenvectors=eigenvectors,
        num_iters=num_iters,
    )
    own = jax.tree.map(jnp.sign, widened(params))
    return jax.tree.map(jnp.multiply, own, flat.value)


def masked_signs(params: PyTree, mask: PyTree | None) -> PyTree:
    """The signs of what may be pruned, and 0 elsewhere."""
    check_vector("params", params)
    flags = broadcast_mask(mask, params)
    if any(bool(jnp.isnan(x).any()) for x in jax.tree.leaves(params)):
        raise ValueError("params must not be NaN, got one.")
    return jax.tree.map(
        lambda x, flag: jnp.sign(x) if flag else jnp.zeros_like(x), widened(params), flags
    )


def directional_prune(
    params: PyTree,
    scores: PyTree,
    *,
    strength: float | None = None,
    sparsity: float | None = None,
    mask: PyTree | None = None,
) -> PyTree:
    r"""Removes the weights that the flat directions carry to zero, in one step.

    .. math::
        w \leftarrow \operatorname*{argmin}_x \tfrac12 |x - w|^2 + \lambda \sum_j s_j |x_j|,
        \qquad w_j \leftarrow \operatorname{sign}(w_j) \max(|w_j| - \lambda s_j, 0),

    for a strength :math:`\lambda`, or for the one that leaves exactly the sparsity asked for. It is
    what gRDA ends at while few weights have reached zero; with many it is worse than rounds with
    fresh scores (:func:`sequential_directional_prune`).

    Args:
        params: :math:`w`, the trained weights.
        scores: :math:`s`, a tree like ``params``, from :func:`directional_scores`.
        strength: :math:`\lambda \ge 0`.
        sparsity: in [0, 1) of the weights under ``mask``; those that are zero already are counted.
        mask: which leaves may be pruned, as in :func:`dual_averaging`; by default all. The others
            are left as they are.

    Returns:
        The params in their own dtypes; zeros are ``+0.0``, with ``sparsity`` exactly
        ``round(sparsity * total)`` of them (more where there were more before).

    Raises:
        ValueError: not exactly one of ``strength`` and ``sparsity`` is given, one is out of range,
            the trees do not fit, or the sparsity is above the share of weights with positive
            scores, which is then named.

    Examples:
        >>> import jax.numpy as jnp
        >>> from grda_optax import directional_prune
        >>> w, s = jnp.array([2.0, -1.0, 3.0, 0.5]), jnp.array([1.0, 0.1, -0.5, 1.0])
        >>> directional_prune(w, s, strength=2.0)
        Array([ 0. , -0.8,  4. ,  0. ], dtype=float32)
        >>> directional_prune(w, s, sparsity=0.25)
        Array([ 1.5 , -0.95,  3.25,  0.  ], dtype=float32)
    """
    if (strength is None) == (sparsity is None):
        raise ValueError(
            "exactly one of strength and sparsity must be given, "
            f"got strength={strength!r}, sparsity={sparsity!r}."
        )
    check_vector("params", params)
    check_alike("scores", scores, "params", params)
    flags = broadcast_mask(mask, params)
    scores = widened(scores)
    if sparsity is None:
        check_number("strength", strength, at_least=0)
        return jax.tree.map(
            lambda w, s, flag: _shrunk(w, s, jnp.asarray(strength)) if flag else w,
            params,
            scores,
            flags,
        )
    check_number("sparsity", sparsity, at_least=0, below=1, static=True)
    total, zeros = penalised_size(params, flags), zeros_wanted(params, flags, sparsity)
    limit = reachable(params, scores, flags)
    if zeros > limit:
        raise ValueError(
            f"sparsity must be at most {math.floor(1e4 * limit / total) / 1e4:g}, the share of "
            f"weights whose score is positive, got {sparsity:g}."
        )
    if zeros <= zeros_of(params, flags):
        return params
    directions = jax.tree.map(
        lambda w, s, flag: jnp.sign(w).astype(s.dtype) * s if flag else jnp.zeros_like(s),
        params,
        scores,
        flags,
    )
    moved, _ = move_to_count(
        params, directions, jnp.asarray(zeros), tuple(map(bool, jax.tree.leaves(flags)))
    )
    return moved


def _shrunk(w: jax.Array, score: jax.Array, strength: jax.Array) -> jax.Array:
    """The weight by which the penalty's own problem is solved; zeros are +0.0."""
    size = jnp.maximum(jnp.abs(w).astype(score.dtype) - strength * score, 0)
    return jnp.where((size > 0) & (w != 0), jnp.sign(w) * size, 0.0).astype(jnp.asarray(w).dtype)
