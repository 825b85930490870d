"""The authors' own program, step by step: gradients in, the same weights out."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from grda_optax import grda

FILE = pathlib.Path(__file__).parent.parent / "data" / "trajectories.npz"
CASES = ["sgd_limit", "paper_constant", "paper_step_drop", "strong", "cosine"]


def load(case):
    with np.load(FILE) as data:
        leaves = range(sum(key.startswith(f"{case}/gradients/") for key in data))
        return (
            *(data[f"{case}/{key}"] for key in ("c", "mu", "learning_rates")),
            [data[f"{case}/gradients/{i}"] for i in leaves],
            [data[f"{case}/params/{i}"] for i in leaves],
        )


def replay(case, dtype):
    """The weights after every update of the library, and those of the authors."""
    c, mu, rates, gradients, expected = load(case)
    rates = jnp.asarray(rates, dtype)
    tx = grda(lambda count: rates[count], float(c), float(mu))
    start = [jnp.asarray(p[0], dtype) for p in expected]

    @jax.jit
    def run(params, gradients):
        def step(carry, g):
            params, state = carry
            updates, state = tx.update(g, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), params

        return jax.lax.scan(step, (params, tx.init(params)), gradients)[1]

    found = run(start, [jnp.asarray(g, dtype) for g in gradients])
    return [np.asarray(x) for x in found], [p[1:] for p in expected]


@pytest.mark.parametrize("case", CASES)
def test_float64(case, float64):
    found, expected = replay(case, jnp.float64)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == np.float64
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6)
        # Theirs has zeros of both signs; a weight within rounding of the threshold may differ.
        clear = (theirs == 0) | (np.abs(theirs) > 1e-6)
        np.testing.assert_array_equal((np.abs(mine) < 1e-6)[clear], (theirs == 0)[clear])
        assert not np.signbit(mine[mine == 0]).any()


@pytest.mark.parametrize("case", CASES)
def test_float32(case):
    found, expected = replay(case, jnp.float32)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == np.float32
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=5e-5)


def test_the_cases_prune():
    """Agreement on weights that never meet the threshold would say little."""
    last = {case: load(case)[-1] for case in CASES}
    zeros = {case: np.mean([(p[-1] == 0).mean() for p in last[case]]) for case in CASES}
    assert zeros["sgd_limit"] == 0
    assert min(zeros[case] for case in CASES[1:]) > 0.02
    assert max(zeros.values()) > 0.5


def test_every_case_is_replayed():
    with np.load(FILE) as data:
        assert {key.split("/")[0] for key in data} == set(CASES)
