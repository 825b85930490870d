"""The width at which a narrow network has as much of something as is wanted, by bisection."""

from collections.abc import Callable

HALVINGS = 12  # hidden layers of some hundred units change at steps of about 1/1000


def closest_width(weights: Callable[[float], int], wanted: float) -> float:
    """The width from 0 to 1 at which there are nearest to ``wanted`` weights.

    Args:
        weights: how many there are at a width; it grows with it.
        wanted: how many there should be.
    """
    around = _halve(lambda width: weights(width) < wanted)
    return min(around, key=lambda width: abs(weights(width) - wanted))


def widest(weights: Callable[[float], int], wanted: int) -> float:
    """The largest width from 0 to 1 at which there are at most ``wanted`` weights, or 0."""
    return 1.0 if weights(1.0) <= wanted else _halve(lambda width: weights(width) <= wanted)[0]


def _halve(below: Callable[[float], bool]) -> tuple[float, float]:
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return low, high
