r"""How concentrated the weights are along training: :math:`|w|_2 / |w|_1`.

    python -m experiments.run digits --keep-params
    python -m experiments.analysis.norms runs/digits/dense runs/digits/grda

At a given length, a network has the larger ratio the fewer its weights are: of :math:`k` weights of
one size it is :math:`k^{-1/2}`.
"""

import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from rich.console import Console

from experiments.analysis import record
from experiments.analysis.runs import Run, labels, read
from experiments.log import Row
from experiments.plotting import COLORS, plt
from experiments.studies import tables
from experiments.studies.frontier_figures import DPI, WIDTH, finish

title = "Concentration of the weights along training"
NAME = "norms"
PyTree = Any
LINES = ("-", "--", "-.", ":")


def norms(params: PyTree) -> Row:
    """The l1 and the l2 norm of all weights together, and how many are not zero."""
    leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(params)]
    return {
        "l1": float(sum(np.abs(x).sum() for x in leaves)),
        "l2": float(np.sqrt(sum(np.square(x).sum() for x in leaves))),
        "nonzero": sum(int((x != 0).sum()) for x in leaves),
        "total": sum(x.size for x in leaves),
    }


def ratio(point: Row) -> float:
    """The l2 norm over the l1 norm; NaN of an empty network."""
    return float(point["l2"] / point["l1"]) if point["l1"] else float("nan")


def measure(runs: Sequence[Run]) -> Row:
    """The norms of each run at the start and at every moment that it has kept."""
    series = [
        {
            "label": label,
            "points": [
                {"step": step, "epoch": run.epoch(step)} | norms(run.at(step)[0])
                for step in run.steps
            ],
        }
        for label, run in zip(labels(runs), runs, strict=True)
    ]
    return {"series": series}


def figure(found: Row, path: Path) -> None:
    """Draws the ratio, and the two norms that it is of."""
    fig, panels = plt.subplots(1, 3, figsize=(WIDTH, 2.3), layout="constrained")
    quantities = (
        (ratio, r"$\|w\|_2 \,/\, \|w\|_1$"),
        (lambda point: point["l2"], r"$\|w\|_2$"),
        (lambda point: point["l1"], r"$\|w\|_1$"),
    )
    for axes, (value, label) in zip(panels, quantities, strict=True):
        every = [value(x) for series in found["result"]["series"] for x in series["points"]]
        power = 3 * math.floor(math.log10(np.nanmax(every)) / 3)
        for i, series in enumerate(found["result"]["series"]):
            axes.plot(
                [point["epoch"] for point in series["points"]],
                [value(point) / 10**power for point in series["points"]],
                color=COLORS[i % len(COLORS)],
                linestyle=LINES[i % len(LINES)],
                marker=".",
                markersize=4,
                label=series["label"],
            )
        axes.set(xlabel="epoch", ylabel=label + (rf"  ($10^{{{power}}}$)" if power else ""))
        axes.set_ylim(bottom=0)
        axes.xaxis.get_major_locator().set_params(integer=True)
        finish(axes)
    panels[0].legend(frameon=False, fontsize=7.5)
    fig.savefig(path, dpi=DPI)
    plt.close(fig)


def text(found: Row) -> str:
    """The ratio at the start and at the end."""
    lines = []
    for series in found["result"]["series"]:
        first, last = series["points"][0], series["points"][-1]
        effective = 1 / ratio(last) ** 2
        lines.append(
            [
                series["label"],
                f"{ratio(first):.5f}",
                f"{ratio(last):.5f}",
                f"{effective:,.0f}",
                f"{last['nonzero']:,} of {last['total']:,}",
            ]
        )
    header = ["", "at the start", "at the end", "as of equal weights", "nonzero"]
    return tables.markdown(header, lines)


def render(folder: Path) -> str:
    """Every record that was saved."""
    return record.pages(
        folder,
        NAME,
        figure,
        text,
        "Norms along training",
        "The ratio of the l2 norm to the l1 norm over all weights, at the end of each epoch. Equal "
        "weights would be as many as the last but one column says to have the ratio of the end, "
        "which is the inverse of its square.",
    )


@dataclasses.dataclass(frozen=True)
class Arguments(record.WithData):
    """How concentrated the weights of some runs are along training."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs that were trained with --keep-params."""


def analyse(arguments: Arguments, console: Console) -> Row:
    """Measures, prints and writes."""
    runs = read(arguments.runs, arguments.data_dir)
    found = record.write(NAME, runs, {}, measure(runs), figure, arguments.save, console)
    console.print(text(found), highlight=False)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Analyses from the command line."""
    return record.main(NAME, Arguments, analyse, arguments)


if __name__ == "__main__":
    sys.exit(main())
