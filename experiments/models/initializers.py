"""How PyTorch starts its layers, for networks that are compared with numbers that it has given."""

import math
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

Initializer = Callable[..., Any]

uniform_kernel: Initializer = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""Uniform from -1 / sqrt(n) to 1 / sqrt(n) with n inputs to a unit: what PyTorch does unasked."""

normal_fan_out: Initializer = nnx.initializers.variance_scaling(2, "fan_out", "normal")
"""Normal of variance 2 / n with n outputs of a position (He et al., 2015, for the gradient)."""


def uniform_bias(fan_in: int) -> Initializer:
    """The biases that go with :data:`uniform_kernel`: of the same range, so they need its n."""
    limit = 1 / math.sqrt(fan_in)

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any, **more: Any) -> jax.Array:
        del more  # how it is sharded: on one device here
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


def linear(inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
    """A dense layer with PyTorch's start."""
    return nnx.Linear(
        inputs, outputs, kernel_init=uniform_kernel, bias_init=uniform_bias(inputs), rngs=rngs
    )
