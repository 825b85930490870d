"""The recipe: any optimizer, any length of training, and the sparsity that was asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from grda_optax import (
    dual_averaging,
    firm,
    grda,
    prune_with,
    suggest_c,
    target_sparsity,
)

from .transformations import matrices, our_state
from .trees import assert_same_bits, normal_like

START = normal_like(
    jax.random.key(0),
    {"kernel": jnp.zeros((40, 25)), "bias": jnp.zeros(25), "out": jnp.zeros((25, 4))},
)
TOTAL = 1100


def trained(tx, steps, params=START):
    def step(carry, n):
        params, state = carry
        noise = normal_like(jax.random.fold_in(jax.random.key(1), n), params)
        gradients = jax.tree.map(lambda p, e: p + 0.3 * e, params, noise)
        updates, state = tx.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), jnp.arange(steps))[0])(params)


def kernel_zeros(params):
    return sum(int((params[name] == 0).sum()) for name in ("kernel", "out"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "sparsity"), [(1, 0.5), (1, 0.97), (2, 0.5), (3, 0.97), (10, 0.0), (300, 0.97)]
)
def test_any_length_of_training(steps, sparsity):
    params, state = trained(prune_with(optax.sgd(0.05, momentum=0.9), sparsity, steps), steps)
    assert kernel_zeros(params) == TOTAL - round((1 - sparsity) * TOTAL)
    assert (params["bias"] != 0).all()
    assert our_state(state).count == steps


@pytest.mark.parametrize(
    "base",
    [
        optax.adamw(0.01),
        pytest.param(optax.lion(0.01), marks=pytest.mark.slow),
        pytest.param(optax.contrib.prodigy(), marks=pytest.mark.slow),
        pytest.param(grda(0.05), marks=pytest.mark.slow),
    ],
)
def test_any_optimizer(base):
    params, _ = trained(prune_with(base, 0.9, 60), 60)
    assert kernel_zeros(params) == TOTAL - round((1 - 0.9) * TOTAL)


@pytest.mark.slow
def test_it_is_short_for_a_chain():
    base = optax.sgd(0.05, momentum=0.9)
    short = prune_with(
        base, 0.8, 40, ramp_end=0.5, freeze_at=0.75, ratio=2.0, leak=0.01, update_every=3
    )
    long = optax.chain(
        base,
        dual_averaging(
            target_sparsity(0.8, end_step=20, update_every=3),
            prox=firm(2.0),
            leak=0.01,
            mask=matrices,
            freeze_step=30,
        ),
    )
    assert_same_bits(trained(short, 40), trained(long, 40))


def test_options():
    """Each of them arrives."""
    params, state = trained(
        prune_with(
            optax.sgd(0.05),
            0.75,
            20,
            per_leaf=True,
            mask="kernel|bias",
            scale={"kernel": 2.0},
            prox="hard",
            freeze_at=None,
            accumulator_dtype=jnp.float32,
        ),
        20,
    )
    zeros = {name: int((x == 0).sum()) for name, x in params.items()}
    assert zeros == {"kernel": 750, "bias": 19, "out": 0}
    assert set(our_state(state).threshold) == {"kernel", "bias", "out"}
    assert our_state(state).threshold["kernel"] > 0, "not frozen"


@pytest.mark.slow
def test_a_schedule_of_ratios():
    """A ratio that falls from nearly soft to nearly hard."""
    falling = optax.linear_schedule(50.0, 1.001, 10)
    params, _ = trained(prune_with(optax.sgd(0.05), 0.5, 20, ratio=falling, freeze_at=None), 20)
    hard, _ = trained(prune_with(optax.sgd(0.05), 0.5, 20, prox="hard", freeze_at=None), 20)
    assert kernel_zeros(params) == kernel_zeros(hard) == 550
    soft, _ = trained(prune_with(optax.sgd(0.05), 0.5, 20, prox="soft", freeze_at=None), 20)
    small = [np.abs(np.asarray(p["kernel"])) for p in (soft, params, hard)]
    small = [np.quantile(x[x != 0], 0.05) for x in small]
    assert small[0] < 0.5 * small[1]
    assert 0.7 * small[2] < small[1] < 1.1 * small[2]


class TestSuggestC:
    @pytest.mark.parametrize("mu", [0.4, 0.6, 1.0])
    @pytest.mark.parametrize(
        "rate", [0.1, optax.cosine_decay_schedule(0.1, 200), optax.linear_schedule(0.0, 0.1, 50)]
    )
    def test_flat_directions_end_at_the_sparsity(self, rate, mu):
        """With no gradient at all it is exact."""
        c = suggest_c(START, rate, mu, steps=200, sparsity=0.9)
        assert isinstance(c, float)
        tx = grda(rate, c=c * (1 + 1e-5), mu=mu)
        nothing = jax.tree.map(jnp.zeros_like, START)

        def step(carry, _):
            params, state = carry
            updates, state = tx.update(nothing, state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (START, tx.init(START)), length=200)
        zeros = sum(int((x == 0).sum()) for x in params.values())
        assert abs(zeros - 0.9 * 1125) <= 1

    def test_the_mask_counts(self):
        params = {"kernel": jnp.arange(1.0, 11.0), "bias": jnp.full(100, 1e-3)}
        options = {"learning_rate": 1.0, "mu": 1.0, "steps": 2, "sparsity": 0.5}
        assert suggest_c(params, **options, mask={"kernel": True, "bias": False}) == 2.5
        assert suggest_c(params, **options, mask="kernel") == 2.5
        assert suggest_c(params, **options) == pytest.approx(5e-4)

    def test_no_sparsity_needs_no_threshold(self):
        assert suggest_c(START, 0.1, 0.6, steps=10, sparsity=0.0) == 0.0
