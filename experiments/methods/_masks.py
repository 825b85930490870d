"""An optimizer under masks: weights that are masked out stay ``+0.0``, and a rule moves the masks.

What a method adds is its rule alone: from the moment after an update to masks and weights.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.methods._allocation import Group

if TYPE_CHECKING:
    from experiments.train import State

PyTree = Any


class MaskState(NamedTuple):
    """Which weights are left, after how many updates, and the state of the base optimizer."""

    count: jax.Array  # type: ignore[assignment]  # a tuple has a method of this name
    keep: PyTree
    """Like the params; of a leaf that is not pruned it is one ``True``."""
    base: optax.OptState


class Moment(NamedTuple):
    """What a rule sees after an update."""

    count: jax.Array  # type: ignore[assignment]  # a tuple has a method of this name
    """The number of updates so far, from 1."""
    keep: PyTree
    """The masks under which the update was made."""
    weights: PyTree
    """The weights after it, zero where they are masked out."""
    gradient: PyTree
    """The dense gradient that it was made with: at the masked weights, of every weight."""


Rule = Callable[[Moment], tuple[PyTree, PyTree]]
"""From a moment to the masks and the weights of the next update."""


def fixed(moment: Moment) -> tuple[PyTree, PyTree]:
    """The rule that leaves the masks as they are."""
    return moment.keep, moment.weights


def with_masks(
    base: optax.GradientTransformation, rule: Rule, penalised: Callable[[PyTree], PyTree]
) -> optax.GradientTransformationExtraArgs:
    """The base optimizer under masks that ``rule`` sets; at first nothing is masked out.

    The base optimizer sees the gradient of the weights that are left, as if there were no others;
    its momentum, and whatever else it keeps of a weight, is zero while the weight is masked out.
    So nothing moves a masked weight, and one that comes back starts anew.

    Args:
        base: from gradients to updates, each entry on its own.
        rule: is given the dense gradient, which growth needs.
        penalised: from params to a tree of bools: which leaves are pruned.
    """
    base = optax.with_extra_args_support(base)

    def init(params: PyTree) -> MaskState:
        keep = jax.tree.map(
            lambda p, flag: jnp.ones(p.shape if flag else (), bool), params, penalised(params)
        )
        return MaskState(jnp.zeros([], jnp.int32), keep, base.init(params))

    def update(
        gradient: PyTree, state: MaskState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, MaskState]:
        n = state.count + 1
        updates, inner = base.update(masked(gradient, state.keep), state.base, params, **extra)
        weights = masked(jax.tree.map(jnp.add, params, updates), state.keep)
        keep, weights = rule(Moment(n, state.keep, weights, gradient))
        weights = masked(weights, keep)
        inner = optax.tree.map_params(base, _zero_unless, inner, keep)
        return jax.tree.map(jnp.subtract, weights, params), MaskState(n, keep, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def masked(tree: PyTree, keep: PyTree) -> PyTree:
    """The tree with ``+0.0`` where it is masked out."""
    return jax.tree.map(_zero_unless, tree, keep)


def _zero_unless(x: jax.Array, keep: jax.Array) -> jax.Array:
    return jnp.where(keep, x, jnp.zeros_like(x))


def impose(state: "State", keep: PyTree) -> "State":
    """The state of a run under :func:`with_masks`, with these masks from now on."""
    masks: MaskState = state.opt_state
    return state._replace(params=masked(state.params, keep), opt_state=masks._replace(keep=keep))


def without_lowest(
    scores: PyTree, keep: PyTree, groups: Sequence[Group], gone: Sequence[jax.Array | int]
) -> PyTree:
    """Masks under which exactly so many weights of each group are out: those of lowest score.

    Weights that are out already count first, so that none comes back; of equal scores the first
    in the order of the leaves goes.

    Args:
        scores: like the params; only those of the groups are looked at.
        keep: the masks so far.
        groups: which leaves compete.
        gone: how many of each group are masked out, at least as many as so far.
    """
    values, masks = jax.tree.leaves(scores), jax.tree.leaves(keep)
    for group, count in zip(groups, gone, strict=True):
        flat = jnp.concatenate(
            [jnp.where(masks[i], values[i], -jnp.inf).ravel() for i in group.leaves]
        )
        # The rank decides, not the score: of equal scores only as many go as should.
        left, at = rank(flat) >= count, 0
        for i in group.leaves:
            size = values[i].size
            masks[i] = left[at : at + size].reshape(values[i].shape)
            at += size
    return jax.tree.unflatten(jax.tree.structure(keep), masks)


def rank(*keys: jax.Array) -> jax.Array:
    """The place of every entry in ascending order: by the last key, then by the one before it."""
    order = jnp.lexsort(keys)
    places = jnp.arange(order.size, dtype=jnp.int32)
    return jnp.zeros(order.size, jnp.int32).at[order].set(places)


def magnitudes(weights: PyTree) -> PyTree:
    """The score of most methods."""
    return jax.tree.map(jnp.abs, weights)
