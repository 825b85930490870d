"""Which settings for gradual magnitude pruning and for the recipe? Chosen on validation only."""

import dataclasses
from pathlib import Path

from experiments.config import Config
from experiments.configs import fashion_mnist_cnn_recipe, fashion_mnist_recipe
from experiments.log import Row
from experiments.methods import gmp, recipe
from experiments.studies import tables

title = "The settings of the recipe and of its rival, chosen on a validation split"

NETWORKS = {
    "fashion_mnist_recipe": (fashion_mnist_recipe.CONFIG, (100, 101, 102)),
    "fashion_mnist_cnn_recipe": (fashion_mnist_cnn_recipe.CONFIG, (100,)),
}
RATES = (0.02, 0.05, 0.1)
# Both get seven trials on each network. The rate is the rival's choice, and the recipe takes it.
MAGNITUDE = {
    "ramp to 0.5": gmp.Settings(ramp_end=0.5),
    "ramp to 0.9": gmp.Settings(ramp_end=0.9),
    "every 10 steps": gmp.Settings(update_every=10),
    "every 200 steps": gmp.Settings(update_every=200),
}
START = recipe.Settings(ramp_end=0.6, freeze_at=0.75, prox="firm", ratio=3.0, leak=0.0)
RECIPE = {
    "ramp to 0.6, frozen at 0.75, ratio 3": START,
    "ramp to 0.75, frozen at 0.9": dataclasses.replace(START, ramp_end=0.75, freeze_at=0.9),
    "ramp to 0.5": dataclasses.replace(START, ramp_end=0.5),
    "frozen at the end": dataclasses.replace(START, freeze_at=1.0),
    "ratio 2": dataclasses.replace(START, ratio=2.0),
    "ratio 5": dataclasses.replace(START, ratio=5.0),
    "leak 0.001": dataclasses.replace(START, leak=1e-3),
}


def trials() -> dict[str, dict[str, Config]]:
    """Every trial of every network by its name, seed left open."""
    named: dict[str, dict[str, Config]] = {}
    for preset, (base, _) in NETWORKS.items():
        base = dataclasses.replace(base, evaluate="validation")
        rival = dataclasses.replace(base, method=("gmp",))
        ours = dataclasses.replace(base, method=("recipe",))
        named[preset] = {
            f"gmp, rate {rate}": dataclasses.replace(rival, learning_rate=rate) for rate in RATES
        }
        for name, settings in MAGNITUDE.items():
            named[preset][f"gmp, {name}"] = dataclasses.replace(rival, gmp=settings)
        for name, chosen in RECIPE.items():
            named[preset][f"recipe, {name}"] = dataclasses.replace(ours, recipe=chosen)
    return named


def runs() -> list[tuple[Config, str]]:
    """All trials, with the seeds of tuning, which no reported run has."""
    return [
        (dataclasses.replace(config, seed=seed), preset)
        for preset, (_, seeds) in NETWORKS.items()
        for config in trials()[preset].values()
        for seed in seeds
    ]


def render(rows: list[Row], folder: Path) -> str:
    """One table a network."""
    del folder
    parts = [
        "95 % of the kernels' weights zero; scored on the last sixth of the training set, which "
        "these runs do not train on, and with seeds that no reported run has. Seven trials each."
    ]
    for preset, named in trials().items():
        lines = []
        for name, config in named.items():
            group = [
                row
                for row in rows
                if dataclasses.replace(Config.from_json(row["config"]), seed=config.seed) == config
            ]
            if group:
                score = tables.spread(map(tables.accuracy, group))
                lines.append([name, tables.plus_minus(score), f"{score.n}"])
        base, _ = NETWORKS[preset]
        header = ["", "validation accuracy (%)", "seeds"]
        parts += [f"**{base.model}**, {base.epochs} epochs", tables.markdown(header, lines)]
    return "\n\n".join(parts)
