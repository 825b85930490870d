"""Every config of the paper, and each recipe beside it, takes real steps on made-up images."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import data, plan
from experiments.configs import PRESETS
from experiments.datasets import SHAPES, generated
from experiments.methods import METHODS
from experiments.stream import Stream
from experiments.train import State
from grda_optax import sparsity_report

PAPER = [name for name in PRESETS if name.startswith(("cifar", "imagenet"))]
WHOLE = ["cifar10_vgg16_recipe", "cifar10_wrn_28_10", "imagenet_resnet50_drop"]
"""Those that go through the whole loop, with scores and checkpoints: each network once."""
LIKE = {
    "cifar100_vgg16_recipe": ("cifar10_vgg16_recipe", {"dataset"}),
    "cifar100_wrn_28_10_recipe": ("cifar10_wrn_28_10_recipe", {"dataset"}),
    "imagenet_resnet50_steps": (
        "imagenet_resnet50_drop",
        {"epochs", "milestones", "grda.c", "grda.mu"},
    ),
}
"""Those that are as another is, but for these fields; their steps are only made ready."""
STEPS = 2
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


def job_of(name, make_job, folder):
    config = PRESETS[name].CONFIG
    method = config.method[-1]
    assert method == ("recipe" if name.endswith("_recipe") else "grda")
    # Where the rate falls stays where it is in the run: the epochs are as many, and shorter.
    config = dataclasses.replace(config, method=(method,), batch_size=4, steps=STEPS)
    job = make_job(folder, config, dataset=small(config), log_every=1)
    return job._with(_start=quick_start(job))


def check_steps(job, losses, params):
    """The losses are those of a guess, and the zeros those of the method."""
    config = job.config
    assert len(losses) == STEPS
    assert abs(losses[0] - math.log(SHAPES[config.dataset].num_classes)) < 1.5
    assert all(np.isfinite(losses))
    counts = sparsity_report(params, job.penalised).penalised
    if config.method == ("recipe",):
        assert counts.total - counts.nnz == round(config.sparsity * counts.total)
    else:
        assert counts.total == sum(x.size for x in jax.tree.leaves(params))
        assert 0 < counts.nnz < counts.total, "the threshold is above some weights"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PAPER if name not in {*WHOLE, *LIKE}])
def test_a_config_takes_steps(name, make_job, tmp_path):
    job = job_of(name, make_job, tmp_path)
    tx, _ = plan.transformation(job)
    params, statistics = job.start()
    state = State(jnp.zeros([], jnp.int32), params, statistics, tx.init(params))
    step, state, losses = job.compiled_step(tx), job.parallel.replicate(state), []
    for i in range(STEPS):
        state, metrics = step(state, job.parallel.split(job.batch(i)))
        losses.append(float(metrics["loss"]))
    check_steps(job, losses, state.params)


@pytest.mark.slow
@pytest.mark.parametrize("name", LIKE)
def test_a_config_like_another_has_its_step(name, make_job, tmp_path):
    """At the real size, as far as to the program that the compiler gets."""
    config = PRESETS[name].CONFIG
    other, fields = LIKE[name]
    assert config.differences(PRESETS[other].CONFIG).keys() <= fields
    config = dataclasses.replace(config, method=config.method[-1:])
    job = make_job(tmp_path, config, dataset=data.outline(config.dataset))
    tx, _ = plan.transformation(job)
    arguments = job.parallel.abstract(*plan.abstract_arguments(job, tx))
    state, metrics = jax.eval_shape(job.compiled_step(tx), *arguments)
    assert metrics["loss"].shape == ()
    assert jax.tree.map(lambda x: x.shape, state) == jax.tree.map(lambda x: x.shape, arguments[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_a_config_trains_from_end_to_end(name, make_job, tmp_path):
    job = job_of(name, make_job, tmp_path)
    trained = METHODS[job.config.method[0]](job)
    check_steps(job, [row["loss"] for row in trained.rows], trained.params)
    assert trained.result["steps"] == STEPS
    assert 0 <= trained.result["eval_accuracy"] <= 1
