"""Who stands on the frontier, and what is tried for each: the grids, and the settings they share.

A grid is a product of values, `TRIALS` in all, for every contender alike: as a rule two learning
rates times two values of the setting that matters most. GMP and the recipe have had more before, as
many as each other: `recipe_tuning`, which the recipe's other settings are from.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from experiments.config import Config, MethodName

Changes = Mapping[str, Any]
"""Values by the dotted names of fields, such as `gmp.update_every`."""

PeerName = Literal["pat_constraint", "pat_lasso"]

TRIALS = 4
RATES = (0.05, 0.1)
MORE_RATES = (0.02, 0.05, 0.1, 0.2)


@dataclasses.dataclass(frozen=True)
class Contender:
    """One method with some of its settings fixed, and the grid of the others."""

    label: str
    """Its name in tables and figures."""
    method: MethodName | PeerName
    grid: Mapping[str, Sequence[Any]]
    """Fields and their values; the trials are the product."""
    kind: Literal["told", "swept", "once"] = "told"
    """Whether it is told a sparsity, swept over a strength, or has no sparsity at all."""
    fixed: Changes = dataclasses.field(default_factory=dict)
    """What makes it this contender and no other of the same method."""
    strength: str = ""
    """The field that is swept."""
    start: float = 0.0
    """The strength from which the sweep goes out."""
    beyond: bool = False
    """Whether it takes more than one budget by its nature; then it comes last, and has no rank."""
    takes: tuple[str, Changes] = ("", {})
    """Whose chosen settings it takes instead of trials; some under another name, or not at all."""
    models: tuple[str, ...] = ("mlp", "small_cnn")
    """The networks that it can prune."""

    @property
    def trials(self) -> list[Changes]:
        """The settings that are tried, in the order in which equals win."""
        return [
            dict(zip(self.grid, values, strict=True))
            for values in itertools.product(*self.grid.values())
        ]


def _after_training(name: str) -> dict[str, Sequence[Any]]:
    return {"learning_rate": RATES, f"{name}.rate": ("rewind", "continue")}


STR = "soft_threshold_reparameterisation"
PENALTY = {"learning_rate": RATES, "weight_decay": (5e-4, 0.0)}
# Some fifty networks and more, as in the paper; one an epoch would be four.
AVERAGED = {"swa.every": 50}
# BatchNorm's statistics would be those of noisy weights, and evaluation has none.
NO_NOISE = ("mlp",)
# In words, so that a row stays what it was if the defaults of `prune_with` change.
RECIPE = {
    "recipe.ramp_end": 0.6,
    "recipe.freeze_at": 0.75,
    "recipe.prox": "firm",
    "recipe.leak": 1e-3,
}

# In the order in which they are run: what tells most comes first.
CONTENDERS: dict[str, Contender] = {
    "gmp": Contender(
        "GMP",
        "gmp",
        {"learning_rate": RATES, "gmp.update_every": (50, 200)},
        fixed={"gmp.allocation": "global"},
    ),
    "recipe": Contender(
        "recipe", "recipe", {"learning_rate": RATES, "recipe.ratio": (3.0, 2.0)}, fixed=RECIPE
    ),
    "dense": Contender("dense", "dense", {"learning_rate": MORE_RATES}, kind="once"),
    "rigl": Contender(
        "RigL (ERK)",
        "rigl",
        {"learning_rate": RATES, "rigl.update_every": (100, 300)},
        fixed={"rigl.allocation": "erk"},
    ),
    "str": Contender(
        "STR",
        "str",
        {"learning_rate": RATES, f"{STR}.start": (-8.0, -5.0)},
        kind="swept",
        strength=f"{STR}.strength",
        start=1.6e-2,
    ),
    "acdc": Contender("AC/DC", "acdc", {"learning_rate": RATES, "acdc.phase": (0.05, 0.1)}),
    "one_shot": Contender("one-shot magnitude", "one_shot", _after_training("one_shot")),
    "dpf": Contender("DPF", "dpf", {"learning_rate": RATES, "dpf.ramp_end": (0.5, 0.75)}),
    "obs": Contender("OBS", "obs", _after_training("obs")),
    "obd": Contender("OBD", "obd", _after_training("obd"), fixed={"obd.examples": 4096}),
    "grda": Contender(
        "gRDA",
        "grda",
        {"learning_rate": RATES, "grda.mu": (0.55, 0.7)},
        kind="swept",
        strength="grda.c",
        start=0.02,
    ),
    "dense_narrow": Contender("narrow dense", "dense_narrow", {"learning_rate": MORE_RATES}),
    "gmp_layerwise": Contender(
        "GMP, layerwise",
        "gmp",
        {"learning_rate": RATES, "gmp.allocation": ("uniform", "erk")},
        fixed={"gmp.update_every": 50},
    ),
    "magnitude_v2": Contender(
        "magnitude v2",
        "magnitude_v2",
        {},
        takes=("gmp", {"gmp.update_every": "magnitude_v2.update_every"}),
        models=("small_cnn",),  # the first layer stays dense, and holds 88 % of the MLP
    ),
    "lc": Contender(
        "LC", "lc", {"learning_rate": RATES, "lc.end": (0.6, 0.9)}, fixed={"lc.begin": 0.1}
    ),
    "swa_sparse": Contender(
        "SWA after GMP",
        "swa",
        {"learning_rate": RATES, "swa.rate": (0.5, 0.2)},
        fixed={"swa.prune": True, "swa.pruner": "gmp", **AVERAGED},
    ),
    "swa_recipe": Contender(
        "SWA after the recipe",
        "swa",
        {"learning_rate": RATES, "swa.rate": (0.5, 0.2)},
        fixed={
            "swa.prune": True,
            "swa.pruner": "recipe",
            "recipe.ratio": 3.0,
            **AVERAGED,
            **RECIPE,
        },
    ),
    "snip": Contender("SNIP", "snip", {"learning_rate": RATES, "snip.batches": (1, 10)}),
    "grasp": Contender("GraSP", "grasp", {"learning_rate": RATES, "grasp.batches": (1, 10)}),
    "set": Contender("SET", "set", {"learning_rate": RATES, "set.update_every": (100, 300)}),
    "rigl_uniform": Contender(
        "RigL (uniform)",
        "rigl",
        {"learning_rate": RATES, "rigl.update_every": (100, 300)},
        fixed={"rigl.allocation": "uniform"},
    ),
    "random_pruning": Contender(
        "random",
        "random_pruning",
        {"learning_rate": RATES, "random_pruning.allocation": ("erk", "uniform")},
    ),
    "amc": Contender(
        "AMC",
        "amc",
        {"learning_rate": RATES, "amc.begin": (0.2, 0.4)},
        fixed={"amc.most": 0.999},  # at 99 % of the network 0.99 would leave nothing to choose
    ),
    "sensitivity": Contender(
        "greedy sensitivity",
        "sensitivity",
        {"learning_rate": RATES, "sensitivity.begin": (0.2, 0.4)},
        fixed={"sensitivity.most": 0.999, "sensitivity.increment": 0.05},
    ),
    "l0": Contender(
        "L0",
        "l0",
        {"learning_rate": RATES, "l0.gate_learning_rate": (0.01, 0.03)},
        kind="swept",
        strength="l0.strength",
        start=3.2,
        models=NO_NOISE,
    ),
    "variational_dropout": Contender(
        "variational dropout",
        "variational_dropout",
        {"learning_rate": RATES, "variational_dropout.noise_learning_rate": (0.01, 0.03)},
        kind="swept",
        strength="variational_dropout.strength",
        start=1.0,
        models=NO_NOISE,
    ),
    "proximal_sgd": Contender(
        "proximal SGD",
        "proximal_sgd",
        PENALTY,
        kind="swept",
        strength="proximal_sgd.strength",
        start=4e-4,
    ),
    "rda": Contender("RDA", "rda", PENALTY, kind="swept", strength="rda.strength", start=5e-5),
    "lottery_equal": Contender(
        "lottery, one budget",
        "lottery",
        {"learning_rate": RATES, "lottery.prune_fraction": (0.5, 0.8)},
        fixed={"lottery.equal_budget": True},
    ),
    "swa": Contender(
        "SWA, dense",
        "swa",
        {"learning_rate": RATES, "swa.rate": (0.5, 0.2)},
        kind="once",
        fixed={"swa.prune": False, **AVERAGED},
    ),
    "l1_subgradient": Contender(
        "l1 by subgradient",
        "l1_subgradient",
        {"learning_rate": RATES, "l1_subgradient.strength": (1e-5, 1e-4)},
        kind="once",
    ),
    "directional": Contender(
        "directional", "directional", _after_training("directional"), beyond=True
    ),
    "lottery": Contender(
        "lottery",
        "lottery",
        {},
        fixed={"lottery.equal_budget": False, "lottery.prune_fraction": 0.2},
        beyond=True,
        takes=("gmp", {"gmp.update_every": ""}),
    ),
}


# Of other libraries; experiments.peers.pat runs them, in an environment of their own.
PEERS: dict[str, Contender] = {
    "pat_constraint": Contender(
        "PAT, exact sparsity",
        "pat_constraint",
        {"learning_rate": RATES, "heal_at": (0.75, 0.9)},
        models=("mlp",),
    ),
    "pat_lasso": Contender(
        "PAT, lasso",
        "pat_lasso",
        {"learning_rate": RATES, "heal_at": (0.75, 1.0)},
        kind="swept",
        strength="reg_lambda",
        start=5e-4,
        models=("mlp",),
    ),
}
EVERYONE = CONTENDERS | PEERS


def changed(config: Config, changes: Changes) -> Config:
    """The config with other values, by dotted names."""
    return _changed(config, tuple(changes.items()))


@functools.lru_cache(maxsize=20_000)  # a plan asks for the same ones over and over
def _changed(config: Config, changes: tuple[tuple[str, Any], ...]) -> Config:
    fields: dict[str, Any] = {}
    for name, value in changes:
        group, _, field = name.rpartition(".")
        if group:
            inner = fields.get(group, getattr(config, group))
            fields[group] = dataclasses.replace(inner, **{field: value})
        else:
            fields[field] = value
    return dataclasses.replace(config, **fields)


def value_of(config: Config, name: str) -> Any:
    """The value of a field, by its dotted name."""
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def contender_of(config: Config) -> str:
    """Whose run it is: the first with the method and what is fixed of it."""
    return next(
        name
        for name, x in CONTENDERS.items()
        if config.method == (x.method,)
        and all(value_of(config, field) == value for field, value in x.fixed.items())
    )


def in_words(changes: Changes) -> str:
    """Settings as a table shows them."""
    parts = [f"{name.rpartition('.')[2]} {value}" for name, value in changes.items()]
    return ", ".join(parts).replace("_", " ")
