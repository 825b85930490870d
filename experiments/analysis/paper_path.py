"""How the sparsity of a run grows, beside what the paper's code printed for the same c and mu.

    python -m experiments.run cifar10_vgg16 --method grda --name vgg16
    python -m experiments.analysis.paper_path runs/vgg16/grda

The published path is the mean over the authors' seeds, in results/paper_paths.csv. A run of fewer
epochs shows its own end beside the next published epoch; one on made-up images
(`--dataset generated_cifar10`) need not agree, since its gradients are others.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from experiments import data, errors, provenance
from experiments.checks import check
from experiments.config import Config
from experiments.configs import PRESETS
from experiments.datasets import GENERATED
from experiments.folder import RunFolder
from experiments.log import Row, read_rows

FILE = "paper_paths.csv"


class Point(NamedTuple):
    """Where a run is after so many epochs: zeros and accuracy in per cent."""

    epoch: float
    sparsity: float
    accuracy: float


def published(config: Config) -> list[Point]:
    """The authors' path for the network, the data, c and mu of a config; empty if there is none."""
    real = GENERATED.get(config.dataset, config.dataset)
    with (provenance.RESULTS / FILE).open() as file:
        return [
            Point(float(row["epoch"]), float(row["sparsity"]), float(row["accuracy"]))
            for row in csv.DictReader(file)
            if (PRESETS[row["preset"]].CONFIG.dataset, PRESETS[row["preset"]].CONFIG.model)
            == (real, config.model)
            and (float(row["c"]), float(row["mu"])) == (config.grda.c, config.grda.mu)
        ]


def measured(rows: Sequence[Row], steps_per_epoch: int) -> list[Point]:
    """The path of a run, from the rows of its metrics that have scores."""
    return [
        Point(row["step"] / steps_per_epoch, 100 * row["sparsity_all"], 100 * row["eval_accuracy"])
        for row in rows
        if "eval_accuracy" in row
    ]


def beside(mine: Sequence[Point], theirs: Sequence[Point]) -> list[tuple[Point, Point]]:
    """Each published point that the run has reached, or is the first beyond its end."""
    pairs: list[tuple[Point, Point]] = []
    for point in theirs:
        reached = [x for x in mine if x.epoch <= point.epoch]
        if reached and (not pairs or pairs[-1][0] != reached[-1]):
            pairs.append((reached[-1], point))
    return pairs


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table of each run."""
    console = Console()
    paths = list(sys.argv[1:] if arguments is None else arguments)
    try:
        check(len(paths) > 0, "runs", paths, "at least one folder of a run of grda")
        for path in paths:
            _show(Path(path), console)
    except ValueError as error:
        errors.tell(error)
        return 2
    return 0


def _show(path: Path, console: Console) -> None:
    folder = RunFolder(path)
    check(folder.config.is_file(), "runs", str(path), "the folder of a run")
    config = folder.read_config()
    theirs = published(config)
    wanted = f"with c and mu that the paper has for {config.model} on {config.dataset}"
    check(bool(theirs), "runs", str(path), f"a run of grda {wanted}")
    steps_per_epoch = data.examples(data.outline(config.dataset).train) // config.batch_size
    mine = measured(read_rows(folder.metrics), steps_per_epoch)
    made_up = ", on made-up images" if config.dataset in GENERATED else ""
    table = Table("epoch", "zeros (%)", "top-1 (%)", "published", "zeros (%)", "top-1 (%)")
    for here, there in beside(mine, theirs):
        table.add_row(
            f"{here.epoch:.2f}",
            f"{here.sparsity:.2f}",
            f"{here.accuracy:.2f}",
            f"{there.epoch:.0f}",
            f"{there.sparsity:.2f}",
            f"{there.accuracy:.2f}",
        )
    console.print(f"{path}: c = {config.grda.c:g}, mu = {config.grda.mu:g}{made_up}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
