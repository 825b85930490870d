"""The figures of the frontier, each as wide as a column of text."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from experiments.plotting import plt
from experiments.studies import tables
from experiments.studies.contenders import EVERYONE
from experiments.studies.frontier_cells import Results
from experiments.studies.labels import GREY, Style, label, styles

CAPTIONS = {
    "sparsity": "Accuracy against sparsity",
    "cost": "Accuracy at 95 % against the cost of training",
    "layers": "Sparsity layer by layer at 95 %",
}
WIDTH = 6.8
DPI = 170
Point = tuple[float, float]


def place(sparsity: float) -> float:
    """Where a sparsity is on an axis that is logarithmic in the weights that are left."""
    return -math.log10(1 - sparsity)


def finish(axes: Axes) -> None:
    """Small letters, and no frame."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7.5)
    axes.xaxis.label.set_fontsize(8.5)
    axes.yaxis.label.set_fontsize(8.5)


def _limits(axes: Axes, seen: list[float], everything: list[float]) -> None:
    """What stands out fills the axes; what is far below is pointed at."""
    top, low = max(everything), min(seen)
    room = max(top - low, 0.5)
    axes.set_ylim(max(low - 0.35 * room, min(everything) - 0.05 * room), top + 0.08 * room)


def _text(axes: Axes, name: str, value: float) -> str:
    below = value < axes.get_ylim()[0]
    return EVERYONE[name].label + (f" ({value:.1f})" if below else "")


def accuracy_by_sparsity(
    results: Results, sparsities: Sequence[float], read_at: float, path: Path
) -> bool:
    """Draws every contender, a few of them in colour; says whether there was anything to draw."""
    del read_at
    curves: dict[str, list[tuple[float, tables.Spread]]] = {}
    for name in results.names():
        cells = [(s, results.score(name, s)) for s in sparsities]
        cells = [(s, score) for s, score in cells if score.n]
        if cells and EVERYONE[name].kind != "once":
            curves[name] = cells
    if not curves:
        return False
    styled = styles(list(curves), results.ranking(sparsities))
    fig, axes = plt.subplots(figsize=(WIDTH, 5.0))
    fig.subplots_adjust(left=0.085, right=0.72, top=0.975, bottom=0.09)
    # What stands out is drawn last, on top.
    for name in sorted(curves, key=lambda name: styled[name].width):
        _curve(axes, results, name, curves[name], styled[name])
    dense = results.score("dense", 0.0)
    every = [score.mean for cells in curves.values() for _, score in cells]
    if dense.n:
        axes.axhline(dense.mean, color="black", linestyle=(0, (1, 2)), linewidth=1)
        axes.annotate(
            "dense", (place(sparsities[0]), dense.mean), (0, 2), textcoords="offset points", size=7
        )
        every.append(dense.mean)
    seen = [score.mean for n, c in curves.items() if styled[n].stands_out for _, score in c]
    _limits(axes, seen or every, every)
    axes.set_xlim(place(sparsities[0]) - 0.06, place(sparsities[-1]) + 0.03)
    axes.set_xticks([place(s) for s in sparsities], [f"{100 * s:.0f}" for s in sparsities])
    axes.set(xlabel="zeros (%)", ylabel="test accuracy (%)")
    finish(axes)
    ends = [(place(cells[-1][0]), cells[-1][1].mean) for cells in curves.values()]
    texts = [_text(axes, name, y) for name, (_, y) in zip(curves, ends, strict=True)]
    label(axes, ends, texts, [styled[name] for name in curves])
    fig.savefig(path, dpi=DPI)
    plt.close(fig)
    return True


def _curve(
    axes: Axes,
    results: Results,
    name: str,
    cells: list[tuple[float, tables.Spread]],
    style: Style,
) -> None:
    """One contender, with the runs of a sweep as points of their own."""
    x = [place(s) for s, _ in cells]
    y = [score.mean for _, score in cells]
    # Of those in grey the table has the intervals; here they would hide one another.
    half = [score.interval if style.stands_out else 0.0 for _, score in cells]
    order = 3 if style.stands_out else 1
    axes.errorbar(
        x,
        y,
        yerr=np.nan_to_num(half),
        color=style.color,
        marker=style.marker,
        markersize=4.5 if style.stands_out else 2.5,
        linewidth=style.width,
        elinewidth=style.width / 2,
        capsize=2 if style.stands_out else 0,
        alpha=1 if style.stands_out else 0.55,
        zorder=order,
    )
    if EVERYONE[name].kind == "swept":
        points = [(tables.sparsity(r) / 100, tables.accuracy(r)) for r in results.runs(name)]
        points = [(s, accuracy) for s, accuracy in points if s < 1]
        axes.scatter(
            [place(s) for s, _ in points],
            [accuracy for _, accuracy in points],
            s=9 if style.stands_out else 5,
            facecolors="none",
            edgecolors=style.color,
            linewidths=0.6 if style.stands_out else 0.4,
            alpha=0.7,
            zorder=order,
        )


def accuracy_by_cost(
    results: Results, sparsities: Sequence[float], read_at: float, path: Path
) -> bool:
    """Draws a point for each; on the left are the names of those that take one budget."""
    points: dict[str, Point] = {}
    for name in results.names():
        score = results.score(name, read_at)
        cost = results.relative(name, "gradient_evaluations", read_at)
        if score.n and not math.isnan(cost):
            points[name] = (cost, score.mean)
    if not points:
        return False
    styled = styles(list(points), results.ranking(sparsities))
    fig, axes = plt.subplots(figsize=(WIDTH, 4.6))
    fig.subplots_adjust(left=0.34, right=0.82, top=0.975, bottom=0.1)
    for name, (cost, accuracy) in points.items():
        style, score = styled[name], results.score(name, read_at)
        axes.errorbar(
            [cost],
            [accuracy],
            yerr=None if math.isnan(score.interval) else [score.interval],
            color=style.color,
            marker=style.marker if style.stands_out else "o",
            markersize=6 if style.stands_out else 3.5,
            elinewidth=0.8,
            capsize=2,
            alpha=1 if style.stands_out else 0.6,
            zorder=3 if style.stands_out else 1,
        )
    every = [accuracy for _, accuracy in points.values()]
    seen = [accuracy for name, (_, accuracy) in points.items() if styled[name].stands_out]
    _limits(axes, seen or every, every)
    axes.set_xscale("log", base=2)
    costs = [cost for cost, _ in points.values()]
    low, high = math.log2(min(costs)), max(1.0, math.log2(max(costs)))
    axes.set_xlim(2 ** (low - 0.15 * (high - low)), 2 ** (high + 0.1 * (high - low)))
    ticks = [2.0**k for k in range(math.ceil(low - 0.01), math.floor(high) + 1)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("gradients of a batch, relative to dense training")
    # The names of one side lie between the scale and the axes.
    axes.set_ylabel(f"test accuracy at {100 * read_at:.0f} % (%)")
    finish(axes)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", left=False, pad=118)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)
    bottom = axes.get_ylim()[0]
    below = [cost for cost, accuracy in points.values() if accuracy < bottom]
    axes.scatter(below, [bottom] * len(below), marker="v", s=16, color=GREY, clip_on=False)
    for side in ("left", "right"):
        names = [name for name, (cost, _) in points.items() if (cost < 1.1) == (side == "left")]
        label(
            axes,
            [points[name] for name in names],
            [_text(axes, name, points[name][1]) for name in names],
            [styled[name] for name in names],
            side=side,
        )
    fig.savefig(path, dpi=DPI)
    plt.close(fig)
    return True


def layers(results: Results, sparsities: Sequence[float], read_at: float, path: Path) -> bool:
    """Draws how many weights each layer keeps, by contender; few are dark."""
    kept: dict[str, dict[str, float]] = {}
    ranked = results.ranking(sparsities)
    others = [name for name in results.names() if name not in ranked]
    for name in [*ranked, *others]:
        rows = results.nearest(name, read_at)
        if not rows or EVERYONE[name].kind == "once" or name == "dense_narrow":
            continue
        zeros = tables.spread(map(tables.sparsity, rows)).mean
        off = abs(zeros - 100 * read_at) > 0.1
        text = EVERYONE[name].label + (f" (at {zeros:.1f} %)" if off else "")
        kept[text] = {
            leaf: tables.spread(
                100 * row["result"]["leaves"][leaf]["nnz"] / row["result"]["leaves"][leaf]["total"]
                for row in rows
            ).mean
            for leaf, count in rows[0]["result"]["leaves"].items()
            if count["penalised"]
        }
        total = {leaf: x["total"] for leaf, x in rows[0]["result"]["leaves"].items()}
    if not kept:
        return False
    names = list(next(iter(kept.values())))
    values = np.array([[of[leaf] for leaf in names] for of in kept.values()])
    fig, axes = plt.subplots(figsize=(WIDTH, 0.9 + 0.19 * len(kept)), layout="constrained")
    values = np.maximum(values, 0.1)
    low, high = float(values.min()), max(float(values.max()), 2 * float(values.min()))
    norm = LogNorm(low, high)
    image = axes.imshow(values, aspect="auto", cmap="cividis", norm=norm)
    for (i, j), value in np.ndenumerate(values):
        axes.text(
            j,
            i,
            f"{100 - value:.1f}",
            ha="center",
            va="center",
            fontsize=6.5,
            color="white" if norm(value) < 0.5 else "black",
        )
    axes.set_xticks(
        range(len(names)),
        [f"{leaf.removesuffix('/kernel')}\n{total[leaf]:,}" for leaf in names],
        fontsize=7.5,
    )
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(kept)), list(kept), fontsize=7)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = fig.colorbar(image, ax=axes, pad=0.02, aspect=30)
    bar.set_label("weights that are left (%)", fontsize=7.5)
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= t <= high]
    bar.set_ticks(ticks, labels=[f"{t:g}" for t in ticks], fontsize=7)
    bar.minorticks_off()
    bar.outline.set_visible(False)
    fig.savefig(path, dpi=DPI)
    plt.close(fig)
    return True
