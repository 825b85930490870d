"""Ask for a sparsity and get it, whatever the optimizer does to the accumulator."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grda_optax import dual_averaging, target_sparsity
from grda_optax._counting import _count_by_rows, _count_plainly
from grda_optax._quantile import quantile, select_smallest

from .transformations import matrices, our_state

STEPS = 300
START = {
    "first": {"kernel": jnp.zeros((16, 200)), "bias": jnp.zeros(200)},
    "second": {"kernel": jnp.zeros((200, 80)), "bias": jnp.zeros(80)},
    "third": {"kernel": jnp.zeros((80, 10)), "bias": jnp.zeros(10)},
}
RATE = optax.cosine_decay_schedule(0.2, STEPS)
BASES = {
    "sgd": optax.sgd(0.2),
    "momentum": optax.sgd(RATE, momentum=0.9),
    "adamw": optax.adamw(0.01, weight_decay=0.1),
    "lion": optax.lion(0.01),  # by 0.01 each, which is a tenth of what the weights are
    "schedule_free": optax.contrib.schedule_free_adamw(0.01),
}
PERCENT = [50, 80, 90, 95, 98, 99]


def drawn(key):
    leaves, treedef = jax.tree.flatten(START)
    keys = jax.random.split(key, len(leaves))
    return treedef.unflatten(
        [
            jax.random.normal(k, x.shape) / jnp.sqrt(x.shape[0]) if x.ndim > 1 else x
            for k, x in zip(keys, leaves, strict=True)
        ]
    )


def loss(params, inputs, labels):
    x = inputs
    for name in ("first", "second"):
        x = jnp.tanh(x @ params[name]["kernel"] + params[name]["bias"][None])
    x = x @ params["third"]["kernel"] + params["third"]["bias"][None]
    return jnp.mean((x - labels) ** 2)


@functools.partial(jax.jit, static_argnums=(0, 1))
def trained(base, options, sparsity):
    """For every n the zeros of each kernel, and the thresholds."""
    tx = optax.chain(
        base, dual_averaging(target_sparsity(sparsity, **dict(options)), prox="firm", mask=matrices)
    )
    params = drawn(jax.random.key(0))

    def step(carry, key):
        params, state = carry
        inputs = jax.random.normal(key, (16, 16))
        gradients = jax.grad(loss)(params, inputs, jnp.sin(3 * inputs[:, :10]))
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        zeros = [jnp.sum(params[name]["kernel"] == 0) for name in params]
        return (params, state), (jnp.stack(zeros), our_state(state).threshold)

    keys = jax.random.split(jax.random.key(1), STEPS)
    return jax.lax.scan(step, (params, tx.init(params)), keys)[1]


SIZES = np.array([START[name]["kernel"].size for name in START])


RUNS = [(name, (("end_step", 200),)) for name in BASES] + [
    ("momentum", (("end_step", STEPS),)),
    ("adamw", (("end_step", 200), ("per_leaf", True))),
    ("lion", (("end_step", STEPS), ("per_leaf", True))),
]


FAST = {"momentum", "adamw"}


@pytest.mark.parametrize(
    ("base", "options"),
    [pytest.param(*run, marks=[] if run[0] in FAST else pytest.mark.slow) for run in RUNS],
    ids=str,
)
def test_what_is_asked_is_what_one_gets(base, options):
    """Within 0.0005 from the end of the ramp on, at whichever update the training stops."""
    for target in np.array(PERCENT) / 100:
        zeros, _ = trained(BASES[base], options, float(target))
        late = np.asarray(zeros)[dict(options)["end_step"] - 1 :]
        if dict(options).get("per_leaf"):
            # No more can be asked of a leaf than a whole number of weights.
            assert (np.abs(late - target * SIZES) <= 5e-4 * SIZES + 0.5).all(), target
        else:
            achieved = late.sum(axis=1) / SIZES.sum()
            assert np.abs(achieved - target).max() <= 5e-4, (target, achieved)


def test_the_ramp():
    """Right at every tenth update, held in between, and never far behind."""
    zeros, thresholds = trained(BASES["momentum"], (("end_step", 200),), 0.9)
    achieved = np.asarray(zeros).sum(axis=1) / SIZES.sum()
    n = np.arange(1, STEPS + 1)
    asked = 0.9 * (1 - (1 - np.minimum(n / 200, 1)) ** 3)
    followed = (n == 1) | (n % 10 == 0) | (n >= 200)
    assert np.abs(achieved - asked)[followed].max() <= 5e-4
    assert np.abs(achieved - asked).max() < 0.15
    held = np.flatnonzero(np.diff(thresholds) == 0) + 2
    assert not followed[held - 1][held < 200].any()
    assert set(n[1:][~followed[1:]]) <= set(held)
    assert len(np.unique(thresholds[200:])) > 5, "followed after the ramp too"


def asked_zeros(rule, steps, size=10_000):
    """How many of evenly spaced weights are zero after each update."""
    tx, params = dual_averaging(rule), jnp.arange(1.0, size + 1)
    state, zeros = tx.init(params), []
    update = jax.jit(tx.update)
    for _ in range(steps):
        updates, state = update(jnp.zeros_like(params), state, params)
        zeros.append(int(jnp.sum(params + updates == 0)))
    return zeros


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [5000] * 6),
        ({"end_step": 0}, [5000] * 6),
        ({"begin_step": 3}, [0, 0, 5000, 5000, 5000, 5000]),
        ({"end_step": 4, "exponent": 1, "update_every": 1}, [1250, 2500, 3750] + [5000] * 3),
        ({"end_step": 4, "exponent": 2, "update_every": 1}, [2188, 3750, 4688] + [5000] * 3),
        ({"end_step": 4, "exponent": 1, "update_every": 2}, [1250, 2500, 2500] + [5000] * 3),
        ({"end_step": 5, "exponent": 1, "update_every": 9}, [1000] * 4 + [5000] * 2),
        (
            {"begin_step": 2, "end_step": 4, "exponent": 1, "update_every": 1},
            [0, 0, 2500, 5000, 5000, 5000],
        ),
    ],
    ids=str,
)
def test_ramps(options, expected):
    assert np.abs(np.subtract(asked_zeros(target_sparsity(0.5, **options), 6), expected)).max() <= 1


def test_a_schedule_is_followed_as_it_is():
    """Also downwards: weights come back."""
    values = jnp.array([0.0, 0.2, 0.4, 0.6, 0.3, 0.3, 0.0])
    found = asked_zeros(target_sparsity(lambda n: values[n], update_every=1), 6)
    assert np.abs(np.subtract(found, [2000, 4000, 6000, 3000, 3000, 0])).max() <= 1
    # Where it stands still, at once; and else at the first update and every so many.
    found = asked_zeros(target_sparsity(lambda n: values[n], update_every=4), 6)
    assert np.abs(np.subtract(found, [2000, 2000, 2000, 3000, 3000, 0])).max() <= 1


MAGNITUDES = st.one_of(
    st.floats(0, 2.0**100, width=32, allow_subnormal=False),
    st.sampled_from([0.0, 0.25, 1.0, 2.0**-100]),
)


@functools.partial(jax.jit, static_argnames="slack")
def quantiles(leaves, ranks, guess, slack=0.0):
    return quantile([leaves], ranks, slack=slack, guess=guess)


@settings(max_examples=150)
@given(
    st.lists(MAGNITUDES, min_size=24, max_size=24),
    st.integers(0, 24),
    st.one_of(MAGNITUDES, st.just(float("inf"))),
    st.integers(0, 2**31),
)
def test_quantile(values, rank, guess, seed):
    """From the weight of this rank to below the next, from whatever guess, with ties or without."""
    signs = np.random.default_rng(seed).choice([-1, 1], 24)
    v = np.float32(values) * signs.astype(np.float32)
    leaves = [jnp.asarray(v[:12].reshape(3, 4)), jnp.asarray(v[12:])]
    found = quantiles(leaves, jnp.array([rank]), jnp.array([guess], jnp.float32))
    ordered = np.append(np.sort(np.abs(v)), np.inf)
    if rank == 0:
        assert found == 0
    elif ordered[rank - 1] == ordered[rank]:
        assert found == ordered[rank]
    else:
        assert ordered[rank - 1] <= found < ordered[rank]


@jax.jit
def selected(leaves, ranks):
    return select_smallest([leaves], ranks)


@settings(max_examples=150)
@given(st.lists(MAGNITUDES, min_size=24, max_size=24), st.integers(0, 24))
def test_selection(values, rank):
    """Exactly so many, the smallest ones, and of equal ones the first."""
    v = np.float32(values)
    (flags,) = selected([jnp.asarray(v[:12].reshape(3, 4)), jnp.asarray(v[12:])], jnp.array([rank]))
    flags = np.concatenate([np.ravel(flag) for flag in flags])
    expected = np.zeros(24, bool)
    expected[np.argsort(v, kind="stable")[:rank]] = True
    np.testing.assert_array_equal(flags, expected)


def test_quantile_in_float64(float64):
    v = np.abs(np.random.default_rng(0).normal(size=1000))
    found = quantiles([jnp.asarray(v)], jnp.array([700]), jnp.array([0.0]))
    assert found.dtype == np.float64
    assert np.sort(v)[699] <= found < np.sort(v)[700]


def test_slack_saves_passes_and_keeps_its_word():
    v = jax.random.normal(jax.random.key(0), (100, 1000))
    for rank in (10, 50_000, 99_990):
        found = quantiles([v], jnp.array([rank]), jnp.array([1.0]), slack=1e-4)
        assert 0 <= jnp.sum(jnp.abs(v) <= found[0]) - rank <= 10


def test_nothing_as_large_as_the_weights_is_written_down():
    weights = jnp.zeros((1024, 256))

    def find(weights, guess):
        ranks = jnp.array([100_000], jnp.int32)
        return quantile([[weights]], ranks, slack=0, guess=guess)

    compiled = jax.jit(find).lower(weights, jnp.ones(1)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < weights.nbytes / 2


@pytest.mark.parametrize("layout", ["one", "each", "several"])
def test_both_ways_to_count_are_equal(layout):
    """In one group, with a leaf in each, and in several of several."""
    shapes = [[(), (0,), (5,), (4, 3)], [(0, 3), (4, 0)], [(4, 3), (2, 3, 4, 5), (2,), (4, 7)]]
    one = [[shape for group in shapes for shape in group]]
    each = [[shape] for shape in one[0]]
    layout = {"one": one, "each": each, "several": shapes}[layout]
    flags = []
    for i, group in enumerate(layout):
        leaves = [jax.random.normal(jax.random.key(i), shape) for shape in group]
        flags.append([[x < 0, x < 1, x > 9] for x in leaves])
    for dtype in (jnp.int32, jnp.float32):
        found = _count_by_rows(flags, dtype)
        assert found.dtype == dtype
        assert found.shape == (len(layout), 3)
        assert found[-1, 1] > 3
        np.testing.assert_array_equal(found, _count_plainly(flags, dtype))


def test_exact_in_two_dtypes(float64):
    """Thresholds of which float32 cannot tell one from the next."""
    narrow = np.array([1.0, -1.0, 2.0, 1.0], np.float32)
    wide = np.array([1.0 + 1e-12, 1.0 - 1e-12, 3.0, -1.0])
    order = np.argsort(np.abs(np.concatenate([narrow, wide])), kind="stable")
    for rank in range(9):
        flags = jax.jit(lambda a, b, rank=rank: select_smallest([[a, b]], jnp.array([rank])))(
            narrow, wide
        )
        expected = np.isin(np.arange(8), order[:rank])
        np.testing.assert_array_equal(np.concatenate(flags[0]), expected)


@pytest.mark.parametrize("per_leaf", [False, True])
def test_tiny_leaves(per_leaf):
    """To the weight."""
    params = {"a": jnp.arange(1.0, 8.0), "b": jnp.array(-0.5), "c": jnp.ones((0, 2))}
    tx = dual_averaging(target_sparsity(0.4, per_leaf=per_leaf))
    updates, state = jax.jit(tx.update)(
        jax.tree.map(jnp.zeros_like, params), tx.init(params), params
    )
    zeros = jax.tree.map(lambda p, u: int(jnp.sum(p + u == 0)), params, updates)
    assert zeros == ({"a": 3, "b": 0, "c": 0} if per_leaf else {"a": 2, "b": 1, "c": 0})
    threshold = optax.tree.get(state, "threshold")
    if per_leaf:
        assert jax.tree.structure(threshold) == jax.tree.structure(params)
        assert 3 <= threshold.pop("a") < 4
        assert threshold == {"b": 0, "c": 0}
    else:
        assert 2 <= threshold < 3


def test_weights_that_are_zero_count():
    """With enough of them nothing is shrunk."""
    params = jnp.array([0.0] * 6 + [1.0, 2.0, 3.0, 4.0])
    for sparsity, least in ((0.5, 0), (0.6, 0), (0.7, 1)):
        tx = dual_averaging(target_sparsity(sparsity))
        _, state = tx.update(jnp.zeros(10), tx.init(params), params)
        assert least <= state.threshold < 2 * least or state.threshold == least == 0


@pytest.mark.parametrize("scale", [{"a": 3.0}, {"a": 3.0, "b": 1}, {"^a$": 3, "": 1}])
def test_scale(scale):
    """The quantile is of the accumulator in units of the scale, and to the weight."""
    params = {"a": 0.1 * jnp.arange(1.0, 11.0), "b": 0.1 * jnp.arange(1.0, 11.0)}
    tx = dual_averaging(target_sparsity(0.5), prox="hard", scale=scale)
    updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    zeros = jax.tree.map(lambda p, u: int(jnp.sum(p + u == 0)), params, updates)
    # 0.1, 0.2, ... on one side, a third of that on the other: 0.267 is the tenth.
    assert zeros == {"a": 8, "b": 2}
    assert 0.8 / 3 - 1e-6 <= state.threshold < 0.3


def test_nothing_to_prune():
    params = {"a": jnp.ones(3)}
    for per_leaf in (False, True):
        tx = dual_averaging(target_sparsity(0.5, per_leaf=per_leaf), mask=False, freeze_step=1)
        updates, _ = tx.update(params, tx.init(params), params)
        np.testing.assert_array_equal(updates["a"], params["a"])
