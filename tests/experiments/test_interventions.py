"""Changes between updates, and averages of weights: in one run as in one that was stopped."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import averaging, data
from experiments.interventions import Intervention
from experiments.methods import swa
from experiments.models.axis import DEVICE_AXIS
from experiments.train import State

from ..grda_optax.trees import assert_same_bits
from .conftest import SHORT, change, exactly
from .test_masks import tree, walk


def add(number, seen, job, state):
    seen.append((number, int(state.step)))
    return state._replace(params=jax.tree.map(lambda x: x + number, state.params))


def test_each_happens_once_and_a_stop_changes_no_bit(make_job, tmp_path):
    """Before the first update, between two at which the run stops or not, and after the last."""
    config = change(SHORT, epochs=1, method=("dense",))

    def train(name, seen, **runtime):
        job = make_job(tmp_path / name, config, **runtime)
        at = [0, 4, 5, 11, 5]
        interventions = [
            Intervention(n, functools.partial(add, 1e-3 * (i + 1), seen), i)
            for i, n in enumerate(at)
        ]
        return job.train(job.base_optimizer(), interventions=interventions)

    whole_seen, seen = [], []
    whole = train("whole", whole_seen)
    assert whole_seen == [(1e-3, 0), (2e-3, 4), (3e-3, 5), (5e-3, 5), (4e-3, 11)]
    for stop in (4, 6):
        assert train("parts", seen, stop_after=stop).result is None
    assert len(seen) == 4
    resumed = train("parts", seen)
    assert seen == whole_seen
    assert_same_bits(resumed.params, whole.params)
    assert resumed.rows[-1]["eval_accuracy"] == whole.rows[-1]["eval_accuracy"]
    assert resumed.result["gradient_evaluations"] == 11 + 0 + 1 + 2 + 3 + 4
    # The trace of momentum, and the count of the schedule.
    floats = sum(x.nbytes for x in jax.tree.leaves(whole.params))
    assert resumed.result["state_bytes"] == floats + 4
    # What is finished is left as it is.
    assert_same_bits(train("parts", seen).params, whole.params)
    assert len(seen) == 5


@pytest.mark.parametrize("step", [-1, 34])
def test_a_step_that_never_comes_is_refused(make_job, tmp_path, step):
    job = make_job(tmp_path / "run")
    message = f"the step of an intervention must be from 0 to 33, got {step}."
    with pytest.raises(ValueError, match=exactly(message)):
        job.train(job.base_optimizer(), interventions=[Intervention(step, lambda _, s: s)])


def test_one_that_changes_a_dtype_is_refused(make_job, tmp_path):
    def halve(job, state):
        return state._replace(step=state.step.astype(jnp.int16))

    job = make_job(tmp_path / "run")
    with pytest.raises(ValueError, match=r"^an intervention must be one that keeps shapes and dt"):
        job.train(job.base_optimizer(), interventions=[Intervention(0, halve)])


@pytest.mark.parametrize(("start", "every", "which"), [(0, 1, range(11)), (4, 3, (4, 7, 10))])
def test_the_average_is_the_mean_of_the_weights(start, every, which):
    """Before the first update there is nothing to average."""
    tx = averaging.average_weights(optax.sgd(0.1, 0.9), start, every, 10)
    history = list(walk(tx, 10))
    alone = walk(optax.with_extra_args_support(optax.sgd(0.1, 0.9)), 10)
    for (params, _), (other, _) in zip(history, alone, strict=True):
        assert_same_bits(params, other)
    taken = [history[n][0] for n in which if n]
    _, state = history[-1]
    assert int(state.taken) == len(taken)
    for name in ("bias", "kernel"):
        wanted = np.mean([x[name] for x in taken], axis=0)
        np.testing.assert_allclose(state.average[name], wanted, rtol=1e-5, atol=1e-6)


def test_the_average_of_zeros_is_a_positive_zero():
    tx = averaging.average_weights(optax.set_to_zero(), 0, 1, 5)
    params = jax.tree.map(jnp.zeros_like, tree())
    state = tx.init(params)
    for _ in range(5):
        _, state = tx.update(params, state, params)
    assert not any((x != 0).any() or np.signbit(x).any() for x in jax.tree.leaves(state.average))


@pytest.mark.parametrize(
    ("start", "every", "message"),
    [
        (11, 1, "start must be from 0 to 10, got 11."),
        (-1, 1, "start must be from 0 to 10, got -1."),
        (0, 0, "every must be an integer >= 1, got 0."),
    ],
)
def test_averages_out_of_range_are_refused(start, every, message):
    with pytest.raises(ValueError, match=exactly(message)):
        averaging.average_weights(optax.sgd(0.1), start, every, 10)


@pytest.mark.slow
def test_statistics_are_those_of_the_batches_that_would_come_next(make_job, tmp_path):
    """Of BatchNorm: the running mean over 100 batches, whatever was there before."""
    job = make_job(tmp_path, change(SHORT, model="small_cnn_sixteenth", epochs=1), devices=2)
    params, statistics = job.start()
    state = State(jnp.int32(11), params, statistics, ())
    found = averaging.recompute_statistics(job, state)
    assert_same_bits(found.params, params)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0), axis_name=DEVICE_AXIS)
    def apply(statistics, inputs):
        return job.model.apply(params, statistics, inputs, True)[1]

    for step in range(11, 111):
        batch = data.batch(job.splits[0], 0, step, 128)
        statistics = jax.tree.map(lambda x: x[0], apply(statistics, batch.inputs[None]))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        found.statistics,
        statistics,
    )


def test_another_schedule_number_of_steps_or_width_leaves_the_job_alone(make_job, tmp_path):
    job = make_job(tmp_path, change(SHORT, schedule="cosine"))
    other = job.with_learning_rate(optax.constant_schedule(0.5))
    assert float(other.learning_rate(30)) == 0.5
    longer = job.with_steps(66)
    assert (longer.total_steps, job.total_steps) == (66, 33)
    assert float(longer.learning_rate(33)) == pytest.approx(0.025, rel=1e-5)
    assert float(job.learning_rate(33)) == pytest.approx(0.0, abs=1e-7)
    shapes = [x.shape for x in jax.tree.leaves(job.with_width(0.1).start()[0])]
    assert shapes == [(30,), (64, 30), (10,), (30, 10), (10,), (10, 10)]
    assert job.start()[0]["dense1"]["kernel"].shape == (64, 300)


def test_the_rate_of_averaging_falls_to_a_part_of_the_peak():
    rate = swa.learning_rate(0.2, 0.5, 100)
    wanted = {0: 0.2, 50: 0.2, 70: 0.15, 90: 0.1, 1000: 0.1}
    assert {n: float(rate(n)) for n in wanted} == pytest.approx(wanted)
