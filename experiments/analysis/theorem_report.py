"""Tables and figures of `theorem`, from its rows alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments.analysis.theorem import PROBLEMS, ROWS
from experiments.analysis.without_retraining import METHODS
from experiments.log import Row, read_rows
from experiments.plotting import plt
from experiments.studies import tables

title = "Directional pruning: its laws, and networks pruned without retraining"

STYLES = {
    "magnitude": ("#777777", "o", ":"),
    "obd": ("#b8922e", "v", ":"),
    "obd_fisher": ("#b8922e", "^", "-"),
    "obs": ("#4c6a92", "s", ":"),
    "obs_rounds": ("#4c6a92", "s", "-"),
    "directional": ("#d1603d", "D", ":"),
    "directional_rounds": ("#d1603d", "D", "-"),
    "directional_fine": ("#8a2f14", "^", "-"),
}


def render(folder: Path) -> str:
    """Everything that has rows."""
    rows = read_rows(ROWS)
    if not rows:
        return ""
    parts = ["Made by `python -m experiments.analysis.theorem`."]
    laws = [row for row in rows if row["config"]["problem"] == "law"]
    if laws:
        parts.append(_law(laws, folder))
    for name, problem in PROBLEMS.items():
        mine = [row for row in rows if row["config"]["problem"] == name]
        if mine:
            parts += [f"### {problem.title}, without retraining", _pruned(mine)]
    drawn = [
        name
        for name in ("digits", "fashion_mnist")
        if any(row["config"]["problem"] == name for row in rows)
    ]
    if drawn:
        _draw_pruned(rows, drawn, folder / "theorem_pruned.png")
        parts.append("![Loss and accuracy without retraining](theorem_pruned.png)")
    return "\n\n".join(parts)


# --- The laws -------------------------------------------------------------------------------------


def _law(rows: list[Row], folder: Path) -> str:
    _draw_law(rows, folder / "theorem_law.png")
    scores = [row["result"]["scores"]["rows"] for row in rows]
    lines = []
    for i, point in enumerate(scores[0]):
        ratios = [run[i]["from_paper"] / run[i]["law"] for run in scores]
        lines.append(
            [
                f"{point['time']:g}",
                f"{np.median([run[i]['from_paper'] for run in scores]):.2e}",
                f"{min(ratios):.3f} to {max(ratios):.3f}",
                f"{max(run[i]['from_time'] for run in scores):.1e}",
            ]
        )
    valley = [row["result"]["valley"] for row in rows]
    moved = max(row["result"]["invariant"]["moved_in_flat"] for row in rows)
    return "\n\n".join(
        [
            "### The laws, on least squares",
            f"A hundred weights, forty of them in curved directions, {len(rows)} seeds, float64. "
            "While no weight is zero, the scores that gRDA has realised after training time t are "
            "off those of the paper by mu/t |H⁺ sg|, and equal to those of training time "
            "(root mean squares over the weights).",
            tables.markdown(
                [
                    "t",
                    "from the paper's (median)",
                    "divided by the law",
                    "from those in time (largest)",
                ],
                lines,
            ),
            "With zeros, gRDA goes to the l1-smallest point of the flat valley: "
            f"{_range(x['zeros_grda'] for x in valley)} zeros against "
            f"{_range(x['zeros_valley'] for x in valley)}, nonzeros that overlap by "
            f"{min(x['overlap_of_nonzeros'] for x in valley):.3f} or more (intersection over "
            "union), and a distance of at most "
            f"{max(x['distance'] for x in valley):.4f} thresholds a weight. Under random batches "
            f"the accumulator moves by {moved:.0e} at most in the flat directions.",
            "![The laws of directional pruning](theorem_law.png)",
        ]
    )


def _range(values: Any) -> str:
    values = list(values)
    return f"{min(values)} to {max(values)}"


def _draw_law(rows: list[Row], path: Path) -> None:
    """Left the difference of the scores against training time, right what each point weighs."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    runs = [row["result"]["scores"]["rows"] for row in rows]
    times = [point["time"] for point in runs[0]]

    def curve(name: str) -> Any:
        return np.array([[point[name] for point in run] for run in runs])

    for name, color, marker, label in (
        ("from_paper", "#d1603d", "o", "from the paper's scores"),
        ("from_time", "#4c6a92", "s", "from those of training time"),
    ):
        values = curve(name)
        left.plot(times, np.median(values, 0), color=color, marker=marker, label=label)
        left.fill_between(times, values.min(0), values.max(0), color=color, alpha=0.2, lw=0)
    left.plot(times, np.median(curve("law"), 0), "k--", lw=1, label=r"$\mu/t\;|H^+ \mathrm{sg}|$")
    left.set(
        xscale="log",
        yscale="log",
        xlabel=r"training time $t = n\gamma$",
        ylabel="gRDA's scores, rms difference",
    )
    left.legend(frameon=False, fontsize=8)
    valley = [row["result"]["valley"] for row in rows]
    places = np.arange(len(valley))
    for shift, name, color, label in (
        (-0.27, "l1_at_minimum", "#999999", "where SGD ends"),
        (0.0, "l1_grda", "#d1603d", "where gRDA ends"),
        (0.27, "l1_valley", "#4c6a92", "l1-smallest of the valley"),
    ):
        right.bar(places + shift, [x[name] for x in valley], 0.25, color=color, label=label)
    right.set(xlabel="seed", ylabel="l1 norm of the weights", xticks=places)
    right.set_ylim(0, 1.45 * max(x["l1_at_minimum"] for x in valley))
    right.legend(frameon=False, fontsize=8)
    _save(fig, (left, right), path)


# --- Networks -------------------------------------------------------------------------------------


def _pruned(rows: list[Row]) -> str:
    """Test accuracy and training loss by sparsity, and the cost at the last one."""
    sparsities = rows[0]["config"]["sparsities"]
    dense = tables.spread(row["result"]["dense"]["test_accuracy"] for row in _one_a_seed(rows))
    header = [
        "",
        *(f"{100 * s:g} %" for s in sparsities),
        "products",
        "gradients",
        "rounds",
        "seeds",
    ]
    parts = [
        f"Test accuracy (%), mean ± standard deviation over seeds; dense "
        f"{tables.plus_minus(dense, 1)}. Cost up to the last sparsity: products with the curvature "
        "over the data (two to three gradients each), and gradients of single examples."
    ]
    for name, show in (("test_accuracy", 1), ("train_loss", 3)):
        lines = []
        for method, group in _by_method(rows):
            cells = [_cell(group, s, name, show) for s in sparsities]
            last = group[0]["result"]["pruned"][-1]
            cost = [f"{last[key]:,}" if key in last else "-" for key in ("products", "gradients")]
            cost.append(f"{last['rounds']}" if "rounds" in last else "-")
            lines.append([METHODS[method].title, *cells, *cost, str(len(group))])
        if name == "train_loss":
            parts.append("Loss over the training examples that the curvature is of:")
            header, lines = (
                header[: 1 + len(sparsities)],
                [line[: 1 + len(sparsities)] for line in lines],
            )
        parts.append(tables.markdown(header, lines))
    return "\n\n".join(parts)


def _by_method(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    groups = tables.group(rows, lambda row: row["config"]["method"])
    return [(name, groups[name]) for name in METHODS if name in groups]


def _one_a_seed(rows: list[Row]) -> list[Row]:
    return list({row["config"]["seed"]: row for row in rows}.values())


def _values(group: list[Row], sparsity: float, name: str) -> list[float]:
    points = [p for row in group for p in row["result"]["pruned"] if p["sparsity"] == sparsity]
    return [point[name] for point in points if name in point]


def _cell(group: list[Row], sparsity: float, name: str, digits: int) -> str:
    values = _values(group, sparsity, name)
    if len(values) < len(group):  # some seed cannot get there
        return "out of reach"
    return tables.plus_minus(tables.spread(values), digits)


def _draw_pruned(rows: list[Row], names: Sequence[str], path: Path) -> None:
    fig, axes = plt.subplots(
        2, len(names), figsize=(4.2 * len(names), 5.6), layout="constrained", squeeze=False
    )
    for (above, below), name in zip(axes.T, names, strict=True):
        mine = [row for row in rows if row["config"]["problem"] == name]
        for method, group in _by_method(mine):
            _lines(above, group, method, "test_accuracy")
            _lines(below, group, method, "train_loss")
        dense = np.mean([row["result"]["dense"]["test_accuracy"] for row in _one_a_seed(mine)])
        above.axhline(dense, color="k", lw=0.8, ls="--", label="dense")
        above.set(ylabel="test accuracy (%)", ylim=(max(0, dense - 45), dense + 3))
        below.set(yscale="log", ylabel="training loss (nats)", xlabel="zeros (% of kernels)")
        above.set_title(PROBLEMS[name].title, fontsize=9)
    axes[0, 0].legend(frameon=False, fontsize=7, loc="lower left")
    _save(fig, axes.ravel(), path)


def _lines(axes: Axes, group: list[Row], method: str, name: str) -> None:
    color, marker, line = STYLES[method]
    sparsities = [
        s for s in group[0]["config"]["sparsities"] if len(_values(group, s, name)) == len(group)
    ]
    spreads = [tables.spread(_values(group, s, name)) for s in sparsities]
    axes.errorbar(
        [100 * s for s in sparsities],
        [x.mean for x in spreads],
        yerr=None if name == "train_loss" else [np.nan_to_num(x.std) for x in spreads],
        color=color,
        marker=marker,
        ls=line,
        ms=4,
        capsize=2,
        label=METHODS[method].title,
    )


def _save(fig: Any, axes: Any, path: Path) -> None:
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    fig.savefig(path, dpi=130)
    plt.close(fig)
