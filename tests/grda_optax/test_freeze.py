"""After the freeze: exactly as many zeros as asked for, the same ones for good, and no others."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from grda_optax import dual_averaging, firm, firm_threshold, grda, target_sparsity

from .transformations import our_state
from .trees import assert_close, assert_same_bits, assert_same_zeros, normal_like

FREEZE, STEPS = 40, 160
DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16]
SHAPES = {"a": jnp.zeros((31, 9)), "b": jnp.zeros(57), "c": jnp.zeros((3, 2, 5))}
BASES = {
    "momentum": optax.sgd(0.05, momentum=0.99),
    "decay": optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.1, momentum=0.9)),
    "averaged": optax.chain(optax.sgd(0.3), optax.ema(0.95)),
    "lion": optax.lion(0.03),
    "adamw": optax.adamw(0.05, weight_decay=0.5),
}


@functools.partial(jax.jit, static_argnums=(0, 1))
def trained(tx, steps, params):
    """Params after every step of a noisy descent that crosses zero all the time."""

    def step(carry, n):
        params, state = carry
        gradients = normal_like(jax.random.fold_in(jax.random.key(5), n), params)
        gradients = jax.tree.map(lambda g, p: g + p, gradients, params)
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    (_, state), history = jax.lax.scan(step, (params, tx.init(params)), jnp.arange(steps))
    return history, state


def zeros(history):
    return {name: np.asarray(x == 0) for name, x in history.items()}


def assert_frozen(history, freeze, expected):
    """Exact counts, the mask of the freeze at every later update, and no negative zero."""
    masks = zeros(history)
    found = {name: int(mask[freeze - 1].sum()) for name, mask in masks.items()}
    if isinstance(expected, dict):
        assert found == expected
    else:
        assert sum(found.values()) == expected
    for name, mask in masks.items():
        late = mask[freeze - 1 :]
        np.testing.assert_array_equal(late, np.broadcast_to(late[0], late.shape))
        assert np.isfinite(np.asarray(history[name], np.float32)).all()
        assert not np.signbit(np.asarray(history[name]))[mask].any()


TOTAL = sum(x.size for x in SHAPES.values())


@pytest.mark.parametrize(
    ("base", "dtype"),
    [
        pytest.param(
            base,
            dtype,
            marks=[] if (base, dtype) == ("momentum", jnp.float32) else pytest.mark.slow,
        )
        for base, dtype in [(base, jnp.float32) for base in BASES]
        + [("momentum", low) for low in DTYPES[1:]]
    ],
)
def test_exactly_as_many_and_for_good(base, dtype):
    params = normal_like(jax.random.key(0), jax.tree.map(lambda x: x.astype(dtype), SHAPES))
    tx = optax.chain(
        BASES[base],
        dual_averaging(target_sparsity(0.9, end_step=30), prox="firm", freeze_step=FREEZE),
    )
    history, state = trained(tx, STEPS, params)
    assert_frozen(history, FREEZE, TOTAL - round(0.1 * TOTAL))
    assert our_state(state).threshold == 0


@pytest.mark.slow
def test_per_leaf():
    prox = firm(lambda n: 2.0 + 1.0 / n)
    params = normal_like(jax.random.key(0), SHAPES)
    rule = target_sparsity(0.8, end_step=30, per_leaf=True)
    tx = optax.chain(
        BASES["momentum"],
        dual_averaging(rule, prox=prox, freeze_step=FREEZE, scale={"a": 0.3, "": 2}, leak=0.01),
    )
    history, _ = trained(tx, 80, params)
    assert_frozen(
        history, FREEZE, {k: x.size - round((1 - 0.8) * x.size) for k, x in SHAPES.items()}
    )


@pytest.mark.slow
def test_in_the_middle_of_the_ramp():
    """As many as the ramp asks for at that update, though the threshold lags."""
    params = normal_like(jax.random.key(0), SHAPES)
    rule = target_sparsity(0.9, end_step=100, exponent=1, update_every=30)
    tx = optax.chain(BASES["momentum"], dual_averaging(rule, prox="firm", freeze_step=45))
    history, _ = trained(tx, 80, params)
    assert_frozen(history, 45, TOTAL - round((1 - 0.405) * TOTAL))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prox", "per_leaf", "dtype"),
    [("soft", False, jnp.float32), ("hard", True, jnp.float32)]
    + [("firm", False, dtype) for dtype in DTYPES],
)
def test_ties_are_broken_by_position(prox, per_leaf, dtype):
    """Weights of one magnitude: the first of them go, and the others stay, though barely."""
    params = jax.tree.map(
        lambda x: (0.5 * (-1.0) ** jnp.arange(x.size)).reshape(x.shape).astype(dtype), SHAPES
    )
    rule = target_sparsity(0.7, per_leaf=per_leaf)
    tx = dual_averaging(rule, prox=prox, freeze_step=1)
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(3):
        updates, state = update(jax.tree.map(jnp.zeros_like, params), state, params)
        params = optax.apply_updates(params, updates)
        flat = [np.asarray(x).ravel() for x in params.values()]
        for part in flat if per_leaf else [np.concatenate(flat)]:
            expected = part.size - round((1 - 0.7) * part.size)
            assert (part[:expected] == 0).all()
            assert (part[expected:] != 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", [lambda v: 0.5, lambda v: target_sparsity(0.5)])
def test_what_would_become_zero_stays_beside(dtype, make):
    """A weight whose sum passes zero exactly, or is lost in the rounding of the step to it."""
    start = jnp.array([0.01, 0.02, 1.0, -1.0, 100.0, 1.0], dtype)
    tx = dual_averaging(make(start), prox="hard", freeze_step=1)
    state, update = tx.init(start), jax.jit(tx.update)
    updates, state = update(jnp.zeros_like(start), state, start)
    params = optax.apply_updates(start, updates)
    mask = np.asarray(params != 0)
    assert mask[3:].all()
    accumulator = our_state(state).accumulator
    for target in (0.0, 1e-30, -1e-9, 3e-8, 1e-4, 0.5, 0.0, 0.0, 7.0):
        wanted = jnp.full_like(accumulator, target)
        updates, state = update(wanted - our_state(state).accumulator, state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_array_equal(np.asarray(params != 0), mask)
        assert (np.asarray(our_state(state).accumulator != 0) == mask).all()
    # And it is where it should be in the end, as soon as that can be told from zero.
    np.testing.assert_array_equal(np.asarray(params, np.float32), 7.0 * mask)


def test_more_zeros_than_asked_for_stay():
    """Where the accumulator is zero there is nothing to keep."""
    params = jnp.array([0.0] * 8 + [1.0, 2.0])
    tx = dual_averaging(target_sparsity(0.5), freeze_step=1)
    updates, _ = tx.update(jnp.zeros(10), tx.init(params), params)
    np.testing.assert_array_equal(params + updates, params)


def test_zero_sparsity_prunes_nothing():
    params = jnp.array([1e-30, 1.0, -2.0])
    tx = dual_averaging(target_sparsity(0.0), freeze_step=1)
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(jnp.zeros(3), state, params)
        assert_same_bits(updates, jnp.zeros(3))


def test_skipped_updates_do_not_count():
    params = normal_like(jax.random.key(0), SHAPES)
    inner = optax.chain(
        BASES["momentum"], dual_averaging(target_sparsity(0.5, end_step=3), freeze_step=4)
    )
    for tx, every in ((optax.MultiSteps(inner, 2), 2), (optax.apply_if_finite(inner, 9), 1)):
        state, p, update = tx.init(params), params, jax.jit(tx.update)
        for i in range(6 * every):
            gradients = normal_like(jax.random.key(i), p)
            if every == 1:
                bad = jax.tree.map(lambda g: g * jnp.nan, gradients)
                _, state = update(bad, state, p)
            updates, state = update(gradients, state, p)
            p = optax.apply_updates(p, updates)
            assert our_state(state).count == (i + 1) // every
        assert sum(int((x == 0).sum()) for x in p.values()) == TOTAL - round(0.5 * TOTAL)


def test_a_rule_of_ones_own_can_select():
    """Every second weight, whatever the threshold is."""
    rule = target_sparsity(0.2)._replace(
        select=lambda count, accumulator: jax.tree.map(
            lambda v: (jnp.arange(v.size) % 2 == 0).reshape(v.shape), accumulator
        )
    )
    params = normal_like(jax.random.key(0), SHAPES)
    history, _ = trained(
        optax.chain(optax.sgd(0.1), dual_averaging(rule, freeze_step=5)), 9, params
    )
    for x in history.values():
        late = np.asarray(x).reshape(9, -1)[4:]
        assert (late[:, ::2] == 0).all()
        assert (late[:, 1::2] != 0).all()


def test_leak():
    """The accumulators of zero weights shrink, by a number or along a schedule; others do not."""
    params = jnp.array([0.5, 2.0])
    for leak, expected in ((0.5, 0.5**4), (lambda n: jnp.where(n == 2, 1.0, 0.0), 0.0)):
        tx = dual_averaging(1.0, leak=leak)
        p, state = params, tx.init(params)
        for _ in range(5):
            updates, state = tx.update(jnp.zeros(2), state, p)
            p = optax.apply_updates(p, updates)
        np.testing.assert_array_equal(state.accumulator, [0.5 * expected, 2.0])
        np.testing.assert_array_equal(p, [0.0, 1.0])
    plain, leaky = (
        optax.chain(optax.sgd(0.1), dual_averaging(0.3, leak=leak)) for leak in (0.0, 1e-2)
    )
    start = normal_like(jax.random.key(0), SHAPES)
    a, b = trained(plain, 50, start)[0], trained(leaky, 50, start)[0]
    assert any((x != y).any() for x, y in zip(a.values(), b.values(), strict=True))
    assert isinstance(our_state(grda(0.1).init(start)).accumulator, dict)


@pytest.mark.slow
@pytest.mark.parametrize(("per_leaf", "scale"), [(False, None), (True, {"a": 0.5, "": 1.5})])
def test_the_accumulator_tells_which_weights_are_zero(per_leaf, scale):
    """Of an operator that is not known it is the params that tell which accumulators leak."""
    start = normal_like(jax.random.key(0), SHAPES)
    rule = target_sparsity(0.7, end_step=30, per_leaf=per_leaf, update_every=3)
    ends = []
    for prox in ("firm", lambda v, h: firm_threshold(v, h)):
        tx = dual_averaging(rule, prox=prox, leak=0.05, freeze_step=40, scale=scale)
        ends.append(trained(optax.chain(optax.sgd(0.1, momentum=0.9), tx), 45, start)[0])
    assert_close(*ends, rtol=1e-4, atol=1e-4)
    assert_same_zeros(*ends)


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (None, [1, 1, 1]),
        ({"kernel": 2}, [1, 2, 2]),
        ({"out/kernel": 4, "kernel": 2}, [1, 2, 4]),
        ({"kernel": 2, "out/kernel": 4}, [1, 2, 2]),
        ({"^in": 0.5, "": 3.0}, [0.5, 0.5, 3]),
        (2.0, [2, 2, 2]),
        ({"in": {"bias": 1.0, "kernel": 2}, "out": np.float32(0.5)}, [1, 2, 0.5]),
        ({"in": 2.0, "out": 3.0}, [2, 2, 3]),
    ],
)
def test_scales_by_pattern_and_by_tree(scale, expected):
    params = {"in": {"bias": jnp.ones(2), "kernel": jnp.ones(2)}, "out": {"kernel": jnp.ones(2)}}
    tx = dual_averaging(0.125, scale=scale)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    found = [float(u[0]) for u in jax.tree.leaves(updates)]
    np.testing.assert_allclose(found, [-0.125 * x for x in expected], rtol=1e-6)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [("kernel$", [0, 1, 1]), ("^in/", [1, 1, 0]), ("", [1, 1, 1]), ("b.as|out", [1, 0, 1])],
)
def test_masks_by_pattern(mask, expected):
    params = {"in": {"bias": jnp.ones(2), "kernel": jnp.ones(2)}, "out": {"kernel": jnp.ones(2)}}
    tx = dual_averaging(0.5, mask=mask)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    assert [float(u[0]) for u in jax.tree.leaves(updates)] == [-0.5 * x for x in expected]
