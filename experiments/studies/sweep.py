"""Methods that have a strength and not a sparsity: which strengths are run, and what they say.

The strengths are `start * 2**k` for integers and, where a gap is wide, halves. Which of them are
run follows from the sparsities found so far, by a rule that leaves nothing to choose.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

FACTOR = 2.0
FARTHEST = 9
WIDE = 4.0
"""Two neighbours of which one has so many times the other's weights have a third between them."""


def strength(start: float, k: float) -> float:
    """The strength at a place of the lattice."""
    return start * float(FACTOR**k)


def place(start: float, strength: float) -> float:
    """The place of a strength on the lattice."""
    return round(2 * math.log(strength / start, FACTOR)) / 2


def walk(found: Mapping[float, float], low: float, high: float) -> list[float]:
    """The places to run, those that have been and what comes next.

    From 0 it goes up until a run is at least as sparse as ``high``, and down until one is at most
    as sparse as ``low``; then into wide gaps between them.

    Args:
        found: the sparsity at the places so far, 1 where a run has diverged.
        low: the lowest sparsity that is looked for.
        high: the highest.
    """
    places: list[float] = [0]
    if 0 not in found:
        return places
    for way, reached in ((1, lambda s: s >= high), (-1, lambda s: s <= low)):
        k = 0
        while not reached(found[k]) and abs(k) < FARTHEST:
            k += way
            places.append(k)
            if k not in found:
                return places
    for a, b in itertools.pairwise(sorted(places)):
        (sparse, sparser) = sorted((found[a], found[b]))
        bracket = sparse < high and sparser > low
        if bracket and (1 - sparse) > WIDE * (1 - sparser):
            places.append((a + b) / 2)
    return places


def finished(found: Mapping[float, float], low: float, high: float) -> bool:
    """Whether nothing is left to run."""
    return all(k in found for k in walk(found, low, high))


def around(found: Mapping[float, float], low: float, high: float) -> list[float]:
    """Of the places of a finished walk those between the bounds, and the next one on either side.

    These are what other seeds repeat.
    """
    places = sorted(walk(found, low, high))
    inside = [i for i, k in enumerate(places) if low <= found[k] <= high]
    below = [i for i, k in enumerate(places) if found[k] < low]
    above = [i for i, k in enumerate(places) if found[k] > high]
    chosen = {*inside, *below[-1:], *above[:1]}
    return [places[i] for i in sorted(chosen)]


def interpolate(points: Iterable[tuple[float, float]], sparsity: float) -> float:
    """The accuracy at a sparsity, linear in the logarithm of the weights that are left.

    NaN where the points do not reach to both sides of it; an empty network counts for nothing.

    Args:
        points: sparsity and accuracy of some runs.
        sparsity: below 1.
    """
    usable = sorted((-math.log(1 - s), accuracy) for s, accuracy in points if s < 1)
    at = -math.log(1 - sparsity)
    # Told a sparsity, a network meets it to a weight: that much is no gap.
    if not usable or not usable[0][0] - 1e-3 <= at <= usable[-1][0] + 1e-3:
        return math.nan
    x, y = zip(*usable, strict=True)
    return float(np.interp(at, x, y))


def read_at(points: Sequence[tuple[float, float]], sparsity: float) -> float:
    """The same for a choice among settings, in which something has to be said of each.

    Where all points are sparser it is the accuracy of the least sparse, which has the harder task;
    where none is sparse enough the setting cannot do it, and minus infinity says so.
    """
    value = interpolate(points, sparsity)
    if not math.isnan(value):
        return value
    sparser = [point for point in points if sparsity < point[0] < 1]
    return min(sparser)[1] if sparser else -math.inf
