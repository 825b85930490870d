"""Weights in half precision: what is summed up over many updates stays in float32."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

PyTree = Any


def cast(tree: PyTree, dtype: jax.typing.DTypeLike) -> PyTree:
    """The tree with its real floating-point leaves in ``dtype``."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def copied_wide(params: PyTree) -> PyTree:
    """A copy in float32, or in their own dtype where that is wider."""
    return jax.tree.map(
        lambda p: jnp.array(p, jnp.promote_types(p.dtype, jnp.float32), copy=True), params
    )


def gradients_in_float32(differentiate: Callable[..., Any]) -> Callable[..., Any]:
    """``differentiate`` with gradients that can be averaged and unscaled without loss."""

    def differentiated(*arguments: Any) -> Any:
        values, gradients = differentiate(*arguments)
        return values, cast(gradients, jnp.float32)

    return differentiated


def in_float32(base: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """``base`` as if the params were float32, so that its momentum is, and what it proposes."""
    base = optax.with_extra_args_support(base)

    def init(params: PyTree) -> optax.OptState:
        return base.init(cast(params, jnp.float32))

    def update(
        gradients: PyTree, state: optax.OptState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, optax.OptState]:
        gradients, params = cast((gradients, params), jnp.float32)
        updates, state = base.update(gradients, state, params, **extra)
        return updates, state

    return optax.GradientTransformationExtraArgs(init, update)


def updates_in_float32(
    tx: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """``tx`` with float32 updates, as its gradients are; the params that it sees are as they are.

    What surrounds an optimizer takes gradients and updates to have one dtype.
    """
    tx = optax.with_extra_args_support(tx)

    def update(
        gradients: PyTree, state: optax.OptState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, optax.OptState]:
        updates, state = tx.update(gradients, state, params, **extra)
        return cast(updates, jnp.float32), state

    return optax.GradientTransformationExtraArgs(tx.init, update)
