"""ResNet-50 for ImageNet."""

from functools import partial

import jax
from flax import nnx

from experiments.models.axis import DEVICE_AXIS
from experiments.models.initializers import linear, normal_fan_out

STAGES = (3, 4, 6, 3)
EXPANSION = 4


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
    """1 x 1 to ``channels``, 3 x 3, and 1 x 1 to four times as many, added to what came in."""

    def __init__(self, inputs: int, channels: int, stride: int, rngs: nnx.Rngs):
        """Makes the layers; where the shapes differ, the shortcut is a 1 x 1 convolution."""
        outputs = EXPANSION * channels
        self.conv1, self.norm1 = _conv(inputs, channels, 1, 1, rngs), _norm(channels, rngs=rngs)
        # Version 1.5 strides here and not in the first, as PyTorch's networks do.
        self.conv2 = _conv(channels, channels, 3, stride, rngs)
        self.norm2 = _norm(channels, rngs=rngs)
        self.conv3, self.norm3 = _conv(channels, outputs, 1, 1, rngs), _norm(outputs, rngs=rngs)
        self.projects = stride != 1 or inputs != outputs
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

    def __init__(self, image_shape: tuple[int, ...], num_classes: int, *, rngs: nnx.Rngs):
        """Makes the layers for images of this shape."""
        self.conv1, self.norm1 = _conv(image_shape[-1], 64, 7, 2, rngs), _norm(64, rngs=rngs)
        inputs = 64
        for stage, blocks in enumerate(STAGES, 1):
            channels = 64 * 2 ** (stage - 1)
            for i in range(1, blocks + 1):
                stride = 2 if stage > 1 and i == 1 else 1
                setattr(self, f"block{stage}_{i}", Bottleneck(inputs, channels, stride, rngs))
                inputs = EXPANSION * channels
        self.head = linear(inputs, num_classes, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, channels) to logits (batch, classes)."""
        x = nnx.relu(self.norm1(self.conv1(x)))
        x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for stage, blocks in enumerate(STAGES, 1):
            for i in range(1, blocks + 1):
                x = getattr(self, f"block{stage}_{i}")(x)
        return self.head(x.mean((1, 2)))
