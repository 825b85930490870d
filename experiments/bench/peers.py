"""The update beside those of PyTorch and torchao, which another interpreter does in turns."""

import json
import math
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax

from experiments.bench.shown import Shown
from experiments.bench.timing import Block, interleaved, plain
from experiments.bench.timing import in_place as block_of
from experiments.bench.updates import count, in_place_update, kernels
from experiments.log import Row
from grda_optax import grda

SCRIPT = Path(__file__).parents[1] / "peers" / "torch_updates.py"
BLOCK, FEWEST, MOST = 50_000_000, 2, 20
_OF = ", on "
PAUSE = 0.02
"""Seconds until PyTorch's threads have stopped to spin; they count for nobody."""


def optimizers() -> dict[str, optax.GradientTransformation]:
    """Ours, and optax's."""
    return {
        "grda": grda(0.1, c=0.005, mu=0.51),
        "optax.sgd, momentum": optax.sgd(0.1, momentum=0.9),
        "optax.adam": optax.adam(1e-3),
    }


class Torch:
    """A process of another interpreter, which has PyTorch."""

    def __init__(self, python: Path, script: Path = SCRIPT):
        """Starts it.

        Raises:
            ValueError: it cannot be started, or lacks a package.
        """
        # Not a pipe, which nobody would empty.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                [str(python), str(script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
            )
        except OSError as error:
            raise ValueError(f"torch must be a Python, got '{python}': {error}.") from error
        self.origin: Row = self._read(f"torch must be a Python with torch and torchao, '{python}'")

    def _read(self, what: str) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            last = self._errors.read().strip().splitlines()[-1:]
            raise ValueError(f"{what} has ended: {' '.join(last)}")
        return json.loads(line)

    def ask(self, **request: Any) -> Any:
        """One line there, and one back."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read("the process of PyTorch")

    def block(self, name: str, steps: int, threads: int) -> Block:
        """Steps of an optimizer there, with the seconds that they took there."""

        def block() -> float:
            seconds: float = self.ask(run=name, steps=steps, threads=threads)["seconds"]
            time.sleep(PAUSE)
            return seconds

        return block

    def __enter__(self) -> Self:
        """Is started already."""
        return self

    def __exit__(self, *error: object) -> None:
        """Ends it."""
        self._process.communicate()
        self._errors.close()


def measure(torch: Torch, sizes: Sequence[int], leaves: Sequence[int], rounds: int) -> list[Row]:
    """A row for every number of weights and of leaves."""
    return [_measure(torch, weights, n, rounds) for weights in sizes for n in leaves]


def _measure(torch: Torch, weights: int, leaves: int, rounds: int) -> Row:
    params, gradients = kernels(weights, leaves), kernels(weights, leaves, 1e-3)
    steps = min(MOST, max(FEWEST, BLOCK // weights))
    blocks: dict[str, Block] = {}
    for name, tx in optimizers().items():
        state = jax.tree.map(jnp.copy, (params, tx.init(params)))
        blocks[name] = block_of(in_place_update(tx), state, gradients, steps)
    for name in torch.ask(weights=weights, leaves=leaves):
        for threads, label in ((1, "1 thread"), (torch.origin["threads"], "all threads")):
            blocks[f"torch {name}{_OF}{label}"] = torch.block(name, steps, threads)
    costs = interleaved(blocks, rounds, steps)
    return {"weights": count(params), "leaves": leaves, "steps": steps, "costs": plain(costs)}


def best(costs: Row) -> dict[str, float]:
    """Times of gRDA's time that each optimizer takes, with the better number of threads."""
    found: dict[str, float] = {}
    for name, cost in costs.items():
        optimizer = name.partition(_OF)[0]
        found[optimizer] = min(cost["ratio"], found.get(optimizer, math.inf))
    return found


def shown(found: Row) -> list[Shown]:
    """Milliseconds, and how often gRDA's time the others take."""
    rows = found["rows"]
    first, *names = best(rows[0]["costs"])
    lines = []
    for row in rows:
        ratios = best(row["costs"])
        cells = [f"{1000 * row['costs'][first]['seconds']:.3f}"]
        cells += [f"{ratios[name]:.2f}" for name in names]
        lines.append([f"{row['weights']:,}", f"{row['leaves']}", *cells])
    versions = found["torch"]["versions"]
    note = (
        f"gRDA in milliseconds, the others in times of it (over 1: slower). torch "
        f"{versions['torch']} and torchao {versions['torchao']} in a process of their own on "
        f"one thread or on {found['torch']['threads']}, whichever is faster, in turns with ours; "
        "PAT is a soft threshold after SGD with momentum."
    )
    header = ["weights", "leaves", "grda (ms)", *(f"{name} (times)" for name in names)]
    return [Shown("The update beside PyTorch's", header, lines, note)]
