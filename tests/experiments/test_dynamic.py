"""Topologies that change: what goes, what comes, and when."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.methods import acdc, rigl
from experiments.methods._allocation import Group
from experiments.methods._dynamic import Rewiring, cosine_fraction, drop_and_grow
from experiments.methods._masks import with_masks
from experiments.methods.dpf import with_feedback

from .test_masks import is_positive_zero, kernels, walk


def test_the_smallest_go_and_the_largest_growth_scores_come():
    keep = jnp.array([True, True, True, True, False, False, False])
    weights = jnp.array([0.1, -3.0, 0.2, 4.0, 0.0, 0.0, 0.0])
    growth = jnp.array([0.0, 9.0, 0.5, 9.0, 2.0, 1.0, 3.0])
    mask, grown = drop_and_grow(keep, weights, 0.5, growth)
    np.testing.assert_array_equal(mask, np.array([0, 1, 0, 1, 1, 0, 1], bool))
    np.testing.assert_array_equal(grown, np.array([0, 0, 0, 0, 1, 0, 1], bool))
    # A weight that has just been dropped may come back.
    mask, _ = drop_and_grow(keep, weights, 0.5, growth.at[0].set(5.0))
    np.testing.assert_array_equal(mask, np.array([1, 1, 0, 1, 0, 0, 1], bool))


def test_without_a_gradient_what_was_dropped_comes_back_and_nothing_grows():
    keep = jnp.array([False, True, True, False, True])
    mask, grown = drop_and_grow(keep, jnp.array([0.0, 1.0, 2.0, 0.0, 3.0]), 0.7, jnp.zeros(5))
    np.testing.assert_array_equal(mask, keep)
    np.testing.assert_array_equal(grown, np.array([0, 1, 1, 0, 0], bool))


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.99, 1.0])
def test_the_count_never_changes(fraction):
    keys = jax.random.split(jax.random.key(0), 3)
    keep = jax.random.bernoulli(keys[0], 0.7, (20, 30))
    weights = jnp.where(keep, jax.random.normal(keys[1], keep.shape), 0)
    mask, grown = drop_and_grow(keep, weights, fraction, jax.random.uniform(keys[2], keep.shape))
    assert mask.sum() == keep.sum()
    assert grown.sum() == int(np.float32(fraction) * keep.sum())


def test_the_drop_fraction_is_half_a_cosine():
    for n, wanted in ((0, 0.3), (25, 0.3 * (2 + 2**0.5) / 4), (50, 0.15), (100, 0.0)):
        assert float(cosine_fraction(0.3, n, 100)) == pytest.approx(wanted, abs=1e-6)


def test_one_change_of_rigl_by_hand():
    settings = Rewiring(update_every=1, drop_fraction=0.5)
    rule = rigl.grow_by_gradient([Group((0,), 6, 0.5)], settings, 100)
    tx = with_masks(optax.sgd(0.0, momentum=0.9), rule, lambda p: jax.tree.map(lambda _: True, p))
    params = {"kernel": jnp.array([[5.0, -0.1, 3.0, 0.0, 0.0, 0.0]])}
    state = tx.init(params)._replace(keep={"kernel": params["kernel"] != 0})
    gradient = {"kernel": jnp.array([[1.0, 0.1, 1.0, -0.3, -2.0, 1.0]])}
    updates, state = tx.update(gradient, state, params)
    # floor(0.4998 * 3) = 1 goes, the smallest; the largest |gradient| of those without weight comes
    np.testing.assert_array_equal(state.keep["kernel"], [[True, False, True, False, True, False]])
    new = optax.apply_updates(params, updates)["kernel"]
    np.testing.assert_array_equal(new, [[5.0, 0.0, 3.0, 0.0, 0.0, 0.0]])
    assert is_positive_zero(new[new == 0]).all()
    np.testing.assert_allclose(optax.tree.get(state, "trace")["kernel"], [[1.0, 0, 1.0, 0, 0, 0]])
    # From the next update on the new weight has its own gradient, and only that.
    _, state = tx.update(gradient, state, {"kernel": new})
    assert float(optax.tree.get(state, "trace")["kernel"][0, 4]) == -2.0


@pytest.mark.parametrize("total", [33, 100, 20_000])
def test_phases_of_acdc_alternate_and_end_compressed(total):
    compress, decompress = acdc.switches(acdc.Settings(), total)
    events = sorted([(n, True) for n in compress] + [(n, False) for n in decompress])
    assert [sparse for _, sparse in events] == [i % 2 == 0 for i in range(len(events))]
    assert events[-1][1]
    assert compress[0] == round(0.1 * total)
    assert compress[-1] == total - round(0.15 * total)
    assert compress[-1] - decompress[-1] >= round(0.1 * total)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (acdc.Settings(0.1, 0.05, 0.1, 0.15), ([10, 20, 30, 40, 50, 60, 70, 85], [15, 75])),
        (acdc.Settings(0.2, 0.2, 0.2, 0.2), ([20, 80], [40])),
        (acdc.Settings(0.2, 0.4, 0.2, 0.2), ([20, 80], [60])),
        (acdc.Settings(0.2, 0.4, 0.0, 0.2), ([20, 80], [60])),
        (acdc.Settings(0.2, 0.6, 0.0, 0.2), ([20, 80], [])),
        (acdc.Settings(0.9, 0.1, 0.0, 0.1), ([90], [])),
    ],
)
def test_phases_of_acdc_by_hand(settings, wanted):
    compress, decompress = acdc.switches(settings, 100)
    assert compress == wanted[0]
    assert (decompress[0], decompress[-1]) == tuple(wanted[1]) if len(wanted[1]) > 1 else True
    if len(wanted[1]) < 2:
        assert decompress == wanted[1]


def test_dense_phases_of_acdc_move_every_weight():
    rule = acdc.alternate([Group((1,), 12, 0.75)], [2, 6], [4])
    zeros = []
    for _, (params, state) in enumerate(walk(with_masks(optax.sgd(0.1, 0.9), rule, kernels), 8)):
        zero = np.asarray(params["kernel"] == 0)
        assert is_positive_zero(params["kernel"][zero]).all()
        zeros.append((int(zero.sum()), int((~state.keep["kernel"]).sum())))
    # After update 4 the masks are lifted, and at 5 the weights have moved.
    assert zeros == [(0, 0), (0, 0), (9, 9), (9, 9), (9, 0), (0, 0), (9, 9), (9, 9), (9, 9)]


def test_feedback_moves_masked_weights_by_the_gradient_at_the_pruned_ones():
    """f(w) = 1/2 |w - target|^2: a weight that is masked out still goes to its target."""
    target = {"kernel": jnp.array([[1.0, -2.0, 0.5, 3.0]])}
    tx = with_feedback(
        optax.sgd(0.25), [Group((0,), 4, 0.5)], 1, 2, lambda p: jax.tree.map(lambda _: True, p)
    )
    params = {"kernel": jnp.array([[2.0, -1.0, 0.1, -4.0]])}
    dense, state, masked = np.asarray(params["kernel"]), tx.init(params), []
    for n in range(1, 6):
        gradient = jax.tree.map(jnp.subtract, params, target)
        updates, state = jax.jit(tx.update)(gradient, state, params)
        params = optax.apply_updates(params, updates)
        dense = dense - 0.25 * np.asarray(gradient["kernel"])
        np.testing.assert_allclose(state.dense["kernel"], dense, rtol=1e-6)
        kept = np.asarray(state.keep["kernel"])
        if n == 1 or n % 2 == 0:  # the masks are made anew
            np.testing.assert_array_equal(kept, np.abs(dense) >= np.sort(np.abs(dense))[0, 2])
        np.testing.assert_allclose(params["kernel"], np.where(kept, dense, 0), rtol=1e-6)
        assert is_positive_zero(params["kernel"][~kept]).all()
        masked.append(kept)
    assert any((after & ~before).any() for before, after in itertools.pairwise(masked))
