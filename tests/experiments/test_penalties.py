"""Baselines by penalties: each does what its equation says, on problems solved otherwise."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.config import Config
from experiments.methods import l1_subgradient, lc, proximal_sgd, rda
from experiments.optimizers import base_optimizer, long_run_rate

from .conftest import exactly

STRENGTH = 0.4


def every(params):
    return jax.tree.map(lambda x: True, params)


@pytest.fixture(scope="module")
def quadratic():
    """``H``, ``w*`` and the minimum of 1/2 (w - w*)' H (w - w*) + 0.4 |w|_1, in float64."""
    random = np.random.default_rng(21)
    axes, _ = np.linalg.qr(random.normal(size=(8, 8)))
    hessian = axes @ np.diag(np.geomspace(0.5, 2, 8)) @ axes.T
    center = random.normal(size=8)
    w = np.zeros(8)
    for _ in range(500):  # coordinate descent, each coordinate in closed form
        for j in range(8):
            pull = hessian[j, j] * w[j] - hessian[j] @ (w - center)
            w[j] = np.sign(pull) * max(abs(pull) - STRENGTH, 0) / hessian[j, j]
    gradient = hessian @ (w - center)
    assert 2 <= np.sum(w == 0) <= 6
    np.testing.assert_allclose(gradient[w != 0], -STRENGTH * np.sign(w[w != 0]), atol=1e-10)
    assert np.all(np.abs(gradient[w == 0]) < STRENGTH)
    return hessian, center, w


def minimise(tx, hessian, center, steps=600):
    """The weights on the way, from 1 everywhere."""
    hessian, center = (jnp.asarray(x, jnp.float32) for x in (hessian, center))

    def step(carry, _):
        w, state = carry
        updates, state = tx.update(hessian @ (w - center), state, w)
        w = optax.apply_updates(w, updates)
        return (w, state), w

    start = jnp.ones(8)
    return np.asarray(
        jax.jit(lambda w: jax.lax.scan(step, (w, tx.init(w)), length=steps)[1])(start)
    )


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_proximal_sgd_converges_to_the_lasso_solution(quadratic, momentum):
    hessian, center, wanted = quadratic
    config = Config(learning_rate=0.1, momentum=momentum)
    schedule = optax.constant_schedule(0.1)
    prox = proximal_sgd.proximal_step(STRENGTH, long_run_rate(config, schedule), every)
    path = minimise(optax.chain(base_optimizer(config, schedule), prox), hessian, center)
    np.testing.assert_allclose(path[-1], wanted, atol=1e-5)
    np.testing.assert_array_equal(path[-1] == 0, wanted == 0)
    assert not np.signbit(path[-1][wanted == 0]).any()


def test_the_threshold_of_proximal_sgd_follows_the_schedule():
    schedule = optax.piecewise_constant_schedule(0.5, {1: 0.2})
    tx = proximal_sgd.proximal_step(2.0, schedule, lambda p: {"a": True, "b": False})
    params = {"a": jnp.array([3.0, -0.15]), "b": jnp.array([3.0])}
    state = tx.init(params)
    for shrunk in ([2.0, 0.0], [1.8, 0.0]):
        updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params["a"], shrunk, rtol=1e-6)
        assert params["b"][0] == 3


def test_the_l1_subgradient_comes_near_the_lasso_solution_and_has_no_zeros(quadratic):
    hessian, center, wanted = quadratic
    penalty = l1_subgradient.add_l1_subgradient(STRENGTH, every)
    path = minimise(optax.chain(penalty, optax.sgd(0.02)), hessian, center, steps=2000)
    np.testing.assert_allclose(path[-1], wanted, atol=2 * 0.02 * STRENGTH)
    assert np.all(path[-100:] != 0)
    # Those that should be zero jump to and fro over it.
    signs = np.sign(path[-100:, wanted == 0])
    assert np.all(signs.min(axis=0) < signs.max(axis=0))


def test_the_l1_subgradient_is_the_sign_where_it_is_asked_for():
    penalty = l1_subgradient.add_l1_subgradient(0.5, lambda p: {"a": True, "b": False})
    params = {"a": jnp.array([-2.0, 0.0, 3.0]), "b": jnp.array([2.0])}
    updates, _ = penalty.update(jax.tree.map(jnp.ones_like, params), penalty.init(params), params)
    np.testing.assert_array_equal(updates["a"], [0.5, 1.0, 1.5])
    np.testing.assert_array_equal(updates["b"], [1.0])


def test_rda_is_its_closed_form():
    """Any gradients, any schedule: the soft threshold of the sum of both."""
    steps, strength = 40, 0.3
    random = np.random.default_rng(0)
    gradients = random.normal(size=(steps, 50)).astype(np.float32)
    start = random.normal(size=50).astype(np.float32)
    schedule = optax.cosine_decay_schedule(0.1, steps)
    readout = rda.regularised_dual_averaging(strength, schedule, every)
    tx = optax.chain(optax.sgd(schedule), readout)
    w, state = jnp.asarray(start), tx.init(jnp.asarray(start))
    for gradient in gradients:
        updates, state = tx.update(jnp.asarray(gradient), state, w)
        w = optax.apply_updates(w, updates)
    rates = 0.05 * (1 + np.cos(np.pi * np.arange(steps) / steps))
    total = start - rates @ gradients
    wanted = np.sign(total) * np.maximum(np.abs(total) - strength * rates.sum(), 0)
    assert 10 < np.sum(wanted == 0) < 40
    np.testing.assert_allclose(w, wanted, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(w) == 0, wanted == 0)


def lc_path(tx, start, gradient, steps):
    update = jax.jit(tx.update)
    w, state = jnp.asarray(start), tx.init(jnp.asarray(start))
    for _ in range(steps):
        updates, state = update(gradient(w), state, w)
        w = optax.apply_updates(w, updates)
        yield np.asarray(w), state


def test_lc_alternates_as_the_paper_does():
    """Against the algorithm written out in NumPy, with SGD for the L steps."""
    random = np.random.default_rng(1)
    start, center = (random.normal(size=10).astype(np.float32) for _ in range(2))
    curvature = np.geomspace(0.5, 2, 10).astype(np.float32)
    tx = lc.learning_compression(
        optax.sgd(0.1),
        0.7,
        begin_step=4,
        end_step=13,
        update_every=3,
        mu_start=0.1,
        mu_end=0.9,
        mask=every,
    )

    def project(v):  # the best of all choices of three entries
        best = max(
            itertools.combinations(range(10), 3), key=lambda kept: np.sum(v[list(kept)] ** 2)
        )
        return np.where(np.isin(np.arange(10), best), v, 0)

    w, theta, multipliers, wanted = start.copy(), None, np.zeros(10), []
    for _ in range(4):
        w = w - 0.1 * curvature * (w - center)
        wanted.append(w)
    theta = project(w)
    for mu in (0.1, 0.3, 0.9):
        for _ in range(3):
            w = w - 0.1 * (curvature * (w - center) - multipliers + mu * (w - theta))
            wanted.append(w)
        theta = project(w - multipliers / mu)
        multipliers = multipliers - mu * (w - theta)
    wanted[-1] = w = theta
    for _ in range(4):
        w = np.where(theta != 0, w - 0.1 * curvature * (w - center), 0)
        wanted.append(w)

    path = list(lc_path(tx, start, lambda w: curvature * (w - center), len(wanted)))
    for (got, _), want in zip(path, wanted, strict=True):
        np.testing.assert_allclose(got, want, atol=2e-6)
    for got, _ in path[12:]:
        assert np.sum(got == 0) == 7
        assert not np.signbit(got[got == 0]).any()
    np.testing.assert_allclose(path[12][1].multipliers[0], multipliers, atol=2e-6)


def test_lc_draws_the_weights_to_their_compression_before_it_is_enforced():
    """The constraint is met by the penalty and the multipliers, not by the last projection."""
    random = np.random.default_rng(2)
    center = random.normal(size=40).astype(np.float32)
    tx = lc.learning_compression(
        optax.sgd(0.1),
        0.5,
        begin_step=10,
        end_step=1500,
        update_every=20,
        mu_start=0.05,
        mu_end=2.0,
        mask=every,
    )
    path = [w for w, _ in lc_path(tx, center, lambda w: w - center, 1500)]
    kept = path[-1] != 0
    assert kept.sum() == 20
    assert np.abs(center[kept]).min() > np.abs(center[~kept]).max()
    assert np.abs(path[1498][~kept]).max() < 1e-3
    # Of this loss the others are best left where they are.
    np.testing.assert_allclose(path[-1][kept], center[kept], atol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Config(l1_subgradient=l1_subgradient.Settings(strength=-1)),
            "l1_subgradient.strength must be a finite number >= 0, got -1.",
        ),
        (
            lambda: Config(proximal_sgd=proximal_sgd.Settings(strength=-1)),
            "proximal_sgd.strength must be a finite number >= 0, got -1.",
        ),
        (
            lambda: Config(rda=rda.Settings(strength=float("inf"))),
            "rda.strength must be a finite number >= 0, got inf.",
        ),
        (
            lambda: Config(lc=lc.Settings(begin=0.5, end=0.5)),
            "lc.end must be above lc.begin and at most 1, got 0.5.",
        ),
        (
            lambda: Config(lc=lc.Settings(update_every=0)),
            "lc.update_every must be an integer >= 1, got 0.",
        ),
        (lambda: Config(lc=lc.Settings(mu_start=0)), "lc.mu_start must be above 0, got 0."),
        (
            lambda: Config(lc=lc.Settings(mu_start=2.0)),
            "lc.mu_end must be at least lc.mu_start, got 1.0.",
        ),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(ValueError, match=exactly(message)):
        make()
