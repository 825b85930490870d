"""Stochastic Lanczos: matrices whose eigenvalues are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.analysis.density import Quadrature, above, density, mean_of, quadrature

VALUES = np.array([-1.0, 0.0, 0.0, 0.0, 2.0, 5.0], np.float32)


def diagonal(tree):
    return {"a": VALUES[:2] * tree["a"], "b": (VALUES[2:] * tree["b"].ravel()).reshape(2, 2)}


LIKE = {"a": jnp.zeros(2), "b": jnp.zeros((2, 2))}


def test_a_probe_finds_every_distinct_eigenvalue_once():
    found = quadrature(diagonal, LIKE, 6, seed=0)
    np.testing.assert_allclose(found.nodes, [-1, 0, 2, 5], atol=1e-5)
    start = np.random.default_rng(0).normal(size=6).astype(np.float32)
    shares = start**2 / np.sum(start**2)
    np.testing.assert_allclose(
        found.weights, [shares[0], shares[1:4].sum(), shares[4], shares[5]], atol=1e-5
    )


def test_the_mean_over_probes_is_the_trace():
    """To the error of a mean of 400 random vectors."""
    found = [quadrature(diagonal, LIKE, 6, seed) for seed in range(400)]
    assert mean_of(found, np.ones_like) == pytest.approx(1)
    assert mean_of(found, lambda x: x) == pytest.approx(1, abs=0.15)  # (-1 + 2 + 5) / 6
    assert above(found, np.array([-2.0, 1.0, 3.0, 6.0])) == pytest.approx(
        [1, 1 / 3, 1 / 6, 0], abs=0.03
    )


def test_moments_are_exact_long_before_the_space_is_exhausted():
    """A quadrature of m nodes integrates polynomials up to the degree 2 m - 1."""
    rng = np.random.default_rng(0)
    values = np.sort(rng.normal(size=40)).astype(np.float32)
    found = quadrature(lambda x: values * x, jnp.zeros(40), 4, seed=3)
    assert len(found.nodes) == 4
    start = np.random.default_rng(3).normal(size=40)
    shares = start**2 / np.sum(start**2)
    for power in range(8):
        wanted = float(np.sum(shares * values.astype(np.float64) ** power))
        assert mean_of([found], lambda x, p=power: x**p) == pytest.approx(wanted, rel=1e-4)


def test_a_density_has_mass_one_and_its_bells_where_the_nodes_are():
    found = [Quadrature(np.array([0.0, 4.0]), np.array([0.75, 0.25]))]
    grid = np.linspace(-2, 6, 4001)
    values = density(found, grid, 0.1)
    assert np.trapezoid(values, grid) == pytest.approx(1, rel=1e-6)
    assert np.trapezoid(values[grid > 2], grid[grid > 2]) == pytest.approx(0.25, rel=1e-3)
    assert grid[values.argmax()] == pytest.approx(0, abs=1e-9)
