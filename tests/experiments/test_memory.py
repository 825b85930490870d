"""Batches in parts, memory that is given back or made again, weights in half precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import accumulation, data, precision, train, wrapping
from experiments.checkpoint import Checkpoints
from experiments.config import Config
from experiments.folder import RunFolder
from experiments.methods import METHODS
from experiments.models.axis import DEVICE_AXIS
from experiments.remat import rematerialised
from experiments.train import Job
from grda_optax import dual_averaging, grda, target_sparsity

from ..grda_optax.trees import assert_same_bits
from .conftest import SHORT, change, exactly

TEN = change(SHORT, epochs=1, steps=10, batch_size=64)
needs_microbatch = pytest.mark.skipif(
    not hasattr(optax, "microbatch"), reason="this optax has no microbatch"
)


def saved(folder):
    """The newest checkpoint, as nested dicts."""
    checkpoints = Checkpoints(RunFolder(folder), read_only=True)
    state = checkpoints.state()
    checkpoints.close()
    return state


def first_step(job, tx):
    """The compiled step, the state before it, and its batch."""
    tx = wrapping.wrap(job.config, tx)
    params, statistics = jax.tree.map(jnp.array, job.start())
    state = train.State(jnp.zeros([], jnp.int32), params, statistics, tx.init(params))
    batch = data.batch(job.splits[0], job.config.seed, 0, job.config.batch_size)
    return job.compiled_step(tx), job.parallel.replicate(state), job.parallel.split(batch)


# Batches in parts.


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"accumulate": 0}, "accumulate must be an integer >= 1, got 0."),
        (
            {"accumulate_by": "hand"},
            "accumulate_by must be one of multi_steps, microbatch, got 'hand'.",
        ),
        (
            {"accumulate": 2, "skip_nonfinite": 1},
            "accumulate_by must be microbatch where updates can be skipped (skip_nonfinite, "
            "loss_scale), got 'multi_steps'.",
        ),
        ({"loss_scale": 0.5}, "loss_scale must be a finite number >= 1, got 0.5."),
        ({"skip_nonfinite": 0}, "skip_nonfinite must be an integer >= 1, got 0."),
        (
            {"param_dtype": "float64"},
            "param_dtype must be one of float32, bfloat16, float16, got 'float64'.",
        ),
    ],
)
def test_bad_settings(fields, message):
    with pytest.raises(ValueError, match=exactly(message)):
        Config(**fields)


def test_without_microbatch_in_optax_the_other_way_is_named(monkeypatch):
    monkeypatch.delattr(optax, "microbatch", raising=False)
    with pytest.raises(ValueError, match=r"^accumulate_by must be multi_steps, since optax .* has"):
        Config(accumulate=2, accumulate_by="microbatch")
    Config(accumulate_by="microbatch")  # which has no part in it then


def test_a_batch_that_does_not_come_apart(make_job, tmp_path):
    message = (
        "batch_size must be a multiple of 6, which are accumulate = 3 parts on 2 devices, got 128."
    )
    with pytest.raises(ValueError, match=exactly(message)):
        make_job(tmp_path, change(accumulate=3), devices=2)


def test_parts_are_the_batch(digits):
    config = change(accumulate=4)
    batch = data.batch(digits.train, 0, 0, 128)
    parts = accumulation.parts(config, batch)
    assert [len(x.labels) for x in parts] == [32] * 4
    np.testing.assert_array_equal(np.concatenate([x.labels for x in parts]), batch.labels)
    np.testing.assert_array_equal(np.concatenate([x.inputs for x in parts]), batch.inputs)
    assert accumulation.parts(change(SHORT), batch) == [batch]


@pytest.mark.slow
def test_multi_steps_count_updates_in_the_schedule_the_threshold_and_the_freeze():
    """Twelve parts of thirds are four updates of the mean, by hand."""
    gradients = jax.random.normal(jax.random.key(0), (12, 20))
    rates = optax.piecewise_constant_schedule(0.1, {2: 0.1})
    tx = optax.chain(
        optax.sgd(rates), dual_averaging(target_sparsity(0.5, end_step=3), freeze_step=3)
    )
    results = []
    for tx_, per_update in ((accumulation.multi_steps(tx, 3), gradients), (tx, None)):
        params, state = jnp.linspace(-1, 1, 20), None
        state = tx_.init(params)
        update = jax.jit(tx_.update)
        steps = gradients.reshape(4, 3, 20).mean(1) if per_update is None else gradients
        for gradient in steps:
            updates, state = update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        results.append((params, wrapping.inner_state(state)))
    (params, state), (expected, expected_state) = results
    np.testing.assert_allclose(params, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(params == 0, expected == 0)
    assert (params == 0).sum() == 10
    assert optax.tree.get(state[1], "count") == 4 == optax.tree.get(expected_state[1], "count")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "by"),
    [
        ("recipe", "multi_steps"),
        pytest.param("grda", "microbatch", marks=needs_microbatch),
        pytest.param("rigl", "microbatch", marks=needs_microbatch),
    ],
)
def test_parts_change_nothing_but_rounding(train, tmp_path, method, by):
    """With no BatchNorm: the same thresholds, counts, interventions and as many zeros."""
    config = change(TEN, method=(method,), steps=12)
    whole = train(tmp_path / "whole", config, devices=2)
    mine = change(config, accumulate=4, accumulate_by=by)
    parts = train(tmp_path / "parts", mine, devices=2)
    for a, b in zip(jax.tree.leaves(parts.params), jax.tree.leaves(whole.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    for key in ("step", "learning_rate", *(["threshold"] if method == "grda" else [])):
        assert [row[key] for row in parts.rows] == [row[key] for row in whole.rows]
    for key in ("loss", "gradient_norm"):
        ours, theirs = ([row[key] for row in x.rows] for x in (parts, whole))
        np.testing.assert_allclose(ours, theirs, rtol=1e-3)
    if method != "grda":
        assert parts.result["penalised"] == whole.result["penalised"]
    assert parts.result["gradient_evaluations"] == whole.result["gradient_evaluations"]
    assert int(saved(tmp_path / "parts")["step"]) == 12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "by"),
    [("mesh", "multi_steps"), pytest.param("pmap", "microbatch", marks=needs_microbatch)],
)
def test_parts_with_batch_norm_resume_to_the_bit(train, tmp_path, by, mode):
    """Each part has statistics of its own, so the numbers are others; they repeat."""
    config = change(TEN, steps=5, model="small_cnn_sixteenth", accumulate=2, accumulate_by=by)
    runtime = {"devices": 2, "parallel": mode}
    whole = train(tmp_path / "whole", config, **runtime)
    train(tmp_path / "parts", config, stop_after=3, **runtime)
    resumed = train(tmp_path / "parts", config, **runtime)
    assert_same_bits(resumed.params, whole.params)
    assert_same_bits(resumed.statistics, whole.statistics)


# Memory that is given back.


@pytest.mark.slow
@pytest.mark.parametrize("donate", [True, False])
def test_donated_buffers(make_job, tmp_path, donate):
    """The state after an update lies in the memory of the one before."""
    step, state, batch = first_step(make_job(tmp_path, TEN, donate=donate), grda(0.1, mask="kern"))
    leaves = jax.tree.leaves(state)
    aliased = step.lower(state, batch).compile().memory_analysis().alias_size_in_bytes
    assert aliased == (sum(x.nbytes for x in leaves) if donate else 0)
    after, _ = step(state, batch)
    assert all(x.is_deleted() == donate for x in leaves)
    assert int(jax.device_get(after.step)) == 1


@pytest.mark.slow
def test_donation_changes_no_bit(train, tmp_path):
    runs = [train(tmp_path / str(x), TEN, donate=x) for x in (True, False)]
    assert_same_bits(runs[0].params, runs[1].params)


# Memory that is made again.


def kept(job, wrap=lambda loss: loss):
    """The bytes that the gradient of a loss keeps from its forward pass, beyond the params."""
    params, statistics = job.start()
    batch = data.batch(job.splits[0], 0, 0, job.config.batch_size)
    loss = wrap(functools.partial(Job.loss, job))

    def backward(params):
        return jax.vjp(lambda p: loss(p, statistics, batch)[0], params)[1]

    mapped = jax.vmap(lambda _: backward(params), axis_name=DEVICE_AXIS, axis_size=1)
    leaves = jax.tree.leaves(jax.eval_shape(mapped, jnp.zeros(1)))
    return sum(x.size * x.dtype.itemsize for x in leaves if x.shape[1:2] == (64,))


@pytest.mark.slow
def test_remat_keeps_less(make_job, tmp_path):
    """Of BatchNorm's activations nothing but what goes into it."""
    job = make_job(tmp_path, change(TEN, model="small_cnn_quarter"))
    assert 0 < kept(job, rematerialised) < 0.6 * kept(job)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "small_cnn_sixteenth"])
def test_remat_changes_nothing_but_rounding(train, make_job, tmp_path, model):
    config = change(TEN, steps=5, model=model)
    again, plain = (train(tmp_path / str(x), config, remat=x) for x in (True, False))
    for a, b in zip(jax.tree.leaves(again.params), jax.tree.leaves(plain.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    step, *arguments = first_step(make_job(tmp_path / "x", config, remat=True), optax.sgd(0.1))
    text = str(jax.make_jaxpr(step)(*arguments))
    assert "remat" in text or "checkpoint[" in text  # which it is called depends on the release


# Half precision.


def test_sums_of_small_updates_are_kept():
    """In bfloat16 a weight of 1 does not move by 1e-3; what is summed up in float32 does."""
    config = change(SHORT, param_dtype="bfloat16", momentum=0.0)
    for base, moves in ((optax.sgd(1e-3), False), (grda(1e-3, c=0.0), True)):
        tx = wrapping.wrap(config, base)
        params = {"w": jnp.ones(3, jnp.bfloat16)}
        state = tx.init(params)
        for _ in range(50):
            updates, state = tx.update({"w": jnp.ones(3)}, state, params)
            assert updates["w"].dtype == jnp.float32
            params = optax.apply_updates(params, updates)
            assert params["w"].dtype == jnp.bfloat16
        assert (float(params["w"][0]) < 0.96) == moves


def test_the_base_optimizers_state_is_float32():
    params = {"w": jnp.ones((3, 2), jnp.bfloat16)}
    for base in (optax.sgd(0.1, 0.9), optax.adamw(0.1), optax.lion(0.1)):
        tx = precision.in_float32(base)
        state = tx.init(params)
        _, after = tx.update(params, state, params)
        for x in (*jax.tree.leaves(state), *jax.tree.leaves(after)):
            assert x.dtype in (jnp.float32, jnp.int32)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "model"), [("recipe", "mlp"), ("swa", "small_cnn_sixteenth")])
def test_weights_in_half_precision(train, tmp_path, method, model):
    """They are saved, counted and resumed as others are; what optimizers keep is float32."""
    config = change(method=(method,), model=model, param_dtype="bfloat16", sparsity=0.8)
    whole = train(tmp_path / "whole", config)
    assert {x.dtype.name for x in jax.tree.leaves(whole.params)} == {"bfloat16"}
    assert {x.dtype.name for x in jax.tree.leaves(whole.statistics)} <= {"float32"}
    opt_state = saved(tmp_path / "whole")["opt_state"]
    dtypes = {np.asarray(x).dtype.name for x in jax.tree.leaves(opt_state)}
    assert {"float32"} <= dtypes <= {"float32", "int32", "bool"}
    count = whole.result["penalised"]
    if method == "recipe":
        assert count["nnz"] == count["total"] - round(0.8 * count["total"])
    if model == "mlp":
        assert whole.result["eval_accuracy"] > 0.8
        train(tmp_path / "parts", config, stop_after=20)
        assert_same_bits(train(tmp_path / "parts", config).params, whole.params)


@pytest.mark.slow
def test_the_arithmetic_is_that_of_the_weights(make_job, tmp_path):
    step, *arguments = first_step(
        make_job(tmp_path, change(TEN, param_dtype="bfloat16")), optax.sgd(0.1)
    )
    text = str(jax.make_jaxpr(step)(*arguments))
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert products
    assert all(":bf16[" in line for line in products)


@pytest.mark.slow
def test_starting_from_another_precision(train, tmp_path):
    first = train(tmp_path / "bf16", change(TEN, param_dtype="bfloat16"))
    for dtype in ("float32", "bfloat16"):
        config = change(TEN, steps=1, param_dtype=dtype, init_from=str(tmp_path / "bf16"))
        config = change(config, learning_rate=0.0, method=("dense",))
        params = train(tmp_path / dtype, config).params
        assert_same_bits(params, precision.cast(first.params, dtype))


@pytest.mark.slow
def test_what_goes_with_no_reparameterisation(train, tmp_path):
    message = "param_dtype must be float32 where weights are reparameterised, got 'bfloat16'."
    with pytest.raises(ValueError, match=exactly(message)):
        train(tmp_path / "run", change(method=("l0",), param_dtype="bfloat16"))
    assert not (tmp_path / "run").exists()


def described(x):
    return x.shape, x.dtype


@pytest.mark.slow
def test_every_method_can_be_wrapped(make_job, tmp_path, monkeypatch):
    """Shapes and dtypes of the state stay what they are, whatever is put around an optimizer."""

    class Caught(Exception):
        """Holds what a method trains with."""

    def catch(job, tx, *, interventions=(), reparameterisation=None):
        raise Caught(tx, reparameterisation)

    monkeypatch.setattr(Job, "train", catch)
    ways = [
        {"param_dtype": "float16", "loss_scale": 1024.0},
        {"accumulate": 2, "param_dtype": "bfloat16"},
    ]
    changed = []
    for name in METHODS:
        for i, way in enumerate(ways):
            job = make_job(tmp_path / f"{name}{i}", change(method=(name,), sparsity=0.5, **way))
            with pytest.raises(Caught) as caught:
                METHODS[name](job)
            tx, weights_of = caught.value.args
            tx = wrapping.wrap(job.config, tx)
            params, _ = job.start()
            if weights_of is not None:
                if "param_dtype" in way:
                    continue  # which is refused
                params = jax.eval_shape(weights_of.init, params, jax.random.key(0))
            state = jax.eval_shape(tx.init, params)
            gradients = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, jnp.float32), params)
            try:
                updates, after = jax.eval_shape(tx.update, gradients, state, params)
            except TypeError as error:  # two branches that differ
                changed.append((name, way, str(error)[:40]))
                continue
            assert {x.dtype for x in jax.tree.leaves(updates)} == {jnp.dtype("float32")}, name
            if jax.tree.map(described, after) != jax.tree.map(described, state):
                changed.append((name, way))
    assert not changed, {x[0] for x in changed}
