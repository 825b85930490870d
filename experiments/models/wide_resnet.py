"""Wide residual networks: WRN-28-10."""

from functools import partial

import jax
from flax import nnx

from experiments.models.axis import DEVICE_AXIS
from experiments.models.initializers import linear, uniform_bias, uniform_kernel
from experiments.models.widths import Width, units


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int, use_bias: bool, rngs: nnx.Rngs
) -> nnx.Conv:
    return nnx.Conv(
        inputs,
        outputs,
        (kernel, kernel),
        strides=stride,
        # Even on both sides, where "SAME" would put all of it on the far side of a strided one.
        padding=kernel // 2,
        use_bias=use_bias,
        kernel_init=uniform_kernel,
        bias_init=uniform_bias(kernel * kernel * inputs),
        rngs=rngs,
    )


_norm = partial(nnx.BatchNorm, axis_name=DEVICE_AXIS)


class Block(nnx.Module):
    """Two normalised and rectified 3 x 3 convolutions, added to what came in."""

    def __init__(
        self,
        inputs: int,
        inner: int,
        outputs: int,
        stride: int,
        projects: bool,
        use_bias: bool,
        rngs: nnx.Rngs,
    ):
        """Makes the layers; where it ``projects``, the shortcut is a 1 x 1 convolution."""
        self.norm1 = _norm(inputs, momentum=0.9, rngs=rngs)
        self.conv1 = _conv(inputs, inner, 3, 1, use_bias, rngs)
        self.norm2 = _norm(inner, momentum=0.9, rngs=rngs)
        # The original strides in the first; the code that the published numbers come from, here.
        self.conv2 = _conv(inner, outputs, 3, stride, use_bias, rngs)
        self.projects = projects
        if self.projects:
            self.shortcut = _conv(inputs, outputs, 1, stride, use_bias, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, channels) to another such map."""
        y = self.conv1(nnx.relu(self.norm1(x)))
        y = self.conv2(nnx.relu(self.norm2(y)))
        return y + (self.shortcut(x) if self.projects else x)


class WideResNet(nnx.Module):
    """WRN-28-10: three stages of four blocks, with 160, 320 and 640 channels.

    Zagoruyko and Komodakis, *Wide residual networks*, BMVC 2016: 36,479,194 weights for ten
    classes. The paper on gRDA trained it with a bias in every convolution: 36,489,290.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        num_classes: int,
        *,
        rngs: nnx.Rngs,
        depth: int = 28,
        widening: int = 10,
        use_bias: bool = True,
        width: Width = 1.0,
    ):
        """Makes the layers for images of this shape; the depth is a multiple of six, and four.

        Every ``width`` times as wide; or with so many units: of the first convolution, and of each
        stage those of all its blocks' outputs, and those inside each block.
        """
        self.blocks = (depth - 4) // 6
        stages = [16 * widening * 2**stage for stage in range(3)]
        full = (16, *(size for size in stages for _ in range(1 + self.blocks)))
        sizes = iter(units(full, width))
        channels = next(sizes)
        self.conv1 = _conv(image_shape[-1], channels, 3, 1, use_bias, rngs)
        for stage in (1, 2, 3):
            outputs = next(sizes)
            for i in range(1, self.blocks + 1):
                stride = 2 if stage > 1 and i == 1 else 1
                # As at full width: a narrow one can have as many outputs as inputs by chance.
                projects = i == 1 and (stride != 1 or widening != 1)
                block = Block(channels, next(sizes), outputs, stride, projects, use_bias, rngs)
                setattr(self, f"block{stage}_{i}", block)
                channels = outputs
        # The code of the published numbers sets PyTorch's 0.9, which forgets all but a tenth.
        self.norm = _norm(channels, momentum=0.1, rngs=rngs)
        self.head = linear(channels, num_classes, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, channels) to logits (batch, classes)."""
        x = self.conv1(x)
        for stage in (1, 2, 3):
            for i in range(1, self.blocks + 1):
                x = getattr(self, f"block{stage}_{i}")(x)
        x = nnx.relu(self.norm(x)).mean((1, 2))
        return self.head(x)
