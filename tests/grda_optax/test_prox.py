"""Soft thresholding: the minimiser that it is defined as, and its properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from grda_optax import soft_threshold

SIZE = 16  # one size, so that every draw uses the same compiled programs
# XLA takes subnormal numbers for zeros on some devices.
FLOATS = st.floats(-100, 100, width=32, allow_subnormal=False)
vectors = hnp.arrays(np.float32, SIZE, elements=FLOATS)
heights = st.floats(0, 100, width=32, allow_subnormal=False)
EPSILON = np.finfo(np.float32).eps


def soft(x, h):
    return np.asarray(soft_threshold(jnp.asarray(x), jnp.asarray(h)))


@given(vectors, heights)
def test_is_the_minimiser(x, h):
    """Of 1/2 (w - x)^2 + h |w|: zero is in the subdifferential w - x + h * sign(w)."""
    w = soft(x, h).astype(np.float64)
    residual = x.astype(np.float64) - w
    tolerance = 2 * EPSILON * (np.abs(x) + h)
    assert (np.abs(residual - h * np.sign(w))[w != 0] <= tolerance[w != 0]).all()
    assert (np.abs(residual)[w == 0] <= h).all()


@given(vectors, heights)
def test_no_point_of_a_grid_is_better(x, h):
    def objective(w):
        return 0.5 * (w - x.astype(np.float64)) ** 2 + h * np.abs(w)

    best = objective(soft(x, h).astype(np.float64))
    for w in (*np.linspace(-100, 100, 101), *(x + d for d in (-1e-2, 0.0, 1e-2, h, -h))):
        assert (best <= objective(w) + 1e-5 * (1 + h) * (1 + np.abs(x))).all()


@given(vectors, vectors, heights)
def test_is_nonexpansive(x, y, h):
    """It never takes two points further apart."""
    rounding = 2 * EPSILON * (np.abs(x) + np.abs(y) + h)
    assert (np.abs(soft(x, h) - soft(y, h)) <= np.abs(x - y) + rounding).all()


@given(vectors, heights)
def test_is_odd_shrinks_and_keeps_signs(x, h):
    w = soft(x, h)
    np.testing.assert_array_equal(soft(-x, h), -w)
    assert (np.abs(w) <= np.abs(x)).all()
    assert (w * x >= 0).all()
    assert not np.signbit(w[w == 0]).any()


@given(vectors)
def test_is_the_identity_at_zero(x):
    np.testing.assert_array_equal(soft(x, 0.0), x)


@given(vectors, heights, heights)
def test_two_in_a_row_are_one(x, a, b):
    """S_b(S_a(x)) = S_(a+b)(x)."""
    np.testing.assert_allclose(
        soft(soft(x, a), b), soft(x, np.float32(a) + np.float32(b)), atol=1e-4
    )


def test_the_boundary_is_zero():
    np.testing.assert_array_equal(soft([1.0, -1.0, 1.0 + EPSILON], 1.0), [0.0, 0.0, EPSILON])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("shape", [(), (0,), (4,), (2, 3)])
def test_keeps_shape_and_dtype(dtype, shape):
    x = jnp.full(shape, -2.0, dtype)
    for threshold in (0.5, jnp.float32(0.5), np.float64(0.5), jnp.full(shape, 0.5)):
        w = soft_threshold(x, threshold)
        assert (w.shape, w.dtype) == (shape, dtype)
        assert (w == -1.5).all()


def test_float64(float64):
    w = soft_threshold(jnp.array([1.0, 1e-3]), 1e-9)
    assert w.dtype == jnp.float64
    np.testing.assert_allclose(w, [1 - 1e-9, 1e-3 - 1e-9], rtol=1e-15)


def test_thresholds_broadcast():
    x = jnp.array([[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]])
    rows, columns = jnp.array([[1.0], [2.0]]), jnp.array([0.0, 1.0, 5.0])
    np.testing.assert_array_equal(soft_threshold(x, rows), [[0, 1, 2], [0, 0, -1]])
    np.testing.assert_array_equal(soft_threshold(x, columns), [[1, 1, 0], [-1, -1, 0]])


def test_what_is_not_finite():
    x = jnp.array([jnp.nan, jnp.inf, -jnp.inf, 1.0])
    np.testing.assert_array_equal(soft_threshold(x, 1.0), [np.nan, np.inf, -np.inf, 0.0])
    np.testing.assert_array_equal(soft_threshold(x[3:], jnp.array(jnp.nan)), [np.nan])
    np.testing.assert_array_equal(soft_threshold(x[3:], jnp.array(jnp.inf)), [0.0])


def test_under_the_transformations_of_jax():
    x = jnp.array([-3.0, 0.5, 2.0])
    expected = jnp.array([-2.0, 0.0, 1.0])
    np.testing.assert_array_equal(jax.jit(soft_threshold)(x, 1.0), expected)
    np.testing.assert_array_equal(jax.vmap(soft_threshold, (0, None))(x, 1.0), expected)
    slope = jax.grad(lambda x, h: soft_threshold(x, h).sum(), argnums=(0, 1))(x, 1.0)
    np.testing.assert_array_equal(slope[0], [1.0, 0.0, 1.0])
    assert slope[1] == 0.0  # +1 for the negative weight, -1 for the positive one
