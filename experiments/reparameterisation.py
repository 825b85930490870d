"""Weights as a function of what is trained: gates, learned thresholds, noise.

The optimizer then moves the *raw* values, and ``State.params`` are what the network sees of them in
evaluation. So scores, counts of zeros, checkpoints and runs that start from this one need to know
nothing of how the weights came about.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

PyTree = Any
Loss = Callable[..., tuple[jax.Array, PyTree]]
"""``loss(params, ...) -> (value, anything)``."""
KEYS = 0x67617465
"""Folded into the key of the seed: the initial weights are drawn from the same one."""


class Reparameterisation(NamedTuple):
    r"""How the weights follow from raw values :math:`r`, which are what is trained.

    One update descends :math:`\ell(w(r, \epsilon)) + R(r)` with a single draw :math:`\epsilon`,
    the same on all devices.

    Attributes:
        init: ``init(params, key) -> raw``: where training starts, given the network's params.
        weights: ``weights(raw, key, train) -> params``. Noise comes from ``key`` alone, and without
            ``train`` there is none; zeros are then exactly ``+0.0``.
        penalty: ``penalty(raw, step) -> scalar``, added to the loss; ``step`` counts from 0.
    """

    init: Callable[[PyTree, jax.Array], PyTree]
    weights: Callable[[PyTree, jax.Array, bool], PyTree]
    penalty: Callable[[PyTree, jax.Array], jax.Array]


class Reparameterised(NamedTuple):
    """What stands in the place of the optimizer's state: the raw values, and that state."""

    raw: PyTree
    opt_state: optax.OptState


def start(
    reparameterisation: Reparameterisation,
    tx: optax.GradientTransformation,
    params: PyTree,
    seed: int,
) -> tuple[PyTree, Reparameterised]:
    """The params that are evaluated and the state, before the first update."""
    key = noise_key(seed, -1)
    raw = reparameterisation.init(params, key)
    return reparameterisation.weights(raw, key, False), Reparameterised(raw, jax.jit(tx.init)(raw))


def noise_key(seed: int, step: jax.typing.ArrayLike) -> jax.Array:
    """The key of a step (from 0; -1 is before the first); the seed and the step are all of it."""
    key = jax.random.fold_in(jax.random.key(seed), KEYS)
    return jax.random.fold_in(key, jnp.asarray(step, jnp.int32) + 1)


def value_and_grad(
    reparameterisation: Reparameterisation, loss: Loss, key: jax.Array, step: jax.Array
) -> Callable[..., tuple[tuple[jax.Array, PyTree], PyTree]]:
    """As ``jax.value_and_grad(loss, has_aux=True)``, with the gradient of the raw values.

    The value is the loss without the penalty, so that methods can be compared by it; the gradient
    is that of both together.
    """

    def penalised(raw: PyTree, *arguments: Any) -> tuple[jax.Array, tuple[jax.Array, PyTree]]:
        params = reparameterisation.weights(raw, key, True)
        value, rest = loss(params, *arguments)
        return value + reparameterisation.penalty(raw, step), (value, rest)

    def differentiate(raw: PyTree, *arguments: Any) -> tuple[tuple[jax.Array, PyTree], PyTree]:
        (_, value_and_rest), gradients = jax.value_and_grad(penalised, has_aux=True)(
            raw, *arguments
        )
        return value_and_rest, gradients

    return differentiate


def train_parts(
    params: optax.GradientTransformation, **others: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """Moves ``raw["params"]`` by one optimizer, and every other entry by that of its name."""
    return optax.partition(
        {"params": params, **others}, param_labels=lambda raw: {name: name for name in raw}
    )


def beside(function: Callable[[jax.Array], jax.Array], params: PyTree, penalised: PyTree) -> PyTree:
    """``function`` of every penalised leaf, with ``optax.MaskedNode()`` in place of the others."""
    return jax.tree.map(
        lambda p, flag: function(p) if flag else optax.MaskedNode(), params, penalised
    )


def where_penalised(function: Callable[..., jax.Array], params: PyTree, *trees: PyTree) -> PyTree:
    """``function`` of every leaf and its companions in ``trees``; a leaf without any stays."""
    return jax.tree.map(
        lambda p, *rest: p if isinstance(rest[0], optax.MaskedNode) else function(p, *rest),
        params,
        *trees,
    )


def noise_like(tree: PyTree, key: jax.Array, draw: Callable[..., jax.Array]) -> PyTree:
    """``draw(key, shape, dtype)``, such as ``jax.random.normal``, for every leaf of a tree."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, max(1, len(leaves)))
    drawn = [draw(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=False)]
    return jax.tree.unflatten(structure, drawn)


def total(tree: PyTree) -> jax.Array:
    """The sum of all entries of a tree."""
    return sum((jnp.sum(leaf) for leaf in jax.tree.leaves(tree)), start=jnp.zeros([]))
