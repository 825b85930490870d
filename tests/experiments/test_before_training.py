"""Masks before training: the scores are those of the papers, and as many weights go as should."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import data
from experiments.config import Config
from experiments.methods import grasp, snip
from experiments.methods._allocation import Group, allocate
from experiments.methods._at_start import prune_at_start, random_scores
from experiments.methods._masks import fixed, with_masks
from experiments.models.axis import DEVICE_AXIS
from experiments.train import State

from .conftest import SHORT, change
from .test_masks import tree


def start(job):
    """The state of a masked run before its first update."""
    params, statistics = job.start()
    tx = with_masks(job.base_optimizer(), fixed, job.penalised)
    return State(jnp.zeros([], jnp.int32), params, statistics, tx.init(params))


def test_snip_by_hand():
    scores = snip.sensitivity({"w": jnp.array([2.0, -3.0])}, {"w": jnp.array([-0.5, -0.1])})
    np.testing.assert_allclose(scores["w"], [1.0, 0.3], rtol=1e-6)


def test_grasp_by_hand():
    """A quadratic: the gradient is A w, and the score w * (A A w)."""
    a = jnp.array([[2.0, 1.0], [1.0, -3.0]])
    w = jnp.array([1.0, 2.0])

    def loss(w):
        return w @ a @ w / 2

    product = grasp.hessian_times(loss, w, jax.grad(loss)(w))
    np.testing.assert_allclose(product, a @ (a @ w), rtol=1e-6)  # (3, 19)
    np.testing.assert_allclose(grasp.gradient_flow(w, product), [3.0, 38.0], rtol=1e-6)


def test_the_grasp_score_is_how_the_norm_of_the_gradient_changes():
    """To first order: |g(w without w_q)|^2 - |g(w)|^2 = -2 w_q (H g)_q."""
    a = jnp.array([[2.0, 1.0], [1.0, -3.0]])
    w = jnp.array([1e-3, 2.0])

    def loss(w):
        return w @ a @ w / 2

    def flow(w):
        return float(jnp.sum(jax.grad(loss)(w) ** 2))

    scores = grasp.gradient_flow(w, grasp.hessian_times(loss, w, jax.grad(loss)(w)))
    change_of_flow = flow(w.at[0].set(0.0)) - flow(w)
    assert change_of_flow == pytest.approx(-2 * float(scores[0]), rel=0.01)


def first_batch_loss(job, temperature=1.0):
    """The mean loss on the first batch, here without devices."""
    batch = data.batch(job.splits[0], job.config.seed, 0, job.config.batch_size)
    _, statistics = job.start()

    def loss(params):
        apply = jax.vmap(
            lambda x: job.model.apply(params, statistics, x, True)[0], axis_name=DEVICE_AXIS
        )
        log_p = jax.nn.log_softmax(apply(jnp.asarray(batch.inputs)[None])[0] / temperature)
        return -jnp.mean(log_p[jnp.arange(len(batch.labels)), batch.labels])

    return loss


@pytest.mark.slow
def test_snip_scores_of_a_network_over_two_devices(make_job, tmp_path):
    job = make_job(tmp_path, SHORT, devices=2)
    state = start(job)
    gradient = jax.jit(jax.grad(first_batch_loss(job)))(state.params)
    jax.tree.map(
        lambda w, g, s: np.testing.assert_allclose(s, np.abs(w * g), rtol=2e-3, atol=1e-7),
        state.params,
        gradient,
        snip.scores(job, state),
    )


@pytest.mark.slow
def test_grasp_scores_of_a_network_over_two_devices(make_job, tmp_path):
    job = make_job(tmp_path, SHORT, devices=2)
    state = start(job)
    loss = first_batch_loss(job, temperature=200.0)

    @jax.jit
    def curvature(params):
        gradient = jax.tree.map(lambda g: g if g.ndim > 1 else 0 * g, jax.grad(loss)(params))
        return jax.jvp(jax.grad(loss), (params,), (gradient,))[1]

    found = grasp.scores(job, state)
    for w, hg, s in zip(
        *map(jax.tree.leaves, (state.params, curvature(state.params), found)), strict=True
    ):
        np.testing.assert_allclose(s, w * hg, rtol=1e-2, atol=2e-3 * float(jnp.abs(w * hg).max()))


@pytest.mark.slow
def test_the_lowest_scores_go_before_the_first_update(make_job, tmp_path):
    job = make_job(tmp_path, change(SHORT, sparsity=0.93))
    state = start(job)
    groups = allocate(job, "global")

    def scores(job, state):
        return jax.tree.map(lambda x: x**3, state.params)  # of both signs

    pruned = prune_at_start(groups, scores).apply(job, state)
    kernels = [x for x in jax.tree.leaves(pruned.params) if x.ndim > 1]
    kept = np.concatenate([np.ravel(x[x != 0]) for x in kernels])
    everything = np.concatenate([x.ravel() for x in jax.tree.leaves(state.params) if x.ndim > 1])
    assert len(kept) == len(everything) - round(0.93 * len(everything))
    np.testing.assert_array_equal(np.sort(kept), np.sort(everything)[-len(kept) :])
    assert not any(np.signbit(x[x == 0]).any() for x in kernels)
    jax.tree.map(
        lambda w, k: np.testing.assert_array_equal(w != 0, k) if w.ndim > 1 else None,
        pruned.params,
        pruned.opt_state.keep,
    )


@pytest.mark.parametrize("allocation", ["uniform", "erk"])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.987])
def test_layers_share_the_exact_count(make_job, tmp_path, allocation, sparsity):
    job = make_job(tmp_path, change(SHORT, sparsity=sparsity))
    groups = allocate(job, allocation)
    sizes = [64 * 300, 300 * 100, 100 * 10]
    assert [group.size for group in groups] == sizes
    assert sum(group.zeros for group in groups) == round(sparsity * sum(sizes))
    if allocation == "uniform":
        assert all(abs(g.zeros - sparsity * g.size) < 1 for g in groups)
    else:
        assert groups[2].sparsity <= groups[0].sparsity


def test_a_first_convolution_stays_dense_where_all_others_are_alike(make_job, tmp_path):
    job = make_job(tmp_path, change(SHORT, model="small_cnn", sparsity=0.9))
    groups = allocate(job, "uniform")
    shapes = [x.shape for x in jax.tree.leaves(job.start()[0]) if x.ndim > 1]
    total = sum(group.size for group in groups)
    assert sum(group.zeros for group in groups) == round(0.9 * total)
    assert shapes[0][:2] == (3, 3)
    assert groups[0].zeros == 0
    share = 0.9 * total / (total - groups[0].size)
    assert all(abs(g.zeros - share * g.size) < 1 for g in groups[1:])
    impossible = make_job(tmp_path, change(SHORT, model="small_cnn", sparsity=1 - 10 / total))
    assert sum(group.zeros for group in allocate(impossible, "uniform")) == total - 10


def test_random_masks_depend_on_the_seed_alone():
    one, again, other = (
        random_scores(SimpleNamespace(config=Config(seed=seed)), SimpleNamespace(params=weights))
        for seed, weights in ((3, tree(0)), (3, tree(1)), (4, tree(0)))
    )
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert not np.array_equal(one["kernel"], other["kernel"])
    assert not np.array_equal(one["kernel"][0], one["bias"])  # every leaf has draws of its own
    assert one["kernel"].min() >= 0


def test_a_group_rounds_as_python_does():
    assert Group((0,), 10, 0.25).zeros == round(2.5)
    assert Group((0,), 50_200, Config().sparsity).zeros == 45_180
