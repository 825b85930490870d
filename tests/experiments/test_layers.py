"""Which weights go from which layer: exactly as many as asked for, and the right ones."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.config import Config
from experiments.methods import _layers, amc, sensitivity
from experiments.methods._prune_trained import network_scores

from .conftest import exactly

FLAGS = {"a": True, "b": False, "c": True}


def network():
    """Two layers, with ties and a zero, and a leaf between them that is none."""
    return {
        "a": jnp.array([[0.1, -0.5], [0.3, 0.5]]),
        "b": jnp.array([0.01]),
        "c": jnp.array([[-0.2, 0.5, 0.0], [0.4, -0.3, 7.0]]),
    }


def test_the_largest_of_all_layers_are_kept_and_of_equal_ones_the_last():
    layers = _layers.penalised_leaves(network(), FLAGS)
    assert _layers.layer_sizes(network(), FLAGS) == [4, 6]
    magnitudes = np.abs(np.concatenate([np.ravel(layer) for layer in layers]))
    for zeros in range(11):
        keep = np.concatenate([np.ravel(k) for k in _layers.keep_largest(layers, zeros)])
        assert keep.sum() == 10 - zeros
        if 0 < zeros < 10:
            assert magnitudes[keep].min() >= magnitudes[~keep].max()
    # 0, 0.1, 0.2, two of 0.3, 0.4; then of three times 0.5 the first.
    keep = _layers.keep_largest(layers, 7)
    np.testing.assert_array_equal(keep[0], [[False, False], [False, True]])
    np.testing.assert_array_equal(keep[1], [[False, True, False], [False, False, True]])


def test_the_kept_ones_are_the_nearest_point_with_so_many_nonzeros():
    """The definition of the projection, against every choice."""
    v = np.random.default_rng(0).normal(size=7).astype(np.float32)
    for left in range(8):
        (keep,) = _layers.keep_largest([jnp.asarray(v)], 7 - left)
        distance = np.sum(v[~np.asarray(keep)] ** 2)
        choices = itertools.combinations(range(7), 7 - left)
        least = min(np.sum(v[list(gone)] ** 2) for gone in choices)
        assert distance == pytest.approx(least)


def test_every_layer_loses_its_own():
    layers = _layers.penalised_leaves(network(), FLAGS)
    keep = _layers.keep_largest_by_layer(layers, [1, 4])
    pruned = _layers.replace_penalised(network(), FLAGS, _layers.apply_masks(layers, keep))
    np.testing.assert_array_equal(pruned["a"], jnp.array([[0, -0.5], [0.3, 0.5]]))
    np.testing.assert_array_equal(pruned["c"], jnp.array([[0, 0.5, 0], [0, 0, 7.0]]))
    assert not np.signbit(np.asarray(pruned["c"])).any()
    np.testing.assert_array_equal(pruned["b"], network()["b"])


def test_scores_are_those_of_the_network_pruned_so():
    seen = _layers.layer_scores(lambda p: (p["a"], p["b"], p["c"]), network(), FLAGS)([1, 4])
    np.testing.assert_array_equal(seen[0], jnp.array([[0, -0.5], [0.3, 0.5]]))
    np.testing.assert_array_equal(seen[1], network()["b"])
    np.testing.assert_array_equal(seen[2], jnp.array([[0, 0.5, 0], [0, 0, 7.0]]))


def test_the_scores_of_a_network_are_those_of_evaluation(make_job, tmp_path):
    job = make_job(tmp_path / "unused")
    params, statistics = job.start()
    flags = job.penalised(params)
    examples = jax.tree.map(lambda x: jnp.asarray(x[-100:]), job.dataset.train)
    scores = network_scores(job.model, params, statistics, flags, examples)
    zeros = [5000, 0, 1000]  # the head goes as a whole
    accuracy, loss = scores(zeros)
    layers = _layers.penalised_leaves(params, flags)
    keep = _layers.keep_largest_by_layer(layers, zeros)
    pruned = _layers.replace_penalised(params, flags, _layers.apply_masks(layers, keep))
    logits, _ = job.model.apply(pruned, statistics, examples.inputs, False)
    assert accuracy == pytest.approx(np.mean(np.argmax(logits, -1) == examples.labels))
    assert loss == pytest.approx(np.log(10), rel=1e-6)
    assert scores([0, 0, 0])[1] != loss


def three_layers():
    """A loss that the middle layer's weights do not enter, and the first one's most."""
    random = np.random.default_rng(5)
    params = {name: jnp.asarray(random.normal(size=(10, 10))) for name in "abc"}
    weight = {"a": 10.0, "b": 0.0, "c": 1.0}

    def loss(pruned):
        return sum(weight[n] * jnp.sum((pruned[n] - params[n]) ** 2) for n in "abc")

    return _layers.layer_scores(loss, params, dict.fromkeys("abc", True))


@pytest.mark.parametrize(
    ("sparsity", "most", "useless"),
    [(0.2, 1.0, 60), (1 / 3, 1.0, 100), (0.3, 0.8, 80)],
)
def test_greedy_sensitivity_takes_the_useless_layer_first(sparsity, most, useless):
    """As far as is asked, as it goes, and as it may."""
    sizes = [100, 100, 100]
    zeros = sensitivity.allocate(three_layers(), sizes, sparsity, increment=0.02, most=most)
    assert zeros[1] == useless
    assert sum(zeros) == round(300 * sparsity)


def test_greedy_sensitivity_then_takes_what_costs_least():
    """The third layer costs a tenth of the first, so it loses far more, but not all."""
    zeros = sensitivity.allocate(three_layers(), [100, 100, 100], 0.6, increment=0.02, most=1.0)
    assert sum(zeros) == 180
    assert zeros[1] == 100
    assert 0 < zeros[0] < zeros[2] < 80


@pytest.mark.slow
@pytest.mark.parametrize("sparsity", [0.0, 0.123, 0.5, 0.97, 0.999])
def test_every_allocation_is_exact(sparsity):
    shapes = [(3, 3, 1, 7), (301, 11), (11, 3), (1, 2)]
    sizes = [int(np.prod(shape)) for shape in shapes]
    room = _layers.most_zeros(sizes, sparsity, 0.9)
    random = np.random.default_rng(0)

    def score(zeros):
        assert all(0 <= z <= m for z, m in zip(zeros, room, strict=True))
        return random.uniform()

    wanted = round(sparsity * sum(sizes))
    assert sum(sensitivity.allocate(score, sizes, sparsity, increment=0.1, most=0.9)) == wanted
    zeros = amc.allocate(score, shapes, sparsity, episodes=20, exploring=20, most=0.9, seed=0)
    assert sum(zeros) == wanted


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Config(sensitivity=sensitivity.Settings(begin=1.0)),
            "sensitivity.begin must be above 0 and below 1, got 1.0.",
        ),
        (
            lambda: Config(sensitivity=sensitivity.Settings(increment=0.0)),
            "sensitivity.increment must be in (0, 1], got 0.0.",
        ),
        (
            lambda: Config(amc=amc.Settings(episodes=0)),
            "amc.episodes must be an integer >= 1, got 0.",
        ),
        (lambda: Config(amc=amc.Settings(most=1.5)), "amc.most must be at most 1, got 1.5."),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(ValueError, match=exactly(message)):
        make()
