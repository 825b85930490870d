"""From the description of groups to the groups of a given tree, checked against its shapes."""

from collections.abc import Mapping

import jax
import numpy as np
import optax

from ._checks import PyTree, match_paths, path_name
from ._families import Family, NofMFamily, NormFamily
from ._groups import Axis, Blocks, Groups, NofM, Tied
from ._parts import along, sizes, tiles


def families_of(groups: tuple[Groups, ...], params: PyTree) -> tuple[Family, ...]:
    """The groups on the leaves of these params, checked against their shapes.

    Raises:
        ValueError: as in the descriptions of the groups, or a leaf is a member of two of them.
    """
    found: list[Family] = []
    for group in groups:
        found += [_tied(group, params)] if isinstance(group, Tied) else _cut(group, params)
    owner: dict[int, Family] = {}
    names = _names(params)
    for family in found:
        for leaf in family.leaves:
            if leaf in owner:
                raise ValueError(
                    f"groups must shrink every leaf once, got {names[leaf]} in two of them."
                )
            owner[leaf] = family
    return tuple(found)


def grouped(families: tuple[Family, ...], params: optax.Params) -> PyTree:
    """For every leaf whether anything is to happen to it."""
    inside = {leaf for family in families for leaf in family.leaves}
    inside |= {p.leaf for x in families if isinstance(x, NormFamily) for p in x.followers}
    leaves, treedef = jax.tree.flatten(params)
    return jax.tree.unflatten(treedef, [i in inside for i in range(len(leaves))])


def _names(params: PyTree) -> list[str]:
    return [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def _tied(group: Tied, params: PyTree) -> NormFamily:
    shapes = [np.shape(x) for x in jax.tree.leaves(params)]
    names = _names(params)
    found = {kind: _axes(kind, getattr(group, kind), params) for kind in ("members", "followers")}
    counts = []
    for kind, axes in found.items():
        for leaf, (axis, width) in axes.items():
            shape = shapes[leaf]
            if not -len(shape) <= axis < len(shape):
                raise ValueError(
                    f"{kind} must name an axis of the leaf, got {axis} for {names[leaf]} of shape "
                    f"{shape}."
                )
            counts.append(shape[axis] // width)
    count = min(counts)
    for kind, axes in found.items():
        for leaf, (axis, width) in axes.items():
            length = shapes[leaf][axis]
            if count == 0 or length == 0 or length % (count * width):
                raise ValueError(
                    f"{kind} must have a multiple of {count} x {width} entries along the axis, as "
                    f"many as there are units, got {length} for {names[leaf]}."
                )
    parts = {
        kind: tuple(
            along(leaf, shapes[leaf], axis, width, count) for leaf, (axis, width) in axes.items()
        )
        for kind, axes in found.items()
    }
    size = sum(sizes(part) for part in parts["members"])
    return NormFamily(parts["members"], parts["followers"], np.asarray(size), float(group.scale))


def _axes(kind: str, patterns: Mapping[str, Axis], params: PyTree) -> dict[int, tuple[int, int]]:
    """By leaf the axis and the width; the first pattern that is found counts."""
    axes: dict[int, tuple[int, int]] = {}
    for pattern, axis in patterns.items():
        for leaf, found in enumerate(match_paths(kind, pattern, params)):
            if found:
                axes.setdefault(leaf, axis if isinstance(axis, tuple) else (axis, 1))
    return axes


def _cut(group: Blocks | NofM, params: PyTree) -> list[Family]:
    shapes = [np.shape(x) for x in jax.tree.leaves(params)]
    names = _names(params)
    if group.pattern is None:
        flags = [len(shape) >= 2 for shape in shapes]
    else:
        flags = match_paths("pattern", group.pattern, params)
    found: list[Family] = []
    for leaf, (shape, flag) in enumerate(zip(shapes, flags, strict=True)):
        if not flag:
            continue
        if isinstance(group, Blocks):
            if len(group.shape) > len(shape):
                raise ValueError(
                    f"shape must have at most the {len(shape)} axes of {names[leaf]}, got "
                    f"{group.shape!r}."
                )
            part = tiles(leaf, shape, group.shape)
            found.append(NormFamily((part,), (), sizes(part), float(group.scale)))
            continue
        if not -len(shape) <= group.axis < len(shape):
            raise ValueError(
                f"axis must be one of {names[leaf]} of shape {shape}, got {group.axis}."
            )
        if shape[group.axis] % group.m:
            raise ValueError(
                f"m must divide the {shape[group.axis]} entries of {names[leaf]} along axis "
                f"{group.axis}, got {group.m}."
            )
        part = tiles(leaf, shape, (1,) * len(shape))
        axis = group.axis % len(shape)
        found.append(NofMFamily(part, axis, group.n, group.m, float(group.scale)))
    return found
