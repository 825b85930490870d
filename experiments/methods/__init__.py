"""Ways to train a network, sparse or dense: one file a method, one line in METHODS."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from experiments.methods import (
    dense,
    gmp,
    grda,
    l0,
    l1_subgradient,
    lc,
    proximal_sgd,
    rda,
    recipe,
    variational_dropout,
)
from experiments.methods import soft_threshold_reparameterisation as str_

if TYPE_CHECKING:
    from experiments.train import Job, Trained

METHODS: dict[str, Callable[["Job"], "Trained"]] = {
    "dense": dense.run,
    "grda": grda.run,
    "recipe": recipe.run,
    "gmp": gmp.run,
    "l1_subgradient": l1_subgradient.run,
    "proximal_sgd": proximal_sgd.run,
    "rda": rda.run,
    "l0": l0.run,
    "str": str_.run,
    "variational_dropout": variational_dropout.run,
    "lc": lc.run,
}
