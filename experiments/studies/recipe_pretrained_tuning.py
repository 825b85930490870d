"""Which settings prune a trained network best on a third of its budget? By validation only."""

import dataclasses
from pathlib import Path
from typing import Any

from experiments.config import Config
from experiments.configs import fashion_mnist_cnn_recipe, fashion_mnist_recipe, folder_of
from experiments.log import Row
from experiments.methods import gmp
from experiments.studies import tables
from experiments.studies.recipe_fashion_mnist import RECIPE

title = "The settings for trained networks, chosen on a validation split"

# Epochs of pruning, and the seeds of tuning, which no reported run has.
NETWORKS = {
    "fashion_mnist_recipe": (fashion_mnist_recipe.CONFIG, 5, (100, 101)),
    "fashion_mnist_cnn_recipe": (fashion_mnist_cnn_recipe.CONFIG, 3, (100,)),
}
DENSE_RATE = 0.1
SPARSITY = 0.95
OFTEN = gmp.Settings(update_every=50)
SELDOM = gmp.Settings(update_every=200)
# The rate is the rival's choice, and the recipe takes it; neither gets a trial more.
TRIALS: dict[str, dict[str, Any]] = {
    "magnitude, rate 0.02": {"method": ("gmp",), "learning_rate": 0.02, "gmp": OFTEN},
    "magnitude, rate 0.05": {"method": ("gmp",), "learning_rate": 0.05, "gmp": OFTEN},
    "magnitude, rate 0.1": {"method": ("gmp",), "learning_rate": 0.1, "gmp": OFTEN},
    "magnitude, rate 0.2": {"method": ("gmp",), "learning_rate": 0.2, "gmp": OFTEN},
    "magnitude, rate 0.05, every 200 steps": {
        "method": ("gmp",),
        "learning_rate": 0.05,
        "gmp": SELDOM,
    },
    "magnitude, rate 0.1, every 200 steps": {
        "method": ("gmp",),
        "learning_rate": 0.1,
        "gmp": SELDOM,
    },
    "recipe, rate 0.02": {"method": ("recipe",), "learning_rate": 0.02, "recipe": RECIPE},
    "recipe, rate 0.05": {"method": ("recipe",), "learning_rate": 0.05, "recipe": RECIPE},
    "recipe, rate 0.1": {"method": ("recipe",), "learning_rate": 0.1, "recipe": RECIPE},
    "recipe, rate 0.2": {"method": ("recipe",), "learning_rate": 0.2, "recipe": RECIPE},
}


def dense(preset: str, seed: int, **changes: Any) -> Config:
    """The trained network that is pruned, with as few changes to its preset as can be."""
    base, _, _ = NETWORKS[preset]
    return dataclasses.replace(
        base, method=("dense",), learning_rate=DENSE_RATE, sparsity=0.0, seed=seed, **changes
    )


def pruned(source: Config, preset: str, changes: dict[str, Any]) -> Config:
    """A run that prunes it on a third of its epochs."""
    _, epochs, _ = NETWORKS[preset]
    start: dict[str, Any] = {"epochs": epochs, "init_from": str(folder_of(source, preset))}
    return dataclasses.replace(source, sparsity=SPARSITY, **start, **changes)


def planned(preset: str, trial: str) -> list[Config]:
    """The runs of one line, one a seed."""
    _, _, seeds = NETWORKS[preset]
    return [
        pruned(dense(preset, seed, evaluate="validation"), preset, TRIALS[trial]) for seed in seeds
    ]


def runs() -> list[tuple[Config, str]]:
    """The networks that are pruned, and every trial."""
    all_runs = []
    for preset, (_, _, seeds) in NETWORKS.items():
        all_runs += [(dense(preset, seed, evaluate="validation"), preset) for seed in seeds]
        all_runs += [(config, preset) for trial in TRIALS for config in planned(preset, trial)]
    return all_runs


def render(rows: list[Row], folder: Path) -> str:
    """One table a network, of the trials that have all seeds."""
    del folder
    found = tables.by_config(rows)
    parts = [
        f"A dense network is trained at a rate of {DENSE_RATE}, then {100 * SPARSITY:.0f} % of its "
        "kernels' weights are pruned, with a cosine schedule that starts anew. Scored on the last "
        "sixth of the training set, which no run here trains on, and with seeds that no reported "
        "run has. Magnitude pruning has a ramp to 0.75 of the epochs and a step every 50 updates "
        "unless said otherwise."
    ]
    for preset, (base, epochs, seeds) in NETWORKS.items():
        lines = []
        for trial in TRIALS:
            group = [found[config] for config in planned(preset, trial) if config in found]
            if len(group) == len(seeds):
                score = tables.spread(map(tables.accuracy, group))
                lines.append([trial, tables.plus_minus(score), f"{score.n}"])
        if lines:
            header = ["", "validation accuracy (%)", "seeds"]
            parts += [
                f"**{base.model}**, {epochs} epochs after {base.epochs}",
                tables.markdown(header, lines),
            ]
    return "\n\n".join(parts)
