"""Times of things that are compared: in turns, so that what disturbs one disturbs all."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

PyTree = Any
Block = Callable[[], Any]


class Cost(NamedTuple):
    """The cost of one step."""

    seconds: float
    """The median over rounds."""
    ratio: float
    """The median of the quotient with the first one's time in the same round."""


def interleaved(blocks: Mapping[str, Block], rounds: int, steps: int) -> dict[str, Cost]:
    """Runs every block once a round, after one that does not count.

    Args:
        blocks: each does ``steps`` steps and waits until they are done; the first is what the
            others are held against. One that knows better what it took, since another process
            does the work, returns the seconds as a float; anything else that comes back is dropped.
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
            told = blocks[name]()
            passed = time.perf_counter() - began
            if isinstance(told, float):
                passed = told
            seconds[name].append(passed / steps)
    return compared(seconds)


def compared(seconds: Mapping[str, list[float]]) -> dict[str, Cost]:
    """From the seconds of every round, the same for all; the first is the measure of the others."""
    first = next(iter(seconds.values()))
    return {
        name: Cost(
            statistics.median(mine),
            statistics.median(x / y for x, y in zip(mine, first, strict=True)),
        )
        for name, mine in seconds.items()
    }


def in_place(step: Callable[..., PyTree], state: PyTree, batch: PyTree, steps: int) -> Block:
    """A block of some steps, which go on where the block before has ended."""

    def block() -> None:
        nonlocal state
        for _ in range(steps):
            state = step(state, batch)
        jax.block_until_ready(state)

    return block


def plain(costs: Mapping[str, Cost]) -> dict[str, dict[str, float]]:
    """As they stand in a file."""
    return {name: cost._asdict() for name, cost in costs.items()}
