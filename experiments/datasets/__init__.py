"""TFDS builders that need no TensorFlow, and texts: one file a data set, one line here."""

from types import ModuleType
from typing import Any

from experiments.datasets import python_text
from experiments.datasets.digits import Digits
from experiments.datasets.fashion_mnist import FashionMNIST

BUILDERS: dict[str, Any] = {"digits": Digits, "fashion_mnist": FashionMNIST}
# Not through TFDS: they are read in milliseconds from files that are there, and a prepared copy
# would outlive the Python whose text it is.
TEXTS: dict[str, ModuleType] = {"python_text": python_text}
