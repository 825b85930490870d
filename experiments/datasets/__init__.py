"""TFDS builders that need no TensorFlow: one file a data set, one line here."""

from typing import Any

from experiments.datasets.digits import Digits
from experiments.datasets.fashion_mnist import FashionMNIST

BUILDERS: dict[str, Any] = {"digits": Digits, "fashion_mnist": FashionMNIST}
