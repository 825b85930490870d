"""Pruning of the trained network by its curvature: what goes, what moves, and what it costs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.methods import METHODS, directional, obd, obs
from experiments.methods._curvature import in_batches, last_batches
from experiments.methods._masks import fixed, with_masks
from experiments.train import Job, State
from grda_optax import (
    mask_overlap,
    nonzero_mask,
    obd_saliency,
    prune_smallest,
    sequential_directional_prune,
)

from .conftest import SHORT, change, exactly

# Under 1,000 weights, with BatchNorm.
TINY = change(SHORT, model="small_cnn_sixteenth", epochs=1, sparsity=0.7)
SETTINGS = {
    "obd": {"obd": obd.Settings(diagonal="hessian", num_samples=40, examples=128)},
    "obs": {"obs": obs.Settings(rounds=3, num_gradients=60, examples_per_gradient=2)},
    "directional": {
        "directional": directional.Settings(num_iters=10, examples=200, round_size=0.2)
    },
}
# Twice 40 products of 128 examples; 3 rounds of 120 examples; twice 6 rounds of 10 products.
COSTS = {"obd": 80, "obs": 3, "directional": 188}


@pytest.fixture
def pruning(make_job, tmp_path, monkeypatch):
    """``pruning(method)``: the job before anything is trained, and the intervention that prunes."""

    def find(method, **fields):
        found = {}

        def train(self, tx, *, interventions):
            found["job"], (found["intervention"],) = self, interventions

        monkeypatch.setattr(Job, "train", train)
        config = change(TINY, method=(method,), **(SETTINGS[method] | fields))
        METHODS[method](make_job(tmp_path / method, config))
        return found["job"], found["intervention"]

    return find


def state_of(job):
    params, statistics = jax.tree.map(jnp.asarray, job.start())
    tx = with_masks(optax.sgd(0.1), fixed, job.penalised)
    return State(jnp.zeros([], jnp.int32), params, statistics, tx.init(params))


@pytest.mark.slow
@pytest.mark.parametrize("method", SETTINGS)
def test_the_masks_are_those_of_the_zeros_and_count_exactly(pruning, method):
    job, intervention = pruning(method)
    before = state_of(job)
    after = intervention.apply(job, before)
    assert intervention.step == 6  # half of 11 updates
    assert intervention.gradient_evaluations == COSTS[method]
    flags = job.penalised(after.params)
    total = zeros = 0
    for w, old, keep, flag in zip(
        *map(jax.tree.leaves, (after.params, before.params, after.opt_state.keep, flags)),
        strict=True,
    ):
        assert not np.signbit(w[w == 0]).any()
        if not flag:
            assert keep.shape == ()
            assert keep
            continue
        assert (keep == (w != 0)).all()
        total, zeros = total + w.size, zeros + int((w == 0).sum())
        # Only Optimal Brain Damage leaves the others where they were.
        assert (w == jnp.where(keep, old, 0)).all() == (method == "obd")
    assert zeros == round(0.7 * total)


@pytest.mark.slow
def test_optimal_brain_damage_goes_by_curvature_and_not_by_magnitude(pruning):
    settings = obd.Settings(diagonal="hessian", num_samples=1000, examples=128)
    job, intervention = pruning("obd", obd=settings)
    before = state_of(job)
    flags = job.penalised(before.params)

    def loss(params, batch):
        logits, _ = job.model.apply(params, before.statistics, jnp.asarray(batch.inputs), False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels).mean()

    exact = obd_saliency(loss, before.params, last_batches(job, 128), mask=flags).values
    magnitudes = jax.tree.map(jnp.abs, before.params)
    by_curvature, by_magnitude = (
        nonzero_mask(prune_smallest(before.params, scores, 0.7, flags))
        for scores in (exact, magnitudes)
    )
    mine = nonzero_mask(intervention.apply(job, before).params)
    kernels = [
        jax.tree.map(lambda m, flag: m if flag else None, x, flags)
        for x in (mine, by_curvature, by_magnitude)
    ]
    assert float(mask_overlap(kernels[0], kernels[1])) > 0.8
    assert float(mask_overlap(kernels[0], kernels[2])) < 0.7


def test_the_data_of_curvature_are_the_last_examples(make_job, tmp_path):
    job = make_job(tmp_path, TINY)
    batches = last_batches(job, 300)
    assert [len(batch.labels) for batch in batches] == [128, 128, 44]
    np.testing.assert_array_equal(batches[2].labels, job.splits[0].labels[-44:])
    assert in_batches(job, 3, 128) == 3
    assert in_batches(job, 1, 129) == 2
    assert in_batches(job, 1, 10**6) == 12  # there are 1,437


@pytest.mark.slow
def test_by_the_fisher_matrix_it_is_the_mean_square_of_every_derivative(pruning):
    job, intervention = pruning("obd", obd=obd.Settings(examples=128))
    assert intervention.gradient_evaluations == 1
    before = state_of(job)
    flags = job.penalised(before.params)
    (batch,) = last_batches(job, 128)

    def loss(params, image, label):
        logits, _ = job.model.apply(params, before.statistics, image[None], False)
        return optax.softmax_cross_entropy_with_integer_labels(logits[0], label)

    gradients = jax.vmap(jax.grad(loss), (None, 0, 0))(before.params, *map(jnp.asarray, batch))
    fisher = jax.tree.map(lambda g: jnp.mean(g**2, axis=0), gradients)
    largest = max(
        float(x.max())
        for x, flag in zip(*map(jax.tree.leaves, (fisher, flags)), strict=True)
        if flag
    )
    scores = jax.tree.map(
        lambda w, f: 0.5 * w**2 * (f + obd.DAMPING * largest), before.params, fisher
    )
    wanted = nonzero_mask(prune_smallest(before.params, scores, 0.7, flags))
    mine = nonzero_mask(intervention.apply(job, before).params)
    assert float(mask_overlap(mine, wanted)) > 0.99


def test_the_rounds_are_those_of_the_library():
    """By hand, a fifth of what is left: of 10 weights 2, 2, 1, 1 ... and of 100 20, 16, 13 ..."""
    assert directional.rounds(4, 10, 0.2) == 2
    assert directional.rounds(6, 10, 0.2) == 4
    assert directional.rounds(0, 10, 0.2) == 0
    assert directional.rounds(49, 100, 0.2) == 3
    assert directional.rounds(3, 10, 0.01) == 3  # one weight at least
    key = jax.random.key(0)
    inputs = jax.random.normal(key, (32, 100))
    done = sequential_directional_prune(
        lambda w, x: jnp.mean((x @ w - 1) ** 2),
        jax.random.normal(key, (100, 1)),
        [inputs],
        0.6,
        round_size=0.1,
        num_iters=40,
    )
    assert done.rounds == directional.rounds(60, 100, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("method", SETTINGS)
def test_a_run_learns_with_its_zeros(train, tmp_path, method):
    config = change(SHORT, method=(method,), sparsity=0.87, **SETTINGS[method])
    result = train(tmp_path / "run", config).result
    counts = result["penalised"]
    assert counts["total"] - counts["nnz"] == round(0.87 * counts["total"])
    assert result["eval_accuracy"] > 0.6
    # In rounds of a fifth directional pruning takes ten here, and 33 updates come to all.
    extra = COSTS[method] if method != "directional" else 313
    assert result["gradient_evaluations"] == 33 + extra


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: obd.Settings(num_samples=1), "obd.num_samples must be an integer >= 2, got 1."),
        (lambda: obs.Settings(damping=0.0), "obs.damping must be above 0, got 0.0."),
        (lambda: obs.Settings(rounds=0), "obs.rounds must be an integer >= 1, got 0."),
        (
            lambda: directional.Settings(round_size=1.0),
            "directional.round_size must be above 0 and below 1, got 1.0.",
        ),
        (
            lambda: directional.Settings(prune_at=2),
            "directional.prune_at must be at most 1, got 2.",
        ),
    ],
)
def test_settings_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=exactly(message)):
        make().validate()
