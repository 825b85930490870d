"""The last link of a chain: its rule, its mask, the freeze, and what must not come after it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from grda_optax import GRDAState, ThresholdRule, dual_averaging, nonzero_mask, soft_threshold

from .transformations import our_state
from .trees import assert_close, assert_same_bits, assert_same_zeros, normal_like

START = normal_like(jax.random.key(0), {"kernel": jnp.zeros((20, 10)), "bias": jnp.zeros(10)})
TARGET = normal_like(jax.random.key(1), START)


def gradient(params, key):
    """Noise everywhere, and a slope towards the target in a part of the directions."""
    noise = normal_like(key, params)
    return jax.tree.map(
        lambda w, t, e: 0.3 * jnp.where(jnp.abs(t) > 1, w - t, 0.0) + e, params, TARGET, noise
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def scan(tx, steps, params, state, first=0):
    """Params and states after every step."""

    def step(carry, n):
        params, state = carry
        key = jax.random.fold_in(jax.random.key(2), n)
        updates, state = tx.update(gradient(params, key), state, params)
        carry = optax.apply_updates(params, updates), state
        return carry, carry

    return jax.lax.scan(step, (params, state), first + jnp.arange(steps))[1]


def at(trajectory, n):
    """Params and state after n steps, n from 1."""
    return jax.tree.map(lambda x: x[n - 1], trajectory)


BASE = optax.chain(optax.add_decayed_weights(0.02), optax.sgd(0.02, momentum=0.9))
RAMP = optax.linear_schedule(0.0, 0.8, 100)
FREEZE, STEPS = 100, 400


@pytest.fixture(scope="module")
def frozen():
    tx = optax.chain(BASE, dual_averaging(RAMP, freeze_step=FREEZE))
    return scan(tx, STEPS, START, tx.init(START))


@pytest.fixture(scope="module")
def free():
    tx = optax.chain(BASE, dual_averaging(RAMP))
    return scan(tx, STEPS, START, tx.init(START))


class TestFreeze:
    def test_is_the_same_until_then(self, frozen, free):
        before = [jax.tree.map(lambda x: x[:FREEZE], run[0]) for run in (frozen, free)]
        assert_same_zeros(*before)
        assert_close(*before, rtol=1e-5, atol=5e-6)

    def test_zeros_never_come_back(self, frozen, free):
        """Although momentum and decay pull at them: without the freeze some do."""
        zeros = np.asarray(at(frozen, FREEZE)[0]["kernel"]) == 0
        assert 0.2 < zeros.mean() < 0.9
        later = np.asarray(frozen[0]["kernel"])[FREEZE - 1 :]
        np.testing.assert_array_equal(later == 0, np.broadcast_to(zeros, later.shape))
        assert not np.signbit(later[later == 0]).any()
        accumulators = np.asarray(our_state(frozen[1]).accumulator["kernel"])[FREEZE - 1 :]
        assert (accumulators[later == 0] == 0).all()
        revived = (np.asarray(free[0]["kernel"])[FREEZE:] != 0) & zeros
        assert revived.any(axis=0).sum() > 10

    def test_survivors_follow_the_base_optimizer(self, frozen):
        """From the weights at the freeze, without a jump and without further shrinking."""
        params, state = at(frozen, FREEZE)
        mask = nonzero_mask(params)
        hold = optax.stateless(
            lambda updates, _: jax.tree.map(lambda u, m: jnp.where(m, u, 0.0), updates, mask)
        )
        alone = optax.chain(BASE, hold)
        expected = scan(alone, STEPS - FREEZE, params, (state[0], hold.init(params)), FREEZE)
        rest = jax.tree.map(lambda x: x[FREEZE:], frozen[0])
        assert_close(rest, expected[0], rtol=1e-5, atol=5e-6)

    def test_threshold(self, frozen):
        thresholds = our_state(frozen[1]).threshold
        np.testing.assert_allclose(thresholds[:FREEZE], RAMP(1 + jnp.arange(FREEZE)), rtol=1e-5)
        assert (thresholds[FREEZE:] == 0).all()

    def test_the_accumulator_becomes_the_weights(self, frozen):
        params, state = at(frozen, FREEZE)
        assert_same_bits(our_state(state).accumulator, params)
        assert our_state(state).count == FREEZE

    def test_at_zero_keeps_the_zeros_of_a_pruned_network(self):
        """Retraining: the topology of the start stays, and the rest is the base optimizer's."""
        pruned = jax.tree.map(lambda w: jnp.where(jnp.abs(w) < 0.7, 0.0, w), START)
        tx = optax.chain(BASE, dual_averaging(0.5, freeze_step=0))
        params, states = scan(tx, 100, pruned, tx.init(pruned))
        for n in (1, 2, 100):
            assert_same_zeros(at(params, n), pruned)
        assert (our_state(states).threshold == 0).all()
        gradients = gradient(pruned, jax.random.key(3))
        updates, _ = tx.update(gradients, tx.init(pruned), pruned)
        expected, _ = BASE.update(gradients, BASE.init(pruned), pruned)
        expected = jax.tree.map(lambda u, w: jnp.where(w != 0, u, 0.0), expected, pruned)
        assert_close(updates, expected, rtol=0, atol=3e-7)


class TestMask:
    MASK = {"kernel": True, "bias": False}  # noqa: RUF012

    @pytest.mark.parametrize(
        "base",
        [
            BASE,
            pytest.param(optax.adamw(0.01), marks=pytest.mark.slow),
            pytest.param(optax.lion(0.01), marks=pytest.mark.slow),
        ],
    )
    def test_false_leaves_follow_the_base_optimizer_bit_for_bit(self, base):
        tx = optax.chain(base, dual_averaging(0.3, mask=self.MASK))
        found, _ = scan(tx, 50, START, tx.init(START))
        expected, _ = scan(base, 50, START, base.init(START))
        assert_same_bits(found["bias"], expected["bias"])
        assert (found["kernel"] == 0).any()
        assert not (found["bias"] == 0).any()

    def test_nothing_is_kept_for_them(self):
        state = dual_averaging(0.3, mask=self.MASK).init(START)
        assert state.accumulator["bias"] == optax.MaskedNode()
        assert len(jax.tree.leaves(state)) == 3

    TREE = {"a": {"x": jnp.ones(2), "y": (jnp.ones(()), jnp.ones((1, 2)))}, "b": [jnp.ones(3)]}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("mask", "expected"),
        [
            (None, [True] * 4),
            (True, [True] * 4),
            (False, [False] * 4),
            ({"a": True, "b": False}, [True, True, True, False]),
            ({"a": {"x": False, "y": True}, "b": [True]}, [False, True, True, True]),
            ({"a": {"x": np.True_, "y": (False, True)}, "b": False}, [True, False, True, False]),
            (lambda p: jax.tree.map(lambda x: x.ndim == 1, p), [True, False, False, True]),
            (lambda p: {"a": False, "b": True}, [False, False, False, True]),
            (jax.tree_util.Partial(lambda p: {"a": False, "b": True}), [False] * 3 + [True]),
        ],
    )
    def test_prefixes_and_functions(self, mask, expected):
        tx = dual_averaging(0.25, mask=mask)
        state = tx.init(self.TREE)
        updates, state = tx.update(jax.tree.map(lambda x: 0.5 * x, self.TREE), state, self.TREE)
        # 1 + 0.5 read out through 0.25, or 0.5 passed on.
        assert [float(u.sum() / u.size) for u in jax.tree.leaves(updates)] == [
            0.25 if flag else 0.5 for flag in expected
        ]
        assert len(jax.tree.leaves(state.accumulator)) == sum(expected)


class TestRule:
    def test_what_a_rule_is_given_and_what_it_keeps(self):
        """The previous threshold, the number of the update from 1, and v_n, not v_{n-1}."""
        seen = []

        def init(accumulator):
            seen.append(accumulator)
            return {"calls": jnp.zeros([], jnp.int32)}

        def update(rule_state, threshold, count, accumulator):
            seen.append((float(threshold), int(count), accumulator))
            return threshold + 0.125, {"calls": rule_state["calls"] + 1}

        tx = dual_averaging(ThresholdRule(init, update), mask={"a": True, "b": False})
        params = {"a": jnp.array([1.0, -0.25]), "b": jnp.ones(1)}
        state = tx.init(params)
        half = {"a": jnp.full(2, 0.5), "b": jnp.ones(1)}
        for _ in range(2):
            updates, state = tx.update(half, state, params)
            params = optax.apply_updates(params, updates)
        assert state.rule_state == {"calls": 2}
        assert seen[0]["b"] == seen[1][2]["b"] == optax.MaskedNode()
        assert [x[:2] for x in seen[1:]] == [(0.0, 1), (0.125, 2)]
        np.testing.assert_array_equal(seen[0]["a"], [1.0, -0.25])
        np.testing.assert_array_equal(seen[1][2]["a"], [1.5, 0.25])
        np.testing.assert_array_equal(seen[2][2]["a"], [2.0, 0.75])
        np.testing.assert_array_equal(params["a"], [1.75, 0.5])

    def test_a_proximal_operator_of_ones_own(self):
        def hard(v, h):
            return jnp.where(jnp.abs(v) <= h, 0.0, v)

        params = jnp.array([1.0, 0.3, -0.6])
        named, given, own = (
            dual_averaging(0.5, prox=prox) for prox in ("soft", soft_threshold, hard)
        )
        results = [
            optax.apply_updates(params, tx.update(jnp.zeros(3), tx.init(params), params)[0])
            for tx in (named, given, own)
        ]
        np.testing.assert_allclose(results[0], [0.5, 0.0, -0.1], rtol=1e-6)
        assert_same_bits(results[1], results[0])
        np.testing.assert_array_equal(results[2], params * jnp.array([1, 0, 1]))

    def test_a_schedule_inside_inject_hyperparams_is_a_static_argument(self):
        """Otherwise it is called with the count from 0, as every schedule is there."""
        injected = optax.inject_hyperparams(dual_averaging, static_args=("threshold",))(RAMP)
        plain = dual_averaging(RAMP)
        params, gradients = START, TARGET
        one, two = (tx.update(gradients, tx.init(params), params)[1] for tx in (injected, plain))
        assert_same_bits(one.inner_state, two)
        late = optax.inject_hyperparams(dual_averaging)(RAMP)
        _, state = late.update(gradients, late.init(params), params)
        assert our_state(state).threshold == 0 < two.threshold


class TestLastLink:
    def test_what_scales_the_updates_afterwards_loses_the_zeros(self):
        """Why nothing may come after it."""
        ours = optax.chain(BASE, dual_averaging(RAMP))
        scaled = optax.chain(BASE, dual_averaging(RAMP), optax.scale(0.5))
        params, _ = at(scan(ours, 100, START, ours.init(START)), 100)
        assert (params["kernel"] == 0).sum() > 40
        params, _ = at(scan(scaled, 100, START, scaled.init(START)), 100)
        assert (params["kernel"] == 0).sum() == 0

    def test_masked_around_it_passes_raw_gradients_on(self):
        """Why it has a mask of its own."""
        wrapped = optax.masked(dual_averaging(0.1), TestMask.MASK)
        updates, _ = wrapped.update(TARGET, wrapped.init(START), START)
        assert_same_bits(updates["bias"], TARGET["bias"])

    def test_zero_updates_of_apply_every_count_as_steps(self):
        """Where `optax.MultiSteps` around the chain leaves the threshold alone."""
        tx = optax.chain(optax.sgd(0.1), optax.apply_every(2), dual_averaging(lambda n: 0.01 * n))
        state = tx.init(START)
        for _ in range(4):
            _, state = tx.update(TARGET, state, START)
        ours = our_state(state)
        assert isinstance(ours, GRDAState)
        assert ours.count == 4
        np.testing.assert_allclose(ours.threshold, 0.04, rtol=1e-6)
