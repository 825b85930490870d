"""Where gRDA stands on ImageNet, by numbers that others have published: ResNet-50.

The numbers, with the source of each, are in results/published.csv.
"""

import csv
import math
from pathlib import Path
from typing import NamedTuple

from experiments.plotting import plt
from experiments.studies import sweep, tables
from experiments.studies.frontier_figures import DPI, WIDTH, finish, place
from experiments.studies.labels import OTHERS, OURS, RIVAL, Style, label

title = "gRDA among its rivals, ResNet-50 on ImageNet (published numbers)"
DATA = Path(__file__).parent.parent / "results" / "published.csv"
FROM = 79.0
"""Sparser networks than that are compared, in per cent."""


class Published(NamedTuple):
    """One published network."""

    method: str
    schedule: str
    epochs: str
    sparsity: float
    accuracy: float
    source: str


class Series(NamedTuple):
    """One rival as it is drawn."""

    label: str
    style: Style


RIVALS = {
    "Gale magnitude (best of grid)": Series("magnitude", RIVAL),
    "Gale magnitude v2": Series("magnitude v2", OTHERS[0]),
    "AC/DC global magnitude": Series("AC/DC", OTHERS[1]),
    "STR": Series("STR", OTHERS[2]),
    "RigL ERK 1x": Series("RigL (ERK)", OTHERS[3]),
    "RigL ERK 5x": Series("RigL (ERK), 5 times as long", Style(marker="P", width=1.1)),
    "Gale variational dropout (best of grid)": Series("variational dropout", Style(width=1.1)),
    "Gale random pruning (best of grid)": Series("random", Style(width=1.1)),
}
SCHEDULES = {
    "fixed 0.1": ("x", "rate constant"),
    "0.1 ep1-140, 0.01 after": ("o", "rate to a tenth after 140 epochs"),
    "official (0.1, /10 every 30 ep)": ("^", "rate to a tenth every 30 epochs"),
}


def read() -> list[Published]:
    """All that is published."""
    with DATA.open() as file:
        return [
            Published(
                row["method"],
                row["schedule"],
                row["epochs"],
                float(row["sparsity"]),
                float(row["accuracy"]),
                row["source"],
            )
            for row in csv.DictReader(file)
        ]


def series(points: list[Published], method: str) -> list[Published]:
    """A rival's networks, by sparsity."""
    mine = [x for x in points if x.method == method and x.sparsity >= FROM]
    return sorted(mine, key=lambda x: x.sparsity)


def best(points: list[Published]) -> list[Published]:
    """The networks of gRDA to which no other of its own is superior, by sparsity."""
    mine = [x for x in points if x.method == "gRDA"]
    return sorted(
        (
            x
            for x in mine
            if not any(y.sparsity >= x.sparsity and y.accuracy > x.accuracy for y in mine)
        ),
        key=lambda x: x.sparsity,
    )


def render(folder: Path) -> str:
    """The figure, and every rival beside gRDA."""
    points = read()
    _draw(points, folder / "published.png")
    ours = [(x.sparsity / 100, x.accuracy) for x in best(points)]
    lines = []
    above = {"denser": [0, 0], "sparser": [0, 0]}
    for method, drawn in RIVALS.items():
        for x in series(points, method):
            value = sweep.read_at(ours, x.sparsity / 100)
            if value == -math.inf:
                continue
            count = above["denser" if x.sparsity < 100 * ours[0][0] else "sparser"]
            count[0] += value > x.accuracy
            count[1] += 1
            numbers = [f"{x.sparsity:.1f}", f"{x.accuracy:.1f}", f"{value:.1f}"]
            lines.append([drawn.label, *numbers, f"{value - x.accuracy:+.1f}"])
    dense = {x.method: x.accuracy for x in points if x.sparsity == 0}
    names = ("dense (STR recipe)", "dense (RigL recipe)", "jaxpruner no_prune")
    others = ", ".join(f"{dense[name]:.1f}" for name in names)
    return "\n\n".join(
        [
            "Nothing here was run for this page: the numbers are those that the authors have "
            "published, each with its source in `published.csv`. They differ in more than the "
            "method. gRDA's are single runs of 85 to 154 epochs, without momentum or weight decay, "
            "with the checkpoint chosen on the validation set that is reported, and count the "
            "zeros among all weights; the dense network of its constant rate has "
            f"{dense['SGD (no momentum, no wd)']:.1f} %, where the dense networks of the others "
            f"have {others} %. Magnitude pruning, random pruning and variational dropout are the "
            "best of a grid by Gale, Elsen and Hooker.",
            f"The best network of gRDA has {ours[0][1]:.1f} % at {100 * ours[0][0]:.1f} % zeros. "
            f"Of the {above['denser'][1]} published networks with fewer zeros than that, it is "
            f"better than {above['denser'][0]}; where more is left out, gRDA (interpolated between "
            f"its best networks) is better than {above['sparser'][0]} of {above['sparser'][1]}. "
            "What it does not have is the accuracy of the others while there are many weights.",
            "![Accuracy against sparsity, ResNet-50 on ImageNet](published.png)",
            tables.markdown(
                ["", "zeros (%)", "top-1 (%)", "gRDA there (%)", "difference"],
                lines,
            ),
        ]
    )


def _draw(points: list[Published], path: Path) -> None:
    fig, axes = plt.subplots(figsize=(WIDTH, 4.4))
    fig.subplots_adjust(left=0.085, right=0.72, top=0.97, bottom=0.105)
    ends, texts, styles = [], [], []
    for method, (text, style) in RIVALS.items():
        mine = series(points, method)
        x = [place(p.sparsity / 100) for p in mine]
        y = [p.accuracy for p in mine]
        axes.plot(
            x, y, color=style.color, marker=style.marker, linewidth=style.width, markersize=4.5
        )
        ends.append((x[-1], y[-1]))
        texts.append(text)
        styles.append(style)
    front = best(points)
    axes.plot(
        [place(p.sparsity / 100) for p in front],
        [p.accuracy for p in front],
        color=OURS.color,
        linewidth=OURS.width,
        zorder=4,
    )
    for schedule, (marker, text) in SCHEDULES.items():
        mine = [p for p in points if p.method == "gRDA" and p.schedule == schedule]
        axes.scatter(
            [place(p.sparsity / 100) for p in mine],
            [p.accuracy for p in mine],
            color=OURS.color,
            marker=marker,
            s=22,
            zorder=5,
            label=f"gRDA, {text}",
        )
    axes.set_ylim(50, 78.5)
    axes.set_xlim(place(FROM / 100), place(0.992))
    ticks = (80, 90, 95, 98, 99)
    axes.set_xticks([place(t / 100) for t in ticks], [str(t) for t in ticks])
    axes.set(xlabel="zeros (%)", ylabel="top-1 accuracy (%)")
    axes.legend(frameon=False, fontsize=7, loc="lower left")
    finish(axes)
    label(axes, ends, texts, styles, size=7)
    fig.savefig(path, dpi=DPI)
    plt.close(fig)
