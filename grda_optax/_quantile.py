"""Quantiles and selections by counting alone: no sort, and nothing moves between devices.

A pass over the weights counts how many are at most each of a few candidates, for every group of
leaves at once. The candidates then close in on the one that is looked for. Where the weights are
split over devices, the counts are all that has to be summed over them.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._counting import AxisName, Groups, count_where, group_sizes, shards_of


class Pass(NamedTuple):
    """What one pass over the weights tries: so many candidates are counted at once."""

    factors: tuple[float, ...]
    """Of the guess, in the first pass."""
    beside: tuple[float, ...]
    """Where a line reaches the rank, and so far beside it, as fractions of the bracket."""
    parts: int
    """Of equal length, into which the others cut the bracket."""


OFTEN = Pass((0.98, 0.9997, 1.0003, 1.01, 1.05, 1.3), (-0.02, 0, 0.02), 4)
"""Six: on a CPU they cost little more time than two. Eight would save one pass in ten, and cost as
much more in each."""
ONCE = Pass((1, 1), (0,), 2)
"""Two, which compile faster; the passes are more, but only of one update."""

Bracket = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]
"""Of every group the ends, the counts there, and the candidates of the next pass."""


def quantile(
    groups: Groups,
    ranks: jax.Array,
    *,
    slack: float,
    guess: jax.Array,
    axis_name: AxisName = None,
) -> jax.Array:
    r"""For every group a threshold that so many of its weights do not exceed.

    With :math:`c(t) = |\{ j : |v_j| \le t \}|` it is an :math:`h` with

    .. math:: k \le c(h) \le k + \text{slack} \cdot d,

    and where ties leave none, the smallest with :math:`c(h) \ge k`. With a slack of 0 it may lie
    anywhere from the weight of rank :math:`k` to below the next one.

    It is looked for among the floating point numbers themselves, whose bits, read as integers, are
    in the same order; so no weight can hide between two candidates.

    Args:
        groups: leaves, real floating point, at least one group.
        ranks: :math:`k` of every group.
        slack: the fraction of a group's weights that may be counted too many, rounded down: it
            saves the last passes, and 0 makes the count exact.
        guess: a first estimate for every group, such as the quantile of the last time.
        axis_name: the mapped axis over which the leaves are split, if any.

    Returns:
        A threshold for every group, in the dtype of ``guess``; 0 where the rank is 0.
    """
    sizes = group_sizes(groups, axis_name)
    return _heights(groups, ranks, OFTEN, sizes, slack, guess, axis_name)[0]


def _heights(
    groups: Groups,
    ranks: jax.Array,
    tries: Pass,
    sizes: Sequence[int],
    slack: float,
    guess: jax.Array,
    axis_name: AxisName,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The thresholds of ``quantile``, and ``least`` and ``most`` of ``_search``."""
    dtype = guess.dtype
    integer = jnp.int64 if dtype == jnp.float64 else jnp.int32
    numbers = _numbers(groups)

    def bits(x: jax.Array) -> jax.Array:
        return jax.lax.bitcast_convert_type(x, integer)

    def value(b: jax.Array) -> jax.Array:
        return jax.lax.bitcast_convert_type(b, dtype)

    def count(candidates: jax.Array) -> jax.Array:
        # Together, so that no compiler takes the magnitudes out of the loop: to write them all down
        # would cost more than a pass, and the memory.
        heights, number, leaves = jax.lax.optimization_barrier(  # type: ignore[no-untyped-call]
            (value(candidates), numbers, groups)
        )
        rows = [list(_row(heights, k)) for k in number]
        return count_where(groups, lambda i, j: _at_most(leaves[i][j], rows[i]), sizes, axis_name)

    factors = jnp.array(tries.factors, dtype)
    found, least, most = _search(
        count,
        ranks,
        tries,
        sizes=sizes,
        slack=slack,
        top=bits(jnp.full([len(groups)], jnp.inf, dtype)),
        first=bits(jnp.abs(guess)[:, None] * factors[None]),
        value=value,
        position=bits,
    )
    return value(found), least, most


def select_smallest(
    groups: Groups, ranks: jax.Array, *, axis_name: AxisName = None
) -> list[list[jax.Array]]:
    """Flags exactly so many weights of every group: the smallest, of equal ones the first.

    Args:
        groups: leaves, real floating point, at least one group.
        ranks: how many of every group.
        axis_name: the mapped axis over which the leaves are split, if any.

    Returns:
        Boolean arrays in place of the leaves. Where there are too many NaN, fewer are flagged.
    """
    sizes = group_sizes(groups, axis_name)
    dtype = jnp.result_type(*(leaf for group in groups for leaf in group))
    # In one dtype, so that no two thresholds in a row are the same to some leaf.
    groups = [[leaf.astype(dtype) for leaf in group] for group in groups]
    guess = jnp.zeros([len(groups)], dtype)
    height, least, most = _heights(groups, ranks, ONCE, sizes, 0, guess, axis_name)
    starts = _starts(groups, axis_name)
    numbers = _numbers(groups)

    def count(candidates: jax.Array) -> jax.Array:
        # Together, as above: neither ties nor positions are to be written down.
        one, begin, number, limits, heights, leaves = jax.lax.optimization_barrier(  # type: ignore[no-untyped-call]
            (jnp.ones([], jnp.int32), starts, numbers, candidates, height, groups)
        )
        rows = [(_row(heights, k), list(_row(limits, k))) for k in number]

        def first(i: int, j: int) -> Any:
            return _first_tied(leaves[i][j], *rows[i], begin[i][j], one)

        return count_where(groups, first, sizes, axis_name)

    # Where the count is the rank, all ties are flagged; where it is above, so was the count of
    # every smaller threshold below it.
    some = most > ranks
    top = jnp.array([min(size, 2**31 - 1) for size in sizes], jnp.int32)
    last, _, _ = _search(
        count,
        jnp.where(some, ranks - least, 0),
        ONCE,
        sizes=sizes,
        slack=0,
        top=top,
        first=jnp.zeros([len(groups), len(ONCE.factors)], jnp.int32),
        value=lambda place: place.astype(jnp.float32),
        position=lambda place: place.astype(jnp.int32),
    )
    last = jnp.where(some, last, top)
    starts, numbers = jax.lax.optimization_barrier((starts, numbers))  # type: ignore[no-untyped-call]
    rows = [[_row(x, k) for x in (height, last, ranks)] for k in numbers]
    return [
        [_flagged(leaf, *row, start) for leaf, start in zip(group, begin, strict=True)]
        for group, row, begin in zip(groups, rows, starts, strict=True)
    ]


# Under `jit`, so that leaves of one shape and dtype are traced once.
@jax.jit
def _at_most(leaf: jax.Array, heights: list[jax.Array]) -> list[jax.Array]:
    """Which weights are at most each of the thresholds."""
    magnitude = jnp.abs(leaf)
    return [magnitude <= height.astype(magnitude.dtype) for height in heights]


@jax.jit
def _first_tied(
    leaf: jax.Array, height: jax.Array, limits: list[jax.Array], start: jax.Array, one: jax.Array
) -> list[jax.Array]:
    """Which weights are just at the threshold, up to each of the positions."""
    tied = jnp.abs(leaf) == height
    place = _positions(leaf.shape, start, one)
    return [tied & (place <= limit) for limit in limits]


@jax.jit
def _flagged(
    leaf: jax.Array, height: jax.Array, last: jax.Array, rank: jax.Array, start: jax.Array
) -> jax.Array:
    """Which weights are below the threshold, or just at it up to a position."""
    magnitude = jnp.abs(leaf)
    tied = (magnitude == height) & (_positions(leaf.shape, start, 1) <= last)
    # A rank of zero flags nothing, not even the weights that are zero.
    return (rank > 0) & ((magnitude < height) | tied)


def _numbers(groups: Groups) -> list[jax.Array]:
    """The number of every group, as data: leaves of one shape are then one kernel to compile.

    XLA compiles once what differs in its arguments alone, such as numbers that come out of an
    ``optimization_barrier``, but not what differs in a constant.
    """
    return [jnp.int32(i) for i in range(len(groups))]


def _row(table: jax.Array, number: jax.Array) -> jax.Array:
    """What a table has for the group of that number."""
    row: jax.Array = jax.lax.dynamic_index_in_dim(table, number, keepdims=False)
    return row


def _starts(groups: Groups, axis_name: AxisName) -> list[list[jax.Array]]:
    """At which position in its group every leaf starts, over the devices of the named axis.

    Beyond 2^30 weights in a group the numbers of the later leaves start anew.
    """
    shards = shards_of(axis_name)
    shard = 0 if axis_name is None else jax.lax.axis_index(axis_name)
    starts = []
    for group in groups:
        firsts = np.cumsum([0] + [shards * leaf.size for leaf in group]) % 2**30
        pairs = zip(group, firsts, strict=False)
        starts.append([jnp.int32(int(first) + shard * x.size) for x, first in pairs])
    return starts


def _positions(shape: tuple[int, ...], start: Any, one: Any) -> jax.Array:
    """The number of every weight of a leaf, from the first one's on.

    It is a function of 1, so that where it is computed can be told by where that comes from.
    """
    # Axis by axis: to reshape a leaf that is split over a mesh could mean to gather it.
    place = jnp.full(shape, start, jnp.int32)
    for axis in range(len(shape)):
        stride = one * math.prod(shape[axis + 1 :])
        place += jax.lax.broadcasted_iota(jnp.int32, shape, axis) * stride
    return place


def _search(
    count: Callable[[jax.Array], jax.Array],
    ranks: jax.Array,
    tries: Pass,
    *,
    sizes: Sequence[int],
    slack: float,
    top: jax.Array,
    first: jax.Array,
    value: Callable[[jax.Array], jax.Array],
    position: Callable[[jax.Array], jax.Array],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The smallest integer of every group from 0 to ``top`` whose count reaches the rank.

    ``count`` grows with its argument. Every pass tries where a line between the ends of the bracket
    reaches the rank, in terms of ``value``, and a little beside; and cuts the bracket into parts,
    which alone would do in 16 passes of quarters for 32 bits, whatever the counts are.

    Also the ``least`` and the ``most``: the count of the largest integer that is known to fall
    short, and that of the one found, which is the next one unless the slack was enough before.
    """
    total = jnp.array(sizes, ranks.dtype)
    spare = jnp.array([math.floor(slack * size) for size in sizes], ranks.dtype)
    beside = jnp.array(tries.beside, jnp.float32)
    cuts = jnp.arange(1, tries.parts, dtype=top.dtype)

    def unfinished(carry: Bracket) -> jax.Array:
        low, high, _, most, _ = carry
        found = (high < top) & (most - ranks <= spare)
        return jnp.any((ranks > 0) & ~found & (high - low > 1))

    def narrow(carry: Bracket) -> Bracket:
        low, high, least, most, candidates = carry
        # Always strictly inside, so that every pass gets further.
        candidates = jnp.clip(candidates, low[:, None] + 1, high[:, None] - 1)
        counts = count(candidates)
        short = counts < ranks[:, None]
        low = jnp.maximum(low, jnp.max(jnp.where(short, candidates, -1), axis=1))
        least = jnp.maximum(least, jnp.max(jnp.where(short, counts, 0), axis=1))
        high = jnp.minimum(high, jnp.min(jnp.where(short, top[:, None], candidates), axis=1))
        most = jnp.minimum(most, jnp.min(jnp.where(short, total[:, None], counts), axis=1))
        bottom = value(jnp.maximum(low, 0))
        aim = (ranks - least + spare // 2) / jnp.maximum(most - least, 1)
        fraction = (aim[:, None] + beside[None]).astype(bottom.dtype)
        on_line = position(bottom[:, None] + fraction * (value(high) - bottom)[:, None])
        between = low[:, None] + (high - low)[:, None] // tries.parts * cuts[None]
        return low, high, least, most, jnp.concatenate([on_line, between], axis=1)

    bracket = jnp.full_like(top, -1), top, jnp.zeros_like(total), total, first
    _, high, least, most, _ = jax.lax.while_loop(unfinished, narrow, bracket)
    return jnp.where(ranks > 0, high, 0), least, most
