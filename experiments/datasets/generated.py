"""Made-up images of the shapes of real data sets: to try a config with nothing to download.

Each class is a pattern of its own under much noise, so that a network learns something; what it
learns says nothing about the real data.
"""

import functools
from typing import Any, NamedTuple

import numpy as np

GRID = 8
"""A pattern is so many squares wide and high."""
_SIGNAL, _NOISE = 40, 60
BLOCK = 1000


class Shape(NamedTuple):
    """How large a data set is."""

    image: tuple[int, int, int]
    num_classes: int
    train: int
    test: int


@functools.lru_cache(maxsize=4)
def patterns(num_classes: int, channels: int) -> np.ndarray:
    """(classes, 8, 8, channels), of variance 1."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((num_classes, GRID, GRID, channels), np.float32)


def examples(shape: Shape, test: bool, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Some images and their labels, the same each time; the classes take turns."""
    height, width, channels = shape.image
    labels = np.asarray((first + np.arange(count)) % shape.num_classes, np.int32)
    rows, columns = (np.arange(n) * GRID // n for n in (height, width))
    signal = patterns(shape.num_classes, channels)[labels][:, rows][:, :, columns]
    noise = np.random.default_rng([int(test), first]).standard_normal(signal.shape, np.float32)
    return np.clip(127 + _SIGNAL * signal + _NOISE * noise, 0, 255).astype(np.uint8), labels


def arrays(shape: Shape, test: bool) -> tuple[np.ndarray, np.ndarray]:
    """A whole split in memory."""
    count = shape.test if test else shape.train
    blocks = [
        examples(shape, test, start, min(BLOCK, count - start)) for start in range(0, count, BLOCK)
    ]
    images, labels = zip(*blocks, strict=True)
    return np.concatenate(images), np.concatenate(labels)


class Source:
    """A split whose images are made when they are asked for."""

    def __init__(self, shape: Shape, test: bool):
        """Takes the shape of the data set."""
        self._shape, self._test = shape, test

    def __len__(self) -> int:
        """How many there are."""
        return self._shape.test if self._test else self._shape.train

    def __getitem__(self, index: Any) -> dict[str, Any]:
        """One image as an array, and its label."""
        images, labels = examples(self._shape, self._test, int(index), 1)
        return {"image": images[0], "label": int(labels[0])}
