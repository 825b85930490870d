"""What every method owes: a finite result, exactly as many zeros as asked for, and all +0.0."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments import models
from experiments.averaging import recompute_statistics
from experiments.config import Config
from experiments.methods import (
    METHODS,
    acdc,
    dense_narrow,
    dpf,
    gmp,
    grasp,
    lottery,
    magnitude_v2,
    one_shot,
    random_pruning,
    rigl,
    snip,
    swa,
)
from experiments.methods import set as set_
from experiments.methods._width import closest_width, widest
from experiments.train import State

from ..grda_optax.trees import assert_close, assert_same_bits
from .conftest import SHORT, change, exactly

# 11 updates of the MLP on digits.
TINY = change(
    SHORT,
    epochs=1,
    weight_decay=1e-3,
    sparsity=0.87,
    gmp=gmp.Settings(update_every=2),
    magnitude_v2=magnitude_v2.Settings(update_every=2),
    lottery=lottery.Settings(equal_budget=True, prune_fraction=0.6),
    set=set_.Settings(update_every=2),
    rigl=rigl.Settings(update_every=2),
    dpf=dpf.Settings(update_every=2),
    swa=swa.Settings(every=1),
)
SETTINGS = {
    "gmp": {"gmp": gmp.Settings(update_every=2)},
    "gmp by layer": {"gmp": gmp.Settings(update_every=2, allocation="erk")},
    # A first layer that stays dense has to be small.
    "magnitude_v2": {"model": "lenet5"},
    "one_shot": {},
    "lottery": {},
    "random_pruning": {},
    "snip": {},
    "grasp": {},
    "set": {},
    "rigl": {},
    "rigl uniform": {"rigl": rigl.Settings(update_every=2, allocation="uniform")},
    "acdc": {},
    "dpf": {},
    "swa of a sparse network": {"swa": swa.Settings(every=1, prune=True)},
    "swa after the recipe": {"swa": swa.Settings(every=1, prune=True, pruner="recipe")},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", SETTINGS)
def test_as_many_zeros_as_asked_for(train, tmp_path, case):
    config = change(TINY, method=(case.split()[0],), **SETTINGS[case])
    trained = train(tmp_path / "run", config)
    counts = trained.result["penalised"]
    assert counts["total"] - counts["nnz"] == round(0.87 * counts["total"])
    for leaf in jax.tree.leaves(trained.params):
        assert np.isfinite(leaf).all()
        assert not np.signbit(leaf[leaf == 0]).any()
    assert np.isfinite(trained.result["eval_loss"])
    extra = {"snip": 1, "grasp": 3}.get(case, 0)
    assert trained.result["gradient_evaluations"] == trained.result["steps"] + extra


@pytest.mark.slow
@pytest.mark.parametrize(("method", "mode"), [("rigl", "mesh"), ("lottery", "pmap")])
def test_a_stop_changes_no_bit(train, tmp_path, method, mode):
    """Of a method that is a transformation after its start, and of one that intervenes."""
    config = change(TINY, method=(method,))
    runtime = {"devices": 2, "parallel": mode}
    whole = train(tmp_path / "whole", config, **runtime)
    for stop in (2, 5):
        train(tmp_path / "parts", config, stop_after=stop, **runtime)
    resumed = train(tmp_path / "parts", config, **runtime)
    assert_same_bits(resumed.params, whole.params)
    assert resumed.result["eval_loss"] == whole.result["eval_loss"]
    assert resumed.result["gradient_evaluations"] == whole.result["gradient_evaluations"]


@pytest.mark.slow
def test_averaging_ends_with_the_mean_and_its_own_statistics(train, make_job, tmp_path):
    config = change(TINY, method=("swa",), model="small_cnn_sixteenth")
    trained = train(tmp_path / "run", config)
    assert trained.result["penalised"]["nnz"] == trained.result["penalised"]["total"]
    job = make_job(tmp_path / "unused", config)
    state = State(np.int32(11), trained.params, job.start()[1], ())
    # Those of training are forgotten, as the first ones are here.
    again = recompute_statistics(job, state).statistics
    assert_close(trained.statistics, again, rtol=2e-3, atol=1e-3)
    images, labels = job.dataset.test
    logits, _ = job.model.apply(trained.params, trained.statistics, images, False)
    accuracy = float(np.mean(np.argmax(logits, -1) == labels))
    assert trained.result["eval_accuracy"] == pytest.approx(accuracy, abs=1e-6)


def test_every_method_is_named_in_the_config():
    assert Config(method=tuple(METHODS)).method == tuple(METHODS)


@pytest.mark.parametrize(
    ("model", "sparsity"),
    [
        ("mlp", 0.0),
        ("mlp", 0.9),
        ("mlp", 0.98),
        pytest.param("small_cnn", 0.9, marks=pytest.mark.slow),
        pytest.param("small_cnn", 0.98, marks=pytest.mark.slow),
    ],
)
def test_a_narrow_network_has_as_many_weights_as_a_sparse_one(
    make_job, tmp_path, monkeypatch, model, sparsity
):
    job = make_job(tmp_path, change(SHORT, model=model, sparsity=sparsity))
    trained = []
    monkeypatch.setattr(type(job), "train", lambda job, tx: trained.append(job))
    dense_narrow.run(job)

    def kernels(job):
        return [x for x in jax.tree.leaves(job.start()[0]) if x.ndim > 1]

    narrow = kernels(trained[0])
    wanted = (1 - sparsity) * sum(x.size for x in kernels(job))
    unit = sum(x.shape[-2] for x in narrow[-2:])  # of the last hidden layer: inputs and outputs
    assert wanted - unit - 10 < sum(x.size for x in narrow) <= wanted + 1e-6
    assert narrow[-1].shape[0] >= 20  # two for each class, though 0.02 times 100 are 2


def test_the_widest_is_found_by_bisection():
    for wanted, found in ((17, 17), (16, 16), (299, 299), (300, 300), (400, 300)):
        assert round(300 * widest(lambda w: round(300 * w), wanted)) == found
    assert widest(lambda w: 10, 5) == 0


def test_the_closest_width_is_found_by_bisection():
    assert round(300 * closest_width(lambda w: round(300 * w), 17.4)) == 17
    assert round(300 * closest_width(lambda w: round(300 * w), 17.6)) == 18
    assert round(300 * closest_width(lambda w: round(300 * w), 300)) == 300


def test_a_narrow_network_starts_from_no_other(make_job, tmp_path):
    job = make_job(tmp_path)
    object.__setattr__(job, "config", dataclasses.replace(job.config, init_from="runs/dense"))
    message = "init_from must be None for dense_narrow, whose network is another, got 'runs/dense'."
    with pytest.raises(ValueError, match=exactly(message)):
        dense_narrow.run(job)


@pytest.mark.parametrize("name", models.ENDS)
def test_the_ends_of_the_networks_are_layers(name):
    shape = (64,) if name in models.TEXT_MODELS else (28, 28, 1)
    params, _ = jax.eval_shape(models.build(name, shape, 10).init, jax.random.key(0))
    assert set(models.ENDS[name]) <= set(params)


@pytest.mark.parametrize("rate", ["rewind", "continue", "low"])
def test_the_learning_rate_after_one_pruning(make_job, tmp_path, rate):
    settings = one_shot.Settings(rate=rate, low_rate=0.2)
    job = make_job(tmp_path, change(SHORT, schedule="cosine", one_shot=settings))
    schedule = settings.learning_rate(job, 11)
    wanted = {
        "rewind": [0.05, 0.025 * (1 + np.cos(10 * np.pi / 11)), 0.05, 0.025],
        "continue": [float(job.learning_rate(n)) for n in (0, 10, 11, 22)],
        "low": [0.05, 0.025 * (1 + np.cos(10 * np.pi / 11)), 0.01, 0.01],
    }[rate]
    assert [float(schedule(n)) for n in (0, 10, 11, 22)] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gmp.Settings(ramp_end=1.1), "gmp.ramp_end must be at most 1, got 1.1."),
        (
            lambda: gmp.Settings(allocation="x"),
            "gmp.allocation must be one of global, uniform, erk, got 'x'.",
        ),
        (
            lambda: magnitude_v2.Settings(last_at_most=2),
            "magnitude_v2.last_at_most must be at most 1, got 2.",
        ),
        (
            lambda: magnitude_v2.Settings(update_every=0),
            "magnitude_v2.update_every must be an integer >= 1, got 0.",
        ),
        (
            lambda: random_pruning.Settings(allocation="global"),
            "random_pruning.allocation must be one of uniform, erk, got 'global'.",
        ),
        (lambda: one_shot.Settings(prune_at=2), "one_shot.prune_at must be at most 1, got 2."),
        (
            lambda: one_shot.Settings(rate="x"),
            "one_shot.rate must be one of rewind, continue, low, got 'x'.",
        ),
        (
            lambda: lottery.Settings(prune_fraction=0.0),
            "lottery.prune_fraction must be above 0, got 0.0.",
        ),
        (lambda: lottery.Settings(rewind_to=1.0), "lottery.rewind_to must be below 1, got 1.0."),
        (lambda: snip.Settings(batches=0), "snip.batches must be an integer >= 1, got 0."),
        (lambda: grasp.Settings(temperature=0), "grasp.temperature must be above 0, got 0."),
        (
            lambda: set_.Settings(drop_fraction=-1),
            "set.drop_fraction must be a finite number >= 0, got -1.",
        ),
        (lambda: rigl.Settings(stop=1.5), "rigl.stop must be at most 1, got 1.5."),
        (
            lambda: acdc.Settings(0.5, 0.1, 0.25, 0.5),
            "acdc.warm_up + acdc.last_dense + acdc.fine_tune must be at most 1, got 1.25.",
        ),
        (lambda: dpf.Settings(ramp_end=-1), "dpf.ramp_end must be a finite number >= 0, got -1."),
        (lambda: swa.Settings(every=0), "swa.every must be an integer >= 1, got 0."),
    ],
)
def test_settings_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=exactly(message)):
        make().validate()
