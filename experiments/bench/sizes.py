"""The update alone by the number of weights and of leaves, beside optax's and beside a copy."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import provenance
from experiments.bench.shown import Shown
from experiments.bench.timing import Block, Cost, in_place, interleaved, plain
from experiments.bench.updates import count, in_place_update, kernels
from experiments.log import Row
from experiments.plan import size_of
from grda_optax import grda

COPY = "copy"
BLOCK = 100_000_000
"""Weights that a block of steps updates, but for the bounds on the steps."""
FEWEST, MOST = 3, 200
PARALLEL_BYTES = 2**23
"""From so many on a copy is worth the start of threads."""


def optimizers() -> dict[str, optax.GradientTransformation]:
    """SGD with momentum, which the others are held against, and the others."""
    return {
        "sgd, momentum": optax.sgd(0.1, momentum=0.9),
        "sgd": optax.sgd(0.1),
        "adam": optax.adam(1e-3),
        "grda": grda(0.1, c=0.005, mu=0.51),
    }


def bytes_moved(params: Any, state: Any) -> int:
    """What an update has to move: gradients read, params and state read and written."""
    return 3 * size_of(params) + 2 * size_of(state)


def copying(total: int) -> Callable[[], None]:
    """A copy, on all cores, that reads and writes ``total`` bytes together: the memory's limit."""
    size = total // 8
    source, target = np.ones(size, np.float32), np.zeros(size, np.float32)
    cores = provenance.cores() if total >= PARALLEL_BYTES else 1
    pool = ThreadPoolExecutor(cores)
    parts = list(zip(np.array_split(target, cores), np.array_split(source, cores), strict=True))

    def copy() -> None:
        if cores == 1:
            np.copyto(target, source)
        else:
            list(pool.map(lambda part: np.copyto(*part), parts))

    return copy


def measure(sizes: Sequence[int], leaves: Sequence[int], rounds: int) -> list[Row]:
    """A row for every number of weights and of leaves."""
    return [_measure(weights, n, rounds) for n in leaves for weights in sizes]


def _measure(weights: int, leaves: int, rounds: int) -> Row:
    params, gradients = kernels(weights, leaves), kernels(weights, leaves, 1e-3)
    steps = min(MOST, max(FEWEST, BLOCK // weights))
    blocks: dict[str, Block] = {}
    moved: dict[str, int] = {}
    for name, tx in optimizers().items():
        state = tx.init(params)
        moved[name] = bytes_moved(params, state)
        state = jax.tree.map(jnp.copy, (params, state))
        blocks[name] = in_place(in_place_update(tx), state, gradients, steps)
    moved[COPY] = moved["grda"]
    copy = copying(moved[COPY])

    def copies() -> None:
        for _ in range(steps):
            copy()

    blocks[COPY] = copies
    costs = interleaved(blocks, rounds, steps)
    return {
        "weights": count(params),
        "leaves": leaves,
        "steps": steps,
        "bytes": moved,
        "costs": plain(costs),
    }


def share(row: Row, name: str) -> float:
    """Of the copy's bandwidth, what an optimizer has for the bytes that it must move."""
    mine, copy = (Cost(**row["costs"][x]).seconds for x in (name, COPY))
    return float(row["bytes"][name] / mine / (row["bytes"][COPY] / copy))


def shown(rows: Sequence[Row]) -> list[Shown]:
    """Times, and shares of the memory's bandwidth."""
    names = list(rows[0]["costs"])
    times, shares = [], []
    beside = [name for name in names if name != COPY]
    for row in rows:
        costs = {name: Cost(**x) for name, x in row["costs"].items()}
        of = [f"{row['weights']:,}", f"{row['leaves']}"]
        times.append([*of, *(f"{1000 * costs[name].seconds:.3f}" for name in names)])
        shares.append(
            [
                *of,
                f"{1e9 * costs['grda'].seconds / row['weights']:.3f}",
                f"{costs['grda'].ratio:.2f}",
                *(f"{100 * share(row, name):.0f}" for name in beside),
            ]
        )
    note = (
        "The copy, on all cores, moves as many bytes as gRDA must: weights, gradients and "
        "accumulators read, weights and accumulators written, 20 a weight. A share can be over "
        "100 %: an update in place writes into memory that it has just read, and a copy does not. "
        "On a CPU, XLA writes each array in a pass of its own, so that gRDA's accumulator, like "
        "momentum's, is read once more: 24 bytes a weight, of which 20 are 83 %. The second of "
        "these passes has more arithmetic than momentum's; and with few weights the time is that "
        "of starting passes, of which gRDA has four more, for its threshold."
    )
    header = ["weights", "leaves", "grda, ns a weight", "grda over sgd, momentum"]
    header += [f"{name} (%)" for name in beside]
    return [
        Shown("The update alone, in milliseconds", ["weights", "leaves", *names], times),
        Shown("The update alone: share of a copy's bandwidth", header, shares, note),
    ]
