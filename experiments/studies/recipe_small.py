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
CLIPPED = "small_cnn_sixteenth"
CLIP_NORM = 1.0
# As on the whole CNN: nothing is tuned for these.
BASE = dataclasses.replace(
    fashion_mnist_cnn_recipe.CONFIG,
    learning_rate=0.1,
    gmp=gmp.Settings(update_every=200),
    recipe=RECIPE,
)


def planned(
    model: str, method: str, sparsity: float, clip_norm: float | None = None
) -> list[Config]:
    """One run a seed."""
    changes: dict[str, Any] = {"model": model, "method": (method,), "sparsity": sparsity}
    changes["clip_norm"] = clip_norm
    return [dataclasses.replace(BASE, seed=seed, **changes) for seed in MODELS[model]]


def runs() -> list[tuple[Config, str]]:
    """Pairs from the same start, and the dense networks."""
    pairs = [(m, s) for s in SPARSITIES for m in METHODS]
    configs = [
        config
        for model in MODELS
        for method, sparsity in [*pairs, ("dense", 0.0)]
        for config in planned(model, method, sparsity)
    ]
    for method, sparsity in pairs:
        configs += planned(CLIPPED, method, sparsity, CLIP_NORM)
    return [(config, PRESET) for config in configs]


def render(rows: list[Row], folder: Path) -> str:
    """The pairs, and what the dense networks reach."""
    del folder
    found = tables.by_config(rows)
    cells: dict[tuple[str, ...], pairs.Pair] = {}
    for model, clip_norm in [*((model, None) for model in MODELS), (CLIPPED, CLIP_NORM)]:
        for sparsity in SPARSITIES:
            rival, ours = (
                pairs.by_seed(planned(model, m, sparsity, clip_norm), found) for m in METHODS
            )
            name = model if clip_norm is None else f"{model}, clipped"
            cells[name, f"{100 * sparsity:.0f}"] = pairs.Pair(rival, ours)
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
            "At a sixteenth of the width a channel has one to four weights that are left, and the "
            "recipe may come apart. Near the threshold a weight is small; where all of a channel "
            "are, BatchNorm makes up for it, and the gradient of such weights is as many times "
            "larger as they are smaller. One such gradient throws the accumulator out to many "
            "times the threshold, where it stays, while the other layers are pruned in its place. "
            f"*Clipped*: with gradients clipped to a norm of {CLIP_NORM:g} the recipe stays whole "
            "from every start. Magnitude pruning, which makes no weight small, does better without "
            "that.",
            f"Dense: {', '.join(dense)}.",
        ]
    )
