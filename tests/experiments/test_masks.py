"""Weights that are masked out stay +0.0, as many as should, and nothing of them is kept."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.methods._allocation import Group, apportion, by_leaf, erdos_renyi_kernel
from experiments.methods._masks import fixed, magnitudes, with_masks, without_lowest
from experiments.methods._once import prune_once
from experiments.methods._ramp import cubic_ramp, prune_along_ramp
from experiments.methods.magnitude_v2 import layer_zeros

BASES = {
    "momentum": lambda: optax.sgd(0.1, momentum=0.9),
    "decay": lambda: optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, momentum=0.9)),
    "adamw": lambda: optax.adamw(0.1, weight_decay=0.1),
    "lion": lambda: optax.lion(0.1, weight_decay=0.1),
}
EVERYTHING = Group((1,), 12, 0.75)


def kernels(params):
    return jax.tree.map(lambda x: x.ndim >= 2, params)


def tree(seed=0):
    keys = jax.random.split(jax.random.key(seed))
    return {"bias": jax.random.normal(keys[0], (4,)), "kernel": jax.random.normal(keys[1], (3, 4))}


def walk(tx, steps, gradient=lambda n, params: tree(100 + n)):
    """The params and the state after every update, the first before any."""
    params = tree()
    state, update = tx.init(params), jax.jit(tx.update)
    yield params, state
    for n in range(1, steps + 1):
        updates, state = update(gradient(n, params), state, params)
        params = optax.apply_updates(params, updates)
        yield params, state


def is_positive_zero(x):
    return (np.asarray(x) == 0) & ~np.signbit(x)


@pytest.mark.parametrize("base", BASES)
def test_masked_weights_and_their_moments_are_positive_zeros(base):
    """With dense gradients, momentum and decay, at every update after the pruning."""
    base = BASES[base]()
    tx = with_masks(base, prune_once([EVERYTHING], 3), kernels)
    for n, (params, state) in enumerate(walk(tx, 8)):
        gone = ~np.asarray(state.keep["kernel"])
        assert gone.sum() == (9 if n >= 3 else 0)
        assert is_positive_zero(params["kernel"][gone]).all()
        assert (params["kernel"][~gone] != 0).all()
        moments = []
        optax.tree.map_params(base, moments.append, state.base)
        assert moments
        for x in moments:
            if x.ndim == 2:
                assert is_positive_zero(x[gone]).all()


@pytest.mark.parametrize("base", BASES)
def test_the_rest_trains_as_if_there_were_no_others(base):
    """What is left, and the leaves that are not pruned, follow the base optimizer."""
    base = BASES[base]()
    alone = list(walk(optax.with_extra_args_support(base), 8))
    masked = list(walk(with_masks(base, prune_once([EVERYTHING], 3), kernels), 8))
    for (a, _), (b, state) in zip(alone, masked, strict=True):
        kept = np.asarray(state.keep["kernel"])
        np.testing.assert_allclose(a["kernel"][kept], b["kernel"][kept], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(a["bias"], b["bias"], rtol=1e-5, atol=1e-6)


def test_rules_see_the_dense_gradient_and_the_base_does_not():
    """A rule that masks by the gradient, on an optimizer that keeps a sum of what it saw."""

    def positive(moment):
        keep = {**moment.keep, "kernel": moment.gradient["kernel"] > 0}
        return keep, moment.weights

    base = optax.trace(decay=1.0)
    before = None
    for n, (_, state) in enumerate(walk(with_masks(base, positive, kernels), 5)):
        if n > 1:
            gradient = np.asarray(tree(100 + n)["kernel"])
            now = gradient > 0
            np.testing.assert_array_equal(state.keep["kernel"], now)
            new = now & ~before
            assert new.any()
            assert is_positive_zero(state.base.trace["kernel"][new]).all()
        before = np.asarray(state.keep["kernel"])


def test_the_lowest_go_by_rank_and_none_comes_back():
    keep = {"a": jnp.array([True, True, False, True]), "b": jnp.array([[True, True]])}
    scores = {"a": jnp.array([5.0, 1.0, 99.0, 1.0]), "b": jnp.array([[1.0, -2.0]])}
    group = Group((0, 1), 6, 0.5)
    for gone, (a, b) in {
        1: ([1, 1, 0, 1], [1, 1]),
        2: ([1, 1, 0, 1], [1, 0]),
        3: ([1, 0, 0, 1], [1, 0]),  # of three equal ones the first
        5: ([1, 0, 0, 0], [0, 0]),
    }.items():
        left = without_lowest(scores, keep, [group], [gone])
        np.testing.assert_array_equal(left["a"], np.array(a, bool))
        np.testing.assert_array_equal(left["b"], np.array([b], bool))


def test_groups_are_pruned_each_on_its_own():
    weights = {"large": jnp.array([[3.0, -4.0], [5.0, 6.0]]), "small": jnp.array([[0.1, -0.2]])}
    keep = jax.tree.map(lambda x: jnp.ones(x.shape, bool), weights)
    groups = by_leaf({0: (2, 2), 1: (1, 2)}, [2, 1])
    left = without_lowest(magnitudes(weights), keep, groups, [g.zeros for g in groups])
    np.testing.assert_array_equal(left["large"], [[False, False], [True, True]])
    np.testing.assert_array_equal(left["small"], [[False, True]])


def test_the_ramp_is_cubic_and_ends_with_the_exact_count():
    group = Group((0,), 1000, 0.8)
    for n in range(41):
        (zeros,) = cubic_ramp([group], jnp.int32(n), 40)
        assert abs(int(zeros) - 800 * (1 - (1 - n / 40) ** 3)) <= 0.5 + 1e-3
    for n in (40, 41, 1000):
        assert [int(x) for x in cubic_ramp([group], jnp.int32(n), 40)] == [800]
    # 0.25 * 10 is 2.5: as Python rounds it.
    assert int(cubic_ramp([Group((0,), 10, 0.25)], jnp.int32(9), 9)[0]) == round(2.5)


def test_pruning_along_the_ramp_happens_when_it_is_due():
    tx = with_masks(optax.sgd(0.0), prune_along_ramp([EVERYTHING], 7, 3), kernels)
    counts = [int((params["kernel"] == 0).sum()) for params, _ in walk(tx, 10)]
    at = [round(9 * (1 - (1 - n / 7) ** 3)) for n in (3, 6)]
    assert counts == [0, 0, 0, at[0], at[0], at[0], at[1], 9, 9, 9, 9]


def test_pruning_once_takes_the_smallest_weights_of_that_moment():
    history = [p["kernel"] for p, _ in walk(with_masks(optax.sgd(1.0), fixed, kernels), 4)]
    tx = with_masks(optax.sgd(1.0), prune_once([EVERYTHING], 4), kernels)
    *_, (params, _) = walk(tx, 4)
    size = np.abs(np.asarray(history[4])).ravel()
    wanted = (np.argsort(np.argsort(size)) >= 9).reshape(3, 4)
    np.testing.assert_array_equal(params["kernel"] != 0, wanted)


SHAPES = [(3, 3, 1, 8), (3, 3, 8, 16), (64, 300), (300, 100), (100, 10)]


@pytest.mark.parametrize("kept", [0, 1, 500, 5_000, 30_000, sum(map(math.prod, SHAPES))])
def test_erdos_renyi_kernel_sums_to_the_count(kept):
    counts = erdos_renyi_kernel(kept, SHAPES)
    assert sum(counts) == kept
    sizes = [math.prod(shape) for shape in SHAPES]
    assert all(0 <= n <= size for n, size in zip(counts, sizes, strict=True))
    scales = [
        n / sum(shape)
        for n, size, shape in zip(counts, sizes, SHAPES, strict=True)
        if n < size  # the others are dense
    ]
    if scales:  # one epsilon for all, but for rounding
        assert max(scales) - min(scales) <= 2 / min(map(sum, SHAPES))


def test_erdos_renyi_kernel_by_hand():
    """Densities in the ratio (2 + 2) / 4 to (10 + 10) / 100; the first is full at 24 of 104."""
    assert erdos_renyi_kernel(12, [(2, 2), (10, 10)]) == [2, 10]
    assert erdos_renyi_kernel(24, [(2, 2), (10, 10)]) == [4, 20]
    assert erdos_renyi_kernel(54, [(2, 2), (10, 10)]) == [4, 50]


def test_apportion_rounds_the_largest_remainders_up():
    assert apportion(10, [1.6, 2.7, 5.7], [9, 9, 9]) == [1, 3, 6]
    assert apportion(10, [2.5, 2.5, 5.0], [9, 9, 9]) == [3, 2, 5]
    assert apportion(6, [1.9, 1.9, 2.2], [1, 2, 9]) == [1, 2, 3]


def test_magnitude_v2_spares_the_ends():
    sizes = [100, 1000, 2000, 500]
    assert layer_zeros(0.5, sizes, 0, 3, 0.8) == [0, 514, 1029, 257]  # 1800 of 3500 by size
    zeros = layer_zeros(0.9, sizes, 0, 3, 0.8)
    assert sum(zeros) == 3240
    assert zeros == [0, 947, 1893, 400]
    with pytest.raises(ValueError, match=r"^sparsity must be at most 0\.9444 for magnitude_v2 on "):
        layer_zeros(0.95, sizes, 0, 3, 0.8)
