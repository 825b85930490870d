"""Gradients that are not finite: skipped when asked, with nothing moved; and the loss scale."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import data, guards, wrapping
from experiments.checkpoint import Checkpoints
from experiments.folder import RunFolder
from experiments.health import DivergedError
from experiments.methods import METHODS
from experiments.models import Model
from grda_optax import dual_averaging, grda, target_sparsity

from ..grda_optax.trees import assert_same_bits
from .conftest import SHORT, change

MARK = 255  # of the first pixel, which is black in every digit


def ours(opt_state):
    """Count, accumulator and threshold."""
    inner = wrapping.inner_state(opt_state)
    return tuple(optax.tree.get(inner, x) for x in ("count", "accumulator", "threshold"))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "fields", [{"skip_nonfinite": 2}, {"loss_scale": 8.0}, {"skip_nonfinite": 2, "loss_scale": 8.0}]
)
def test_a_skipped_update_leaves_everything_alone(fields, bad):
    config = change(SHORT, **fields)
    recipe = optax.chain(optax.sgd(0.1, 0.9), dual_averaging(target_sparsity(0.5, end_step=2)))
    tx = wrapping.wrap(config, recipe)
    params = {"w": jnp.arange(1.0, 7.0)}
    update, state = jax.jit(tx.update), tx.init(params)
    _, state = update({"w": jnp.ones(6)}, state, params)
    updates, after = update({"w": jnp.ones(6).at[3].set(bad)}, state, params)
    assert guards.skipped(config, after)
    assert_same_bits(wrapping.inner_state(after), wrapping.inner_state(state))
    assert_same_bits(updates, {"w": jnp.zeros(6)})
    _, later = update({"w": jnp.ones(6)}, after, params)
    assert not guards.skipped(config, later)
    assert int(ours(later)[0]) == 2


def test_more_in_a_row_than_may_be_are_not_skipped():
    config = change(SHORT, skip_nonfinite=2)
    tx = wrapping.wrap(config, optax.sgd(0.1))
    state, seen = tx.init(jnp.ones(2)), []
    for _ in range(4):
        _, state = tx.update(jnp.full(2, jnp.nan), state, jnp.ones(2))
        seen.append(bool(guards.skipped(config, state)))
    assert seen == [True, True, False, False]


def test_the_loss_scale_halves_and_doubles(monkeypatch):
    monkeypatch.setattr(guards, "GROW_EVERY", 3)
    tx = wrapping.wrap(change(SHORT, loss_scale=4.0), optax.sgd(0.1))
    state, scales = tx.init(jnp.ones(2)), []
    gradients = {"x": jnp.full(2, jnp.inf), ".": jnp.ones(2)}
    for step in "x..x" + "......" + "xxxxx":
        scales.append(float(guards.loss_scale(state)))
        _, state = tx.update(gradients[step], state, jnp.ones(2))
    # Never below 1, and a skipped update starts the count of good ones anew.
    assert scales == [4, 2, 2, 2, 1, 1, 1, 2, 2, 2, 4, 2, 1, 1, 1]
    state = state._replace(scale=jnp.float32(guards.LARGEST_SCALE))
    for _ in range(4):
        _, state = tx.update(jnp.ones(2), state, jnp.ones(2))
    assert guards.loss_scale(state) == guards.LARGEST_SCALE


def test_what_is_around_an_optimizer_can_be_taken_off_and_put_on():
    tx = optax.sgd(0.1, 0.9)
    params = jnp.ones(2)
    for fields in ({}, {"accumulate": 2}, {"skip_nonfinite": 1}, {"loss_scale": 2.0}):
        state = wrapping.wrap(change(SHORT, **fields), tx).init(params)
        inner = wrapping.inner_state(state)
        assert jax.tree.structure(inner) == jax.tree.structure(tx.init(params))
        other = jax.tree.map(lambda x: x + 1, inner)
        assert_same_bits(wrapping.inner_state(wrapping.with_inner_state(state, other)), other)


def test_gradients_are_clipped_before_all_that_a_method_does():
    params = {"w": jnp.array([3.0, 4.0])}
    for norm, expected in ((1.0, [0.6, 0.8]), (5.0, [3.0, 4.0]), (None, [3.0, 4.0])):
        config = change(SHORT, clip_norm=norm)
        tx = wrapping.wrap(config, optax.with_extra_args_support(optax.sgd(1.0)))
        state = tx.init(params)
        assert jax.tree.structure(state) == jax.tree.structure(optax.sgd(1.0).init(params))
        updates, _ = tx.update(params, state, params)
        np.testing.assert_allclose(updates["w"], -np.array(expected), rtol=1e-6)
    # The mean of the parts of a batch is clipped, not each of them.
    config = change(SHORT, clip_norm=1.0, accumulate=2)
    tx = wrapping.wrap(config, optax.with_extra_args_support(optax.sgd(1.0)))
    _, state = tx.update({"w": jnp.array([6.0, 0.0])}, tx.init(params), params)
    updates, _ = tx.update({"w": jnp.array([0.0, 8.0])}, state, params)
    np.testing.assert_allclose(updates["w"], [-0.6, -0.8], rtol=1e-6)


def test_by_default_nothing_is_around_an_optimizer():
    tx = grda(0.1)
    assert wrapping.wrap(SHORT, tx) is tx


# In the training loop.


@pytest.fixture
def poisoned(make_job, digits):
    """A job whose loss is not finite at one example of the training set."""

    def make(folder, config, bad=math.nan, **runtime):
        inputs = digits.train.inputs.copy()
        inputs[7, 0, 0, 0] = MARK
        dataset = digits._replace(train=digits.train._replace(inputs=inputs))
        job = make_job(folder, config, dataset=dataset, **runtime)
        model = job.model

        def apply(params, statistics, inputs, train):
            marked = (inputs[:, 0, 0, 0] == MARK).any() & train
            factor = jnp.where(marked, bad, 1.0)
            logits, statistics = model.apply(params, statistics, inputs, train)
            return logits * factor, jax.tree.map(lambda x: x * factor, statistics)

        job.__dict__["model"] = Model(model.init, apply)
        return job

    return make


def run(job):
    return METHODS[job.config.method[0]](job)


@pytest.mark.slow
def test_a_run_goes_on_past_it(poisoned, tmp_path):
    """The steps that see it move nothing, and the run resumes to the bit over them."""
    config = change(SHORT, model="small_cnn_sixteenth", skip_nonfinite=1)
    whole = run(poisoned(tmp_path / "whole", config))
    skipped = [row["step"] for row in whole.rows if row["skipped"]]
    orders = [data.epoch_order(0, epoch, 1437)[: 11 * 128] for epoch in range(3)]
    places = np.flatnonzero(np.concatenate(orders) == 7)
    assert skipped == [1 + place // 128 for place in places] != []
    for step in skipped:
        row, before = whole.rows[step - 1], whole.rows[step - 2]
        assert row["loss"] is None
        assert row["gradient_norm"] is None
        if step > 1:
            assert row["threshold"] == before["threshold"]
    for leaf in jax.tree.leaves((whole.params, whole.statistics)):
        assert np.isfinite(leaf).all()
    checkpoints = Checkpoints(RunFolder(tmp_path / "whole"), read_only=True)
    opt_state = checkpoints.state()["opt_state"]
    checkpoints.close()
    assert int(opt_state["total_notfinite"]) == len(skipped)
    assert int(opt_state["inner_state"][1]["count"]) == 33 - len(skipped)
    text = (tmp_path / "whole" / "metrics.jsonl").read_text()
    assert "NaN" not in text  # which is no JSON
    assert math.isfinite(json.loads((tmp_path / "whole" / "result.json").read_text())["train_loss"])
    for stop in skipped[:1]:
        run(poisoned(tmp_path / "parts", config, stop_after=stop))
    assert_same_bits(run(poisoned(tmp_path / "parts", config)).params, whole.params)


@pytest.mark.slow
def test_without_the_flag_it_ends_the_run(poisoned, tmp_path):
    with pytest.raises(DivergedError, match=r"^the loss is not finite at step \d+: loss (nan|inf)"):
        run(poisoned(tmp_path / "run", SHORT, math.inf))


@pytest.mark.slow
def test_too_many_in_a_row_end_the_run(poisoned, tmp_path):
    """Nothing after the last update that was skipped is written."""
    job = poisoned(tmp_path / "run", change(SHORT, skip_nonfinite=2, batch_size=1437))
    with pytest.raises(DivergedError, match="at step 3"):
        run(job)
    rows = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["skipped"] for row in rows] == [1, 1]


@pytest.mark.slow
def test_float16_with_a_loss_scale(make_job, tmp_path):
    """From a scale at which the first gradients overflow, down to one at which they do not."""
    start = 2.0**20
    config = change(
        SHORT, method=("recipe",), sparsity=0.5, param_dtype="float16", loss_scale=start
    )
    whole = run(make_job(tmp_path / "whole", config))
    skipped = [bool(row["skipped"]) for row in whole.rows]
    first = skipped.index(False)
    assert 0 < first < 15
    scales = [row["loss_scale"] for row in whole.rows]
    expected = [start / 2 ** sum(skipped[:i]) for i in range(len(skipped))]
    assert scales == expected
    for row in whole.rows[:first]:
        assert row["threshold"] == 0
        assert row["gradient_norm"] is None
        assert row["loss"] is not None  # which is that without the scale
    assert {x.dtype.name for x in jax.tree.leaves(whole.params)} == {"float16"}
    run(make_job(tmp_path / "parts", config, stop_after=first - 1))
    assert_same_bits(run(make_job(tmp_path / "parts", config)).params, whole.params)
    assert whole.result["eval_accuracy"] > 0.8
    count = whole.result["penalised"]  # the ramp counts updates, and is over by now
    assert count["nnz"] == count["total"] - round(0.5 * count["total"])


@pytest.mark.slow
def test_the_loss_scale_saves_what_float16_loses(make_job, tmp_path):
    """Gradients below 6e-8 are zero in float16, and not so when they come scaled."""

    def gradient_norm(scale):
        config = change(SHORT, steps=1, param_dtype="float16", loss_scale=scale)
        job = make_job(tmp_path / str(scale), config)
        model = job.model

        def apply(params, *arguments):
            logits, statistics = model.apply(params, *arguments)
            return 1e-7 * logits.astype(jnp.float32), statistics

        job.__dict__["model"] = Model(model.init, apply)
        (row,) = run(job).rows
        return row["gradient_norm"]

    exact = gradient_norm(2.0**20)
    assert exact == pytest.approx(gradient_norm(2.0**18), rel=1e-2)
    assert not 0.9 < gradient_norm(None) / exact < 1.1


def test_the_fields_of_a_config_stay_out_of_names():
    """Defaults mean as before: rows without them are equal, and folders have their names."""
    plain = SHORT.to_json()
    for name in ("accumulate", "accumulate_by", "param_dtype", "loss_scale", "skip_nonfinite"):
        del plain[name]
    assert type(SHORT).from_json(plain) == SHORT
    assert SHORT.fingerprint(dataclasses.replace(SHORT)) == ""
