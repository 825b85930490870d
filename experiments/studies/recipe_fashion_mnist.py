"""Does the recipe beat gradual magnitude pruning at equal budget, and by how much?"""

import dataclasses
import math
from pathlib import Path

from matplotlib.axes import Axes

from experiments.config import Config
from experiments.configs import fashion_mnist_cnn_recipe, fashion_mnist_recipe
from experiments.log import Row
from experiments.methods import gmp, recipe
from experiments.plotting import COLORS, plt
from experiments.studies import tables

title = "The recipe against gradual magnitude pruning, Fashion-MNIST"

# The rate, and the settings of magnitude pruning, that did best in the study of settings.
NETWORKS = {
    "fashion_mnist_recipe": (
        dataclasses.replace(
            fashion_mnist_recipe.CONFIG, learning_rate=0.1, gmp=gmp.Settings(update_every=200)
        ),
        range(10),
    ),
    "fashion_mnist_cnn_recipe": (
        dataclasses.replace(
            fashion_mnist_cnn_recipe.CONFIG, learning_rate=0.1, gmp=gmp.Settings(update_every=200)
        ),
        range(5),
    ),
}
# The defaults of `prune_with`, in words, so that a row stays what it was if they change.
RECIPE = recipe.Settings(ramp_end=0.6, freeze_at=0.75, prox="firm", ratio=3.0, leak=1e-3)
SPARSITIES = (0.9, 0.95, 0.98)
NAMES = {"gmp": "magnitude", "recipe": "recipe"}


def runs() -> list[tuple[Config, str]]:
    """Pairs from the same start and with the same batches, and the dense network beside them."""
    planned = []
    for preset, (base, seeds) in NETWORKS.items():
        for seed in seeds:
            config = dataclasses.replace(base, seed=seed, recipe=RECIPE)
            for sparsity in SPARSITIES:
                for method in NAMES:
                    changed = dataclasses.replace(config, method=(method,), sparsity=sparsity)  # type: ignore[arg-type]
                    planned.append((changed, preset))
            planned.append((dataclasses.replace(config, method=("dense",), sparsity=0.0), preset))
    return planned


class Cell:
    """One network at one sparsity: both methods, seed by seed."""

    def __init__(self, rows: list[Row]):
        """Takes the rows of both methods, and keeps the seeds that both have."""
        by = {
            (row["config"]["method"][0], row["config"]["seed"]): tables.accuracy(row)
            for row in rows
        }
        self.seeds = sorted(s for m, s in by if m == "gmp" and ("recipe", s) in by)
        self.scores = {m: tables.spread(by[m, s] for s in self.seeds) for m in NAMES}
        self.gain = tables.spread(by["recipe", s] - by["gmp", s] for s in self.seeds)


def cells(rows: list[Row]) -> dict[str, dict[float, Cell]]:
    """By preset and sparsity, where both methods have run."""
    found: dict[str, dict[float, Cell]] = {}
    for preset, (base, _) in NETWORKS.items():
        found[preset] = {}
        for sparsity in SPARSITIES:
            mine = [
                row
                for row in rows
                if row["config"]["model"] == base.model and row["config"]["sparsity"] == sparsity
            ]
            cell = Cell(mine)
            if cell.seeds:
                found[preset][sparsity] = cell
    return found


def table(rows: list[Row]) -> str:
    """Every cell with its paired gain."""
    lines = []
    for preset, by_sparsity in cells(rows).items():
        base, _ = NETWORKS[preset]
        for sparsity, cell in by_sparsity.items():
            lines.append(
                [
                    f"{base.model}, {base.epochs} epochs",
                    f"{100 * sparsity:.0f}",
                    tables.plus_minus(cell.scores["gmp"]),
                    tables.plus_minus(cell.scores["recipe"]),
                    f"{cell.gain.mean:+.2f} ± {cell.gain.interval:.2f}",
                    f"{len(cell.seeds)}",
                ]
            )
    header = [
        "network",
        "zeros (%)",
        "magnitude (%)",
        "recipe (%)",
        "gain (95 % interval)",
        "seeds",
    ]
    return tables.markdown(header, lines)


def _dense(rows: list[Row], model: str) -> tables.Spread:
    return tables.spread(
        tables.accuracy(row)
        for row in rows
        if row["config"]["method"] == ["dense"] and row["config"]["model"] == model
    )


def summary(rows: list[Row]) -> str:
    """What the README says."""
    return (
        "Test accuracy on Fashion-MNIST with momentum, weight decay and a cosine schedule, against "
        "global gradual magnitude pruning at equal budget, tuned on a validation split. Pairs of "
        "runs from the same start; the recipe has one set of defaults for both networks.\n\n"
        f"{table(rows)}\n\n"
        "![Accuracy against sparsity](experiments/results/recipe_fashion_mnist.png)"
    )


def render(rows: list[Row], folder: Path) -> str:
    """The table, the wins and losses in words, and the figure."""
    found = [cell for by in cells(rows).values() for cell in by.values()]
    better = sum(cell.gain.mean - cell.gain.interval > 0 for cell in found)
    worse = sum(cell.gain.mean + cell.gain.interval < 0 for cell in found)
    asked = [row for row in rows if row["config"]["method"] == ["recipe"]]
    missed = max(abs(tables.sparsity(row) - 100 * row["config"]["sparsity"]) for row in asked)
    dense = ", ".join(
        f"{base.model} {tables.plus_minus(_dense(rows, base.model))} %"
        for base, _ in NETWORKS.values()
        if not math.isnan(_dense(rows, base.model).std)
    )
    _draw(rows, folder / "recipe_fashion_mnist.png")
    return "\n\n".join(
        [
            "Momentum 0.9, weight decay 5e-4, cosine schedule, batches of 128; the kernels are "
            "pruned. The settings of magnitude pruning, and the rate that both share, were chosen "
            "on a validation split (see the study of settings); accuracy is that of the last epoch "
            "on the test set, mean ± standard deviation; the gain is paired by seed, with its 95 % "
            "interval by Student's t.",
            table(rows),
            f"Of {len(found)} cells the recipe is better in {better} and worse in {worse}, with "
            f"intervals that exclude zero. Its sparsity, which these numbers of weights do not "
            f"divide into evenly, is off by {missed:.4f} points at most. Dense: {dense}.",
            "![Accuracy against sparsity](recipe_fashion_mnist.png)",
        ]
    )


def _draw(rows: list[Row], path: Path) -> None:
    fig, panels = plt.subplots(1, len(NETWORKS), figsize=(11, 4), layout="constrained")
    for axes, (preset, by) in zip(panels, cells(rows).items(), strict=True):
        base, _ = NETWORKS[preset]
        _draw_network(axes, by, _dense(rows, base.model), f"{base.model}, {base.epochs} epochs")
    fig.savefig(path, dpi=130)
    plt.close(fig)


def _draw_network(axes: Axes, by: dict[float, Cell], dense: tables.Spread, network: str) -> None:
    if dense.n:
        axes.axhline(dense.mean, color="#888888", linestyle="--", label="dense")
    for (method, name), color in zip(NAMES.items(), COLORS, strict=False):
        scores = [cell.scores[method] for cell in by.values()]
        places = range(len(by))
        axes.errorbar(
            places,
            [score.mean for score in scores],
            yerr=[score.std for score in scores],
            color=color,
            marker="o",
            capsize=3,
            label=name,
        )
    axes.set_xticks(range(len(by)), [f"{100 * sparsity:.0f}" for sparsity in by])
    axes.margins(x=0.15)
    axes.set(title=network, xlabel="zeros (%)", ylabel="test accuracy (%) ± deviation")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
