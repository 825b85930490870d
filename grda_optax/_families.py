r"""Groups of weights: their magnitudes, and how they are shrunk, frozen and held at zero.

A magnitude is to a group what ``|v|`` is to a weight: the threshold rules see nothing else. That of
a group of :math:`p` weights is :math:`r = \lVert v_g \rVert / \sqrt p`, so that groups of all
sizes compare with one another and with single weights.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ._nonzero import beside_zero
from ._parts import Part

Leaves: TypeAlias = list[jax.Array]
Operator: TypeAlias = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class NormFamily:
    """Groups that are numbered together, and shrunk by their norms."""

    members: tuple[Part, ...]
    followers: tuple[Part, ...]
    sizes: np.ndarray
    scale: float

    @property
    def leaves(self) -> tuple[int, ...]:
        """The leaves whose weights are shrunk."""
        return tuple(part.leaf for part in self.members)

    def magnitudes(self, v: Leaves) -> jax.Array:
        """The root of the mean square of every group."""
        squares = [part.sum(jnp.square(v[part.leaf])) for part in self.members]
        total = sum(squares[1:], start=squares[0])
        return jnp.sqrt(total / jnp.asarray(np.maximum(self.sizes, 1), total.dtype))

    def read(self, v: Leaves, out: Leaves, r: jax.Array, h: jax.Array, prox: Operator) -> jax.Array:
        """Shrinks the members of ``out``; returns which groups are zero by it."""
        new, gone = self._shrunk(r, h, prox)
        # A GPU's quotient of two equal numbers is not always 1, and what is kept stays as it is.
        kept = (h == 0) | (new == r)
        factor = jnp.where(kept, jnp.ones_like(r), new / jnp.where(r == 0, 1, r))
        for part in self.members:
            x = v[part.leaf]
            w = x * part.spread(factor).astype(x.dtype)
            # Not `-0.0`, also where the product is lost in rounding.
            zero = part.spread(gone) | (w == 0)
            out[part.leaf] = jnp.where(zero, jnp.zeros_like(x), w)
        return gone

    def follow(self, out: Leaves, gone: jax.Array) -> None:
        """Sets the followers of these groups to zero."""
        for part in self.followers:
            _clear(out, part, gone)

    def settle(
        self, v: Leaves, out: Leaves, r: jax.Array, h: jax.Array, prox: Operator, chosen: jax.Array
    ) -> jax.Array:
        """``read``, but it is the chosen groups that are zero, and no others."""
        _, gone = self._shrunk(r, h, prox)
        self.read(v, out, r, h, prox)
        for part in self.members:
            x = v[part.leaf]
            spared = part.spread(gone & ~chosen) & (x != 0)
            out[part.leaf] = jnp.where(spared, beside_zero(jnp.zeros_like(x), x), out[part.leaf])
            _clear(out, part, chosen)
        return chosen

    def hold(self, total: Leaves, v: Leaves) -> jax.Array:
        """Groups of ``total`` are zero where those of ``v`` are, and only there."""
        alive = self._alive(v)
        for part in self.members:
            _clear(total, part, ~alive)
        lost = alive & ~self._alive(total)
        for part in self.members:
            x = total[part.leaf]
            saved = jnp.where(part.spread(lost), beside_zero(x, v[part.leaf]), x)
            total[part.leaf] = saved
        return ~alive

    def _alive(self, v: Leaves) -> jax.Array:
        alive = self.members[0].any(v[self.members[0].leaf] != 0)
        for part in self.members[1:]:
            alive |= part.any(v[part.leaf] != 0)
        return alive

    def _shrunk(self, r: jax.Array, h: jax.Array, prox: Operator) -> tuple[jax.Array, jax.Array]:
        new = prox(r, h)
        return new, (new == 0) & (h != 0)


@dataclasses.dataclass(frozen=True)
class NofMFamily:
    """A leaf of which the ``n`` largest of every ``m`` are free."""

    part: Part
    axis: int
    n: int
    m: int
    scale: float

    @property
    def leaves(self) -> tuple[int, ...]:
        """The leaf whose weights are shrunk."""
        return (self.part.leaf,)

    def magnitudes(self, v: Leaves) -> jax.Array:
        """Of every weight; infinite of those that are free."""
        x = jnp.abs(v[self.part.leaf])
        return jnp.where(self._free(x), jnp.full_like(x, jnp.inf), x)

    def read(self, v: Leaves, out: Leaves, r: jax.Array, h: jax.Array, prox: Operator) -> jax.Array:
        """Thresholds those that are not free."""
        x = v[self.part.leaf]
        w = jnp.where((h == 0) | jnp.isinf(r), x, prox(x, h))
        out[self.part.leaf] = jnp.where(w == 0, jnp.zeros_like(w), w)
        return w == 0

    def follow(self, out: Leaves, gone: jax.Array) -> None:
        """Nothing does."""

    def settle(
        self, v: Leaves, out: Leaves, r: jax.Array, h: jax.Array, prox: Operator, chosen: jax.Array
    ) -> jax.Array:
        """``read``, but it is the chosen weights that are zero, and no others."""
        x = v[self.part.leaf]
        self.read(v, out, r, h, prox)
        w = out[self.part.leaf]
        w = jnp.where(x == 0, w, beside_zero(w, x))
        chosen = chosen & ~jnp.isinf(r)
        out[self.part.leaf] = jnp.where(chosen, jnp.zeros_like(w), w)
        return chosen

    def hold(self, total: Leaves, v: Leaves) -> jax.Array:
        """Weights of ``total`` are zero where those of ``v`` are, and only there."""
        i, x = self.part.leaf, v[self.part.leaf]
        total[i] = jnp.where(x == 0, jnp.zeros_like(x), beside_zero(total[i], x))
        return x == 0

    def _free(self, x: jax.Array) -> jax.Array:
        """Those that fewer than ``n`` of their block precede, by size and then by position."""
        at = self.axis
        blocks = x.reshape(*x.shape[:at], x.shape[at] // self.m, self.m, *x.shape[at + 1 :])
        place = jax.lax.broadcasted_iota(jnp.int32, blocks.shape, at + 1)
        rank = jnp.zeros(blocks.shape, jnp.int32)
        for j in range(self.m):
            rival = jax.lax.slice_in_dim(blocks, j, j + 1, axis=at + 1)
            rival = jnp.broadcast_to(rival, blocks.shape)
            rank += (rival > blocks) | ((rival == blocks) & (place > j))
        return (rank < self.n).reshape(x.shape)


Family: TypeAlias = NormFamily | NofMFamily


def read_groups(
    families: tuple[Family, ...],
    leaves: Leaves,
    magnitudes: Any,
    heights: Any,
    prox: Any,
    count: jax.Array,
) -> Leaves:
    """The leaves as weights, at a threshold for every family; ``prox`` is given the count."""
    out = list(leaves)
    gone = [
        family.read(leaves, out, r, h, lambda v, h: prox(v, h, count))
        for family, r, h in zip(families, magnitudes, heights, strict=True)
    ]
    follow_groups(families, out, gone)
    return out


def follow_groups(families: tuple[Family, ...], out: Leaves, gone: list[jax.Array]) -> None:
    """After all of them are read, since a follower may be another family's member."""
    for family, zero in zip(families, gone, strict=True):
        family.follow(out, zero)


def _clear(out: Leaves, part: Part, gone: jax.Array) -> None:
    x = out[part.leaf]
    out[part.leaf] = jnp.where(part.spread(gone), jnp.zeros_like(x), x)
