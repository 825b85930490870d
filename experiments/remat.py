"""Less memory for a gradient: what is cheap is computed again rather than kept."""

from collections.abc import Callable
from typing import Any

import jax

Loss = Callable[..., tuple[jax.Array, Any]]


def rematerialised(loss: Loss) -> Loss:
    """The same loss, with only products with weights and convolutions kept for its gradient.

    So activations, norms and the attention of every head are computed twice. (XLA's CPU backend may
    find that out and keep them all the same.)
    """
    return jax.checkpoint(loss, policy=_is_dear)


def _is_dear(primitive: Any, *arguments: Any, **parameters: Any) -> bool:
    products = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return primitive.name == "conv_general_dilated" or bool(
        products(primitive, *arguments, **parameters)
    )
