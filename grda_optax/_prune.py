"""The weights with the smallest scores go, whatever the scores are."""

import jax
import jax.numpy as jnp
import numpy as np

from ._checks import PyTree, broadcast_mask, check_number, path_name, structure
from ._trees import check_leaves


def prune_smallest(
    params: PyTree, scores: PyTree, sparsity: float, mask: PyTree | None = None
) -> PyTree:
    r"""Sets the weights with the smallest scores to zero, over the whole network at once.

    Of the :math:`d` weights under the mask exactly ``round(sparsity * d)`` are zero afterwards, or
    those that were already, if they are more. Weights that are zero go first, then the scores
    decide, and of equal ones the position. The others stay as they are.

    Cost: a sort of the scores on the host; so it is not for use inside ``jax.jit``.

    Args:
        params: any tree of arrays; the leaves under the mask are real floating point.
        scores: a tree like ``params``, such as :attr:`Saliency.values` or the magnitudes. Negative
            ones are allowed; a weight at infinity is never removed. What the mask leaves out is not
            looked at.
        sparsity: the fraction of zeros in [0, 1), such as ``0.9``.
        mask: which leaves may be pruned, as in :func:`obd_saliency`.

    Returns:
        A tree like ``params``, of the same dtypes; every zero under the mask is ``+0.0``.

    Raises:
        ValueError: ``scores`` has another structure or other shapes, or holds a NaN; ``sparsity``
            is out of its range, or cannot be reached since too many scores are infinite; the mask
            does not fit, or leaves no weight.

    Examples:
        >>> import jax.numpy as jnp
        >>> from grda_optax import prune_smallest
        >>> params = {"a": jnp.array([3.0, -1.0]), "b": jnp.array([0.5, 2.0])}
        >>> prune_smallest(params, {"a": jnp.array([0.1, 9.0]), "b": jnp.array([0.2, 8.0])}, 0.5)
        {'a': Array([ 0., -1.], dtype=float32), 'b': Array([0., 2.], dtype=float32)}
    """
    check_number("sparsity", sparsity, at_least=0, below=1, static=True)
    if structure(scores) != structure(params):
        raise ValueError(
            f"scores must have the structure of params, {structure(params)}, got "
            f"{structure(scores)}."
        )
    flags = broadcast_mask(mask, params)
    check_leaves(params, flags)
    leaves = jax.tree.leaves(params)
    rows = zip(
        jax.tree_util.tree_leaves_with_path(scores), leaves, jax.tree.leaves(flags), strict=True
    )
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for (path, score), leaf, flag in rows:
        if np.shape(score) != np.shape(leaf):
            raise ValueError(
                f"scores must have the shapes of params, {np.shape(leaf)} at {path_name(path)}, "
                f"got {np.shape(score)}."
            )
        if flag:
            found.append((np.ravel(np.asarray(score, np.float64)), np.ravel(leaf) == 0))
            if np.isnan(found[-1][0]).any():
                raise ValueError(f"scores must not be NaN, got one at {path_name(path)}.")
    if not sum(score.size for score, _ in found):
        raise ValueError("params must have weights that are penalised, got none.")
    zero = np.concatenate([flags for _, flags in found])
    everything = np.concatenate([score for score, _ in found])
    count = round(float(sparsity) * zero.size)
    reachable = int(np.sum(zero | (everything < np.inf)))
    if count > reachable:
        raise ValueError(
            f"sparsity must remove at most {reachable} of {zero.size} weights, since the scores of "
            f"the others are infinite, got {sparsity:g}."
        )
    remove = smallest(everything, zero, count)
    ends = np.cumsum([part.size for part, _ in found])[:-1]
    parts = iter(np.split(remove, ends))
    return jax.tree.unflatten(
        jax.tree.structure(params),
        [
            jnp.where(next(parts).reshape(np.shape(leaf)), jnp.zeros_like(leaf), leaf)
            if flag
            else leaf
            for leaf, flag in zip(leaves, jax.tree.leaves(flags), strict=True)
        ],
    )


def smallest(scores: np.ndarray, zero: np.ndarray, count: int) -> np.ndarray:
    """Flags what is zero, and of the rest the smallest scores, as many as make up the count."""
    flags = zero.copy()
    flags[np.lexsort((scores, ~zero))[:count]] = True
    return flags
