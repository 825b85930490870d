"""How far can sparsity go, and how does the network die? From 98 to 99.9 %, layer by layer."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes

from experiments.collapse import collapsed
from experiments.config import Config
from experiments.configs import (
    fashion_mnist,
    fashion_mnist_cnn_recipe,
    fashion_mnist_recipe,
)
from experiments.log import Row
from experiments.methods.gmp import Settings as GMPSettings
from experiments.methods.grda import Settings as GRDASettings
from experiments.plotting import COLORS, plt
from experiments.studies import tables
from experiments.studies.frontier_figures import DPI, WIDTH, finish

title = "Extremes: up to 99.9 % zeros, Fashion-MNIST"

SEEDS = (0, 1, 2)
SPARSITIES = (0.98, 0.99, 0.995, 0.998, 0.999)
STRENGTHS = (0.005, 0.01, 0.02, 0.04, 0.08)
MU = 0.7
CHANCE = 10.0
FIGURE = "extremes.png"


class Series(NamedTuple):
    """A method on a network, from what it prunes little to what it prunes most."""

    label: str
    preset: str
    configs: tuple[Config, ...]
    """Of seed 0."""

    def of(self, config: Config) -> list[Config]:
        """One a seed."""
        return [dataclasses.replace(config, seed=seed) for seed in SEEDS]


def _told(label: str, preset: str, base: Config, method: str, sparsities: Sequence[float],
          **fields: object) -> Series:  # fmt: skip
    config = dataclasses.replace(base, method=(method,), **fields)  # type: ignore[arg-type]
    made = tuple(dataclasses.replace(config, sparsity=s) for s in sparsities)
    return Series(label, preset, made)


_MLP = ("fashion_mnist_recipe", fashion_mnist_recipe.CONFIG)
_CNN = ("fashion_mnist_cnn_recipe", fashion_mnist_cnn_recipe.CONFIG)
NETWORKS = {
    "mlp": (
        _told("recipe", *_MLP, "recipe", SPARSITIES),
        _told("GMP, global", *_MLP, "gmp", SPARSITIES),
        _told("GMP, ERK", *_MLP, "gmp", SPARSITIES, gmp=GMPSettings(allocation="erk")),
        Series(
            f"gRDA, mu = {MU}",
            "fashion_mnist",
            tuple(
                dataclasses.replace(
                    fashion_mnist.CONFIG, method=("grda",), grda=GRDASettings(c=c, mu=MU)
                )
                for c in STRENGTHS
            ),
        ),
    ),
    "small_cnn": (
        _told("recipe", *_CNN, "recipe", SPARSITIES[2:]),
        _told("GMP, global", *_CNN, "gmp", SPARSITIES[2:]),
        _told("GMP, ERK", *_CNN, "gmp", SPARSITIES[2:], gmp=GMPSettings(allocation="erk")),
    ),
}
MARKERS = ("o", "s", "D", "^")
LINES = ("-", "--", "-.", ":")


def runs() -> list[tuple[Config, str]]:
    """The MLP first; of each network the seeds outermost."""
    return [
        (series.of(config)[i], series.preset)
        for many in NETWORKS.values()
        for i in range(len(SEEDS))
        for series in many
        for config in series.configs
    ]


def kernels(row: Row) -> dict[str, Row]:
    """The counts of the leaves that a signal goes through, but for BatchNorm's scales."""
    return {k: v for k, v in row["result"]["leaves"].items() if k.endswith("kernel")}


def dead(row: Row) -> bool:
    """Whether the network says the same of everything: no better than chance."""
    return tables.accuracy(row) <= CHANCE + 1e-6


def left(row: Row) -> float:
    """How many weights of the kernels are left."""
    return float(sum(count["nnz"] for count in kernels(row).values()))


def render(rows: list[Row], folder: Path) -> str:
    """A table for each network that has rows, and the figure."""
    found = tables.by_config(rows)
    parts = [
        "Momentum, weight decay and a cosine rate, but for gRDA, which is the paper's (a constant "
        f"rate, mu = {MU}) and gets sparser by its strength c. Zeros among the kernels; the "
        "weights left are means over seeds. A layer has collapsed where none of its weights is "
        "left, which is a cross at the bottom of the figure where it is so in all seeds; a network "
        f"is dead where it is no better than chance ({CHANCE:g} %).",
        f"![Accuracy and the weights of each layer at extreme sparsity]({FIGURE})",
    ]
    for network, many in NETWORKS.items():
        lines = []
        names: list[str] = []
        for series in many:
            for config in series.configs:
                group = [found[x] for x in series.of(config) if x in found]
                if not group:
                    continue
                names = list(kernels(group[0]))
                total = sum(x["total"] for x in kernels(group[0]).values())
                mean = tables.spread(map(left, group)).mean
                counts = [
                    f"{tables.spread(kernels(row)[name]['nnz'] for row in group).mean:,.0f}"
                    for name in names
                ]
                lines.append(
                    [
                        series.label,
                        f"{100 * (1 - mean / total):.2f}",
                        tables.plus_minus(tables.spread(map(tables.accuracy, group))),
                        *counts,
                        _collapses(group),
                        f"{sum(map(dead, group))} of {len(group)}",
                    ]
                )
        if lines:
            layers = [name.removesuffix("/kernel") for name in names]
            header = ["", "zeros (%)", "test accuracy (%)", *layers, "collapsed", "dead"]
            parts += [f"**{network}**", tables.markdown(header, lines)]
    _draw(found, folder / FIGURE)
    return "\n\n".join(parts)


def _collapses(group: list[Row]) -> str:
    """The layers that have collapsed, each with the number of seeds where there are several."""
    names = [
        name.removesuffix("/kernel") for row in group for name in collapsed(row["result"]["leaves"])
    ]
    each = [f"{name} ({names.count(name)} of {len(group)})" for name in dict.fromkeys(names)]
    return ", ".join(each) or "none"


def _draw(found: dict[Config, Row], path: Path) -> None:
    """Above the accuracy against the weights left, below the layers: a row for each network."""
    columns = max(map(len, NETWORKS.values()))
    fig = plt.figure(figsize=(WIDTH, 2.4 + 2.1 * len(NETWORKS)))
    grid = fig.add_gridspec(
        1 + len(NETWORKS), 1, left=0.09, right=0.985, bottom=0.07, top=0.965, hspace=0.5
    )
    above: list[Axes] = list(grid[0].subgridspec(1, len(NETWORKS), wspace=0.08).subplots())  # type: ignore[arg-type]
    for axes, (network, many) in zip(above, NETWORKS.items(), strict=True):
        for series in many:
            _accuracies(axes, series, groups_of(series, found))
        axes.axhline(CHANCE, color="0.5", linestyle=":", linewidth=1)
        axes.annotate("chance", (0.01, CHANCE + 2), xycoords=("axes fraction", "data"), fontsize=7)
        axes.set(xscale="log", xlabel="weights left", ylim=(0, 95))
        axes.set_title(network, fontsize=7.5)
        _towards_sparse(axes)
    above[0].set_ylabel("test accuracy (%)")
    above[-1].tick_params(labelleft=False)
    if above[0].containers:
        above[0].legend(frameon=False, fontsize=7.5, loc="center left")
    for k, (network, many) in enumerate(NETWORKS.items()):
        panels: list[Axes] = list(grid[1 + k].subgridspec(1, columns).subplots(sharey=True))  # type: ignore[arg-type]
        for axes, series in zip(panels, many, strict=False):
            if groups := groups_of(series, found):
                _layers(axes, groups)
            axes.set(xscale="log", yscale="log", ylim=(1e-4, 200), xlabel="weights left")
            axes.xaxis.set_minor_formatter("")
            axes.set_title(f"{network}, {series.label}", fontsize=7.5)
            axes.set_xlim(above[k].get_xlim())
            finish(axes)
        panels[0].set_ylabel("left in the layer (%)")
        for axes in panels[len(many) :]:
            axes.set_axis_off()
        if panels[0].lines:
            lines, names = panels[0].get_legend_handles_labels()
            if len(many) < columns:  # there is room beside them
                panels[-1].legend(lines, names, frameon=False, fontsize=6.5, loc="center left")
            else:
                panels[0].legend(lines, names, frameon=False, fontsize=6.5, loc="lower left")
    fig.savefig(path, dpi=DPI)
    plt.close(fig)


def groups_of(series: Series, found: dict[Config, Row]) -> list[list[Row]]:
    """The rows of each of its configs that has any, over seeds."""
    groups = [[found[x] for x in series.of(c) if x in found] for c in series.configs]
    return [group for group in groups if group]


def _accuracies(axes: Axes, series: Series, groups: list[list[Row]]) -> None:
    """A method on a network; each method has its mark on both."""
    if not groups:
        return
    i = [x.label for x in NETWORKS["mlp"]].index(series.label)
    scores = [tables.spread(map(tables.accuracy, group)) for group in groups]
    axes.errorbar(
        [max(0.7, tables.spread(map(left, group)).mean) for group in groups],
        [x.mean for x in scores],
        yerr=[x.std if x.std == x.std else 0 for x in scores],
        color=COLORS[i],
        marker=MARKERS[i],
        linestyle=LINES[i],
        ms=4.5,
        lw=1.3,
        capsize=2,
        label=series.label,
    )


def _towards_sparse(axes: Axes) -> None:
    low, high = axes.get_xlim()
    axes.set_xlim(1.5 * high, low / 1.5)
    finish(axes)


def _layers(axes: Axes, groups: list[list[Row]]) -> None:
    """The share of each layer that is left; a cross at the bottom where it has collapsed."""
    for k, name in enumerate(kernels(groups[0][0])):
        x, y, gone = [], [], []
        for group in groups:
            share = tables.spread(
                100 * kernels(row)[name]["nnz"] / kernels(row)[name]["total"] for row in group
            ).mean
            x.append(max(0.7, tables.spread(map(left, group)).mean))
            y.append(share if share else float("nan"))
            gone.append(share == 0)
        color, label = COLORS[k % len(COLORS)], name.removesuffix("/kernel")
        axes.plot(
            x,
            y,
            color=color,
            marker=MARKERS[k % 4],
            linestyle=LINES[k % 4],
            ms=3,
            lw=1,
            label=label,
        )
        # In a row of their own each, since several layers may collapse at once.
        crosses = [a for a, empty in zip(x, gone, strict=True) if empty]
        axes.plot(crosses, [2e-4 * 2**k] * len(crosses), "x", color=color, ms=5, clip_on=False)
