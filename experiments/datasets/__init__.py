"""TFDS builders that need no TensorFlow, and texts: one file a data set, one line here."""

from types import ModuleType
from typing import Any

from experiments.datasets import cifar, imagenet, python_text
from experiments.datasets.digits import Digits
from experiments.datasets.fashion_mnist import FashionMNIST
from experiments.datasets.generated import Shape

BUILDERS: dict[str, Any] = {
    "digits": Digits,
    "fashion_mnist": FashionMNIST,
    "cifar10": cifar.Cifar10,
    "cifar100": cifar.Cifar100,
}
# Not through TFDS: they are read in milliseconds from files that are there, and a prepared copy
# would outlive the Python whose text it is.
TEXTS: dict[str, ModuleType] = {"python_text": python_text}
SHAPES = {
    "digits": Shape((8, 8, 1), 10, 1437, 360),
    "fashion_mnist": Shape((28, 28, 1), 10, 60_000, 10_000),
    "cifar10": Shape((32, 32, 3), 10, 50_000, 10_000),
    "cifar100": Shape((32, 32, 3), 100, 50_000, 10_000),
    imagenet.NAME: Shape((224, 224, 3), imagenet.CLASSES, 1_281_167, 50_000),
}
"""Of every data set of images, so that a run can be planned without it."""
PIXELS = {
    "cifar10": (cifar.MEAN, cifar.STD),
    "cifar100": (cifar.MEAN, cifar.STD),
    imagenet.NAME: (imagenet.MEAN, imagenet.STD),
}
"""The mean and the deviation of each channel, where the paper's code names them."""
GENERATED = {f"generated_{name}": name for name in ("cifar10", "cifar100", imagenet.NAME)}
"""Made-up images, and of what shape they are."""
