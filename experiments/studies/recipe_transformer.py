"""A character transformer with AdamW: the recipe as it is, against magnitude pruning as it is."""

import dataclasses
from pathlib import Path

from experiments.config import Config
from experiments.configs import char_transformer
from experiments.log import Row
from experiments.studies import pairs, tables
from experiments.studies.recipe_fashion_mnist import RECIPE

title = "The recipe on a transformer, the source of Python's library"

PRESET = "char_transformer"
SEEDS = (0, 1)
METHODS = ("gmp", "recipe")
BASE = dataclasses.replace(char_transformer.CONFIG, epochs=4, recipe=RECIPE)


def planned(method: str) -> list[Config]:
    """One run a seed."""
    return [
        dataclasses.replace(BASE, method=(method,), seed=seed)  # type: ignore[arg-type]
        for seed in SEEDS
    ]


def runs() -> list[tuple[Config, str]]:
    """Pairs from the same start, and the dense network; seed by seed."""
    return [
        (config, PRESET)
        for seeds in zip(*map(planned, [*METHODS, "dense"]), strict=True)
        for config in seeds
    ]


def render(rows: list[Row], folder: Path) -> str:
    """The pair, by the loss on text that no run has seen."""
    del folder
    found = tables.by_config(rows)
    rival, ours = (pairs.by_seed(planned(m), found, tables.loss) for m in METHODS)
    dense = tables.spread(pairs.by_seed(planned("dense"), found, tables.loss).values())
    heading = ("magnitude (nats)", "recipe (nats)")
    cells: dict[tuple[str, ...], pairs.Pair] = {
        (f"char_transformer, {BASE.epochs} epochs", "80"): pairs.Pair(rival, ours)
    }
    parts = [
        "AdamW at 1e-3 with a cosine schedule, which nobody has tuned for either; every kernel is "
        "pruned, embeddings and positions too. Loss for each next character on the last tenth of "
        "every module, which is not trained on, after the last epoch; of the difference, recipe "
        "less magnitude, what is below 0 is the recipe's gain.",
        pairs.table(
            ("network", "zeros (%)"), cells, heading, "difference (95 % interval)", digits=4
        ),
    ]
    if dense.n:
        parts.append(f"Dense: {tables.plus_minus(dense, 4)} nats.")
    return "\n\n".join(parts)
