"""Where the zeros are: layer by layer, beside ERK at as many zeros, and published allocations.

    python -m experiments.run digits
    python -m experiments.analysis.layers runs/digits/grda

Of ResNet-50 on ImageNet others have published the sparsity of each layer, by AMC (He et al., ECCV
2018), by gRDA and by variational dropout; results/published_layers.csv holds them with their
source.
"""

import csv
import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import tyro
from rich.console import Console

from experiments import kept
from experiments.analysis import record
from experiments.analysis.runs import Run, labels, read
from experiments.log import Row
from experiments.methods._allocation import erdos_renyi_kernel
from experiments.plotting import COLORS, plt
from experiments.studies import tables
from experiments.studies.frontier_figures import DPI, WIDTH, finish

title = "Sparsity layer by layer"
NAME = "layers"
PUBLISHED = Path(__file__).parent.parent / "results" / "published_layers.csv"
FIGURE = "published_layers.png"
PANELS = (
    (("gRDA c=0.01 mu=0.4", COLORS[1], "o"), ("AMC", COLORS[2], "^"), ("ERK 80 %", "0.35", "")),
    (
        ("gRDA c=0.005 mu=0.55", COLORS[1], "o"),
        ("variational dropout", COLORS[3], "v"),
        ("ERK 90 %", "0.35", ""),
    ),
)
MARKERS = ("o", "s", "D", "^", "v")


class Published(NamedTuple):
    """A published allocation on ResNet-50: the fraction of zeros of each layer."""

    layers: list[str]
    shapes: list[tuple[int, ...]]
    sparsity: dict[str, list[float]]
    """By method, in the order of the layers."""

    def total(self, method: str) -> float:
        """The fraction of zeros over all layers."""
        sizes = [math.prod(shape) for shape in self.shapes]
        return float(np.average(self.sparsity[method], weights=sizes))


def published() -> Published:
    """All that is published."""
    with PUBLISHED.open() as file:
        rows = list(csv.DictReader(file))
    methods = [name for name in rows[0] if name not in ("layer", "shape", "source")]
    return Published(
        [row["layer"] for row in rows],
        [tuple(map(int, row["shape"].split("x"))) for row in rows],
        {name: [float(row[name]) for row in rows] for name in methods},
    )


def measure(runs: Sequence[Run]) -> Row:
    """Of each kernel how many weights are left, and how many ERK would leave."""
    series = []
    for label, run in zip(labels(runs), runs, strict=True):
        params, _ = run.last()
        kernels = {
            kept.name(path): np.asarray(leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)
            if leaf.ndim >= 2
        }
        nonzero = [int((leaf != 0).sum()) for leaf in kernels.values()]
        erk = erdos_renyi_kernel(sum(nonzero), [leaf.shape for leaf in kernels.values()])
        layers = [
            {"name": name, "shape": list(leaf.shape), "nonzero": count, "erk": other}
            for (name, leaf), count, other in zip(kernels.items(), nonzero, erk, strict=True)
        ]
        series.append({"label": label, "layers": layers})
    return {"series": series}


def zeros(layer: Row, of: str = "nonzero") -> float:
    """In per cent."""
    return 100 * (1 - float(layer[of]) / math.prod(layer["shape"]))


def figure(found: Row, path: Path) -> None:
    """A line for each layer: what the runs have, filled, and what ERK would give, hollow."""
    every = found["result"]["series"]
    names = [x["name"].removesuffix("/kernel") for x in every[0]["layers"]]
    fig, axes = plt.subplots(figsize=(WIDTH / 2, 0.9 + 0.34 * len(names)), layout="constrained")
    height = 0.5 / len(every)
    for i, series in enumerate(every):
        places = np.arange(len(names)) + (i - (len(every) - 1) / 2) * height
        color, marker = COLORS[(i + 1) % len(COLORS)], MARKERS[i % len(MARKERS)]
        own = [zeros(x) for x in series["layers"]]
        erk = [zeros(x, "erk") for x in series["layers"]]
        axes.hlines(places, own, erk, color=color, linewidth=0.8, alpha=0.6)
        axes.plot(own, places, marker, color=color, ms=5, label=series["label"])
        axes.plot(erk, places, marker, color=color, ms=5, mfc="white", label="ERK, as many zeros")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel="zeros in the layer (%)", xlim=(-4, 104))
    axes.grid(axis="y", color="0.92")
    finish(axes)
    axes.legend(
        frameon=False, fontsize=7, ncols=2, loc="lower left", bbox_to_anchor=(-0.02, 1.0),
        handletextpad=0.2, columnspacing=1.0,
    )  # fmt: skip
    fig.savefig(path, dpi=DPI)
    plt.close(fig)


def figure_published(path: Path) -> None:
    """Draws the published allocations, layers from the input to the output."""
    there = published()
    fig, panels = plt.subplots(2, 1, figsize=(WIDTH, 4.2), sharex=True, layout="constrained")
    places = np.arange(1, len(there.layers) + 1)
    firsts = [
        i + 1 for i, name in enumerate(there.layers) if i and name[:6] != there.layers[i - 1][:6]
    ]
    for axes, methods in zip(panels, PANELS, strict=True):
        for name, color, marker in methods:
            values = 100 * np.array(there.sparsity[name])
            text = f"{name.replace(' mu', ', mu')}: {100 * there.total(name):.1f} % in all"
            text = text if "ERK" not in name else name
            step = {} if marker else {"drawstyle": "steps-mid"}
            axes.plot(
                places, values, color=color, marker=marker, ms=3.5, lw=1.0, label=text, **step
            )
        for first in firsts:
            axes.axvline(first - 0.5, color="0.85", linewidth=0.8, zorder=0)
        axes.set(ylabel="zeros in the layer (%)", ylim=(-4, 104))
        finish(axes)
        axes.legend(edgecolor="none", framealpha=1, fontsize=7.5, loc="lower right")
    bounds = [0.5, *(x - 0.5 for x in firsts), len(places) + 0.5]
    stages = ["conv1", *(f"stage {i}" for i in range(1, 5)), "fc"]
    for low, high, stage in zip(bounds, bounds[1:], stages, strict=False):
        if high - low > 2:
            panels[0].text((low + high) / 2, 101, stage, ha="center", fontsize=7, color="0.35")
    panels[1].set(xlabel="layer, from the input (conv1) to the output (fc)")
    panels[1].set_xlim(0.5, len(places) + 0.5)
    fig.savefig(path, dpi=DPI)
    plt.close(fig)


def text(found: Row) -> str:
    """A line for each layer of each run."""
    lines = []
    for series in found["result"]["series"]:
        for x in series["layers"]:
            size = math.prod(x["shape"])
            numbers = [f"{x['nonzero']:,} of {size:,}", f"{zeros(x):.2f}", f"{zeros(x, 'erk'):.2f}"]
            lines.append([series["label"], x["name"], *numbers])
    return tables.markdown(["", "layer", "nonzero", "zeros (%)", "ERK (%)"], lines)


def render(folder: Path) -> str:
    """What is published, and every record that was saved."""
    figure_published(folder / FIGURE)
    there = published()
    ours, theirs, erk = (there.sparsity[x] for x in ("gRDA c=0.01 mu=0.4", "AMC", "ERK 80 %"))
    alike = np.corrcoef(ours, theirs)[0, 1]
    own = record.pages(
        folder,
        NAME,
        figure,
        text,
        "Zeros layer by layer",
        "Our own runs, kernels alone, beside ERK (Evci et al., 2020) at as many zeros:",
    )
    return "\n\n".join(
        [
            "ResNet-50 on ImageNet, as it was published (each number with its source in "
            f"`published_layers.csv`). At 80 % ERK leaves {sum(x == 0 for x in erk)} of the "
            f"{len(erk)} layers dense; gRDA has from {100 * min(ours):.0f} to "
            f"{100 * max(ours):.0f} % zeros in each, and AMC, whose allocation was searched for, "
            f"from {100 * min(theirs):.0f} to {100 * max(theirs):.0f} %. Over the layers, these "
            f"two have a correlation of {alike:.2f}.",
            f"![Published zeros layer by layer]({FIGURE})",
            *([own] if own else []),
        ]
    )


@dataclasses.dataclass(frozen=True)
class Arguments(record.Saved):
    """Where the zeros of some runs are, layer by layer."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs."""


def analyse(arguments: Arguments, console: Console) -> Row:
    """Counts, prints and writes."""
    runs = read(arguments.runs)
    found = record.write(NAME, runs, {}, measure(runs), figure, arguments.save, console)
    console.print(text(found), highlight=False)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Analyses from the command line."""
    return record.main(NAME, Arguments, analyse, arguments)


if __name__ == "__main__":
    sys.exit(main())
