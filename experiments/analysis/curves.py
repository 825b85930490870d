"""Training curves: loss, accuracy and sparsity of some runs, epoch by epoch.

python -m experiments.run digits
python -m experiments.analysis.curves runs/digits/dense runs/digits/grda
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console

from experiments.analysis import record
from experiments.analysis.norms import LINES
from experiments.analysis.runs import Run, labels, read
from experiments.checks import check
from experiments.log import Row
from experiments.plotting import COLORS, plt
from experiments.studies import tables
from experiments.studies.frontier_figures import DPI, WIDTH, finish

title = "Training curves"
NAME = "curves"


def by_epoch(rows: Sequence[Row]) -> list[Row]:
    """The rows at the ends of the epochs, each with the mean loss of the updates since the last."""
    points, since = [], 0
    for i, row in enumerate(rows):
        if "eval_accuracy" in row:
            losses = [x["loss"] for x in rows[since : i + 1]]
            points.append(
                {
                    "step": row["step"],
                    "train_loss": float(np.mean(losses)),
                    "eval_loss": row["eval_loss"],
                    "accuracy": 100 * row["eval_accuracy"],
                    "zeros": 100 * row["sparsity_penalised"],
                }
            )
            since = i + 1
    return points


def measure(runs: Sequence[Run]) -> Row:
    """Of each run what its metrics say."""
    series = []
    for label, run in zip(labels(runs), runs, strict=True):
        points = by_epoch(run.rows)
        check(len(points) > 0, "run", str(run.path), "one with an epoch behind it")
        points = [{"epoch": run.epoch(x["step"])} | x for x in points]
        series.append({"label": label, "points": points})
    return {"series": series}


def figure(found: Row, path: Path) -> None:
    """Draws losses, accuracy and zeros side by side."""
    scored = found["runs"][0]["config"]["evaluate"]
    fig, panels = plt.subplots(1, 3, figsize=(WIDTH, 2.3), layout="constrained")
    for i, series in enumerate(found["result"]["series"]):
        style = {"color": COLORS[i % len(COLORS)], "linestyle": LINES[i % len(LINES)]}
        epochs = [x["epoch"] for x in series["points"]]
        for axes, name in zip(panels, ("train_loss", "accuracy", "zeros"), strict=True):
            values = [x[name] for x in series["points"]]
            axes.plot(epochs, values, marker=".", markersize=4, label=series["label"], **style)
    panels[0].set(xlabel="epoch", ylabel="training loss (nats)", yscale="log")
    panels[0].yaxis.set_minor_formatter("{x:g}")
    panels[0].tick_params(axis="y", which="minor", labelsize=7)
    panels[1].set(xlabel="epoch", ylabel=f"{scored} accuracy (%)")
    accuracies = [x["accuracy"] for s in found["result"]["series"] for x in s["points"]]
    panels[1].set_ylim(max(min(accuracies), max(accuracies) - 12) - 0.5, max(accuracies) + 0.5)
    panels[2].set(xlabel="epoch", ylabel="zeros (% of penalised)", ylim=(-3, 103))
    for axes in panels:
        finish(axes)
    panels[0].legend(frameon=False, fontsize=7.5)
    fig.savefig(path, dpi=DPI)
    plt.close(fig)


def text(found: Row) -> str:
    """The last epoch of each run."""
    lines = []
    for series in found["result"]["series"]:
        last = series["points"][-1]
        best = max(x["accuracy"] for x in series["points"])
        numbers = [f"{last['accuracy']:.2f}", f"{best:.2f}", f"{last['zeros']:.2f}"]
        lines.append([series["label"], f"{last['train_loss']:.4f}", *numbers])
    header = ["", "training loss (nats)", "accuracy (%)", "best epoch's (%)", "zeros (%)"]
    return tables.markdown(header, lines)


def render(folder: Path) -> str:
    """Every record that was saved."""
    return record.pages(
        folder,
        NAME,
        figure,
        text,
        "Training curves",
        "The training loss is the mean over the updates of an epoch; accuracy and zeros are those "
        "at its end, the zeros among penalised weights.",
    )


@dataclasses.dataclass(frozen=True)
class Arguments(record.WithData):
    """Loss, accuracy and sparsity of some runs along training."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs."""


def analyse(arguments: Arguments, console: Console) -> Row:
    """Reads, prints and writes."""
    runs = read(arguments.runs, arguments.data_dir)
    found = record.write(NAME, runs, {}, measure(runs), figure, arguments.save, console)
    console.print(text(found), highlight=False)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Analyses from the command line."""
    return record.main(NAME, Arguments, analyse, arguments)


if __name__ == "__main__":
    sys.exit(main())
