"""LeNet-300-100, the network on which pruning is measured first."""

import math

import jax
from flax import nnx

from experiments.models.widths import Width, units


class MLP(nnx.Module):
    """Two hidden layers of 300 and 100 units: 266,610 weights on 28 x 28 images."""

    def __init__(
        self,
        image_shape: tuple[int, ...],
        num_classes: int,
        *,
        rngs: nnx.Rngs,
        width: Width = 1.0,
    ):
        """Makes the layers for images of this shape, with ``width`` times the units, or so many."""
        first, second = units((300, 100), width)
        self.dense1 = nnx.Linear(math.prod(image_shape), first, rngs=rngs)
        self.dense2 = nnx.Linear(first, second, rngs=rngs)
        self.head = nnx.Linear(second, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, channels) to logits (batch, classes)."""
        x = x.reshape(x.shape[0], -1)
        x = nnx.relu(self.dense1(x))
        x = nnx.relu(self.dense2(x))
        return self.head(x)
