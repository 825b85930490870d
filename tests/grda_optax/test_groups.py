"""Groups are shrunk as wholes: by the problems that define it, and exactly as many as asked."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from grda_optax import (
    Blocks,
    NofM,
    Tied,
    dual_averaging,
    group_norms,
    group_threshold,
    hard_threshold,
    power_threshold,
    prune_with,
    soft_threshold,
    target_sparsity,
)

from .transformations import our_state
from .trees import assert_close, assert_same_bits, assert_same_zeros, normal_like

NETWORK = {
    "conv1": {"kernel": jnp.zeros((3, 3, 2, 6))},
    "norm1": {"bias": jnp.zeros(6), "scale": jnp.zeros(6)},
    "conv2": {"kernel": jnp.zeros((3, 3, 6, 4))},
    "dense": {"kernel": jnp.zeros((16, 5)), "bias": jnp.zeros(5)},
}
CHANNELS = [
    Tied({"conv1/kernel": -1, "norm1/": 0}, followers={"conv2/kernel": -2}),
    Tied({"conv2/kernel": -1}, followers={"dense/kernel": 0}, scale=2.0),
]


def exactly(message):
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


def slices(params, groups):
    """The weights of every group as one vector, spelled out by indices."""
    if groups is CHANNELS:
        first = [
            np.concatenate(
                [
                    np.ravel(params["conv1"]["kernel"][..., i]),
                    [params["norm1"]["bias"][i], params["norm1"]["scale"][i]],
                ]
            )
            for i in range(6)
        ]
        return [first, [np.ravel(params["conv2"]["kernel"][..., i]) for i in range(4)]]
    raise AssertionError


def test_norms_by_hand():
    params = normal_like(jax.random.key(0), NETWORK)
    found = group_norms(params, CHANNELS)
    for norms, expected in zip(found, slices(params, CHANNELS), strict=True):
        rms = [np.sqrt(np.mean(np.square(x, dtype=np.float64))) for x in expected]
        np.testing.assert_allclose(norms, rms, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "tile"),
    [((1,), (6, 1)), ((1, None), (1, 8)), ((4,), (6, 4)), ((2, 4), (2, 4)), ((4, 3), (4, 3))],
)
def test_blocks_by_hand(shape, tile):
    """Also where the last of them are smaller."""
    v = np.asarray(jax.random.normal(jax.random.key(0), (6, 8)))
    (norms,) = group_norms(v, Blocks(shape))
    rows, columns = range(0, 6, tile[0]), range(0, 8, tile[1])
    expected = [
        [np.sqrt(np.mean(v[i : i + tile[0], j : j + tile[1]] ** 2)) for j in columns] for i in rows
    ]
    np.testing.assert_allclose(norms, expected, rtol=1e-6)
    median = float(np.median(norms))
    w = group_threshold(v, median, Blocks(shape), "hard")
    for a, i in enumerate(rows):
        for b, j in enumerate(columns):
            block = (slice(i, i + tile[0]), slice(j, j + tile[1]))
            kept = norms[a, b] > median
            np.testing.assert_array_equal(w[block], v[block] if kept else 0 * np.abs(v[block]))


def test_heads_lie_in_a_row_and_channels_of_a_flat_map_lie_apart():
    kernel = jnp.arange(12.0).reshape(2, 6)
    (heads,) = group_norms({"q": kernel}, Tied({"q": (1, 3)}))
    np.testing.assert_allclose(heads, [np.sqrt(np.mean(kernel[:, i : i + 3] ** 2)) for i in (0, 3)])
    joined = {"qkv": jnp.arange(24.0).reshape(2, 12), "out": jnp.zeros((4, 2))}
    (heads,) = group_norms(joined, Tied({"qkv": (1, 2)}, followers={"out": (0, 2)}))
    parts = joined["qkv"].reshape(2, 3, 2, 2)  # queries, keys and values, of two heads of size 2
    np.testing.assert_allclose(heads, jnp.sqrt(jnp.mean(parts**2, axis=(0, 1, 3))))
    tied = Tied({"bias": 0}, followers={"rows": 0})
    params = {"bias": jnp.array([0.0, 1.0, 0.0]), "rows": jnp.ones((6, 2))}
    w = group_threshold(params, 0.5, tied)
    np.testing.assert_array_equal(w["rows"][:, 0], [0, 1, 0, 0, 1, 0])


def objective(w, v, h, penalty, parts):
    """The problem that defines the operator, in float64."""
    value = 0.5 * np.sum((w - v) ** 2)
    for part in parts:
        p = np.sum(part)
        value += p * penalty(np.linalg.norm(w[part]) / np.sqrt(p), h)
    return value


def mcp(t, h, a=3.0):
    return h * t - t * t / (2 * a) if t < a * h else a * h * h / 2


PENALTIES = {
    "soft": lambda t, h: h * t,
    "hard": lambda t, h: h * h / 2 if t > 0 else 0.0,
    "firm": mcp,
}


@pytest.mark.parametrize("prox", PENALTIES)
@pytest.mark.parametrize("shape", [(1,), (2, 2)])
def test_the_operator_solves_its_problem(prox, shape, float64):
    """No other point is better: near, far, and with any of the groups at zero."""
    rng = np.random.default_rng(0)
    v, h = rng.normal(size=(4, 6)), 0.9
    w = np.asarray(group_threshold(v, h, Blocks(shape), prox))
    grid = np.asarray(jnp.zeros((4, 6)))
    tile = (4, 1) if shape == (1,) else shape
    parts = []
    for i in range(0, 4, tile[0]):
        for j in range(0, 6, tile[1]):
            part = np.zeros_like(grid, bool)
            part[i : i + tile[0], j : j + tile[1]] = True
            parts.append(part)
    states = {bool(np.all(w[part] == 0)) for part in parts}
    assert states == {True, False}
    best = objective(w, v, h, PENALTIES[prox], parts)
    for scale in (1e-3, 0.1, 1.0):
        for _ in range(200):
            other = w + scale * rng.normal(size=w.shape)
            assert objective(other, v, h, PENALTIES[prox], parts) >= best - 1e-12
    for part in parts:  # the one the other way round
        for factor in (0.0, 0.5, 1.0):
            other = np.where(part, factor * v, w)
            assert objective(other, v, h, PENALTIES[prox], parts) >= best - 1e-12


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 5)])
def test_n_of_m_is_the_projection(n, m):
    """Against all the points of the pattern, block by block."""
    v = np.asarray(jax.random.normal(jax.random.key(n), (2 * m, 3)))
    w = np.asarray(group_threshold(v, float("inf"), NofM(n, m)))
    assert not np.signbit(w[w == 0]).any()
    for start, column in itertools.product((0, m), range(3)):
        block = v[start : start + m, column]
        mine = w[start : start + m, column]
        assert np.sum(mine != 0) == n
        nearest = min(
            np.sum(np.delete(block, kept) ** 2) for kept in itertools.combinations(range(m), n)
        )
        np.testing.assert_allclose(np.sum((mine - block) ** 2), nearest, rtol=1e-6)


@pytest.mark.parametrize("prox", PENALTIES)
def test_n_of_m_solves_its_problem(prox, float64):
    """The n largest are free; the penalty of a point is that of its m - n smallest."""
    rng = np.random.default_rng(1)
    v, h = rng.normal(size=(4, 5)), 0.3
    w = np.asarray(group_threshold(v, h, NofM(2, 4), prox))

    def value(w):
        smallest = np.sort(np.abs(w), axis=0)[:2]
        return 0.5 * np.sum((w - v) ** 2) + sum(PENALTIES[prox](t, h) for t in smallest.ravel())

    assert 0 < np.sum(w == 0) < 10
    for scale in (1e-3, 0.1, 1.0):
        for _ in range(200):
            assert value(w + scale * rng.normal(size=w.shape)) >= value(w) - 1e-12
    for mask in itertools.product((0, 1), repeat=4):
        assert value(v * np.array(mask)[:, None]) >= value(w) - 1e-12


def test_ties_within_a_block():
    v = jnp.array([1.0, -1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 2.0])
    w = group_threshold(v, float("inf"), NofM(2, 4, "", axis=0))
    assert_same_bits(w, jnp.array([1.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0]))


def test_groups_of_one_are_weights():
    v = jax.random.normal(jax.random.key(0), (5, 7))
    one = Blocks((1, 1))
    assert_same_bits(group_threshold(v, 0.5, one, "hard"), hard_threshold(v, 0.5))
    np.testing.assert_allclose(group_threshold(v, 0.5, one), soft_threshold(v, 0.5), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("prox", PENALTIES)
def test_zeros_are_positive_and_nothing_else_moves_at_zero(prox):
    params = normal_like(jax.random.key(0), NETWORK) | {"other": jnp.array([-0.0, 3.0])}
    assert_same_bits(group_threshold(params, 0.0, CHANNELS, prox), params)
    for h in (0.5, 0.8, float("inf")):
        w = jax.jit(lambda p, h=h: group_threshold(p, h, CHANNELS, prox))(params)
        assert_same_bits(w.pop("other"), params["other"])
        for leaf in jax.tree.leaves(w):
            x = np.asarray(leaf)
            assert not np.signbit(x[x == 0]).any()
        gone = np.asarray(group_norms(w, CHANNELS[0])[0] == 0)
        np.testing.assert_array_equal(np.all(w["conv2"]["kernel"] == 0, axis=(0, 1, 3)) >= gone, 1)
    assert not any(np.any(x) for x in jax.tree.leaves(w) if x.shape != (5,) and x.shape != (16, 5))


SHAPES = {"kernel": jnp.zeros((24, 16)), "wide": jnp.zeros((16, 30)), "bias": jnp.zeros(16)}
DESCRIPTIONS = {
    "columns": (Blocks((1,), "kernel|wide"), 16 + 30),
    "blocks": (Blocks((4, 5)), 6 * 4 + 4 * 6),
    "tied": (Tied({"kernel": -1, "bias": 0}, followers={"wide": 0}), 16),
    "both": ([Tied({"kernel": -1, "bias": 0}), Blocks((1, None), "wide", scale=0.7)], 32),
}


def trained(tx, params, steps, update=None):
    """Params after every step of a noisy descent."""
    update = update or jax.jit(tx.update)
    state, history = jax.jit(tx.init)(params), []
    for i in range(steps):
        noise = normal_like(jax.random.fold_in(jax.random.key(5), i), params)
        gradients = jax.tree.map(lambda g, p: 0.3 * g + 0.1 * p, noise, params)
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        history.append(params)
    return history, state


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "prox"),
    [
        ("tied", "hard"),
        ("both", "firm"),
        pytest.param("columns", "firm", marks=pytest.mark.slow),
        pytest.param("blocks", "firm", marks=pytest.mark.slow),
        pytest.param("tied", "firm", marks=pytest.mark.slow),
    ],
)
def test_exactly_so_many_groups_and_for_good(name, prox):
    groups, count = DESCRIPTIONS[name]
    tx = prune_with(optax.sgd(0.1, momentum=0.9), 0.7, 40, groups=groups, prox=prox)
    history, state = trained(tx, normal_like(jax.random.key(0), SHAPES), 40)
    expected = count - round((1 - 0.7) * count)
    frozen = [np.ravel(x == 0) for x in group_norms(history[29], groups)]
    assert sum(x.sum() for x in frozen) == expected
    for params in history[29:]:
        for norms, before in zip(group_norms(params, groups), frozen, strict=True):
            np.testing.assert_array_equal(np.ravel(norms == 0), before)
        for x in map(np.asarray, jax.tree.leaves(params)):
            assert not np.signbit(x[x == 0]).any()
    if name == "tied":
        np.testing.assert_array_equal(np.all(history[-1]["wide"] == 0, axis=1), frozen[0])
    if name == "columns":  # which leaves the bias alone
        assert isinstance(our_state(state).accumulator["bias"], optax.MaskedNode)
        assert (history[-1]["bias"] != 0).all()


@pytest.mark.slow
def test_half_precision_loses_no_group():
    """What is left is not zero after rounding, and the others are."""
    groups, count = DESCRIPTIONS["both"]
    params = normal_like(jax.random.key(0), jax.tree.map(lambda x: x.astype("bfloat16"), SHAPES))
    tx = prune_with(optax.sgd(0.1, momentum=0.9), 0.7, 40, groups=groups)
    history, state = trained(tx, params, 40)
    for params in history[29:]:
        zeros = sum(int(np.sum(x == 0)) for x in group_norms(params, groups))
        assert zeros == count - round((1 - 0.7) * count)
    assert {x.dtype for x in jax.tree.leaves(history[-1])} == {jnp.dtype("bfloat16")}
    assert our_state(state).accumulator["kernel"].dtype == jnp.float32


def test_per_leaf_is_per_description():
    groups = DESCRIPTIONS["both"][0]
    rule = target_sparsity(0.5, per_leaf=True)
    tx = optax.chain(optax.sgd(0.1), dual_averaging(rule, groups=groups, freeze_step=5))
    history, state = trained(tx, normal_like(jax.random.key(0), SHAPES), 8)
    assert [int(np.sum(x == 0)) for x in group_norms(history[-1], groups)] == [8, 8]
    assert len(our_state(state).threshold) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m", "sparsity"), [(2, 4, 0.5), (1, 4, 0.6)])
def test_n_of_m_in_training(n, m, sparsity):
    """Exactly, and with no block that has more than n."""
    tx = prune_with(optax.sgd(0.1, momentum=0.9), sparsity, 40, groups=NofM(n, m, "kernel|wide"))
    history, _ = trained(tx, normal_like(jax.random.key(0), SHAPES), 40)
    total = 24 * 16 + 16 * 30
    zeros = [np.asarray(history[-1][k] == 0) for k in ("kernel", "wide")]
    assert sum(x.sum() for x in zeros) == total - round((1 - sparsity) * total)
    if sparsity == 1 - n / m:
        for x in zeros:
            blocks = x.reshape(-1, m, x.shape[1])
            assert (blocks.sum(1) == m - n).all()
    for k, zero in zip(("kernel", "wide"), zeros, strict=True):
        np.testing.assert_array_equal(history[29][k] == 0, zero)


def test_tied_groups_are_broken_by_position():
    """Columns of one norm: the first of them go, and the others stay."""
    params = jnp.where(jnp.arange(40).reshape(4, 10) % 2 == 0, 0.5, -0.5)
    tx = dual_averaging(target_sparsity(0.7), groups=Blocks((1,)), freeze_step=1)
    state = tx.init(params)
    for _ in range(3):
        updates, state = jax.jit(tx.update)(jnp.zeros_like(params), state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_array_equal(np.all(params == 0, axis=0), np.arange(10) < 7)
        np.testing.assert_array_equal(np.any(params != 0, axis=0), np.arange(10) >= 7)


def test_a_zero_within_a_group_that_is_left_may_move():
    """A bias that starts at zero is no pruned weight."""
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}
    groups = Tied({"kernel": -1, "bias": 0})
    tx = dual_averaging(target_sparsity(0.0), groups=groups, freeze_step=1)
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(params["bias"], [3.0, 3.0])


def test_any_rule_serves():
    """A power of training time, and no freeze: the equation itself, step by step."""
    rule = power_threshold(0.1, c=2.5, mu=0.6)
    groups = Blocks((1,), "kernel")
    tx = optax.chain(optax.sgd(0.1), dual_averaging(rule, groups=groups))
    params = normal_like(jax.random.key(0), SHAPES)
    v, start = params["kernel"], params
    history, state = trained(tx, params, 10)
    for i, after in enumerate(history):
        before = history[i - 1] if i else start
        noise = normal_like(jax.random.fold_in(jax.random.key(5), i), params)["kernel"]
        v = v - 0.1 * (0.3 * noise + 0.1 * before["kernel"])
        h = 2.5 * 0.1**0.5 * ((i + 1) * 0.1) ** 0.6
        np.testing.assert_allclose(after["kernel"], group_threshold(v, h, Blocks((1,))), atol=1e-5)
    np.testing.assert_allclose(our_state(state).threshold, h, rtol=1e-5)
    assert 0 < np.sum(group_norms(history[-1], groups)[0] == 0) < 16


@pytest.mark.slow
def test_plain_python_and_partition():
    """Not compiled it is the same, and beside another optimizer's leaves."""
    params = normal_like(jax.random.key(0), SHAPES)
    groups = DESCRIPTIONS["columns"][0]
    tx = prune_with(optax.sgd(0.1), 0.5, 8, groups=groups)
    compiled, _ = trained(tx, params, 8)
    plain, _ = trained(tx, params, 8, tx.update)
    assert_same_zeros(plain[-1], compiled[-1])
    assert_close(plain[-1], compiled[-1], 1e-5, 1e-6)
    parts = optax.partition(
        {"ours": tx, "sgd": optax.sgd(0.1)}, {"kernel": "ours", "wide": "ours", "bias": "sgd"}
    )
    split, _ = trained(parts, params, 8)
    assert_close(split[-1], compiled[-1], 1e-5, 1e-6)


ROWS, COLUMNS = PartitionSpec("d"), PartitionSpec(None, "d")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "spec"),
    [("tied", ROWS)]
    + [
        pytest.param(name, spec, marks=pytest.mark.slow)
        for name, spec in (("columns", ROWS), ("columns", COLUMNS), ("blocks", COLUMNS))
    ],
)
def test_on_a_mesh(name, spec, devices):
    """Split over devices it is the same; what moves between them is no longer than the norms."""
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,), devices=devices[:2])
    groups, _ = DESCRIPTIONS[name]
    tx = prune_with(optax.sgd(0.1, momentum=0.9), 0.5, 8, groups=groups)
    params = normal_like(jax.random.key(0), SHAPES)
    expected, _ = trained(tx, params, 8)
    place = {
        k: NamedSharding(mesh, spec if x.ndim == len(spec) or len(spec) == 1 else PartitionSpec())
        for k, x in params.items()
    }
    params = jax.device_put(params, place)
    update = jax.jit(tx.update)
    found, _ = trained(tx, params, 8, update)
    assert_same_zeros(found[-1], expected[-1])
    assert_close(found[-1], expected[-1], 1e-4, 1e-5)
    if name == "columns":
        text = update.lower(params, jax.jit(tx.init)(params), params).compile().as_text()
        gathered = re.findall(r"= \w+\[([\d,]*)\][^=\n]* all-gather\(", text)
        assert all(np.prod([int(x) for x in g.split(",") if x]) <= 64 for g in gathered), gathered


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tied({}), "members must name at least one leaf, got {}."),
        (lambda: Tied(["a"]), "members must be a dict from patterns to axes, got ['a']."),
        (
            lambda: Tied({"a": 1.5}),
            "members must hold an axis or (axis, width >= 1), got 1.5 at 'a'.",
        ),
        (
            lambda: Tied({"a": 0}, {"b": (0, 0)}),
            "followers must hold an axis or (axis, width >= 1), got (0, 0) at 'b'.",
        ),
        (lambda: Tied({"a": 0}, scale=0), "scale must be a finite number > 0, got 0."),
        (lambda: Blocks(()), "shape must hold integers >= 1 or None, got ()."),
        (lambda: Blocks((0, 1)), "shape must hold integers >= 1 or None, got (0, 1)."),
        (lambda: Blocks((1,), 7), "pattern must be a regular expression, got 7."),
        (lambda: NofM(0, 4), "n must be a finite number >= 1, got 0."),
        (lambda: NofM(4, 4), "m must be a finite number > 4, got 4."),
        (
            lambda: dual_averaging(0.1, groups=[]),
            "groups must be Tied, Blocks or NofM, or a list of them, got [].",
        ),
        (
            lambda: dual_averaging(0.1, groups="kernel"),
            "groups must be Tied, Blocks or NofM, or a list of them, got 'kernel'.",
        ),
        (
            lambda: dual_averaging(0.1, groups=Blocks((1,)), mask="kernel"),
            "mask must be None where groups are given, got 'kernel'.",
        ),
        (
            lambda: dual_averaging(0.1, groups=Blocks((1,)), scale=2.0),
            "scale must be None where groups are given, got 2.0.",
        ),
        (
            lambda: prune_with(optax.sgd(0.1), 0.6, 10, groups=NofM(2, 4)),
            "sparsity must be at most the 0.5 of zeros that groups allow, got 0.6.",
        ),
        (
            lambda: prune_with(optax.sgd(0.1), 0.6, 10, groups=Blocks((1,)), axis_name="d"),
            "axis_name must be None where groups are given, got 'd'.",
        ),
        (
            lambda: group_threshold(jnp.ones((2, 2)), -1.0, Blocks((1,))),
            "threshold must be a finite number >= 0, got -1.",
        ),
        (
            lambda: group_norms({"a": jnp.ones(4), "b": jnp.ones(6)}, Tied({"a": 0, "b": 0})),
            "members must have a multiple of 4 x 1 entries along the axis, as many as there are "
            "units, got 6 for b.",
        ),
        (
            lambda: group_norms({"a": jnp.ones(4)}, Tied({"a": 1})),
            "members must name an axis of the leaf, got 1 for a of shape (4,).",
        ),
        (
            lambda: group_norms({"a": jnp.ones(4)}, Tied({"a": 0}, {"b": 0})),
            "followers must be found in the path of a leaf, got 'b' for a.",
        ),
        (
            lambda: group_norms({"a": jnp.ones((4, 4))}, [Blocks((1,)), NofM(2, 4)]),
            "groups must shrink every leaf once, got a in two of them.",
        ),
        (
            lambda: group_norms({"a": jnp.ones((6, 4))}, NofM(2, 4)),
            "m must divide the 6 entries of a along axis -2, got 4.",
        ),
        (
            lambda: group_norms({"a": jnp.ones(6)}, NofM(1, 2, "a")),
            "axis must be one of a of shape (6,), got -2.",
        ),
        (
            lambda: group_norms({"a": jnp.ones(6)}, Blocks((1, 1), "a")),
            "shape must have at most the 1 axes of a, got (1, 1).",
        ),
        (
            lambda: group_norms({"a": jnp.arange(4).reshape(2, 2)}, Blocks((1,))),
            "params that are penalised must be real floating point, got int32 at a; a mask that "
            "is False there leaves it out.",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with exactly(message):
        make()
