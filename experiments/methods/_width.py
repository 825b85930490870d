"""The width at which a narrow network has as much of something as is wanted."""

from collections.abc import Callable

HALVINGS = 12  # hidden layers of some hundred units change at steps of about 1/1000


def closest_width(weights: Callable[[float], int], wanted: float) -> float:
    """The width from 0 to 1 at which there are nearest to ``wanted`` weights, by bisection.

    Args:
        weights: how many there are at a width; it grows with it.
        wanted: how many there should be.
    """
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if weights(middle) < wanted else (low, middle)
    return min((low, high), key=lambda width: abs(weights(width) - wanted))
