"""The tables and the figure of `connectivity`, from its record alone."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from experiments.analysis import record
from experiments.log import Row
from experiments.plotting import COLORS, plt
from experiments.studies import tables
from experiments.studies.frontier_figures import DPI, WIDTH, finish

title = "A path of low loss from SGD to gRDA"
NAME = "connectivity"
SGD, GRDA = COLORS[0], COLORS[1]
CURVE, LINE = "#222222", "0.5"


def figure(found: Row, path: Path) -> None:
    """Above loss and accuracy along the curve and the line, below the plane."""
    result = found["result"]
    rows = 2 if "plane" in result else 1
    fig, panels = plt.subplots(
        rows, 2, figsize=(WIDTH, 0.6 + 2.6 * rows), layout="constrained", squeeze=False
    )
    _along(panels[0, 0], result, "loss")
    _along(panels[0, 1], result, "accuracy")
    if "plane" in result:
        for axes, name in zip(panels[1], ("train_loss", "test_error"), strict=True):
            _plane(axes, result["plane"], name)
    fig.savefig(path, dpi=DPI)
    plt.close(fig)


def _along(axes: Axes, result: Row, of: str) -> None:
    for way, color, line in (("line", LINE, "--"), ("curve", CURVE, "-")):
        t = [x["t"] for x in result[way]]
        for split, marker in (("train", "."), ("test", "")):
            values = [x[f"{split}_{of}"] for x in result[way]]
            axes.plot(
                t,
                values,
                color=color,
                linestyle=line,
                marker=marker,
                markersize=4,
                linewidth=1.2,
                label=f"{'straight line' if way == 'line' else 'curve'}, {split}",
            )
    for end, color, name in ((0, SGD, "SGD"), (-1, GRDA, "gRDA")):
        for split in ("train", "test"):
            axes.plot(
                result["curve"][end]["t"],
                result["curve"][end][f"{split}_{of}"],
                "o",
                color=color,
                markersize=5.5,
                zorder=5,
                clip_on=False,
                label=name if split == "train" else None,
            )
    if of == "accuracy":
        for name, color, label in (
            ("trained_on", COLORS[2], "SGD trained on, test"),
            ("mean_of_both", COLORS[3], "mean of both, test"),
        ):
            mark = {"trained_on": "s", "mean_of_both": "D"}[name]
            axes.plot(0.5, result[name]["test_accuracy"], mark, color=color, ms=5, label=label)
    axes.set(
        xlabel="t (0 is SGD, 1 is gRDA)",
        ylabel="loss (nats)" if of == "loss" else "accuracy (%)",
        xlim=(0, 1),
    )
    finish(axes)
    handles, names = axes.get_legend_handles_labels()
    mine = [
        (h, n)
        for h, n in zip(handles, names, strict=True)
        if (of == "loss") == (("," in n and not n.endswith(", test")) or n.startswith(("c", "st")))
    ]
    if mine:
        # Above, since below there are curves wherever a network puts them.
        axes.legend(
            *zip(*mine, strict=True),
            frameon=False,
            fontsize=7,
            ncols=2,
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
        )


def _plane(axes: Axes, plane: Row, name: str) -> None:
    values = np.array(plane[name])
    low = values.min()
    # Close to the minimum the levels are dense, and far above the ends there are none: what is
    # to be seen is where the path is.
    ends = max(_nearest(plane, values, plane[x]) for x in ("sgd", "grda"))
    high = min(values.max(), low + 8 * (ends - low))
    levels = low + (high - low) * np.linspace(0, 1, 13) ** 1.6
    filled = axes.contourf(
        plane["x"], plane["y"], values, levels=levels, cmap="cividis_r", extend="max"
    )
    axes.contour(
        plane["x"], plane["y"], values, levels=levels[1:-1], colors="white", linewidths=0.4
    )
    (x0, y0), (x1, y1), (xb, yb) = plane["sgd"], plane["grda"], plane["bend"]
    t = np.linspace(0, 1, 60)
    ways = ((x0, xb, x1), (y0, yb, y1))
    curve = [(1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c for a, b, c in ways]
    axes.plot(*curve, color="#222222", linewidth=1.4)
    axes.plot([x0, x1], [y0, y1], color="#222222", linewidth=1.2, linestyle="--")
    for x, y, color, text, mark in (
        (x0, y0, SGD, "SGD", "o"),
        (x1, y1, GRDA, "gRDA", "o"),
        (xb, yb, "white", "bend", "D"),
    ):
        axes.plot(x, y, mark, color=color, markeredgecolor="black", markersize=6, zorder=5)
        axes.annotate(
            text,
            (x, y),
            xytext=(0, 7 if text == "bend" else -13),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
            # Its place may be as dark as the words.
            path_effects=[withStroke(linewidth=2, foreground="white", alpha=0.8)],
        )
    label = "training loss (nats)" if name == "train_loss" else "test error (%)"
    bar = axes.figure.colorbar(filled, ax=axes, format="%.3g")
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    axes.set(xlabel="distance along SGD to gRDA", ylabel="distance to the side")
    finish(axes)


def _nearest(plane: Row, values: np.ndarray, point: list[float]) -> float:
    """The value at the point of the grid that is nearest."""
    j, i = (
        np.abs(np.array(plane[axis]) - at).argmin() for axis, at in zip("xy", point, strict=True)
    )
    return float(values[i, j])


def text(found: Row) -> str:
    """The ends, the middles, and the two for comparison; and the barriers."""
    result = found["result"]
    curve, line = result["curve"], result["line"]
    best = max(curve[1:-1], key=lambda x: x["test_accuracy"])
    rows = {
        "SGD": curve[0],
        "gRDA": curve[-1],
        "curve, t = 0.5": result["curve_middle"],
        f"curve at its best test accuracy, t = {best['t']:.2f}": best,
        "mean of both ends (SWA of the two)": result["mean_of_both"],
        "SGD trained on as long as the bend": result["trained_on"],
    }
    lines = [
        [
            name,
            f"{x['train_loss']:.4f}",
            f"{x['train_accuracy']:.2f}",
            f"{x['test_loss']:.4f}",
            f"{x['test_accuracy']:.2f}",
        ]
        for name, x in rows.items()
    ]
    header = ["", "train loss", "train accuracy (%)", "test loss", "test accuracy (%)"]
    return "\n\n".join(
        [
            tables.markdown(header, lines),
            "Along the curve the training loss "
            f"{_above(barrier(curve))}, and along the straight line it {_above(barrier(line))}. Of "
            f"{result['weights']:,} weights SGD has {result['nonzero'][0]:,} that are not zero, "
            f"gRDA {result['nonzero'][1]:,}, and the curve between them all of SGD's.",
        ]
    )


def barrier(way: list[Row]) -> float:
    """How far the training loss goes above that of the worse end, 0 if it does not."""
    worse = max(way[0]["train_loss"], way[-1]["train_loss"])
    return float(max(x["train_loss"] for x in way) - worse)


def _above(height: float) -> str:
    if height <= 0:
        return "is nowhere above that of the worse end"
    return f"rises by {height:.4f} nats at most above that of the worse end"


def render(folder: Path) -> str:
    """Every record that was saved."""
    return record.pages(
        folder,
        NAME,
        figure,
        text,
        "The path between SGD and gRDA, and the plane around it",
        "A quadratic Bezier curve between the solutions of SGD and of gRDA, from the same start "
        "and with the same batches; its bend is trained (Garipov et al., 2018), for more epochs "
        "and with a rate that falls, so that its middle has learned more than either end. Whether "
        "an accuracy above theirs comes from there shows SGD's solution, trained on in the same "
        "way.",
    )
