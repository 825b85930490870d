"""What the networks here read where they are timed, and what one of them costs."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import models
from experiments.flops import forward_flops
from experiments.models.widths import Width

PyTree = Any
FASHION_MNIST, CIFAR = ((28, 28, 1), 10), ((32, 32, 3), 10)
INPUTS: dict[str, tuple[tuple[int, ...], int]] = {
    "mlp": FASHION_MNIST,
    "small_cnn": FASHION_MNIST,
    "small_cnn_quarter": FASHION_MNIST,
    "small_cnn_sixteenth": FASHION_MNIST,
    "lenet5": FASHION_MNIST,
    "vgg16": CIFAR,
    "vgg16_bn": CIFAR,
    "wrn_28_10": CIFAR,
    "resnet50": ((224, 224, 3), 1000),
    "char_transformer": ((64,), 97),
}
"""Of every network the shape of one example, and how many logits there are."""


class Network(NamedTuple):
    """A network with its weights."""

    apply: Callable[[PyTree, PyTree, jax.Array], jax.Array]
    params: PyTree
    statistics: PyTree

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Its logits."""
        return self.apply(self.params, self.statistics, inputs)

    def block(self, inputs: jax.Array, steps: int) -> Callable[[], None]:
        """Reads the inputs so many times, one after the other."""

        def run() -> None:
            for _ in range(steps):
                jax.block_until_ready(self(inputs))

        return run


def build(name: str, width: Width | None = None) -> models.Model:
    """The network for its inputs."""
    return models.build(name, *INPUTS[name], width=width)


def random(model: models.Model, kept: float = 1.0) -> tuple[PyTree, PyTree]:
    """Params and statistics of which no two units are alike, also in their biases and norms.

    Kernels are normal, so that relus keep the size of what comes in (He et al., 2015).

    Args:
        model: as :func:`build` makes it.
        kept: the fraction of a layer's inputs that is left once others are set to zero.
    """
    rng = np.random.default_rng(0)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):  # what dropout draws its masks from
            return jnp.zeros(leaf.shape, leaf.dtype)
        x = rng.standard_normal(leaf.shape, np.float32)
        if x.ndim > 1:
            return jnp.asarray(x * math.sqrt(2 / (kept * math.prod(x.shape[:-1]))))
        positive = path[-1].key in ("scale", "var")
        return jnp.asarray(1 + 0.1 * np.abs(x) if positive else 0.1 * x)

    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params, statistics = jax.tree_util.tree_map_with_path(draw, shapes)
    return params, statistics


def compiled(model: models.Model, params: PyTree, statistics: PyTree) -> Network:
    """The network as it is used, compiled when it is first."""
    return Network(jax.jit(lambda p, s, x: model.apply(p, s, x, False)[0]), params, statistics)


def examples(name: str, n: int) -> jax.Array:
    """So many random inputs."""
    shape, classes = INPUTS[name]
    symbols = classes if name in models.TEXT_MODELS else 256
    return jnp.asarray(np.random.default_rng(0).integers(0, symbols, (n, *shape)).astype(np.uint8))


def size(name: str, width: Width | None, *trees: PyTree) -> dict[str, int]:
    """The operations of one example, and the bytes in float32 of what is in the trees."""
    return {
        "flops": forward_flops(build(name, width), INPUTS[name][0]),
        "bytes": sum(4 * math.prod(np.shape(x)) for x in jax.tree.leaves(trees)),
    }
