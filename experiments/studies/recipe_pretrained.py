"""A trained network, pruned at 95 % on a third of its budget: the recipe against magnitude."""

from pathlib import Path

from experiments.config import Config
from experiments.log import Row
from experiments.studies import pairs, tables
from experiments.studies.recipe_fashion_mnist import RECIPE
from experiments.studies.recipe_pretrained_tuning import (
    NETWORKS,
    OFTEN,
    SPARSITY,
    dense,
    pruned,
)

title = "A trained network, pruned on a third of its budget"

SEEDS = range(5)
METHODS = ("gmp", "recipe")
# The rate, and the settings of magnitude pruning, that do best in the study of these settings.
TUNED = {
    "fashion_mnist_recipe": {"learning_rate": 0.1, "gmp": OFTEN},
    "fashion_mnist_cnn_recipe": {"learning_rate": 0.2, "gmp": OFTEN},
}


def planned(preset: str, method: str) -> list[Config]:
    """One run a seed."""
    changes = TUNED[preset] | {"recipe": RECIPE, "method": (method,)}
    return [pruned(dense(preset, seed), preset, changes) for seed in SEEDS]


def runs() -> list[tuple[Config, str]]:
    """The dense networks, and pairs that start from the same one with the same batches."""
    all_runs = []
    for preset in NETWORKS:
        all_runs += [(dense(preset, seed), preset) for seed in SEEDS]
        all_runs += [(config, preset) for method in METHODS for config in planned(preset, method)]
    return all_runs


def render(rows: list[Row], folder: Path) -> str:
    """The pairs, and what the dense networks reach."""
    del folder
    found = tables.by_config(rows)
    cells: dict[tuple[str, ...], pairs.Pair] = {}
    reached = []
    for preset, (base, epochs, _) in NETWORKS.items():
        rival, ours = (pairs.by_seed(planned(preset, method), found) for method in METHODS)
        cells[f"{base.model}, {epochs} epochs after {base.epochs}", f"{100 * SPARSITY:.0f}"] = (
            pairs.Pair(rival, ours)
        )
        scores = pairs.by_seed([dense(preset, seed) for seed in SEEDS], found)
        if scores:
            reached.append(f"{base.model} {tables.plus_minus(tables.spread(scores.values()))} %")
    return "\n\n".join(
        [
            "A dense network is trained first; then both methods prune it, from the same weights "
            "and with the same batches, with momentum 0.9, weight decay 5e-4 and a cosine schedule "
            "that starts anew. Test accuracy of the last epoch, mean ± standard deviation; the "
            "gain is paired by seed, with its 95 % interval by Student's t. The settings were "
            "chosen on a validation split.",
            pairs.table(("network", "zeros (%)"), cells),
            pairs.verdict(cells.values()),
            f"Dense: {', '.join(reached)}.",
        ]
    )
