"""Whole runs of the baselines by penalties, reparameterisation and allocation: what all owe."""

import jax
import numpy as np
import pytest

from experiments.config import Config
from experiments.methods import amc, l0, lc, proximal_sgd, rda, sensitivity, variational_dropout
from experiments.methods import soft_threshold_reparameterisation as learned
from grda_optax import sparsity_report

from ..grda_optax.trees import assert_same_bits
from .conftest import SHORT, change

# So strong or so quick that 33 updates are enough.
SETTINGS = {
    "l1_subgradient": {},
    "proximal_sgd": {"proximal_sgd": proximal_sgd.Settings(strength=1e-3)},
    "rda": {"rda": rda.Settings(strength=1e-3)},
    "l0": {"l0": l0.Settings(strength=1.0, gate_learning_rate=0.3)},
    "str": {
        "soft_threshold_reparameterisation": learned.Settings(
            strength=0.03, start=-5.0, threshold_learning_rate=0.1
        )
    },
    "variational_dropout": {
        "variational_dropout": variational_dropout.Settings(start=-6.0, noise_learning_rate=0.1)
    },
    "lc": {"lc": lc.Settings(update_every=3)},
    "amc": {"amc": amc.Settings(episodes=30, exploring=20, examples=300)},
    "sensitivity": {"sensitivity": sensitivity.Settings(increment=0.1, examples=300)},
}
TOLD = ("lc", "amc", "sensitivity")


def kernels(params):
    return jax.tree.map(lambda x: x.ndim >= 2, params)


def config_of(method) -> Config:
    return change(SHORT, method=(method,), sparsity=0.7, **SETTINGS[method])


@pytest.mark.slow
@pytest.mark.parametrize("method", SETTINGS)
def test_a_run_learns_and_has_the_zeros_it_owes(train, tmp_path, method):
    trained = train(tmp_path / "run", config_of(method))
    count = sparsity_report(trained.params, kernels).penalised
    zeros = count.total - count.nnz
    assert trained.result["penalised"] == {"nnz": count.nnz, "total": count.total}
    assert trained.result["eval_accuracy"] > 0.6
    if method in TOLD:
        assert zeros == round(0.7 * count.total)
    elif method == "l1_subgradient":
        assert zeros == 0
    else:
        assert 0.02 < count.sparsity < 0.98
    for leaf in jax.tree.leaves(trained.params):
        assert not np.signbit(leaf[leaf == 0]).any()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lc", "amc"])
def test_a_stop_before_or_after_the_pruning_changes_no_bit(train, tmp_path, method):
    config = config_of(method)  # lc prunes at updates 10 to 30, amc at 13
    whole = train(tmp_path / "whole", config)
    for stop in (13, 20):
        train(tmp_path / "parts", config, stop_after=stop)
    assert_same_bits(train(tmp_path / "parts", config).params, whole.params)
