"""Zeros are exact and positive after `optax.apply_updates`, in every precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from grda_optax import dual_averaging, grda, soft_threshold

from .transformations import our_state

DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16]
MODES = ["eager", "jit"]


def run(tx, params, gradient, steps, mode):
    """The params after every step."""

    def step(params, state):
        updates, state = tx.update(gradient(params), state, params)
        assert updates.dtype == params.dtype
        return optax.apply_updates(params, updates), state

    if mode == "jit":
        step = jax.jit(step)
    state, history = tx.init(params), []
    for _ in range(steps):
        params, state = step(params, state)
        history.append(params)
    return history, state


def assert_zeros_are_those_of_the_readout(params, state):
    """And none of them has a sign."""
    ours = our_state(state)
    params = np.asarray(params)
    readout = soft_threshold(ours.accumulator, ours.threshold).astype(params.dtype)
    np.testing.assert_array_equal(params == 0, np.asarray(readout) == 0)
    assert not np.signbit(params[params == 0]).any()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_are_exact_and_positive(dtype, mode):
    """Weights that fall to zero and stay, and others that pass through zero, over twenty steps."""
    start = jax.random.normal(jax.random.key(0), (400,)).astype(dtype)
    tx = optax.chain(optax.sgd(0.2, momentum=0.5), dual_averaging(lambda n: 0.04 * n))
    target = jax.random.normal(jax.random.key(1), (400,)).astype(dtype)
    steep = (jnp.arange(400) % 2).astype(dtype)  # half of the weights are flat directions
    history, state = run(tx, start, lambda w: steep * (w - target), 20, mode)
    last = np.asarray(history[-1])
    assert last.dtype == dtype
    assert 0.2 < np.mean(last == 0) < 0.9
    assert_zeros_are_those_of_the_readout(history[-1], state)
    zeros = np.stack([np.asarray(params) == 0 for params in history])
    assert (zeros.any(axis=0) & ~zeros[-1]).any(), "some passed through zero"
    for params in map(np.asarray, history):
        assert not np.signbit(params[params == 0]).any()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_across_all_magnitudes(dtype, mode):
    """Also where the step is far larger or far smaller than what is left of the weight."""
    info = jnp.finfo(dtype)
    magnitudes = 2.0 ** np.arange(int(np.log2(float(info.tiny))) - 5, 10)
    start = jnp.asarray(np.concatenate([magnitudes, -magnitudes, [0.0, -0.0]]), dtype)
    for threshold in (0.0, float(info.tiny), 1e-3, 1.0, 100.0):
        tx = optax.chain(optax.sgd(1.0), dual_averaging(threshold))
        history, state = run(tx, start, lambda w: 0.1 * w, 2, mode)
        assert_zeros_are_those_of_the_readout(history[-1], state)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_rounds_to_zero_in_the_dtype_of_the_params_has_no_sign(dtype, mode):
    """The accumulator can hold what the params cannot."""
    smallest = float(jnp.finfo(dtype).smallest_subnormal)
    start = jnp.array([-smallest, smallest], jnp.float32).astype(dtype)
    tx = optax.chain(optax.sgd(1.0), dual_averaging(0.0))
    moved = start.astype(jnp.float32) * 0.99
    history, _ = run(tx, start, lambda w: moved, 1, mode)
    (params,) = history
    assert (params == 0).all()
    assert not np.signbit(np.asarray(params)).any()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_negative_zeros_at_the_start_become_positive(dtype, mode):
    start = jnp.array([-0.0, 0.0, -1.0], dtype)
    for c in (0.0, 0.1):
        history, _ = run(grda(0.1, c=c), start, lambda w: jnp.zeros_like(w), 1, mode)
        params = np.asarray(history[-1])
        np.testing.assert_array_equal(np.signbit(params), [False, False, True])
        np.testing.assert_array_equal(params == 0, [True, True, False])


@pytest.mark.parametrize("dtype", DTYPES)
def test_accumulators_are_wide(dtype):
    """In bfloat16 alone 500 steps of 1e-3 would not move a weight of 1 at all."""
    params = jnp.ones(3, dtype)
    assert dtype != jnp.bfloat16 or (params - jnp.asarray(1e-3, dtype) == 1).all()
    for tx in (
        grda(1e-3, c=0.0),
        grda(1e-3, c=0.0, momentum=0.0),
        optax.chain(optax.sgd(1e-3), dual_averaging(0.0)),
    ):

        @functools.partial(jax.jit, static_argnums=0)
        def scan(tx, params):
            def step(carry, _):
                params, state = carry
                updates, state = tx.update(jnp.ones_like(params), state, params)
                return (optax.apply_updates(params, updates), state), None

            return jax.lax.scan(step, (params, tx.init(params)), length=500)[0]

        final, state = scan(tx, params)
        assert final.dtype == dtype
        assert our_state(state).accumulator.dtype == jnp.float32
        np.testing.assert_allclose(np.asarray(final, np.float32), 0.5, rtol=4e-3)
        if isinstance(state[0], tuple):
            momenta = [x for x in jax.tree.leaves(state[0]) if x.ndim]
            assert all(x.dtype == jnp.float32 for x in momenta)


def test_the_momentum_of_grda_is_wide_too():
    params = jnp.ones(3, jnp.bfloat16)
    state = grda(0.1, momentum=0.9).init(params)
    assert optax.tree.get(state, "trace").dtype == jnp.float32


def test_wider_params_have_wider_accumulators(float64):
    for asked, expected in ((None, jnp.float64), (jnp.float32, jnp.float32)):
        tx = grda(0.1, c=0.1, momentum=0.9, accumulator_dtype=asked)
        params = jnp.ones(3, jnp.float64)
        state = tx.init(params)
        assert our_state(state).accumulator.dtype == expected
        assert our_state(state).threshold.dtype == expected
        assert optax.tree.get(state, "trace").dtype == expected
        updates, state = tx.update(params, state, params)
        assert updates.dtype == jnp.float64
        assert our_state(state).threshold.dtype == expected
    low = grda(0.1, accumulator_dtype=jnp.float64).init(jnp.ones(3, jnp.bfloat16))
    assert our_state(low).accumulator.dtype == jnp.float64


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_does_not_turn_into_zero(dtype, mode):
    """A run that broke must look broken."""
    start = jnp.array([1.0, 0.01, 2.0, jnp.nan], dtype)
    gradient = jnp.array([jnp.nan, 0.0, jnp.inf, 0.0], dtype)
    for tx in (
        grda(0.1, c=1.0),
        optax.chain(optax.sgd(0.1), dual_averaging(0.1, freeze_step=1)),
    ):
        history, state = run(tx, start, lambda w: gradient, 3, mode)
        assert jnp.isnan(history[-1][0])
        assert history[-1][1] == 0
        assert not jnp.isfinite(history[-1][2])
        assert jnp.isnan(history[-1][3])
        assert not jnp.isfinite(our_state(state).accumulator[np.array([0, 2, 3])]).any()
