"""Times of things that are compared: in turns, so that what disturbs one disturbs all."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Cost(NamedTuple):
    """The cost of one step."""

    seconds: float
    """The median over rounds."""
    ratio: float
    """The median of the quotient with the first one's time in the same round."""


def interleaved(blocks: dict[str, Callable[[], None]], rounds: int, steps: int) -> dict[str, Cost]:
    """Runs every block once a round, after one that does not count.

    Args:
        blocks: each does ``steps`` steps and waits until they are done; the first is what the
            others are held against.
        rounds: how often; each starts with another block.
        steps: by which the times are divided.
    """
    names = list(blocks)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for block in blocks.values():  # compiles
        block()
    for i in range(rounds):
        start = i % len(names)
        for name in names[start:] + names[:start]:
            began = time.perf_counter()
            blocks[name]()
            seconds[name].append((time.perf_counter() - began) / steps)
    return {
        name: Cost(
            statistics.median(mine),
            statistics.median(x / y for x, y in zip(mine, seconds[names[0]], strict=True)),
        )
        for name, mine in seconds.items()
    }
