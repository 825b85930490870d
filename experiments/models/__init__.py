"""Networks as pure functions of their parameters: one file a network, one line in MODELS."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.checks import check_choice
from experiments.models.char_transformer import CharTransformer
from experiments.models.lenet5 import LeNet5
from experiments.models.mlp import MLP
from experiments.models.resnet50 import ResNet50
from experiments.models.small_cnn import SmallCNN
from experiments.models.vgg import VGG16
from experiments.models.wide_resnet import WideResNet
from experiments.models.widths import Width

MODELS: dict[str, Callable[..., nnx.Module]] = {
    "mlp": MLP,
    "small_cnn": SmallCNN,
    "small_cnn_quarter": partial(SmallCNN, width=1 / 4),
    "small_cnn_sixteenth": partial(SmallCNN, width=1 / 16),
    "lenet5": LeNet5,
    "vgg16": VGG16,
    "vgg16_bn": partial(VGG16, batch_norm=True),
    "wrn_28_10": WideResNet,
    "resnet50": ResNet50,
    "char_transformer": CharTransformer,
}
WIDTHS = dict.fromkeys(MODELS, 1.0) | {"small_cnn_quarter": 1 / 4, "small_cnn_sixteenth": 1 / 16}
"""How wide their hidden layers are, of the network that the class makes unasked."""
ENDS = {
    "mlp": ("dense1", "head"),
    "small_cnn": ("conv1", "head"),
    "small_cnn_quarter": ("conv1", "head"),
    "small_cnn_sixteenth": ("conv1", "head"),
    "lenet5": ("conv1", "head"),
    "vgg16": ("conv1_1", "head"),
    "vgg16_bn": ("conv1_1", "head"),
    "wrn_28_10": ("conv1", "head"),
    "resnet50": ("conv1", "head"),
    "char_transformer": ("embedding", "head"),
}
"""The first and the last layer, which some methods prune less."""
TEXT_MODELS = ("char_transformer",)
"""Those that read text: a row of symbols, with the logits of what follows each."""
Pixel = float | tuple[float, ...]
"""One number for every channel, or one for each."""


class Model(NamedTuple):
    """A network without state of its own.

    ``init(key) -> (params, statistics)``, both nested dicts of arrays; ``statistics`` are
    BatchNorm's running means and variances, and what dropout draws its masks from.
    ``apply(params, statistics, inputs, train) -> (logits, statistics)``; with ``train`` it has to
    run under an axis named ``DEVICE_AXIS``, over which BatchNorm takes its batch.
    """

    init: Callable[[jax.Array], tuple[Any, Any]]
    apply: Callable[[Any, Any, jax.Array, bool], tuple[jax.Array, Any]]


def build(
    name: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    mean: Pixel = 0.0,
    std: Pixel = 1.0,
    width: Width | None = None,
) -> Model:
    """Turns a flax.nnx module into pure functions; the only place that does.

    Args:
        name: one of MODELS.
        input_shape: of the uint8 inputs that ``apply`` takes: (height, width, channels) of images,
            or (characters,) of text.
        num_classes: the number of logits.
        mean: of the pixels, from 0 to 1; it is taken off them.
        std: of the pixels; they are divided by it. Both may be one a channel.
        width: every hidden layer has this many times the units of the network ``name``; or how
            many each of them has, in the order of :data:`experiments.models.channels.TIES`.

    Raises:
        ValueError: the network reads images and the inputs are text, or the other way round; or
            ``width`` has not as many numbers as there are layers.
    """
    text = len(input_shape) == 1
    fitting = tuple(x for x in MODELS if (x in TEXT_MODELS) == text)
    check_choice(f"model (for {'text' if text else 'images'})", name, fitting)

    sized: dict[str, Width] = {}
    if width is not None:
        sized["width"] = width if isinstance(width, tuple) else WIDTHS[name] * width

    def create(key: jax.Array) -> Any:
        module = MODELS[name](input_shape, num_classes, rngs=nnx.Rngs(params=key), **sized)
        return nnx.split(module, nnx.Param, nnx.BatchStat)

    def init(key: jax.Array) -> tuple[Any, Any]:
        _, params, statistics = create(key)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(statistics)

    taken, scale = (np.asarray(x, np.float32) for x in (mean, std))
    graph, *blank = jax.eval_shape(create, jax.random.key(0))

    def apply(
        params: Any, statistics: Any, inputs: jax.Array, train: bool
    ) -> tuple[jax.Array, Any]:
        states = copy.deepcopy(blank)
        for state, values in zip(states, (params, statistics), strict=True):
            nnx.replace_by_pure_dict(state, values)
        module = nnx.merge(graph, *states)
        module.train() if train else module.eval()
        if not text:  # in the dtype of the weights, which is that of all that follows
            dtype = jax.tree.leaves(params)[0].dtype
            inputs = ((inputs.astype(jnp.float32) / 255 - taken) / scale).astype(dtype)
        logits = module(inputs)
        return logits, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))

    return Model(init, apply)
