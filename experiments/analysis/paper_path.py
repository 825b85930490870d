"""How the sparsity of a run grows, beside what the paper's code printed for the same c and mu.

    python -m experiments.run cifar10_vgg16 --method grda --name vgg16
    python -m experiments.analysis.paper_path runs/vgg16/grda

The published path is the mean over the authors' seeds, in results/paper_paths.csv. A run of fewer
epochs shows its own end beside the next published epoch; one on made-up images
(`--dataset generated_cifar10`) need not agree, since its gradients are others.
"""

import csv
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import tyro
from rich.console import Console

from experiments import data, provenance
from experiments.analysis import record
from experiments.analysis.runs import Run, read
from experiments.checks import check
from experiments.config import Config
from experiments.configs import PRESETS
from experiments.datasets import GENERATED
from experiments.log import Row
from experiments.plotting import COLORS, plt
from experiments.studies import tables
from experiments.studies.frontier_figures import DPI, WIDTH, finish

title = "The paper's sparsity paths"
NAME = "paper_path"
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


def measure(run: Run) -> Row:
    """The path of a run, and the published one.

    Raises:
        ValueError: it is none of gRDA, nothing is published for it, or it has no scores yet.
    """
    config, path = run.config, str(run.path)
    theirs = published(config)
    wanted = f"with c and mu that the paper has for {config.model} on {config.dataset}"
    check(bool(theirs) and config.method == ("grda",), "run", path, f"a run of grda {wanted}")
    steps_per_epoch = data.examples(data.outline(config.dataset).train) // config.batch_size
    mine = measured(run.rows, steps_per_epoch)
    check(bool(mine), "run", path, "a run with an epoch behind it")
    return {"mine": [x._asdict() for x in mine], "published": [x._asdict() for x in theirs]}


def points(found: Row, name: str) -> list[Point]:
    """A path of a record."""
    return [Point(**point) for point in found["result"][name]]


def figure(found: Row, path: Path) -> None:
    """Draws both, over epochs in the logarithm."""
    fig, axes = plt.subplots(figsize=(WIDTH / 2, 2.3), layout="constrained")
    for name, label, style in (
        ("published", "published, mean of seeds", {"color": COLORS[0], "linestyle": "--"}),
        ("mine", "this library", {"color": COLORS[1], "marker": "o", "markersize": 4}),
    ):
        along = points(found, name)
        axes.plot([x.epoch for x in along], [x.sparsity for x in along], label=label, **style)
    axes.set(xscale="log", xlabel="epoch", ylabel="zeros (%)", ylim=(0, None))
    axes.legend(frameon=False, fontsize=7.5)
    finish(axes)
    fig.savefig(path, dpi=DPI)
    plt.close(fig)


def text(found: Row) -> str:
    """Ours beside theirs, epoch by epoch."""
    config = Config.from_json(found["runs"][0]["config"])
    made_up = ", on made-up images" if config.dataset in GENERATED else ""
    lines = [
        [
            f"{here.epoch:.2f}",
            f"{here.sparsity:.2f}",
            f"{here.accuracy:.2f}",
            f"{there.epoch:.0f}",
            f"{there.sparsity:.2f}",
            f"{there.accuracy:.2f}",
        ]
        for here, there in beside(points(found, "mine"), points(found, "published"))
    ]
    header = ["epoch", "zeros (%)", "top-1 (%)", "published epoch", "zeros (%)", "top-1 (%)"]
    table = tables.markdown(header, lines)
    return f"c = {config.grda.c:g}, mu = {config.grda.mu:g}{made_up}:\n\n{table}"


def render(folder: Path) -> str:
    """Every record that was saved."""
    return record.pages(
        folder,
        NAME,
        figure,
        text,
        "Zeros along training, published and here",
        "The zeros of the first epochs beside those that the paper's code printed at the same c "
        "and mu, over all leaves. On made-up images the gradients are others, so that the paths "
        "need not agree; the threshold and the start are the same.",
    )


@dataclasses.dataclass(frozen=True)
class Arguments(record.Saved):
    """The sparsity of a run along training, beside the published one."""

    run: tyro.conf.Positional[Path]
    """The folder of a run of grda, of one of the paper's configs."""


def analyse(arguments: Arguments, console: Console) -> Row:
    """Reads, prints and writes."""
    (run,) = read([arguments.run])
    found = record.write(NAME, [run], {}, measure(run), figure, arguments.save, console)
    console.print(text(found), highlight=False)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Analyses from the command line."""
    return record.main(NAME, Arguments, analyse, arguments)


if __name__ == "__main__":
    sys.exit(main())
