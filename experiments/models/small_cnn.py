"""A small convolutional network with BatchNorm, sized for two cores."""

import math
from functools import partial

import jax
from flax import nnx

from experiments.models.axis import DEVICE_AXIS
from experiments.models.widths import Width, units


class SmallCNN(nnx.Module):
    """Three strided convolutions (32, 64, 128) and a hidden layer: 143,114 weights on 28 x 28."""

    def __init__(
        self,
        image_shape: tuple[int, ...],
        num_classes: int,
        *,
        rngs: nnx.Rngs,
        width: Width = 1.0,
    ):
        """Makes the layers for images of this shape, with ``width`` times the units, or so many."""
        first, second, third, hidden = units((32, 64, 128, 96), width)
        conv = partial(nnx.Conv, kernel_size=(3, 3), strides=2, use_bias=False, rngs=rngs)
        norm = partial(nnx.BatchNorm, momentum=0.9, axis_name=DEVICE_AXIS, rngs=rngs)
        height, breadth, channels = image_shape
        self.conv1, self.norm1 = conv(channels, first), norm(first)
        self.conv2, self.norm2 = conv(first, second), norm(second)
        self.conv3, self.norm3 = conv(second, third), norm(third)
        pixels = math.prod(max(1, -(-side // 8) // 2) for side in (height, breadth))
        self.dense = nnx.Linear(third * pixels, hidden, rngs=rngs)
        self.head = nnx.Linear(hidden, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, channels) to logits (batch, classes)."""
        x = nnx.relu(self.norm1(self.conv1(x)))
        x = nnx.relu(self.norm2(self.conv2(x)))
        x = nnx.relu(self.norm3(self.conv3(x)))
        window = tuple(min(2, side) for side in x.shape[1:3])  # tiny images are 1 x 1 by now
        x = nnx.avg_pool(x, window, strides=window)
        x = x.reshape(x.shape[0], -1)
        x = nnx.relu(self.dense(x))
        return self.head(x)
