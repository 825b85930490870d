"""The flat directions, the scores, and one step along them: against matrices written out."""

import re

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grda_optax import (
    directional_prune,
    directional_scores,
    flat_projection,
    top_eigenpairs,
)
from grda_optax._filter import phi

from .test_theorem import MU, RATE, STEPS, error, law, problem, right, run

SIZE = 30


def curvature(seed=0, negative=False):
    """A matrix of ten steep directions and twenty nearly flat ones, with its eigenbasis."""
    rng = np.random.default_rng(seed)
    values = np.concatenate([np.geomspace(1, 50, 10), np.geomspace(1e-7, 1e-4, 20)])
    if negative:
        values[-1] = -5.0
    basis = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))[0]
    matrix = basis @ np.diag(values) @ basis.T
    return matrix, lambda u: jnp.asarray(matrix) @ u, basis, values


# --- The filter -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mu", [0.4, 0.51, 0.7, 1.0, 1.5])
def test_the_filter_is_its_integral(mu):
    """With u = s^(1/mu) the integrand is bounded, and the midpoint rule converges."""
    x = np.array([0.0, 1e-3, 0.5, 1.3, 7.0, 59.9, 60.1, 300.0])
    s = (np.arange(200_000) + 0.5) / 200_000
    integral = [np.exp(-v * (1 - s ** (1 / mu))).mean() for v in x]
    np.testing.assert_allclose(phi(x, mu), integral, rtol=2e-5)


def test_the_filter_at_its_ends():
    assert phi(np.array([0.0]), 0.6) == 1
    np.testing.assert_allclose(phi(np.array([-1.0]), 0.6), 2 - phi(np.array([1.0]), 0.6))
    assert phi(np.array([-1e4]), 0.6) < 2
    slopes = np.diff(phi(np.array([-1e-6, 0.0, 1e-6]), 0.6))
    np.testing.assert_allclose(slopes, -1e-6 / 1.6, rtol=1e-4)  # of the series at 0
    np.testing.assert_allclose(phi(np.array([1e6]), 0.6), 0.6e-6, rtol=1e-5)
    x = np.linspace(-200, 200, 4001)
    assert (np.diff(phi(x, 0.51)) < 0).all()


# --- The projection -------------------------------------------------------------------------------


@pytest.mark.parametrize("negative", [False, True])
def test_every_meaning_of_flat_is_a_function_of_the_matrix(negative, float64):
    _, matvec, basis, values = curvature(negative=negative)
    vector = np.sign(np.random.default_rng(1).normal(size=SIZE))
    largest = np.abs(values).max()
    meanings = {
        "time": ({"time": 3.0, "mu": 0.6}, phi(3 * values, 0.6)),
        "cut": ({"cut": 1e-3}, (np.abs(values) <= 1e-3 * largest) * 1.0),
        "ridge": ({"ridge": 1e-3}, (1e-3 * largest / (np.abs(values) + 1e-3 * largest)) ** 2),
    }
    for name, (given, function) in meanings.items():
        found = flat_projection(matvec, jnp.asarray(vector), **given)
        expected = basis @ (function * (basis.T @ vector))
        np.testing.assert_allclose(found.value, expected, rtol=0, atol=1e-7, err_msg=name)
        assert found.error < 1e-4
        assert found.products <= SIZE


def test_given_eigenvectors_are_taken_off(float64):
    _, matvec, basis, _ = curvature()
    steep = top_eigenpairs(matvec, jnp.zeros(SIZE), 10).vectors
    vector = jnp.asarray(np.random.default_rng(2).normal(size=SIZE))
    found = flat_projection(None, vector, eigenvectors=steep)
    expected = vector - basis[:, :10] @ (basis[:, :10].T @ vector)
    np.testing.assert_allclose(found.value, expected, rtol=0, atol=1e-8)
    assert (found.error, found.products) == (0, 0)


def test_a_barely_trained_network_does_not_blow_up(float64):
    """Where phi itself would be exp(5 * 1000)."""
    _, matvec, _, _ = curvature(negative=True)
    found = flat_projection(matvec, jnp.ones(SIZE), time=1000.0, mu=0.6)
    assert float(jnp.linalg.norm(found.value)) <= 2 * SIZE**0.5


def test_float32_is_right_there():
    _, matvec, basis, values = curvature()
    vector = np.sign(np.random.default_rng(1).normal(size=SIZE))
    found = flat_projection(matvec, jnp.asarray(vector, jnp.float32), time=3.0, mu=0.6)
    expected = basis @ (phi(3 * values, 0.6) * (basis.T @ vector))
    np.testing.assert_allclose(found.value, expected, rtol=0, atol=1e-4)


# --- The scores -----------------------------------------------------------------------------------


def test_scores_are_signs_projected(float64):
    _, matvec, basis, values = curvature()
    w = {"a": jnp.asarray(np.random.default_rng(3).normal(size=(4, 5))), "b": jnp.zeros(10)}

    def of_tree(u):
        out = matvec(jnp.concatenate([u["a"].ravel(), u["b"]]))
        return {"a": out[:20].reshape(4, 5), "b": out[20:]}

    signs = np.concatenate([np.sign(w["a"]).ravel(), np.zeros(10)])
    flat = np.abs(values) <= 1e-3 * values.max()
    expected = signs * (basis @ (flat * (basis.T @ signs)))
    found = directional_scores(w, of_tree, cut=1e-3)
    np.testing.assert_allclose(found["a"].ravel(), expected[:20], rtol=0, atol=1e-7)
    np.testing.assert_array_equal(found["b"], np.zeros(10))


def test_what_is_not_pruned_has_no_sign(float64):
    _, matvec, _, _ = curvature()
    w = jnp.asarray(np.random.default_rng(3).normal(size=SIZE))
    split = {"a": w[:20], "b": w[20:]}

    def of_tree(u):
        out = matvec(jnp.concatenate([u["a"], u["b"]]))
        return {"a": out[:20], "b": out[20:]}

    found = directional_scores(split, of_tree, mask={"a": True, "b": False}, cut=1e-3)
    alone = jnp.sign(w).at[20:].set(0)
    expected = jnp.sign(w) * flat_projection(matvec, alone, cut=1e-3).value
    np.testing.assert_allclose(jnp.concatenate([found["a"], found["b"]]), expected, atol=1e-9)


def test_the_scores_of_training_time_go_to_those_of_the_paper_like_one_over_time(float64):
    p = problem(0, crossings=False)
    matrix = p.basis @ np.diag(p.values) @ p.basis.T
    w = jnp.asarray(p.minimum())
    paper = directional_scores(w, lambda u: jnp.asarray(matrix) @ u, cut=1e-3)
    off = []
    for t in (100.0, 1000.0):
        at_t = directional_scores(w, lambda u: jnp.asarray(matrix) @ u, time=t, mu=MU)
        off.append(float(jnp.linalg.norm(at_t - paper)))
    np.testing.assert_allclose(off[0] / off[1], 10, rtol=0.02)


# --- One step -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_grda_ends_where_directional_pruning_says(seed, float64):
    """T1, through the public names alone."""
    p = problem(seed, crossings=False)
    matrix = jnp.asarray(p.basis @ np.diag(p.values) @ p.basis.T)
    path, _ = run(right(0.04), p)
    w = jnp.asarray(p.minimum())
    threshold = law(STEPS, 0.04)
    for meaning, tolerance in (({"cut": 1e-3}, 3e-3), ({"time": STEPS * RATE, "mu": MU}, 1e-5)):
        scores = directional_scores(w, lambda u: matrix @ u, **meaning)
        pruned = directional_prune(w, scores, strength=threshold)
        assert error(path[-1], pruned, threshold) <= tolerance


WEIGHTS = st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=12)


@hypothesis.given(st.data(), WEIGHTS, st.floats(0, 4, width=32))
def test_a_strength_solves_its_own_problem(data, weights, strength):
    """No other point has a smaller objective, entry by entry, where the problem is convex."""
    size = len(weights)
    scores = data.draw(st.lists(st.floats(-1, 1, width=32), min_size=size, max_size=size))
    w, s = np.array(weights, np.float32), np.array(scores, np.float32)
    x = np.asarray(directional_prune(jnp.asarray(w), jnp.asarray(s), strength=strength))

    def objective(x):
        return 0.5 * (x - w) ** 2 + strength * s * np.abs(x)

    for step in (-0.1, -1e-2, 1e-2, 0.1):
        other = x + step
        same_side = (s >= 0) | (np.sign(other) == np.sign(w))
        assert (objective(x) <= objective(other) + 1e-5)[same_side].all()
    assert not np.signbit(x[x == 0]).any()


@hypothesis.given(st.data(), st.integers(1, 40), st.floats(0, 0.99))
def test_a_sparsity_is_met_exactly(data, size, sparsity):
    """With ties, zeros before, and scores of both signs: that many, or the ceiling is told."""
    few = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
    w = np.array(data.draw(st.lists(few, min_size=size, max_size=size)), np.float32)
    s = np.array(data.draw(st.lists(few, min_size=size, max_size=size)), np.float32)
    wanted = round(sparsity * size)
    limit = int(((w == 0) | (s > 0)).sum())
    if wanted > limit:
        with pytest.raises(ValueError, match=r"^sparsity must be at most .*, the share of weights"):
            directional_prune(jnp.asarray(w), jnp.asarray(s), sparsity=sparsity)
        return
    x = np.asarray(directional_prune(jnp.asarray(w), jnp.asarray(s), sparsity=sparsity))
    assert (x == 0).sum() == max(wanted, (w == 0).sum())
    assert ((np.sign(x) == np.sign(w)) | (x == 0)).all()
    assert (x[w == 0] == 0).all()


def test_what_is_masked_stays_and_dtypes_too():
    w = {"a": jnp.array([1.0, -2.0], jnp.bfloat16), "b": jnp.array([1e-3])}
    s = {"a": jnp.ones(2), "b": jnp.ones(1)}
    mask = {"a": True, "b": False}
    for given in ({"sparsity": 0.5}, {"strength": 1.0}):
        x = directional_prune(w, s, mask=mask, **given)
        assert x["a"].dtype == jnp.bfloat16
        np.testing.assert_array_equal(np.asarray(x["a"], float), [0.0, -1.0])
        np.testing.assert_array_equal(x["b"], w["b"])


# --- Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "exactly one of time, cut, ridge and eigenvectors must be given, got none."),
        (
            {"cut": 0.1, "ridge": 0.1},
            "exactly one of time, cut, ridge and eigenvectors must be given, got cut, ridge.",
        ),
        ({"time": 1.0}, "time and mu must be given together, got time=1.0, mu=None."),
        (
            {"cut": 0.1, "mu": 0.6},
            "time and mu must be given together, got time=None, mu=0.6.",
        ),
        ({"cut": 0.0}, "cut must be a finite number > 0 and < 1, got 0."),
        ({"ridge": 1.0}, "ridge must be a finite number > 0 and < 1, got 1."),
        ({"time": -1.0, "mu": 0.6}, "time must be a finite number > 0, got -1."),
        ({"cut": 0.1, "num_iters": 0}, "num_iters must be a finite number >= 1, got 0."),
        (
            {"eigenvectors": jnp.ones((2, 4))},
            "eigenvectors must have the shapes of one row for each of them, (2, 3) at params, "
            "got (2, 4).",
        ),
    ],
)
def test_errors_of_the_projection(given, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        flat_projection(lambda u: u, jnp.ones(3), **given)


def test_a_matrix_is_needed():
    message = "matvec must be given unless eigenvectors are, got None."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        flat_projection(None, jnp.ones(3), cut=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {},
            "exactly one of strength and sparsity must be given, got strength=None, sparsity=None.",
        ),
        (
            {"strength": 1.0, "sparsity": 0.5},
            "exactly one of strength and sparsity must be given, got strength=1.0, sparsity=0.5.",
        ),
        ({"strength": -1.0}, "strength must be a finite number >= 0, got -1."),
        ({"sparsity": 1.0}, "sparsity must be a finite number >= 0 and < 1, got 1."),
        (
            {"sparsity": 0.9},
            "sparsity must be at most 0.6666, the share of weights whose score is positive, "
            "got 0.9.",
        ),
        (
            {"sparsity": 0.5, "scores": jnp.ones(2)},
            "scores must have the shapes of params, (3,) at params, got (2,).",
        ),
    ],
)
def test_errors_of_one_step(changes, message):
    arguments = {"params": jnp.array([1.0, 2.0, 3.0]), "scores": jnp.array([1.0, 1.0, -1.0])}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        directional_prune(**(arguments | changes))


def test_float_leaves_only():
    with pytest.raises(ValueError, match=r"^params must be real floating point, got int32"):
        directional_scores(jnp.arange(3), lambda u: u, cut=0.1)
    assert jax.tree.leaves(directional_scores({"a": jnp.zeros(3)}, lambda u: u, cut=0.1))
