"""The command line: times the update and the training step, and prints what they cost.

python -m experiments.bench --weights 25000000 --save costs.json
"""

import dataclasses
import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import tyro
from rich.console import Console
from rich.table import Table

from experiments.bench import updates
from experiments.bench.timing import Cost
from experiments.checkpoint import write_json
from experiments.checks import check, check_integer
from experiments.study import PACKAGES


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What pruning costs beside SGD with momentum, in one process, in turns."""

    weights: int = 25_000_000
    """How many float32 weights the update is timed on."""
    batch_size: int = 128
    """Examples in a training step of the small CNN."""
    rounds: int = 15
    """How often each is timed, over 10 steps; the medians are shown."""
    save: Path | None = None
    """A JSON file to write the costs to, with versions, device and command."""

    def validate(self) -> None:
        """Refuses what cannot be timed, naming the argument and its value."""
        check_integer("weights", self.weights, 1)
        check_integer("batch_size", self.batch_size, 1)
        check_integer("rounds", self.rounds, 1)
        if self.save is not None:
            check(self.save.parent.is_dir(), "save", str(self.save), "in a folder that exists")


def run(arguments: Arguments, command: str, console: Console) -> dict[str, Any]:
    """Times everything; prints it, and returns it as it is saved."""
    load = os.getloadavg()[0]  # before, since what is timed here adds to it
    weights, update = updates.time_update(arguments.weights, arguments.rounds)
    training = updates.time_training(arguments.batch_size, arguments.rounds)
    device = f"{jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} cores"
    _show(f"update of {weights:,} weights", update, console)
    _show(f"training step of small_cnn, batch {arguments.batch_size}", training, console)
    console.print(f"{device}; load {load:.1f} at the start.", highlight=False)
    return {
        "config": {
            "weights": weights,
            "batch_size": arguments.batch_size,
            "rounds": arguments.rounds,
        },
        "command": command,
        "update": {name: cost._asdict() for name, cost in update.items()},
        "training": {name: cost._asdict() for name, cost in training.items()},
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "device": device,
        "load": round(load, 2),
    }


def _show(title: str, costs: dict[str, Cost], console: Console) -> None:
    table = Table(title=title)
    table.add_column()
    table.add_column("milliseconds", justify="right")
    table.add_column(f"over {next(iter(costs))}", justify="right")
    for name, cost in costs.items():
        table.add_row(name, f"{1000 * cost.seconds:.2f}", f"{cost.ratio:.2f}")
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Times from the command line; an error of the user's is one line, and exit status 2."""
    console = Console()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        parsed = tyro.cli(Arguments, prog="python -m experiments.bench", args=words)
        parsed.validate()
        costs = run(parsed, shlex.join(["python", "-m", "experiments.bench", *words]), console)
    except ValueError as error:
        console.print(f"[red]error:[/red] {error}", soft_wrap=True, highlight=False)
        return 2
    if parsed.save is not None:
        write_json(parsed.save, costs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
