"""Which weights go: the smallest of the network, or so many of every layer."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.methods._masks import rank

PyTree = Any


def penalised_leaves(tree: PyTree, flags: PyTree) -> list[jax.Array]:
    """The penalised leaves, in the order of the tree: the layers."""
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(flags), strict=True)
    return [leaf for leaf, flag in pairs if flag]


def replace_penalised(tree: PyTree, flags: PyTree, layers: Sequence[Any]) -> PyTree:
    """The tree with these in the place of its penalised leaves."""
    rest = iter(layers)
    return jax.tree.map(lambda leaf, flag: next(rest) if flag else leaf, tree, flags)


def layer_sizes(params: PyTree, flags: PyTree) -> list[int]:
    """How many weights every penalised leaf has."""
    return [leaf.size for leaf in penalised_leaves(params, flags)]


def zeros_wanted(sparsity: float, sizes: Sequence[int]) -> int:
    """``round(sparsity * total)``."""
    return round(sparsity * sum(sizes))


def ranks(magnitudes: jax.Array) -> jax.Array:
    """The place of every entry in ascending order, from 0; of equal ones the first comes first."""
    return rank(jnp.ravel(magnitudes)).reshape(magnitudes.shape)


def keep_largest(layers: Sequence[jax.Array], zeros: jax.typing.ArrayLike) -> list[jax.Array]:
    """Flags all but the ``zeros`` smallest magnitudes of all layers together."""
    order = ranks(jnp.concatenate([jnp.abs(layer).ravel() for layer in layers]))
    kept, at = [], 0
    for layer in layers:
        kept.append((order[at : at + layer.size] >= zeros).reshape(layer.shape))
        at += layer.size
    return kept


def keep_largest_by_layer(
    layers: Sequence[jax.Array], zeros: Sequence[jax.typing.ArrayLike]
) -> list[jax.Array]:
    """Flags all but so many smallest magnitudes of every layer."""
    return [ranks(jnp.abs(w)) >= count for w, count in zip(layers, zeros, strict=True)]


def apply_masks(layers: Sequence[jax.Array], keep: Sequence[jax.Array]) -> list[jax.Array]:
    """The layers with ``+0.0`` where they are not kept."""
    return [jnp.where(k, w, jnp.zeros_like(w)) for w, k in zip(layers, keep, strict=True)]


def layer_scores(
    score: Callable[..., Any], params: PyTree, flags: PyTree, *arguments: Any
) -> Callable[[Sequence[int]], Any]:
    """A function from the zeros of every layer to the score of the network pruned so.

    Args:
        score: from params and the arguments to arrays, such as the loss on some examples.
        params: of the network that is pruned.
        flags: a tree of bools: which leaves are layers.
        arguments: of the score, arrays.
    """
    # Sorted once, not at every score.
    order = [ranks(jnp.abs(layer)) for layer in penalised_leaves(params, flags)]

    @jax.jit
    def scores(params: PyTree, order: list[jax.Array], zeros: jax.Array, *arguments: Any) -> Any:
        layers = penalised_leaves(params, flags)
        keep = [places >= count for places, count in zip(order, zeros, strict=True)]
        return score(replace_penalised(params, flags, apply_masks(layers, keep)), *arguments)

    return lambda zeros: jax.device_get(
        scores(params, order, jnp.asarray(zeros, jnp.int32), *arguments)
    )


def most_zeros(sizes: Sequence[int], sparsity: float, most: float) -> list[int]:
    """How many weights of every layer may go, so that together ``sparsity`` can be reached.

    It is the fraction ``most`` of each, or ``sparsity`` where that is more, rounded up.
    """
    return [math.ceil(max(most, sparsity) * size) for size in sizes]
