"""VGG16 for 32 x 32 images."""

import itertools
from functools import partial

import jax
from flax import nnx

from experiments.models.axis import DEVICE_AXIS
from experiments.models.dropout import Dropout
from experiments.models.initializers import linear, normal_fan_out
from experiments.models.widths import Width, units

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
HIDDEN = 512


class VGG16(nnx.Module):
    """Thirteen 3 x 3 convolutions and three dense layers.

    Simonyan and Zisserman, *Very deep convolutional networks for large-scale image recognition*,
    ICLR 2015, configuration D, with 512 hidden units as it is usual on CIFAR. The paper on gRDA
    trained it without BatchNorm, with dropout of 1/2 before two of the dense layers (its published
    logs name every layer): 15,245,130 weights for ten classes. With BatchNorm, and then without
    dropout, there are 15,253,578.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        num_classes: int,
        *,
        rngs: nnx.Rngs,
        batch_norm: bool = False,
        width: Width = 1.0,
    ):
        """Makes the layers for images of this shape, with ``width`` times the units, or so many."""
        *convolutions, first, second = units((*itertools.chain(*STAGES), HIDDEN, HIDDEN), width)
        sizes = iter(convolutions)
        conv = partial(nnx.Conv, kernel_size=(3, 3), kernel_init=normal_fan_out, rngs=rngs)
        rows, columns, channels = image_shape
        self.batch_norm = batch_norm
        for stage, full in enumerate(STAGES, 1):
            for i, size in enumerate(itertools.islice(sizes, len(full)), 1):
                setattr(self, f"conv{stage}_{i}", conv(channels, size))
                if batch_norm:
                    norm = nnx.BatchNorm(size, momentum=0.9, axis_name=DEVICE_AXIS, rngs=rngs)
                    setattr(self, f"norm{stage}_{i}", norm)
                channels = size
            rows, columns = max(1, rows // 2), max(1, columns // 2)
        self.dense1 = linear(channels * rows * columns, first, rngs)
        self.dense2 = linear(first, second, rngs)
        self.head = linear(second, num_classes, rngs)
        if not batch_norm:
            self.dropout1, self.dropout2 = Dropout(0.5, rngs=rngs), Dropout(0.5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, channels) to logits (batch, classes)."""
        for stage, sizes in enumerate(STAGES, 1):
            for i in range(1, len(sizes) + 1):
                x = getattr(self, f"conv{stage}_{i}")(x)
                if self.batch_norm:
                    x = getattr(self, f"norm{stage}_{i}")(x)
                x = nnx.relu(x)
            window = tuple(min(2, side) for side in x.shape[1:3])  # of smaller images 1 is left
            x = nnx.max_pool(x, window, strides=window)
        x = x.reshape(x.shape[0], -1)
        x = nnx.relu(self.dense1(x if self.batch_norm else self.dropout1(x)))
        x = nnx.relu(self.dense2(x if self.batch_norm else self.dropout2(x)))
        return self.head(x)
