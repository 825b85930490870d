"""How the threshold grows: the closed form, monotone, and without drift."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grda_optax import dual_averaging, power_threshold

from . import oracle


def thresholds(rule, steps, dtype=jnp.float32):
    """h_1 to h_steps."""
    accumulator = jnp.zeros(1, dtype)

    def step(carry, n):
        threshold, rule_state = carry
        carry = rule.update(rule_state, threshold, n, accumulator)
        return carry, carry[0]

    start = jnp.zeros([], dtype), rule.init(accumulator)
    return jax.lax.scan(step, start, jnp.arange(1, steps + 1, dtype=jnp.int32))[1]


@pytest.mark.slow
def test_no_drift_in_float32():
    """After 700,000 additions the sum is the closed form to rounding, whatever the scale is."""
    steps = 700_000

    @jax.jit
    @jax.vmap
    def run(rate, c, mu):
        return thresholds(power_threshold(rate, c, mu), steps)[-1]

    rate, c, mu = (
        x.ravel() for x in np.meshgrid([0.1, 0.05, 1.0], [0.005, 0.02, 1.0], [0.4, 0.51, 0.7, 1.0])
    )
    found = run(*(jnp.asarray(x, jnp.float32) for x in (rate, c, mu)))
    # What float32 makes of mu = 0.51 and the rate is not the sum's fault.
    rate, c, mu = (x.astype(np.float32).astype(np.float64) for x in (rate, c, mu))
    expected = c * rate**0.5 * (steps * rate) ** mu
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # The sum without compensation is what this would catch.
    plain = _plain_sum(jnp.arange(1, steps + 1, dtype=jnp.float32), 0.02 * 0.05**1.01, 0.51)
    closed = 0.02 * 0.05**0.5 * (steps * 0.05) ** 0.51
    assert abs(plain / closed - 1) > 1e-3


@jax.jit
def _plain_sum(n, scale, mu):
    def step(h, n):
        return h + scale * (n**mu - (n - 1) ** mu), None

    return jax.lax.scan(step, jnp.zeros([]), n)[0]


@pytest.mark.parametrize("mu", [0.3, 0.51, 0.8, 1.0])
def test_constant_rate_in_float64(mu, float64):
    rate, c = 0.3, 0.02
    found = thresholds(power_threshold(rate, c, mu), 200, jnp.float64)
    assert found.dtype == jnp.float64
    np.testing.assert_allclose(found, c * rate**0.5 * (np.arange(1, 201) * rate) ** mu, rtol=1e-12)


@settings(max_examples=40)
@given(
    rates=st.lists(st.floats(0, 2), min_size=20, max_size=20),
    c=st.floats(0, 10),
    mu=st.floats(0.01, 1),
)
def test_accumulates_along_any_schedule_and_never_falls(rates, c, mu):
    """Update n uses the schedule at n - 1, as the base optimizer does."""
    run = _along_a_schedule(jnp.array(rates), c, mu)
    expected = np.cumsum(
        [oracle.power_increment(np.float64(g), c, mu, n) for n, g in enumerate(rates, start=1)]
    )
    np.testing.assert_allclose(run, expected, rtol=2e-4, atol=1e-6)
    steps = np.diff(np.concatenate([[0.0], run]))
    assert (steps >= 0).all()
    assert (steps[np.array(rates) == 0] == 0).all()


@jax.jit
def _along_a_schedule(rates, c, mu):
    return thresholds(power_threshold(lambda n: rates[n], c, mu), 20)


def test_never_falls_in_float32_where_the_increments_are_below_its_rounding():
    """For small mu and large n the difference of powers is a few units of their last place."""
    run = jax.jit(lambda: thresholds(power_threshold(0.1, 0.005, 0.05), 200_000))()
    assert (np.diff(run) >= 0).all()


@pytest.mark.parametrize("mu", [0.4, 0.5])
def test_mu_up_to_one_half_is_legal(mu):
    """The authors ran 0.4 themselves."""
    power_threshold(0.1, 0.005, mu)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (0.25, [0.25] * 3),
        (1, [1.0] * 3),
        (np.float32(0.5), [0.5] * 3),
        (jnp.array(0.5), [0.5] * 3),
        (lambda n: 0.5 * n, [0.5, 1.0, 1.5]),
        (lambda n: 2, [2.0] * 3),
        (optax.linear_schedule(0.0, 1.0, 2), [0.5, 1.0, 1.0]),
        (optax.join_schedules([lambda n: 0.0, lambda n: 1.0], [2]), [0.0, 1.0, 1.0]),
    ],
    ids=lambda x: getattr(x, "__name__", "values" if isinstance(x, list) else repr(x)),
)
def test_numbers_and_schedules(threshold, expected):
    """A schedule is called with n from 1, so that it says what h is after n updates."""
    tx, params = dual_averaging(threshold), jnp.zeros(2)
    state, seen = tx.init(params), []
    assert state.threshold == 0
    for _ in range(3):
        _, state = tx.update(params, state, params)
        assert state.threshold.dtype == jnp.float32
        assert not state.threshold.weak_type
        seen.append(float(state.threshold))
    assert seen == expected


def test_a_schedule_in_float64_does_not_widen_the_state(float64):
    for threshold in (lambda n: jnp.array(0.5), power_threshold(lambda n: jnp.array(0.1))):
        tx, params = dual_averaging(threshold), jnp.zeros(2, jnp.float32)
        _, state = tx.update(params, tx.init(params), params)
        assert state.threshold.dtype == state.accumulator.dtype == jnp.float32
        assert state.count.dtype == jnp.int32
