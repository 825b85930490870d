"""How many units a layer keeps where a fraction of the network's operations goes, and their masks.

Every hidden layer keeps the same fraction of its units, so that methods at one sparsity end with
networks of one size, which a dense network can have from the start.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from experiments.checks import check_choice
from experiments.flops import forward_flops
from experiments.methods._width import closest_width
from experiments.models.channels import TIES, Place, places, unit_count
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
    """The sum of magnitudes in every unit's kernels, the inputs that it has."""
    count = unit_count(params, tie)
    total = jnp.zeros(count)
    for leaf, place in zip(jax.tree.leaves(params), places(params, tie.members), strict=True):
        if place is not None and jnp.ndim(leaf) >= 2:
            axis, width = place
            others = tuple(i for i in range(leaf.ndim) if i != axis % leaf.ndim)
            sums = jnp.sum(jnp.abs(leaf), axis=others)
            total += jnp.sum(sums.reshape(-1, count, width), axis=(0, 2))
    return total


def unit_masks(params: PyTree, ties: Sequence[Tied], left: Sequence[jax.Array]) -> PyTree:
    """A tree of masks like the params: ``False`` at what belongs to a unit that is not left.

    Args:
        params: whose leaves hold entries for each unit along the axes of the ties, or those of all
            units again and again.
        ties: the layers.
        left: for every layer and each unit whether it stays.
    """
    masks = jax.tree.map(lambda x: jnp.ones(jnp.shape(x), bool), params)
    leaves, treedef = jax.tree.flatten(masks)
    for tie, flags in zip(ties, left, strict=True):
        for patterns in (tie.members, tie.followers):
            for i, place in enumerate(places(params, patterns)):
                if place is not None:
                    leaves[i] &= _along(flags, leaves[i].shape, place)
    return jax.tree.unflatten(treedef, leaves)


def in_units(params: PyTree, ties: Sequence[Tied]) -> PyTree:
    """For every leaf whether something of it goes with a unit."""
    flags = [False] * len(jax.tree.leaves(params))
    for tie in ties:
        for patterns in (tie.members, tie.followers):
            flags = [
                flag or place is not None
                for flag, place in zip(flags, places(params, patterns), strict=True)
            ]
    return jax.tree.unflatten(jax.tree.structure(params), flags)


def _along(flags: jax.Array, shape: tuple[int, ...], place: Place) -> jax.Array:
    axis, width = place
    entries = jnp.repeat(flags, width)
    repeated = jnp.tile(entries, shape[axis] // entries.size)
    at = axis % len(shape)
    return jnp.broadcast_to(
        repeated.reshape([-1 if i == at else 1 for i in range(len(shape))]), shape
    )
