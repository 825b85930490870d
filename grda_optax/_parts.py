"""How the groups lie in a leaf: as a view with an axis for each of their indices."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Part(NamedTuple):
    """A leaf as it is cut into groups.

    Attributes:
        leaf: its number among the leaves.
        shape: its own.
        view: its shape once every axis that is cut is split in two or three.
        kept: the axes of the view along which the groups are numbered.
        padding: how many zeros are put behind each axis before it is split.
    """

    leaf: int
    shape: tuple[int, ...]
    view: tuple[int, ...]
    kept: tuple[int, ...]
    padding: tuple[int, ...]

    @property
    def grid(self) -> tuple[int, ...]:
        """How many groups there are along each index."""
        return tuple(self.view[k] for k in self.kept)

    def sum(self, x: jax.Array) -> jax.Array:
        """Of every group."""
        return jnp.sum(self._split(x), axis=self._inside)

    def any(self, x: jax.Array) -> jax.Array:
        """Whether anything is true in a group."""
        return jnp.any(self._split(x), axis=self._inside)

    def spread(self, values: jax.Array) -> jax.Array:
        """The value of its group at every entry of the leaf."""
        shape = [n if k in self.kept else 1 for k, n in enumerate(self.view)]
        whole = jnp.broadcast_to(values.reshape(shape), self.view)
        padded = whole.reshape([n + more for n, more in zip(self.shape, self.padding, strict=True)])
        return padded[tuple(slice(n) for n in self.shape)] if any(self.padding) else padded

    @property
    def _inside(self) -> tuple[int, ...]:
        return tuple(k for k in range(len(self.view)) if k not in self.kept)

    def _split(self, x: jax.Array) -> jax.Array:
        if any(self.padding):
            x = jnp.pad(x, [(0, more) for more in self.padding])
        return x.reshape(self.view)


def along(leaf: int, shape: tuple[int, ...], axis: int, width: int, count: int) -> Part:
    """Units along an axis: ``width`` entries each, all ``count`` of them again and again."""
    at = axis % len(shape)
    split = (shape[at] // (count * width), count, width)
    view = (*shape[:at], *split, *shape[at + 1 :])
    return Part(leaf, shape, view, (at + 1,), (0,) * len(shape))


def tiles(leaf: int, shape: tuple[int, ...], tile: Sequence[int | None]) -> Part:
    """Tiles along the last axes; the others, and those with ``None``, are whole."""
    whole: list[int | None] = [None] * (len(shape) - len(tile))
    sides = [n if t is None else t for n, t in zip(shape, [*whole, *tile], strict=True)]
    counts = [math.ceil(n / t) if t else 1 for n, t in zip(shape, sides, strict=True)]
    view = tuple(x for pair in zip(counts, sides, strict=True) for x in pair)
    padding = tuple(g * t - n for g, t, n in zip(counts, sides, shape, strict=True))
    return Part(leaf, shape, view, tuple(range(0, len(view), 2)), padding)


def sizes(part: Part) -> np.ndarray:
    """How many entries of the leaf there are in every group."""
    if not any(part.padding):
        groups = math.prod(part.grid)
        return np.full(part.grid, math.prod(part.shape) // groups if groups else 0, np.int64)
    # Tiles, of which the last along each axis may be smaller.
    result = np.ones((), np.int64)
    for n, count, side in zip(part.shape, part.view[::2], part.view[1::2], strict=True):
        lengths = np.minimum(side, n - side * np.arange(count))
        result = np.multiply.outer(result, lengths)
    return result
