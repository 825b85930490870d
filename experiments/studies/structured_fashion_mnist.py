"""Do whole channels that the recipe leaves out make a network faster, and at what accuracy?"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from experiments.config import Config, MethodName
from experiments.configs import fashion_mnist_cnn_recipe
from experiments.log import Row
from experiments.methods import dense_narrow, recipe
from experiments.plotting import COLORS, plt
from experiments.studies import tables

title = "Channels: accuracy against measured time, Fashion-MNIST"

PRESET = "fashion_mnist_cnn_recipe"
SPARSITIES = (0.5, 0.7, 0.9)
SEEDS = range(3)
BATCH = "128"
BASE = dataclasses.replace(
    fashion_mnist_cnn_recipe.CONFIG,
    learning_rate=0.1,
    # The defaults of `prune_with`, in words, so that a row stays what it was if they change.
    recipe=recipe.Settings(ramp_end=0.6, freeze_at=0.75, prox="firm", ratio=3.0, leak=1e-3),
    dense_narrow=dense_narrow.Settings(by="flops"),
)
NAMES: dict[MethodName, str] = {
    "dense_narrow": "dense, of that size",
    "l1_channels": "l1 norm, fine-tuned",
    "channels": "recipe on channels",
}
TIMES = "inference.json"


def runs() -> list[tuple[Config, str]]:
    """All methods at every fraction of operations, and the whole network."""
    planned = []
    for seed in SEEDS:
        base = dataclasses.replace(BASE, seed=seed)
        planned.append((dataclasses.replace(base, method=("dense",), sparsity=0.0), PRESET))
        for sparsity in SPARSITIES:
            for method in NAMES:
                changed = dataclasses.replace(base, method=(method,), sparsity=sparsity)
                planned.append((changed, PRESET))
    return planned


def times(folder: Path) -> dict[float, dict[str, Any]]:
    """What `experiments.bench.inference` has measured, by the fraction of operations removed."""
    path = folder / TIMES
    if not path.exists():
        return {}
    networks = json.loads(path.read_text())["networks"]
    return {row["sparsity"]: row for name, row in networks.items() if "zeros" not in name}


def scores(rows: list[Row], method: str, sparsity: float) -> dict[int, float]:
    """The accuracy by seed."""
    return {
        row["config"]["seed"]: tables.accuracy(row)
        for row in rows
        if row["config"]["method"] == [method] and row["config"]["sparsity"] == sparsity
    }


def gain(rows: list[Row], rival: str, sparsity: float) -> tables.Spread:
    """Of the channels over the rival, seed by seed."""
    ours, theirs = (scores(rows, method, sparsity) for method in ("channels", rival))
    return tables.spread(ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys()))


def table(rows: list[Row], measured: dict[float, dict[str, Any]]) -> str:
    """A line for every fraction of operations that is removed."""
    lines = []
    for sparsity in (0.0, *SPARSITIES):
        methods = ("dense",) if sparsity == 0 else tuple(NAMES)
        found = [tables.spread(scores(rows, method, sparsity).values()) for method in methods]
        cells = [tables.plus_minus(x) if x.n else "" for x in found]
        gains = [gain(rows, rival, sparsity) for rival in ("dense_narrow", "l1_channels")]
        line = [f"{100 * sparsity:.0f}", *(cells if sparsity else [*cells, "", ""])]
        line += [f"{x.mean:+.2f} ± {x.interval:.2f}" if x.n > 1 else "" for x in gains]
        if measured:
            line += _measured(measured.get(sparsity))
        lines.append(line)
    header = [
        "operations removed (%)",
        *(f"{name} (%)" for name in NAMES.values()),
        "gain over dense",
        "gain over l1",
    ]
    if measured:
        header += ["units", "ms a batch of 128", "time over the whole network's"]
    return tables.markdown(header, lines)


def _measured(row: dict[str, Any] | None) -> list[str]:
    if row is None:
        return ["", "", ""]
    cost = row["costs"][BATCH]
    units = "-".join(map(str, row["units"]))
    return [units, f"{1000 * cost['seconds']:.2f}", f"{cost['ratio']:.2f}"]


def render(rows: list[Row], folder: Path) -> str:
    """The table, what it is of, and the figure."""
    measured = times(folder)
    _draw(rows, measured, folder / "structured_fashion_mnist.png")
    held = (
        "The times are those of networks with the units cut out, measured by "
        "`python -m experiments.bench.inference`."
        if measured
        else "No times have been measured yet."
    )
    return "\n\n".join(
        [
            "Test accuracy of the small CNN, each hidden layer with the same fraction of its "
            "units. All methods end with networks of one size: dense and trained at it from the "
            "start; trained, cut by the l1 norm of the filters, and trained on (Li et al., 2017); "
            "and by the recipe on groups, in which a channel goes with its BatchNorm. The first "
            f"line is the whole network. Gains are paired, with 95 % intervals. {held}",
            table(rows, measured),
            "![Accuracy against time](structured_fashion_mnist.png)",
            "The percentages in the figure are those of the operations removed. Here every layer's "
            "width is given, so that what is left to find is which units stay, and a dense network "
            "of that size from the start is hard to beat: so it was for other pruners, too (Liu et "
            "al., *Rethinking the value of network pruning*, ICLR 2019).",
        ]
    )


def _draw(rows: list[Row], measured: dict[float, dict[str, Any]], path: Path) -> None:
    def place(sparsity: float) -> float:
        if measured:
            return 1000 * float(measured[sparsity]["costs"][BATCH]["seconds"])
        return 100 * (1 - sparsity)

    fig, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for (method, name), color in zip(NAMES.items(), COLORS, strict=False):
        points = {s: tables.spread(scores(rows, method, s).values()) for s in SPARSITIES}
        points = {s: x for s, x in points.items() if x.n and (not measured or s in measured)}
        axes.errorbar(
            [place(s) for s in points],
            [x.mean for x in points.values()],
            yerr=[x.std for x in points.values()],
            color=color,
            marker="o",
            linestyle="" if measured else "-",  # fewer operations can take longer
            capsize=3,
            label=name,
        )
        if method == "channels":
            for sparsity, x in points.items():
                axes.annotate(
                    f"{100 * sparsity:g} %",
                    (place(sparsity), x.mean - x.std),
                    xytext=(0, -14),
                    textcoords="offset points",
                    ha="center",
                )
    dense = tables.spread(scores(rows, "dense", 0.0).values())
    if dense.n:
        axes.axhline(dense.mean, color="#888888", linestyle="--", label="the whole network")
        if not measured or 0.0 in measured:
            axes.plot(place(0.0), dense.mean, marker="s", color="#888888")
    label = "milliseconds for 128 images" if measured else "operations left (%)"
    axes.set(xlabel=label, ylabel="test accuracy (%) ± deviation")
    axes.margins(y=0.12)  # room for the labels
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    fig.savefig(path, dpi=130)
    plt.close(fig)
