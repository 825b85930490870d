"""The command line: times the update and the training step, and prints what they cost.

python -m experiments.bench --weights 25000000 --save costs.json
"""

import dataclasses
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import tyro
from rich.console import Console
from rich.table import Table

from experiments import provenance
from experiments.bench import curvature, updates
from experiments.bench.report import TITLES
from experiments.bench.timing import Cost
from experiments.checkpoint import write_json
from experiments.checks import check, check_integer

Part = Literal["update", "training", "curvature"]


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What pruning costs beside SGD with momentum, in one process, in turns."""

    parts: tuple[Part, ...] = get_args(Part)
    """What is timed: the update alone, the training step of a CNN, products with the Hessian."""
    weights: int = 25_000_000
    """How many float32 weights the update is timed on."""
    batch_size: int = 128
    """Examples in a training step of the small CNN."""
    curvature_weights: int = 1_000_000
    """Of the MLP whose Hessian is multiplied with vectors."""
    examples: int = 2048
    """That its loss is over."""
    rounds: int = 15
    """How often each is timed, over 10 steps; the medians are shown. Lanczos a third as often."""
    save: Path | None = None
    """A JSON file to write the costs to, with versions, device and command."""

    def validate(self) -> None:
        """Refuses what cannot be timed, naming the argument and its value."""
        for name in ("weights", "batch_size", "curvature_weights", "examples", "rounds"):
            check_integer(name, getattr(self, name), 1)
        if self.save is not None:
            check(self.save.parent.is_dir(), "save", str(self.save), "in a folder that exists")


def run(arguments: Arguments, command: str, console: Console) -> dict[str, Any]:
    """Times everything; prints it, and returns it as it is saved."""
    load = os.getloadavg()[0]  # before, since what is timed here adds to it
    config = {k: v for k, v in dataclasses.asdict(arguments).items() if k not in ("save", "parts")}
    costs: dict[str, dict[str, Cost]] = {}
    memory: dict[str, float] = {}
    if "update" in arguments.parts:
        config["weights"], costs["update"] = updates.time_update(
            arguments.weights, arguments.rounds
        )
    if "training" in arguments.parts:
        costs["training"] = updates.time_training(arguments.batch_size, arguments.rounds)
    if "curvature" in arguments.parts:
        size = (arguments.curvature_weights, arguments.examples)
        memory = curvature.memory(*size)
        costs["products"] = curvature.time_products(*size, arguments.rounds)
        costs["lanczos"] = curvature.time_lanczos(*size, max(1, arguments.rounds // 3))
    for name, table in costs.items():
        _show(TITLES[name].format(**config), table, console)
    origin = provenance.of()
    console.print(f"{origin['device']}; load {load:.1f} at the start.", highlight=False)
    return {
        "config": config,
        "command": command,
        **{name: {k: cost._asdict() for k, cost in table.items()} for name, table in costs.items()},
        **({"memory": memory} if memory else {}),
        **origin,
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
