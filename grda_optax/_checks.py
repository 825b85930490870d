"""Checks of arguments: Python and numpy numbers only, since traced values have none to look at."""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any


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
) -> None:
    """Raises a ValueError that names the argument unless the number is finite and in range."""
    is_array = hasattr(value, "dtype") or hasattr(value, "__jax_array__")
    if isinstance(value, bool | np.bool_ | complex | np.complexfloating) or not (
        is_number(value) or is_array
    ):
        raise ValueError(f"{name} must be a real number, got {value!r}.")
    if not is_number(value):
        return
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


def check_wide_dtype(name: str, dtype: Any) -> None:
    """Raises a ValueError unless sums of many small updates can be kept in ``dtype``."""
    try:
        wide = jnp.dtype(dtype) in (jnp.dtype(jnp.float32), jnp.dtype(jnp.float64))
    except TypeError:
        wide = False
    if not wide:
        raise ValueError(f"{name} must be None, float32 or float64, got {dtype!r}.")


def path_name(path: tuple[Any, ...]) -> str:
    """The name of a leaf as reports and errors print it: ``dense/kernel``."""
    return jax.tree_util.keystr(path, simple=True, separator="/") or "params"


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
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"{name} must be a valid regular expression, got {pattern!r}: {error}."
        ) from error


def match_paths(name: str, pattern: str, params: PyTree) -> list[bool]:
    """For every leaf whether the pattern is found in its path; an error if it is in none."""
    compiled = check_pattern(name, pattern)
    paths = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    found = [compiled.search(path) is not None for path in paths]
    if not any(found):
        raise ValueError(
            f"{name} must be found in the path of a leaf, got {pattern!r} for {', '.join(paths)}."
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
