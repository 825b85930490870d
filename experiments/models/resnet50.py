"""ResNet-50 for ImageNet."""

from functools import partial

import jax
from flax import nnx

from experiments.models.axis import DEVICE_AXIS
from experiments.models.initializers import linear, normal_fan_out
from experiments.models.widths import Width, units

STAGES = (3, 4, 6, 3)
CHANNELS = (64, 128, 256, 512)
EXPANSION = 4
FULL = (
    CHANNELS[0],
    *(
        size
        for channels, blocks in zip(CHANNELS, STAGES, strict=True)
        for size in (EXPANSION * channels, *(2 * blocks * (channels,)))
    ),
)
"""The units of the first convolution, and of each stage its outputs', and its blocks' inside."""


def _conv(inputs: int, outputs: int, kernel: int, stride: int, rngs: nnx.Rngs) -> nnx.Conv:
    return nnx.Conv(
        inputs,
        outputs,
        (kernel, kernel),
        strides=stride,
        # Even on both sides, where "SAME" would put all of it on the far side of a strided one.
        padding=kernel // 2,
        use_bias=False,
        kernel_init=normal_fan_out,
        rngs=rngs,
    )


_norm = partial(nnx.BatchNorm, momentum=0.9, axis_name=DEVICE_AXIS)


class Bottleneck(nnx.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions to so many channels each, added to what came in."""

    def __init__(
        self,
        inputs: int,
        sizes: tuple[int, int, int],
        stride: int,
        projects: bool,
        rngs: nnx.Rngs,
    ):
        """Makes the layers; where it ``projects``, the shortcut is a 1 x 1 convolution."""
        first, second, outputs = sizes
        self.conv1, self.norm1 = _conv(inputs, first, 1, 1, rngs), _norm(first, rngs=rngs)
        # Version 1.5 strides here and not in the first, as PyTorch's networks do.
        self.conv2 = _conv(first, second, 3, stride, rngs)
        self.norm2 = _norm(second, rngs=rngs)
        self.conv3, self.norm3 = _conv(second, outputs, 1, 1, rngs), _norm(outputs, rngs=rngs)
        self.projects = projects
        if self.projects:
            self.shortcut = _conv(inputs, outputs, 1, stride, rngs)
            self.shortcut_norm = _norm(outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, channels) to another such map."""
        y = nnx.relu(self.norm1(self.conv1(x)))
        y = nnx.relu(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        return nnx.relu(y + (self.shortcut_norm(self.shortcut(x)) if self.projects else x))


class ResNet50(nnx.Module):
    """He, Zhang, Ren and Sun, *Deep residual learning for image recognition*, CVPR 2016.

    25,557,032 weights for 1,000 classes.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        num_classes: int,
        *,
        rngs: nnx.Rngs,
        width: Width = 1.0,
    ):
        """Makes the layers for images of this shape.

        Every ``width`` times as wide; or with so many units: of the first convolution, and of each
        stage those of all its blocks' outputs, and those of the two inner layers of each block.
        """
        sizes = iter(units(FULL, width))
        inputs = next(sizes)
        self.conv1 = _conv(image_shape[-1], inputs, 7, 2, rngs)
        self.norm1 = _norm(inputs, rngs=rngs)
        for stage, blocks in enumerate(STAGES, 1):
            outputs = next(sizes)
            for i in range(1, blocks + 1):
                stride = 2 if stage > 1 and i == 1 else 1
                inner = next(sizes), next(sizes)
                # As at full width: a narrow one can have as many outputs as inputs by chance.
                block = Bottleneck(inputs, (*inner, outputs), stride, i == 1, rngs)
                setattr(self, f"block{stage}_{i}", block)
                inputs = outputs
        self.head = linear(inputs, num_classes, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, channels) to logits (batch, classes)."""
        x = nnx.relu(self.norm1(self.conv1(x)))
        x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for stage, blocks in enumerate(STAGES, 1):
            for i in range(1, blocks + 1):
                x = getattr(self, f"block{stage}_{i}")(x)
        return self.head(x.mean((1, 2)))
