"""A run that starts from another run's weights: from those, and from nothing else of it."""

import json

import jax
import numpy as np
import optax
import pytest

from experiments import data
from experiments.config import Config
from experiments.folder import RunFolder

from ..grda_optax.trees import assert_same_bits
from .conftest import SHORT, change, exactly

DENSE = change(SHORT, method=("dense",))


@pytest.fixture
def dense(train, tmp_path):
    """``dense(model)``: a trained dense network, and the folder of its run."""

    def run(model="mlp", **fields):
        folder = tmp_path / "dense"
        return train(folder, change(DENSE, model=model, **fields)), folder

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "method"),
    [("mlp", "recipe"), pytest.param("small_cnn", "grda", marks=pytest.mark.slow)],
)
def test_the_first_loss_is_that_of_the_other_runs_final_weights(
    dense, train, make_job, tmp_path, model, method
):
    trained, folder = dense(model, epochs=1)
    config = change(DENSE, model=model, method=(method,), seed=3, init_from=str(folder))
    job = make_job(tmp_path / "unused", config)
    params, statistics = job.start()
    assert_same_bits(jax.tree.map(np.asarray, params), trained.params)
    assert_same_bits(jax.tree.map(np.asarray, statistics), trained.statistics)
    first = train(tmp_path / "next", config, stop_after=1).rows[0]
    if model == "mlp":  # in training BatchNorm takes the batch, and not the statistics
        images, labels = data.batch(job.dataset.train, 3, 0, config.batch_size)
        logits, _ = job.model.apply(trained.params, trained.statistics, images, False)
        wanted = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        assert first["loss"] == pytest.approx(float(wanted), rel=1e-5)
    assert first["learning_rate"] == pytest.approx(config.learning_rate)


@pytest.mark.slow
def test_a_trained_network_is_pruned_in_a_third_of_its_epochs(dense, train, tmp_path):
    base = {"batch_size": 64, "schedule": "cosine"}
    trained, folder = dense(epochs=15, **base)
    config = change(
        SHORT, method=("recipe",), epochs=5, sparsity=0.9, init_from=str(folder), **base
    )
    pruned = train(tmp_path / "pruned", config)
    assert pruned.result["penalised"] == {"nnz": 5020, "total": 50_200}
    assert pruned.result["steps"] == 110
    assert pruned.result["eval_accuracy"] > trained.result["eval_accuracy"] - 0.04


@pytest.mark.slow
def test_resuming_changes_no_bit(dense, train, tmp_path):
    _, folder = dense("small_cnn", epochs=1)
    config = change(DENSE, model="small_cnn", epochs=1, init_from=str(folder))
    whole = train(tmp_path / "whole", config)
    train(tmp_path / "parts", config, stop_after=4)
    resumed = train(tmp_path / "parts", config)
    assert_same_bits(resumed.params, whole.params)
    assert_same_bits(resumed.statistics, whole.statistics)


def test_what_cannot_be_started_from_is_named_before_anything_is_written(
    dense, train, make_job, tmp_path
):
    _, folder = dense(epochs=1)
    empty = tmp_path / "empty"
    RunFolder(empty).open(DENSE)
    before = sorted(tmp_path.rglob("*"))
    for source, fields, wanted in [
        (tmp_path / "no", {}, "the folder of a method's run, which holds a config.json"),
        (tmp_path, {}, "the folder of a method's run, which holds a config.json"),
        (empty, {}, "a run that has a checkpoint"),
        (
            folder,
            {"model": "small_cnn"},
            "a run of the same network (conv1/kernel is missing there and float32[3, 3, 1, 32] "
            "here)",
        ),
        (
            folder,
            {"evaluate": "validation"},
            "a run with evaluate = 'validation', since others train on what is held out",
        ),
    ]:
        message = f"init_from must be {wanted}, got {str(source)!r}."
        with pytest.raises(ValueError, match=exactly(message)):
            make_job(tmp_path / "new", change(SHORT, init_from=str(source), **fields))
    assert sorted(tmp_path.rglob("*")) == before


def test_another_image_shape_is_another_network(dense, make_job, tmp_path, digits):
    _, folder = dense(epochs=1)
    wide = digits._replace(
        train=data.Split(digits.train.inputs.repeat(2, axis=1), digits.train.labels)
    )
    with pytest.raises(ValueError, match=r"dense1/kernel is float32\[64, 300\] there and float32"):
        make_job(tmp_path / "new", change(SHORT, init_from=str(folder)), dataset=wide)


@pytest.mark.slow
def test_the_other_run_is_left_as_it_is(dense, train, tmp_path):
    _, folder = dense(epochs=1)
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    config = change(SHORT, epochs=1, init_from=str(folder))
    train(tmp_path / "next", config)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == files
    kept = json.loads((tmp_path / "next" / "config.json").read_text())
    assert Config.from_json(kept) == config


def test_a_run_may_take_the_place_of_the_one_it_starts_from(dense, make_job, tmp_path):
    trained, folder = dense(epochs=1)
    config = change(SHORT, epochs=1, init_from=str(folder))
    job = make_job(folder, config)
    RunFolder(folder).open(config, overwrite=True)
    assert_same_bits(jax.tree.map(np.asarray, job.start()[0]), trained.params)
