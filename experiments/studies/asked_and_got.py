"""Is the sparsity that one asks `prune_with` for the sparsity that one gets, whatever the rest?"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from experiments.config import Config
from experiments.configs import char_transformer, digits
from experiments.log import Row
from experiments.methods.recipe import Settings
from experiments.studies import tables

title = "Asked and got: the sparsity of the recipe"

SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"optimizer": "sgd", "learning_rate": 0.1, "schedule": "constant"},
    "momentum, cosine": {
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "schedule": "cosine",
        "momentum": 0.9,
        "weight_decay": 5e-4,
    },
    "AdamW": {"optimizer": "adamw", "learning_rate": 2e-3, "weight_decay": 0.01},
    "Lion": {"optimizer": "lion", "learning_rate": 3e-4, "weight_decay": 0.1},
    "Muon": {"optimizer": "muon", "learning_rate": 0.02, "weight_decay": 0.01},
}
RAMPS = {
    "at 0.6, frozen at 0.75": Settings(ramp_end=0.6, freeze_at=0.75),
    "at the last step": Settings(ramp_end=1.0, freeze_at=1.0),
}
EARLY, LAST = RAMPS
WHOLE, LEAF = "network", "each leaf"
MLP = dataclasses.replace(digits.PLAIN, method=("recipe",))
CNN = dataclasses.replace(MLP, model="small_cnn")
TRANSFORMER = dataclasses.replace(char_transformer.CONFIG, method=("recipe",), batch_size=4)


class Setting(NamedTuple):
    """A line of the table."""

    network: str
    steps: int
    counted: str
    ramp: str


class Case(NamedTuple):
    """What a line is made of."""

    base: Config
    preset: str
    optimizers: tuple[str, ...]
    sparsities: tuple[float, ...]


CASES = {
    Setting("mlp", 300, WHOLE, EARLY): Case(MLP, "digits", tuple(OPTIMIZERS), SPARSITIES),
    Setting("mlp", 300, LEAF, LAST): Case(MLP, "digits", tuple(OPTIMIZERS), SPARSITIES),
    Setting("mlp", 300, WHOLE, LAST): Case(MLP, "digits", ("momentum, cosine",), SPARSITIES),
    Setting("mlp", 300, LEAF, EARLY): Case(MLP, "digits", ("momentum, cosine",), SPARSITIES),
    Setting("mlp", 2000, WHOLE, EARLY): Case(
        MLP, "digits", ("momentum, cosine", "AdamW"), SPARSITIES
    ),
    Setting("small_cnn", 300, WHOLE, LAST): Case(CNN, "digits", ("momentum, cosine",), SPARSITIES),
    Setting("char_transformer", 300, WHOLE, EARLY): Case(
        TRANSFORMER, "char_transformer", ("AdamW",), (0.5, 0.9, 0.99)
    ),
}


def planned(setting: Setting, optimizer: str) -> list[Config]:
    """The runs behind one cell, one a sparsity."""
    case = CASES[setting]
    settings = dataclasses.replace(RAMPS[setting.ramp], per_leaf=setting.counted == LEAF)
    changes = OPTIMIZERS[optimizer] | {"steps": setting.steps, "recipe": settings}
    return [
        dataclasses.replace(case.base, sparsity=sparsity, **changes) for sparsity in case.sparsities
    ]


def runs() -> list[tuple[Config, str]]:
    """Every sparsity with every optimizer on the smallest network, and samples of the rest."""
    return [
        (config, case.preset)
        for setting, case in CASES.items()
        for optimizer in case.optimizers
        for config in planned(setting, optimizer)
    ]


def counts(row: Row) -> list[dict[str, int]]:
    """What is asked for a sparsity: the network, or each of its penalised leaves."""
    if not row["config"]["recipe"]["per_leaf"]:
        return [row["result"]["penalised"]]
    return [count for count in row["result"]["leaves"].values() if count["penalised"]]


def missed(row: Row) -> float:
    """The largest difference between asked and got, in points."""
    asked: float = row["config"]["sparsity"]
    return max(100 * abs(1 - x["nnz"] / x["total"] - asked) for x in counts(row))


def exact(row: Row) -> bool:
    """Whether no number of nonzero weights could be closer to what was asked for."""
    asked = row["config"]["sparsity"]
    return all(x["nnz"] == round((1 - asked) * x["total"]) for x in counts(row))


def render(rows: list[Row], folder: Path) -> str:
    """The largest difference of every cell that is complete."""
    del folder
    found = tables.by_config(rows)
    lines = []
    seen: list[Row] = []
    for setting, case in CASES.items():
        cells = []
        for optimizer in OPTIMIZERS:
            mine = planned(setting, optimizer) if optimizer in case.optimizers else []
            done = [found[config] for config in mine if config in found]
            complete = bool(mine) and len(done) == len(mine)
            cells.append(f"{max(map(missed, done)):.4f}" if complete else "")
            seen += done if complete else []
        if any(cells):
            lines.append(
                [setting.network, f"{setting.steps:,}", setting.counted, setting.ramp, *cells]
            )
    header = ["", "updates", "sparsity of", "ramp ends", *OPTIMIZERS]
    shown = ", ".join(f"{100 * sparsity:.0f}" for sparsity in SPARSITIES)
    best = sum(map(exact, seen))
    whole = [row for row in seen if not row["config"]["recipe"]["per_leaf"]]
    return "\n\n".join(
        [
            f"Asked for {shown} % of the kernels' weights (the transformer for 50, 90 and 99), by "
            "optimizer: the largest difference to what came out, in points. Where each leaf has "
            "the sparsity it is the largest of all leaves.",
            tables.markdown(header, lines),
            f"In {best} of {len(seen)} runs every number of nonzero weights is the rounded one, "
            f"`round((1 - sparsity) * total)`. Over whole networks the largest difference is "
            f"{max(map(missed, whole), default=0.0):.4f} points.",
        ]
    )
