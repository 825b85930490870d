"""Soft thresholding: the minimiser that it is defined as, and its properties."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from grda_optax import dual_averaging, firm, firm_threshold, hard_threshold, soft_threshold

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


RATIO = 2.5
DEFINITIONS = {  # the operator, and the penalty of one weight that it minimises
    "soft": (soft_threshold, lambda w, h: h * np.abs(w)),
    "hard": (hard_threshold, lambda w, h: 0.5 * h**2 * (w != 0)),
    "firm": (
        lambda x, h: firm_threshold(x, h, RATIO),
        lambda w, h: np.where(
            np.abs(w) < RATIO * h, h * np.abs(w) - w**2 / (2 * RATIO), 0.5 * RATIO * h**2
        ),
    ),
}
MODERATE = st.floats(-10, 10, width=32, allow_subnormal=False)
GRID = np.linspace(-12, 12, 24_001)


@pytest.mark.parametrize("name", DEFINITIONS)
@given(x=MODERATE, h=st.floats(0, 5, width=32, allow_subnormal=False))
def test_each_operator_minimises_what_defines_it(name, x, h):
    """1/2 (w - x)^2 plus its penalty, over a fine grid with zero and x itself on it."""
    operator, penalty = DEFINITIONS[name]
    grid = np.concatenate([GRID, [0.0, float(x)]])
    values = 0.5 * (grid - x) ** 2 + penalty(grid, h)
    w = float(operator(jnp.asarray(x, jnp.float32), jnp.asarray(h, jnp.float32)))
    value = 0.5 * (w - x) ** 2 + penalty(np.float64(w), h)
    assert value <= values.min() + 2e-5 * (1 + x**2 + h**2)
    # And where the minimum is clear, it is that point.
    near = grid[values <= values.min() + 1e-4]
    assert near.min() - 0.05 <= w <= near.max() + 0.05


ALL = [soft_threshold, hard_threshold, firm_threshold, firm(1.5)]


@pytest.mark.parametrize("operator", ALL)
@given(x=vectors, h=heights)
def test_every_operator_is_odd_and_zero_up_to_the_threshold(operator, x, h):
    w = np.asarray(operator(jnp.asarray(x), jnp.asarray(h)))
    np.testing.assert_array_equal(w == 0, np.abs(x) <= h)
    np.testing.assert_array_equal(np.asarray(operator(jnp.asarray(-x), jnp.asarray(h))), -w)
    assert not np.signbit(w[w == 0]).any()
    assert (np.abs(w) <= np.abs(x)).all()
    np.testing.assert_array_equal(np.asarray(operator(jnp.asarray(x), 0.0)), x)


@pytest.mark.parametrize("operator", ALL)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_every_operator_keeps_shape_dtype_and_nan(operator, dtype):
    x = jnp.array([[jnp.nan, -jnp.inf, 1.0], [-0.0, 0.25, -8.0]], dtype)
    for threshold in (1.0, jnp.ones((2, 1))):
        w = operator(x, threshold)
        assert (w.shape, w.dtype) == (x.shape, x.dtype)
        zeros = np.asarray(w == 0)
        np.testing.assert_array_equal(zeros, [[False, False, True], [True, True, False]])
        assert jnp.isnan(w[0, 0])
        assert w[0, 1] == -jnp.inf
        assert not np.signbit(np.asarray(w))[zeros].any()


def test_firm_lies_between_hard_and_soft():
    x = jnp.linspace(-5, 5, 101)
    np.testing.assert_allclose(firm_threshold(x, 1.0, 1e6), soft_threshold(x, 1.0), atol=1e-5)
    away = jnp.abs(jnp.abs(x) - 1) > 1e-3
    np.testing.assert_array_equal(
        firm_threshold(x, 1.0, 1 + 1e-6)[away], hard_threshold(x, 1.0)[away]
    )


def test_a_ratio_that_changes():
    """The operator is told the number of the update, from 1."""
    seen = []

    def own(v, h, *, count):
        seen.append(int(count))
        return hard_threshold(v, h)

    schedule = lambda n: jnp.array([9.0, 3.0, 2.0])[n]  # noqa: E731
    params = jnp.array([2.0])
    for prox, expected in ((firm(schedule), [1.5, 2.0]), (own, [2.0, 2.0])):
        tx, found = dual_averaging(1.0, prox=prox), []
        state, p = tx.init(params), params
        for _ in range(2):
            updates, state = tx.update(jnp.zeros(1), state, p)
            p = optax.apply_updates(p, updates)
            found.append(float(p[0]))
        assert found == expected
    assert seen == [1, 2]
