"""Settings that belong together, each under a name: one file a preset, one line in PRESETS."""

import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments.config import Config, Runtime
from experiments.configs import (
    char_transformer,
    cifar10_vgg16,
    cifar10_vgg16_recipe,
    cifar10_wrn_28_10,
    cifar10_wrn_28_10_recipe,
    cifar100_vgg16,
    cifar100_vgg16_recipe,
    cifar100_wrn_28_10,
    cifar100_wrn_28_10_recipe,
    digits,
    fashion_mnist,
    fashion_mnist_cnn,
    fashion_mnist_cnn_recipe,
    fashion_mnist_recipe,
    imagenet_resnet50,
    imagenet_resnet50_drop,
    imagenet_resnet50_recipe,
    imagenet_resnet50_steps,
)

PRESETS: dict[str, ModuleType] = {
    "digits": digits,
    "char_transformer": char_transformer,
    "fashion_mnist": fashion_mnist,
    "fashion_mnist_cnn": fashion_mnist_cnn,
    "fashion_mnist_recipe": fashion_mnist_recipe,
    "fashion_mnist_cnn_recipe": fashion_mnist_cnn_recipe,
    "cifar10_vgg16": cifar10_vgg16,
    "cifar10_vgg16_recipe": cifar10_vgg16_recipe,
    "cifar10_wrn_28_10": cifar10_wrn_28_10,
    "cifar10_wrn_28_10_recipe": cifar10_wrn_28_10_recipe,
    "cifar100_vgg16": cifar100_vgg16,
    "cifar100_vgg16_recipe": cifar100_vgg16_recipe,
    "cifar100_wrn_28_10": cifar100_wrn_28_10,
    "cifar100_wrn_28_10_recipe": cifar100_wrn_28_10_recipe,
    "imagenet_resnet50": imagenet_resnet50,
    "imagenet_resnet50_drop": imagenet_resnet50_drop,
    "imagenet_resnet50_steps": imagenet_resnet50_steps,
    "imagenet_resnet50_recipe": imagenet_resnet50_recipe,
}


def default_name(preset: str, config: Config) -> str:
    """The folder of a run that was given no name: the preset, and what differs from it."""
    fingerprint = config.fingerprint(PRESETS[preset].CONFIG)
    return f"{preset}-{fingerprint}" if fingerprint else preset


def folder_of(config: Config, preset: str) -> Path:
    """Where the command of one method leaves its run, and others find it that start from it."""
    (method,) = config.method
    return Runtime().runs_dir / default_name(preset, config) / method


def command(config: Config, preset: str) -> str:
    """The command line that repeats a run."""
    words = ["python", "-m", "experiments.run", preset]
    for name, (value, _) in config.differences(PRESETS[preset].CONFIG).items():
        words += _option(name.replace("_", "-"), value)
    return shlex.join(words)


def _option(name: str, value: Any) -> list[str]:
    """The words that set one field, as tyro reads them."""
    if isinstance(value, bool):
        group, dot, last = name.rpartition(".")
        return [f"--{group}{dot}{'' if value else 'no-'}{last}"]
    return [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
