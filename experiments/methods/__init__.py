"""Ways to train a network, sparse or dense: one file a method, one line in METHODS."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from experiments.methods import (
    acdc,
    amc,
    channels,
    dense,
    dense_narrow,
    directional,
    dpf,
    gmp,
    grasp,
    grda,
    l0,
    l1_channels,
    l1_subgradient,
    lc,
    lottery,
    magnitude_v2,
    obd,
    obs,
    one_shot,
    proximal_sgd,
    random_pruning,
    rda,
    recipe,
    rigl,
    sensitivity,
    snip,
    swa,
    variational_dropout,
)
from experiments.methods import set as set_
from experiments.methods import soft_threshold_reparameterisation as str_

if TYPE_CHECKING:
    from experiments.train import Job, Trained

METHODS: dict[str, Callable[["Job"], "Trained"]] = {
    "dense": dense.run,
    "grda": grda.run,
    "recipe": recipe.run,
    "gmp": gmp.run,
    "magnitude_v2": magnitude_v2.run,
    "one_shot": one_shot.run,
    "lottery": lottery.run,
    "random_pruning": random_pruning.run,
    "snip": snip.run,
    "grasp": grasp.run,
    "set": set_.run,
    "rigl": rigl.run,
    "acdc": acdc.run,
    "dpf": dpf.run,
    "swa": swa.run,
    "dense_narrow": dense_narrow.run,
    "l1_subgradient": l1_subgradient.run,
    "proximal_sgd": proximal_sgd.run,
    "rda": rda.run,
    "l0": l0.run,
    "str": str_.run,
    "variational_dropout": variational_dropout.run,
    "lc": lc.run,
    "amc": amc.run,
    "sensitivity": sensitivity.run,
    "obd": obd.run,
    "obs": obs.run,
    "directional": directional.run,
    "channels": channels.run,
    "l1_channels": l1_channels.run,
}
