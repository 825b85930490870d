"""Every config of the paper, and each recipe beside it, takes real steps on made-up images."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from experiments import data
from experiments.configs import PRESETS
from experiments.datasets import SHAPES, generated
from experiments.methods import METHODS
from experiments.stream import Stream

PAPER = [name for name in PRESETS if name.startswith(("cifar", "imagenet"))]
SIDE = {"vgg16": 32, "vgg16_bn": 32, "wrn_28_10": 8, "resnet50": 32}
"""The real side where two cores can do it, and a smaller one else."""


def small(config):
    """Made-up images with the classes and channels of the real ones."""
    real, side = SHAPES[config.dataset], SIDE[config.model]
    shape = generated.Shape((side, side, 3), real.num_classes, 24, 4)
    if config.dataset == "imagenet2012":
        train, test = (Stream(generated.Source(shape, x), side, threads=2) for x in (False, True))
    else:
        train, test = (data.Split(*generated.arrays(shape, x)) for x in (False, True))
    return data.Dataset(train, test, *data.outline(config.dataset)[2:])


def quick_start(job):
    """Random weights of the right shapes, drawn by numpy: JAX compiles for each shape anew."""
    rng = np.random.default_rng(0)

    def value(path, leaf):
        if path[-1].key in ("scale", "var"):
            return np.ones(leaf.shape, leaf.dtype)
        if path[-1].key != "kernel":
            return np.zeros(leaf.shape, leaf.dtype)
        deviation = np.float32((3 * math.prod(leaf.shape[:-1])) ** -0.5)
        return deviation * rng.standard_normal(leaf.shape, np.float32)

    shapes = jax.eval_shape(job.model.init, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(value, shapes)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPER)
def test_a_config_trains(name, make_job, tmp_path):
    config = PRESETS[name].CONFIG
    method = config.method[-1]
    assert method == ("recipe" if name.endswith("_recipe") else "grda")
    # Where the rate falls stays where it is in the run: the epochs are as many, and shorter.
    config = dataclasses.replace(config, method=(method,), batch_size=4, steps=3)
    job = make_job(tmp_path, config, dataset=small(config), log_every=1)
    trained = METHODS[method](job._with(_start=quick_start(job)))
    losses = [row["loss"] for row in trained.rows]
    assert len(losses) == 3
    assert abs(losses[0] - math.log(SHAPES[config.dataset].num_classes)) < 1.5
    assert all(np.isfinite(losses))
    assert trained.result["all"]["total"] == sum(x.size for x in jax.tree.leaves(trained.params))
    penalised = trained.result["penalised"]
    if method == "recipe":
        zeros = round(config.sparsity * penalised["total"])
        assert penalised["total"] - penalised["nnz"] == zeros
    else:
        assert penalised["total"] == trained.result["all"]["total"]
        assert 0 < penalised["nnz"] < penalised["total"], "the threshold is above some weights"
