"""The l1-smallest point of the valley: where gRDA goes (T2), against an independent solver."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from grda_optax import flat_projection, top_eigenpairs, valley_prune

from .test_theorem import STEPS, error, law, overlap, problem, right, run, valley_point


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_point_that_newtons_method_finds(seed, float64):
    p = problem(seed, crossings=True)
    threshold = law(STEPS, 0.1)
    found = valley_prune(
        jnp.asarray(p.minimum()),
        lambda u: u - jnp.asarray(p.basis) @ (jnp.asarray(p.basis).T @ u),
        threshold,
        tolerance=1e-10,
    )
    expected = valley_point(p, threshold)
    assert found.residual <= 1e-10
    np.testing.assert_allclose(found.params, expected, rtol=0, atol=1e-7)
    assert overlap(np.asarray(found.params), expected) == 1
    assert not np.signbit(found.params[found.params == 0]).any()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_grda_goes_there(seed, float64):
    """T2, through the public names alone: curvature, its eigenvectors, the valley."""
    p = problem(seed, crossings=True)
    matrix = jnp.asarray(p.basis @ np.diag(p.values) @ p.basis.T)
    path, _ = run(right(0.1), p)
    threshold = law(STEPS, 0.1)
    steep = top_eigenpairs(lambda u: matrix @ u, jnp.zeros(100), 40).vectors
    found = valley_prune(
        jnp.asarray(p.minimum()),
        lambda u: flat_projection(None, u, eigenvectors=steep).value,
        threshold,
        tolerance=1e-8,
    )
    zeros = int((found.params == 0).sum())
    assert 15 <= zeros <= 40
    assert error(path[-1], np.asarray(found.params), threshold) <= 0.006
    assert overlap(path[-1], np.asarray(found.params)) >= 0.97


def test_float32():
    p = problem(0, crossings=True)
    basis = jnp.asarray(p.basis, jnp.float32)
    found = valley_prune(
        jnp.asarray(p.minimum(), jnp.float32), lambda u: u - basis @ (basis.T @ u), 1.0
    )
    assert found.residual <= 1e-4
    assert found.params.dtype == jnp.float32


def test_without_flat_directions_nothing_moves():
    w = jnp.array([1.0, -0.1])
    found = valley_prune(w, jnp.zeros_like, 0.5, tolerance=1e-5)
    np.testing.assert_allclose(found.params, w, atol=1e-5)


def test_without_steep_directions_it_is_the_soft_threshold():
    found = valley_prune(jnp.array([1.0, -0.1]), lambda u: u, 0.5)
    np.testing.assert_array_equal(found.params, [0.5, 0.0])
    assert found.iterations == 1


def test_masked_leaves_move_in_the_valley_but_are_not_shrunk():
    w = {"a": jnp.array([1.0]), "b": jnp.array([0.1])}

    def flat(u):  # the loss sees only the sum
        mean = (u["a"] + u["b"]) / 2
        return {"a": u["a"] - mean, "b": u["b"] - mean}

    found = valley_prune(w, flat, 10.0, mask={"a": True, "b": False}, tolerance=1e-6)
    np.testing.assert_allclose(found.params["a"], [0.0])
    np.testing.assert_allclose(found.params["b"], [1.1], rtol=1e-5)


def test_where_it_stops():
    p = problem(0, crossings=True)
    basis = jnp.asarray(p.basis, jnp.float32)
    found = valley_prune(
        jnp.asarray(p.minimum(), jnp.float32),
        lambda u: u - basis @ (basis.T @ u),
        1.0,
        max_iterations=2,
    )
    assert found.iterations == 2
    assert found.residual > 1e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strength": -1.0}, "strength must be a finite number >= 0, got -1."),
        ({"tolerance": 0.0}, "tolerance must be a finite number > 0, got 0."),
        ({"max_iterations": 0}, "max_iterations must be a finite number >= 1, got 0."),
        (
            {"project": lambda u: u[:1]},
            "the result of project must have the shapes of params, (2,) at params, got (1,).",
        ),
    ],
)
def test_errors(changes, message):
    arguments = {"params": jnp.ones(2), "project": lambda u: u, "strength": 1.0}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        valley_prune(**(arguments | changes))
