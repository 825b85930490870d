"""Trees of params in which some leaves are masked out: mapping, dtypes, scales and checks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ._checks import PyTree, broadcast_scale, check_arrays, path_name, structure


def is_masked(x: object) -> bool:
    """Whether there is no param here for dual averaging."""
    return isinstance(x, optax.MaskedNode)


def penalised(function: Any, tree: PyTree, *rest: PyTree) -> PyTree:
    """Maps ``function`` over the leaves of ``tree`` and leaves what is masked there alone."""
    return jax.tree.map(
        lambda x, *xs: x if is_masked(x) else function(x, *xs), tree, *rest, is_leaf=is_masked
    )


def dtype_of(x: jax.typing.ArrayLike) -> np.dtype[Any]:
    """Of an array or of a plain number."""
    return jnp.result_type(x)


def finfo(dtype: jax.typing.DTypeLike) -> Any:
    """``jnp.finfo``, which is untyped."""
    return jnp.finfo(dtype)  # type: ignore[no-untyped-call]


def wide(
    x: jax.typing.ArrayLike, dtype: jax.typing.DTypeLike | None, copy: bool = False
) -> jax.Array:
    """``x`` in ``dtype``, or in float32 or wider; integers and the like stay as they are."""
    own = dtype_of(x)
    if not jnp.issubdtype(own, jnp.inexact):
        return jnp.asarray(x)
    if dtype is None or not jnp.issubdtype(own, jnp.floating):
        dtype = jnp.promote_types(own, jnp.float32)
    return jnp.array(x, dtype=dtype, copy=copy)


def scales_of(scale: PyTree | None, params: optax.Params) -> PyTree | None:
    """A number for every leaf of the params."""
    if scale is None:
        return None
    return jax.tree.unflatten(jax.tree.structure(params), broadcast_scale(scale, params))


def in_units(accumulator: PyTree, scales: PyTree | None) -> PyTree:
    """The accumulator as a threshold rule sees it."""
    if scales is None:
        return accumulator
    return penalised(lambda v, scale: v if scale == 1 else v / scale, accumulator, scales)


def rounded_up(threshold: jax.Array, scale: float) -> jax.Array:
    """Their product, by a few units in the last place too large.

    A threshold is often the magnitude of one weight in units of the scale. Multiplied by the scale
    again it may be rounded to just below that weight, which has to be zero.
    """
    if scale == 1:
        return threshold
    return jnp.multiply(threshold, scale * (1 + 4 * float(finfo(threshold.dtype).eps)))


def check_given(params: optax.Params | None) -> None:
    """The params are there, which optax leaves open."""
    if params is None:
        raise ValueError("params must be given: call update(updates, state, params).")


def check_leaves(params: optax.Params, flags: PyTree) -> None:
    """Only what is real and floating can be shrunk to zero."""
    check_arrays("params", params)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for (path, leaf), flag in zip(leaves, jax.tree.leaves(flags), strict=True):
        if flag and not jnp.issubdtype(dtype_of(leaf), jnp.floating):
            raise ValueError(
                f"params that are penalised must be real floating point, got {dtype_of(leaf)} at "
                f"{path_name(path)}; a mask that is False there leaves it out."
            )


def check_like(name: str, tree: PyTree, accumulator: PyTree) -> None:
    """The tree has the structure and the shapes that ``init`` saw."""
    seen, expected = structure(tree, is_masked), structure(accumulator, is_masked)
    if seen != expected:
        raise ValueError(
            f"{name} must have the structure of the params at init, {expected}, got {seen}."
        )
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_masked)
    for (path, leaf), v in zip(
        leaves, jax.tree.leaves(accumulator, is_leaf=is_masked), strict=True
    ):
        if not is_masked(v) and jnp.shape(leaf) != v.shape:
            raise ValueError(
                f"{name} must have the shapes of the params at init, {v.shape} at "
                f"{path_name(path)}, got {jnp.shape(leaf)}."
            )
