"""Methods that have a strength and not a sparsity: which strengths are run, and what they say.

The strengths are `start * 2**k` for integers and, where a gap is wide, halves down to eighths.
Which of them are run follows from the sparsities found so far, by a rule that leaves nothing to
choose.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

FACTOR = 2.0
FARTHEST = 9
FINEST = 1 / 8
WIDE = 2.0
"""Two neighbours of which one has so many times the other's weights have a third between them.

Accuracy falls ever faster with the logarithm of the weights that are left, so that a chord lies
below it: by 0.2 points over a factor of 5 (GMP on the MLP, read at 95 % from 90 and 98 %).
"""
WIDEST = 3.0
"""Over a gap as wide as this, which no finer strength has closed, nothing is read off."""
MARGIN = 0.9
"""The sparsest run has at most so many times the weights of the upper bound, and the least sparse
one at least 1 / MARGIN times those of the lower: another seed's may lie a little to the inside."""


def strength(start: float, k: float) -> float:
    """The strength at a place of the lattice."""
    return start * float(FACTOR**k)


def place(start: float, strength: float) -> float:
    """The place of a strength on the lattice."""
    return round(math.log(strength / start, FACTOR) / FINEST) * FINEST


def beyond(sparsity: float, low: float, high: float) -> tuple[bool, bool]:
    """Whether a run is clearly below the lower bound, and whether clearly above the upper one."""
    return 1 - sparsity >= (1 - low) / MARGIN, 1 - sparsity <= (1 - high) * MARGIN


def walk(found: Mapping[float, float], low: float, high: float) -> list[float]:
    """The places to run, those that have been and what comes next.

    From 0 it goes up until a run is clearly sparser than ``high``, and down until one is clearly
    less sparse than ``low``; then into wide gaps between them.

    Args:
        found: the sparsity at the places so far, 1 where a run has diverged.
        low: the lowest sparsity that is looked for.
        high: the highest.
    """
    places: list[float] = [0]
    if 0 not in found:
        return places
    for way in (1, -1):
        k = 0
        while not beyond(found[k], low, high)[way > 0] and abs(k) < FARTHEST:
            k += way
            places.append(k)
            if k not in found:
                return places
    gaps = list(itertools.pairwise(sorted(places)))
    while gaps:
        a, b = gaps.pop(0)
        (sparse, sparser) = sorted((found[a], found[b]))
        bracket = sparse < high and sparser > low
        if bracket and 1 - sparse > WIDE * (1 - sparser) and b - a > FINEST:
            middle = (a + b) / 2
            places.append(middle)
            if middle in found:
                gaps += [(a, middle), (middle, b)]
    return places


def finished(found: Mapping[float, float], low: float, high: float) -> bool:
    """Whether nothing is left to run."""
    return all(k in found for k in walk(found, low, high))


def around(found: Mapping[float, float], low: float, high: float) -> list[float]:
    """Of a finished walk the places not clearly beyond the bounds, and the next on each side.

    These are what other seeds repeat.
    """
    places = sorted(walk(found, low, high))
    sides = [beyond(found[k], low, high) for k in places]
    inside = [i for i, side in enumerate(sides) if not any(side)]
    below = [i for i, side in enumerate(sides) if side[0]]
    above = [i for i, side in enumerate(sides) if side[1]]
    chosen = {*inside, *below[-1:], *above[:1]}
    return [places[i] for i in sorted(chosen)]


def interpolate(
    points: Iterable[tuple[float, float]], sparsity: float, widest: float = math.inf
) -> float:
    """The accuracy at a sparsity, linear in the logarithm of the weights that are left.

    NaN where the points do not reach to both sides of it; an empty network counts for nothing.

    Args:
        points: sparsity and accuracy of some runs.
        sparsity: below 1.
        widest: NaN, too, where the neighbours on both sides are farther apart than that, as a
            factor between their weights: beyond the gap the network may be dead.
    """
    usable = sorted((-math.log(1 - s), accuracy) for s, accuracy in points if s < 1)
    at = -math.log(1 - sparsity)
    # Told a sparsity, a network meets it to a weight: that much is no gap.
    if not usable or not usable[0][0] - 1e-3 <= at <= usable[-1][0] + 1e-3:
        return math.nan
    x, y = zip(*usable, strict=True)
    left = max([v for v in x if v <= at + 1e-3], default=x[0])
    right = min([v for v in x if v >= at - 1e-3], default=x[-1])
    if right - left > math.log(widest):
        return math.nan
    return float(np.interp(at, x, y))


def read_at(points: Sequence[tuple[float, float]], sparsity: float) -> float:
    """The same for a choice among settings, in which something has to be said of each.

    Where all points are sparser it is the accuracy of the least sparse, which has the harder task;
    where none is sparse enough the setting cannot do it, and minus infinity says so.
    """
    value = interpolate(points, sparsity, WIDEST)
    if not math.isnan(value):
        return value
    sparser = [point for point in points if sparsity < point[0] < 1]
    return min(sparser)[1] if sparser else -math.inf
