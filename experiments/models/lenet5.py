"""LeNet-5, the smallest convolutional network of the pruning literature."""

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.models.widths import Width, units

SIDE = 32


class LeNet5(nnx.Module):
    """Two convolutions (6, 16) and two hidden layers (120, 84): 61,706 weights on 28 x 28.

    LeCun, Bottou, Bengio and Haffner, *Gradient-based learning applied to document recognition*,
    1998, as it is used today: with relu, max-pooling and no sparse connections.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        num_classes: int,
        *,
        rngs: nnx.Rngs,
        width: Width = 1.0,
    ):
        """Makes the layers for images of this shape, with ``width`` times the units, or so many."""
        first, second, third, fourth = units((6, 16, 120, 84), width)
        *sides, channels = image_shape
        self.conv1 = nnx.Conv(channels, first, (5, 5), padding="VALID", rngs=rngs)
        self.conv2 = nnx.Conv(first, second, (5, 5), padding="VALID", rngs=rngs)
        # Each side loses 4 to a convolution and half to a pooling, twice.
        rows, columns = (((max(SIDE, n) - 4) // 2 - 4) // 2 for n in sides)
        self.dense1 = nnx.Linear(second * rows * columns, third, rngs=rngs)
        self.dense2 = nnx.Linear(third, fourth, rngs=rngs)
        self.head = nnx.Linear(fourth, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, channels) to logits (batch, classes)."""
        # The original takes 32 x 32: smaller images get an even border, of 2 pixels around 28 x 28.
        missing = [max(0, SIDE - n) for n in x.shape[1:3]]
        x = jnp.pad(x, [(0, 0), *((n // 2, n - n // 2) for n in missing), (0, 0)])
        x = nnx.max_pool(nnx.relu(self.conv1(x)), (2, 2), strides=(2, 2))
        x = nnx.max_pool(nnx.relu(self.conv2(x)), (2, 2), strides=(2, 2))
        x = x.reshape(x.shape[0], -1)
        x = nnx.relu(self.dense1(x))
        x = nnx.relu(self.dense2(x))
        return self.head(x)
