"""How many units a layer keeps where a fraction of the network's operations goes, and their masks.

Every hidden layer keeps the same fraction of its units, so that methods at one sparsity end with
networks of one size, which a dense network can have from the start.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from experiments.checks import check_choice
from experiments.flops import forward_flops
from experiments.methods._width import closest_width
from experiments.models.channels import TIES
from grda_optax import Tied

if TYPE_CHECKING:
    from experiments.train import Job

PyTree = Any


def width_by_flops(job: "Job") -> float:
    """The width at which a dense network has nearest to ``1 - sparsity`` of the operations."""
    check_choice("model (for channels)", job.config.model, tuple(TIES))
    shape = job.input_shape

    def flops(width: float) -> int:
        return forward_flops(job.with_width(width).model, shape)

    return closest_width(flops, (1 - job.config.sparsity) * flops(1.0))


def l1_norms(params: PyTree, tie: Tied) -> jax.Array:
    """The sum of magnitudes in every unit's kernel, the inputs that it has."""
    ((leaf, axis),) = [
        (leaf, axis) for leaf, axis in _leaves(params, tie.members) if jnp.ndim(leaf) >= 2
    ]
    return jnp.sum(jnp.abs(jnp.moveaxis(leaf, axis, 0)), axis=tuple(range(1, leaf.ndim)))


def unit_masks(params: PyTree, ties: Sequence[Tied], left: Sequence[jax.Array]) -> PyTree:
    """A tree of masks like the params: ``False`` at what belongs to a unit that is not left.

    Args:
        params: whose leaves hold an entry for each unit along the axes of the ties, or those of all
            units again and again.
        ties: the layers, by axes without a width.
        left: for every layer and each unit whether it stays.
    """
    masks = jax.tree.map(lambda x: jnp.ones(jnp.shape(x), bool), params)
    leaves, treedef = jax.tree.flatten(masks)
    for tie, flags in zip(ties, left, strict=True):
        for patterns in (tie.members, tie.followers):
            for i, axis in enumerate(_axes(params, patterns)):
                if axis is not None:
                    leaves[i] &= _along(flags, leaves[i].shape, axis)
    return jax.tree.unflatten(treedef, leaves)


def in_units(params: PyTree, ties: Sequence[Tied]) -> PyTree:
    """For every leaf whether something of it goes with a unit."""
    flags = [False] * len(jax.tree.leaves(params))
    for tie in ties:
        for patterns in (tie.members, tie.followers):
            flags = [
                flag or axis is not None
                for flag, axis in zip(flags, _axes(params, patterns), strict=True)
            ]
    return jax.tree.unflatten(jax.tree.structure(params), flags)


def _along(flags: jax.Array, shape: tuple[int, ...], axis: int) -> jax.Array:
    repeated = jnp.tile(flags, shape[axis] // flags.size)
    at = axis % len(shape)
    return jnp.broadcast_to(
        repeated.reshape([-1 if i == at else 1 for i in range(len(shape))]), shape
    )


def _axes(params: PyTree, patterns: Mapping[str, Any]) -> list[int | None]:
    """The axis of every leaf, by the first pattern that is found in its path."""
    names = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    return [
        next((axis for pattern, axis in patterns.items() if re.search(pattern, name)), None)
        for name in names
    ]


def _leaves(params: PyTree, patterns: Mapping[str, Any]) -> list[tuple[jax.Array, int]]:
    found = zip(jax.tree.leaves(params), _axes(params, patterns), strict=True)
    return [(leaf, axis) for leaf, axis in found if axis is not None]
