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
from experiments.studies import pairs, tables
from experiments.studies.pairs import Pair

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


def cells(rows: list[Row]) -> dict[str, dict[float, Pair]]:
    """By preset and sparsity, where both methods have run."""
    found: dict[str, dict[float, Pair]] = {}
    for preset, (base, _) in NETWORKS.items():
        found[preset] = {}
        for sparsity in SPARSITIES:
            scores: dict[str, dict[int, float]] = {method: {} for method in ["dense", *NAMES]}
            for row in rows:
                config = row["config"]
                if config["model"] == base.model and config["sparsity"] == sparsity:
                    scores[config["method"][0]][config["seed"]] = tables.accuracy(row)
            pair = Pair(scores["gmp"], scores["recipe"])
            if pair.seeds:
                found[preset][sparsity] = pair
    return found


def table(rows: list[Row]) -> str:
    """Every cell with its paired gain."""
    named: dict[tuple[str, ...], Pair] = {
        (_name(NETWORKS[preset][0]), f"{100 * sparsity:.0f}"): pair
        for preset, by_sparsity in cells(rows).items()
        for sparsity, pair in by_sparsity.items()
    }
    return pairs.table(("network", "zeros (%)"), named)


def _name(base: Config) -> str:
    return f"{base.model}, {base.epochs} epochs"


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
        "runs from the same start; the recipe (`prune_with`) has one set of defaults for both "
        "networks.\n\n"
        f"{table(rows)}\n\n"
        "![Accuracy against sparsity](experiments/results/recipe_fashion_mnist.png)"
    )


def render(rows: list[Row], folder: Path) -> str:
    """The table, the wins and losses in words, and the figure."""
    found = [pair for by in cells(rows).values() for pair in by.values()]
    asked = [row for row in rows if row["config"]["method"] == ["recipe"]]
    misses = [abs(tables.sparsity(row) - 100 * row["config"]["sparsity"]) for row in asked]
    missed = max(misses, default=math.nan)
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
            f"{pairs.verdict(found)} Its sparsity, which these numbers of weights do not divide "
            f"into evenly, is off by {missed:.4f} points at most. Dense: {dense}.",
            "![Accuracy against sparsity](recipe_fashion_mnist.png)",
        ]
    )


def _draw(rows: list[Row], path: Path) -> None:
    fig, panels = plt.subplots(1, len(NETWORKS), figsize=(11, 4), layout="constrained")
    for axes, (preset, by) in zip(panels, cells(rows).items(), strict=True):
        base, _ = NETWORKS[preset]
        _draw_network(axes, by, _dense(rows, base.model), _name(base))
    fig.savefig(path, dpi=130)
    plt.close(fig)


def _draw_network(axes: Axes, by: dict[float, Pair], dense: tables.Spread, network: str) -> None:
    if dense.n:
        axes.axhline(dense.mean, color="#888888", linestyle="--", label="dense")
    for (method, name), color in zip(NAMES.items(), COLORS, strict=False):
        scores = [pair.rival if method == "gmp" else pair.ours for pair in by.values()]
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
