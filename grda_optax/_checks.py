"""Checks of arguments: Python and numpy numbers only, since traced values have none to look at."""

import math
import os
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any
LARGEST = 2**31 - 1
"""Of the integers that JAX takes without ``jax_enable_x64``."""


def is_number(value: object) -> bool:
    """Whether ``value`` is a plain number, and not an array of JAX that may be traced."""
    return isinstance(value, int | float | np.number)


def check_number(
    name: str,
    value: object,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    integer: bool = False,
    static: bool = False,
    scalar: bool = True,
) -> None:
    """Raises a ValueError that names the argument unless the number is finite and in range.

    Arrays of JAX are asked for their dtype and shape alone, since they may be traced; but for
    ``static`` numbers, which decide about shapes and the like. Without ``scalar`` they may have
    any shape.
    """
    if not _is_real(value):
        raise ValueError(f"{name} must be a real number, got {value!r}.")
    shape = jnp.shape(value)  # type: ignore[arg-type]
    if scalar and shape != ():
        raise ValueError(f"{name} must be one number, got shape {shape}.")
    if static and isinstance(value, jax.core.Tracer):
        raise ValueError(f"{name} must be a number with a value, got a traced one.")
    if isinstance(value, np.ndarray) or (static and isinstance(value, jax.Array)):
        value = value.item() if value.ndim == 0 else value
    if not is_number(value):
        return
    if isinstance(value, int) and not -LARGEST <= value <= LARGEST:
        raise ValueError(f"{name} must fit in 32 bits, got {value}.")
    if integer and not isinstance(value, int | np.integer):
        raise ValueError(f"{name} must be an integer, got {value!r}.")
    number = float(value)  # type: ignore[arg-type]
    bounds = {">=": at_least, ">": above, "<=": at_most, "<": below}
    holds = math.isfinite(number) and all(
        (
            at_least is None or number >= at_least,
            above is None or number > above,
            at_most is None or number <= at_most,
            below is None or number < below,
        )
    )
    if not holds:
        wanted = " and ".join(f"{sign} {x:g}" for sign, x in bounds.items() if x is not None)
        raise ValueError(f"{name} must be a finite number {wanted}, got {number:g}.")


def _is_real(value: object) -> bool:
    if is_number(value):
        return not isinstance(value, bool | np.bool_ | np.complexfloating)
    if not (hasattr(value, "dtype") or hasattr(value, "__jax_array__")):
        return False
    return not isinstance(value, jax.ShapeDtypeStruct) and (
        _is_a(value, jnp.floating) or _is_a(value, jnp.integer)
    )


def _is_a(value: Any, kind: Any) -> bool:
    try:
        return bool(jnp.issubdtype(jnp.result_type(value), kind))
    except TypeError:  # of strings and objects
        return False


def check_arrays(name: str, tree: PyTree) -> None:
    """Raises a ValueError that names the leaf unless all are arrays of numbers, or numbers."""
    try:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
    except ValueError as error:
        raise ValueError(f"{name} must have dicts with keys that can be sorted.") from error
    for path, leaf in leaves:
        if isinstance(leaf, int):
            holds = -LARGEST <= leaf <= LARGEST
        elif isinstance(leaf, float | complex):
            holds = True
        else:
            holds = hasattr(leaf, "dtype") and not isinstance(leaf, jax.ShapeDtypeStruct)
            holds = holds and (_is_a(leaf, jnp.number) or _is_a(leaf, jnp.bool_))
        if not holds:
            dtype = getattr(leaf, "dtype", type(leaf).__name__)
            raise ValueError(
                f"{name} must be arrays of numbers, got {dtype} at {path_name(path, name)}."
            )


def check_path(path: Any) -> Path:
    """The path, or a ValueError where it is none."""
    if not isinstance(path, str | os.PathLike) or "\0" in os.fspath(path):
        raise ValueError(f"path must be a str or an os.PathLike of one, got {path!r}.")
    return Path(path)


def is_array_like(value: object) -> bool:
    """Whether it is one leaf, and no tree of them."""
    try:
        return bool(structure(value) == structure(0))
    except ValueError:  # of a dict with keys that cannot be sorted
        return False


def check_function(name: str, value: object) -> None:
    """Raises a ValueError that names the argument unless it can be called."""
    if not callable(value):
        raise ValueError(f"{name} must be a function, got {value!r}.")


def check_flag(name: str, value: object) -> None:
    """Raises a ValueError that names the argument unless it is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be a bool, got {value!r}.")


def check_axis_name(axis_name: Any) -> None:
    """Raises a ValueError unless a mapped axis can have this name, or none is given."""
    names = axis_name if isinstance(axis_name, tuple) else (axis_name,)
    for name in names:
        try:
            hash(name)
            holds = not isinstance(name, int | float | complex | np.generic | jax.Array)
        except TypeError:
            holds = False
        if not holds:
            raise ValueError(f"axis_name must be the name of a mapped axis, got {axis_name!r}.")


def check_wide_dtype(name: str, dtype: Any) -> None:
    """Raises a ValueError unless sums of many small updates can be kept in ``dtype``."""
    try:
        wide = jnp.dtype(dtype) in (jnp.dtype(jnp.float32), jnp.dtype(jnp.float64))
    except (TypeError, ValueError):
        wide = False
    wide = wide and not hasattr(dtype, "shape")  # an array has a dtype, and is none
    if not wide:
        raise ValueError(f"{name} must be None, float32 or float64, got {dtype!r}.")


def path_name(path: tuple[Any, ...], whole: str = "params") -> str:
    """The name of a leaf as reports and errors print it: ``dense/kernel``.

    In a state of Flax NNX the array is the ``value`` of a variable, which is left out.
    """
    if len(path) > 1 and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]
    return _in_full(path) or whole


def _in_full(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def broadcast_mask(mask: PyTree, params: PyTree) -> PyTree:
    """A tree like ``params`` with one Python bool for every leaf.

    ``mask`` is ``None`` (every leaf), a tree of bools with the structure of ``params`` or a
    prefix of it, a function from params to such a tree, or a regular expression that is searched
    in the path of every leaf.
    """
    if mask is None:
        mask = True
    elif isinstance(mask, str):
        flags = match_paths("mask", mask, params)
        return jax.tree.unflatten(jax.tree.structure(params), flags)
    elif callable(mask) and all(callable(leaf) for leaf in jax.tree.leaves(mask)):
        # A tree of bools in the shape of an Equinox module is callable as well.
        mask = mask(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(mask):
        if not isinstance(leaf, bool | np.bool_):
            raise ValueError(f"mask must hold True or False, got {leaf!r} at {path_name(path)}.")
    try:
        return jax.tree.map(
            lambda flag, part: jax.tree.map(lambda _: bool(flag), part), mask, params
        )
    except (ValueError, TypeError) as error:
        raise ValueError(
            "mask must have the structure of params or a prefix of it, "
            f"got {jax.tree.structure(mask)} for params {jax.tree.structure(params)}."
        ) from error


def check_pattern(name: str, pattern: str) -> re.Pattern[str]:
    """The compiled pattern, or a ValueError that says what is wrong with it."""
    if not isinstance(pattern, str):
        raise ValueError(f"{name} must be a regular expression, got {pattern!r}.")
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"{name} must be a valid regular expression, got {pattern!r}: {error}."
        ) from error


def match_paths(name: str, pattern: str, params: PyTree) -> list[bool]:
    """For every leaf whether the pattern is found in its path; an error if it is in none."""
    compiled = check_pattern(name, pattern)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    # Whoever has seen JAX's own names of an NNX state may have written them down.
    found = [any(map(compiled.search, (path_name(path), _in_full(path)))) for path in paths]
    if not any(found):
        names = ", ".join(map(path_name, paths))
        raise ValueError(
            f"{name} must be found in the path of a leaf, got {pattern!r} for {names}."
        )
    return found


def check_scale(scale: PyTree) -> None:
    """What can be said of the scales before the params are there."""
    if is_patterns(scale):
        for pattern in scale:
            check_pattern("scale", pattern)
    for path, number in jax.tree_util.tree_leaves_with_path(scale):
        if not is_number(number):
            raise ValueError(f"scale must hold numbers, got {number!r} at {path_name(path)}.")
        check_number(f"scale at {path_name(path)}", number, above=0)


def is_patterns(scale: PyTree) -> bool:
    """Whether it is a flat dict from strings to numbers, and not a prefix of the params."""
    return isinstance(scale, dict) and all(
        isinstance(key, str) and is_number(number) for key, number in scale.items()
    )


def broadcast_scale(scale: PyTree, params: PyTree) -> list[float]:
    """The scale of every leaf of ``params``, in their order."""
    if is_patterns(scale):
        found = {pattern: match_paths("scale", pattern, params) for pattern in scale}
        return [
            next((float(scale[pattern]) for pattern in scale if found[pattern][i]), 1.0)
            for i in range(len(jax.tree.leaves(params)))
        ]
    try:
        spread = jax.tree.map(
            lambda number, part: jax.tree.map(lambda _: float(number), part), scale, params
        )
    except (ValueError, TypeError) as error:
        raise ValueError(
            "scale must be a dict from patterns to numbers, or have the structure of params or a "
            f"prefix of it, got {jax.tree.structure(scale)} for params "
            f"{jax.tree.structure(params)}."
        ) from error
    return jax.tree.leaves(spread)


def structure(tree: PyTree, is_leaf: Any = None) -> Any:
    """``jax.tree.structure``, whose own type hides that two of them can be compared."""
    return jax.tree.structure(tree, is_leaf=is_leaf)
