"""Networks with less to spare: does the recipe still beat gradual magnitude pruning?"""

import dataclasses
from pathlib import Path
from typing import Any

from experiments.config import Config
from experiments.configs import fashion_mnist_cnn_recipe
from experiments.log import Row
from experiments.methods import gmp
from experiments.studies import pairs, tables
from experiments.studies.recipe_fashion_mnist import RECIPE

title = "The recipe on networks with less to spare, Fashion-MNIST"

PRESET = "fashion_mnist_cnn_recipe"
MODELS = {
    "small_cnn_quarter": range(5),
    "small_cnn_sixteenth": range(5),
    "lenet5": range(3),
}
SPARSITIES = (0.8, 0.9)
METHODS = ("gmp", "recipe")
# As on the whole CNN: nothing is tuned for these.
BASE = dataclasses.replace(
    fashion_mnist_cnn_recipe.CONFIG,
    learning_rate=0.1,
    gmp=gmp.Settings(update_every=200),
    recipe=RECIPE,
)


def planned(model: str, method: str, sparsity: float) -> list[Config]:
    """One run a seed."""
    changes: dict[str, Any] = {"model": model, "method": (method,), "sparsity": sparsity}
    return [dataclasses.replace(BASE, seed=seed, **changes) for seed in MODELS[model]]


def runs() -> list[tuple[Config, str]]:
    """Pairs from the same start, and the dense networks."""
    return [
        (config, PRESET)
        for model in MODELS
        for method, sparsity in [(m, s) for s in SPARSITIES for m in METHODS] + [("dense", 0.0)]
        for config in planned(model, method, sparsity)
    ]


def render(rows: list[Row], folder: Path) -> str:
    """The pairs, and what the dense networks reach."""
    del folder
    found = tables.by_config(rows)
    cells: dict[tuple[str, ...], pairs.Pair] = {}
    for model in MODELS:
        for sparsity in SPARSITIES:
            rival, ours = (pairs.by_seed(planned(model, m, sparsity), found) for m in METHODS)
            cells[model, f"{100 * sparsity:.0f}"] = pairs.Pair(rival, ours)
    scores = {model: pairs.by_seed(planned(model, "dense", 0.0), found) for model in MODELS}
    dense = [
        f"{model} {tables.plus_minus(tables.spread(x.values()))} %"
        for model, x in scores.items()
        if x
    ]
    return "\n\n".join(
        [
            f"{BASE.epochs} epochs, with the settings that were chosen on the networks above. Test "
            "accuracy of the last epoch, mean ± standard deviation; the gain is paired by seed, "
            "with its 95 % interval by Student's t.",
            pairs.table(("network", "zeros (%)"), cells),
            pairs.verdict(cells.values()),
            f"Dense: {', '.join(dense)}.",
        ]
    )
