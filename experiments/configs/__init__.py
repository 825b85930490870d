"""Settings that belong together, each under a name: one file a preset, one line in PRESETS."""

from types import ModuleType

from experiments.configs import (
    digits,
    fashion_mnist,
    fashion_mnist_cnn,
    fashion_mnist_cnn_recipe,
    fashion_mnist_recipe,
)

PRESETS: dict[str, ModuleType] = {
    "digits": digits,
    "fashion_mnist": fashion_mnist,
    "fashion_mnist_cnn": fashion_mnist_cnn,
    "fashion_mnist_recipe": fashion_mnist_recipe,
    "fashion_mnist_cnn_recipe": fashion_mnist_cnn_recipe,
}
