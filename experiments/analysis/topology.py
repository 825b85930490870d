"""When does the topology of a sparse network settle? From the masks that a run has kept.

    python -m experiments.run digits --method recipe --keep-masks
    python -m experiments.analysis.topology runs/digits-method=recipe/recipe

Masks are taken at the end of each epoch: a weight that goes and comes back within one is not seen.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from experiments.analysis import record
from experiments.analysis.runs import Run
from experiments.checks import check
from experiments.folder import Masks
from experiments.log import Row
from experiments.plotting import COLORS, plt
from experiments.studies.frontier_figures import DPI, WIDTH, finish
from grda_optax import mask_overlap

title = "Topology along training, and weights that return"
NAME = "topology"
SETTLED = 0.99


class Epoch(NamedTuple):
    """The nonzero weights at the end of an epoch, held against those of others."""

    epoch: int
    """From 1."""
    nonzero: int
    """How many there are."""
    gone: int
    """How many there were an epoch ago that are zero now."""
    returned: int
    """How many were zero an epoch ago."""
    overlap_previous: float
    """Intersection over union with those an epoch ago."""
    overlap_final: float
    """Intersection over union with those at the end."""


class Topology(NamedTuple):
    """The masks of a run in numbers."""

    epochs: list[Epoch]
    total: int
    """Penalised weights."""
    ever_returned: int
    """How many weights came back at least once."""
    settled_epoch: int
    """The first epoch from which the overlap with the end stays at 0.99 or above."""


def measure(masks: Sequence[Masks]) -> Topology:
    """Compares the masks of consecutive epochs, which start at the first.

    An epoch before the first is taken to be without zeros: nothing returns in the first.
    """
    before = {name: np.ones_like(mask) for name, mask in masks[0].items()}
    ever = {name: np.zeros_like(mask) for name, mask in masks[0].items()}
    epochs = []
    for i, now in enumerate(masks, 1):
        returned = {name: now[name] & ~before[name] for name in now}
        ever = {name: ever[name] | returned[name] for name in now}
        epochs.append(
            Epoch(
                epoch=i,
                nonzero=_count(now),
                gone=_count({name: before[name] & ~now[name] for name in now}),
                returned=_count(returned),
                overlap_previous=_overlap(before, now),
                overlap_final=_overlap(now, masks[-1]),
            )
        )
        before = now
    unsettled = [x.epoch for x in epochs if x.overlap_final < SETTLED]
    return Topology(
        epochs=epochs,
        total=sum(mask.size for mask in masks[0].values()),
        ever_returned=_count(ever),
        settled_epoch=max(unsettled, default=0) + 1,
    )


def _count(masks: Masks) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


def _overlap(a: Masks, b: Masks) -> float:
    return float(mask_overlap(a, b))


def to_json(topology: Topology) -> dict[str, Any]:
    """Plain values, as they stand in topology.json."""
    return topology._asdict() | {"epochs": [epoch._asdict() for epoch in topology.epochs]}


def show(topology: Topology, console: Console) -> None:
    """Prints a row for each epoch, and what they come to."""
    table = Table(title="nonzero weights at the end of each epoch")
    for name in ("epoch", "nonzero", "gone", "returned", "overlap: epoch before", "with the end"):
        table.add_column(name, justify="right")
    for x in topology.epochs:
        counts = (x.epoch, x.nonzero, x.gone, x.returned)
        overlaps = (x.overlap_previous, x.overlap_final)
        table.add_row(*(f"{n:,}" for n in counts), *(f"{n:.4f}" for n in overlaps))
    console.print(table)
    console.print(
        f"{topology.ever_returned:,} of {topology.total:,} weights came back at least once; from "
        f"epoch {topology.settled_epoch} of {len(topology.epochs)} on, the overlap with the end "
        f"stays at {SETTLED} or above.",
        soft_wrap=True,
    )


def figure(found: Row, path: Path) -> None:
    """Draws the overlaps, and how many weights go and return."""
    topology = found["result"]
    points, total = topology["epochs"], topology["total"]
    epochs = [x["epoch"] for x in points]
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.4), layout="constrained")
    for color, line, name, label in (
        (COLORS[0], "-", "overlap_previous", "with the epoch before"),
        (COLORS[1], "--", "overlap_final", "with the end"),
    ):
        values = [x[name] for x in points]
        left.plot(epochs, values, color=color, linestyle=line, marker=".", label=label)
    if topology["settled_epoch"] < len(epochs):
        left.axvline(topology["settled_epoch"], color="grey", linestyle=":", label="settled")
    left.set(xlabel="epoch", ylabel="intersection over union", ylim=(-0.03, 1.03))
    for color, line, name in ((COLORS[3], "-", "gone"), (COLORS[2], "--", "returned")):
        values = [100 * x[name] / total for x in points]
        right.plot(epochs, values, color=color, linestyle=line, marker=".", label=name)
    right.set(xlabel="epoch", ylabel="penalised weights (%)", yscale="log")
    for axes in (left, right):
        axes.legend(edgecolor="none", framealpha=1, fontsize=7.5)
        finish(axes)
    fig.savefig(path, dpi=DPI)
    plt.close(fig)


def text(found: Row) -> str:
    """When it settles, and what returns."""
    run, result = found["runs"][0], found["result"]
    last, total = result["epochs"][-1], result["total"]
    settled, count = result["settled_epoch"], len(result["epochs"])
    when = f"from epoch {settled} of {count} on, the overlap with the end stays at {SETTLED}"
    return (
        f"{run['label']}, {100 * (1 - last['nonzero'] / total):.1f} % zeros at the end: "
        + (f"{when} or above" if settled < count else f"it has not settled in {count} epochs")
        + f"; {result['ever_returned']:,} of {total:,} weights "
        f"({100 * result['ever_returned'] / total:.1f} %) came back at least once."
    )


def render(folder: Path) -> str:
    """Every record that was saved."""
    return record.pages(
        folder,
        NAME,
        figure,
        text,
        "Overlap of the nonzero weights, and weights that return",
        "The nonzero weights at the end of each epoch beside those of the epoch before and those "
        "of the end (intersection over union), and how many go and come back from one epoch to the "
        "next.",
    )


def measure_run(run: Run) -> Topology:
    """Compares the masks that a run has kept.

    Raises:
        ValueError: it kept none, or not those of every epoch from the first on.
    """
    masks, shown = run.folder.read_masks(), str(run.path)
    check(len(masks) > 0, "run", shown, "the folder of a run with --keep-masks")
    epochs = list(range(1, len(masks) + 1))
    if run.folder.result.exists():  # of an unfinished run the end is where it is now
        epochs = list(range(1, run.config.epochs + 1))
    complete = list(masks) == epochs
    check(complete, "run", shown, "a run with --keep-masks from the first step to the last")
    return measure(list(masks.values()))


@dataclasses.dataclass(frozen=True)
class Arguments(record.Saved):
    """How the zeros of a run move, and when they settle."""

    run: tyro.conf.Positional[Path]
    """The folder of one method's run, which was trained with --keep-masks."""


def analyse(arguments: Arguments, console: Console) -> Row:
    """Compares, prints and writes."""
    run = Run(arguments.run)
    topology = measure_run(run)
    show(topology, console)
    return record.write(NAME, [run], {}, to_json(topology), figure, arguments.save, console)


def main(arguments: Sequence[str] | None = None) -> int:
    """Analyses a run from the command line."""
    return record.main(NAME, Arguments, analyse, arguments)


if __name__ == "__main__":
    sys.exit(main())
