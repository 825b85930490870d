"""Settings that belong together, each under a name: one file a preset, one line in PRESETS."""

from types import ModuleType

from experiments.configs import (
    char_transformer,
    digits,
    fashion_mnist,
    fashion_mnist_cnn,
    fashion_mnist_cnn_recipe,
    fashion_mnist_recipe,
)

PRESETS: dict[str, ModuleType] = {
    "digits": digits,
    "char_transformer": char_transformer,
    "fashion_mnist": fashion_mnist,
    "fashion_mnist_cnn": fashion_mnist_cnn,
    "fashion_mnist_recipe": fashion_mnist_recipe,
    "fashion_mnist_cnn_recipe": fashion_mnist_cnn_recipe,
}
