"""Networks without some of their channels give the same logits, and are of the size they say."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import models
from experiments.flops import forward_flops
from experiments.methods import dense_narrow, l1_channels
from experiments.methods._channels import width_by_flops
from experiments.methods._masks import Moment
from experiments.models import channels
from experiments.models.widths import units
from grda_optax import group_norms, group_threshold

from ..grda_optax.trees import normal_like
from .conftest import SHORT, change, exactly

SHAPE = (28, 28, 1)
IMAGES = np.random.default_rng(0).integers(0, 256, (50, *SHAPE)).astype(np.uint8)


@functools.partial(jax.jit, static_argnums=0)
def network(name):
    """Params and statistics of no particular value, so that no two channels are alike."""
    params, statistics = models.build(name, SHAPE, 10).init(jax.random.key(0))
    noise = normal_like(jax.random.key(1), (params, statistics), 0.1)
    params, statistics = jax.tree.map(jnp.add, (params, statistics), noise)
    return params, jax.tree.map(jnp.abs, statistics)


def logits(name, params, statistics, width):
    model = models.build(name, SHAPE, 10, width=width)
    return jax.jit(lambda p, s: model.apply(p, s, IMAGES, False)[0])(params, statistics)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "small_cnn"])
def test_compacted_networks_give_the_same(name):
    params, statistics = network(name)
    ties = channels.ties(name)
    # Each layer with the threshold at which half of its units go.
    medians = [float(np.median(x)) for x in jax.jit(lambda p: group_norms(p, ties))(params)]
    scaled = [dataclasses.replace(x, scale=m) for x, m in zip(ties, medians, strict=True)]
    params = jax.jit(lambda p: group_threshold(p, 1.0, scaled, "hard"))(params)
    small = channels.compacted(name, params, statistics)
    assert small.width == tuple(n // 2 for n in channels.width_of(name, params))
    expected = logits(name, params, statistics, None)
    assert np.std(expected) > 0.1
    found = logits(name, small.params, small.statistics, small.width)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    fresh, _ = jax.eval_shape(
        models.build(name, SHAPE, 10, width=small.width).init, jax.random.key(0)
    )
    assert jax.tree.map(jnp.shape, small.params) == jax.tree.map(jnp.shape, fresh)


def test_flops_by_hand():
    """Two a product; a convolution at 14 x 14, 7 x 7 and 4 x 4 positions."""
    mlp = models.build("mlp", (28, 28, 1), 10)
    assert forward_flops(mlp, (28, 28, 1)) == 2 * (784 * 300 + 300 * 100 + 100 * 10)
    cnn = models.build("small_cnn", (28, 28, 1), 10, width=(3, 4, 5, 6))
    products = 9 * (196 * 3 + 49 * 3 * 4 + 16 * 4 * 5) + 4 * 5 * 6 + 6 * 10
    assert forward_flops(cnn, (28, 28, 1)) == 2 * products


def test_what_has_no_units_to_cut_is_refused():
    with pytest.raises(
        ValueError,
        match=exactly(
            "model (for channels) must be one of mlp, small_cnn, small_cnn_quarter, "
            "small_cnn_sixteenth, lenet5, vgg16, vgg16_bn, wrn_28_10, resnet50, char_transformer, "
            "got 'alexnet'."
        ),
    ):
        channels.ties("alexnet")
    with pytest.raises(
        ValueError, match=exactly("width must be a number, or 2 integers >= 1, got (3, 4, 5).")
    ):
        units((300, 100), (3, 4, 5))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "model"),
    [
        ("channels", "small_cnn_quarter"),
        ("channels", "lenet5"),
        ("l1_channels", "small_cnn_quarter"),
        ("l1_channels", "mlp"),
    ],
)
def test_methods_end_with_the_network_of_that_size(train, make_job, tmp_path, model, method):
    """That of `dense_narrow` by operations; cut out, it says the same."""
    config = change(SHORT, method=(method,), epochs=1, model=model, sparsity=0.5)
    trained = train(tmp_path / "run", config)
    small = channels.compacted(model, trained.params, trained.statistics)
    narrow = change(config, dense_narrow=dense_narrow.Settings(by="flops"))
    job = make_job(tmp_path / "narrow", narrow)
    width = width_by_flops(job)
    params, _ = job.with_width(width).start()
    assert small.width == channels.width_of(model, params)
    images = job.dataset.test.inputs
    shape = images.shape[1:]
    full = forward_flops(job.model, shape)
    assert forward_flops(job.with_width(small.width).model, shape) == pytest.approx(
        0.5 * full, rel=0.1
    )
    found, expected = (
        m.apply(p, s, images, False)[0]
        for m, p, s in (
            (job.with_width(small.width).model, small.params, small.statistics),
            (job.model, trained.params, trained.statistics),
        )
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    for leaf in jax.tree.leaves(trained.params):
        assert not np.signbit(leaf[leaf == 0]).any()


def test_filters_of_smallest_l1_norm_go_with_what_belongs_to_them():
    """Not those of smallest l2 norm, and with the reader's rows."""
    params = {
        "dense1": {"kernel": jnp.array([[3.0, 2.0, 9.0], [0.0, 2.0, 9.0]]), "bias": jnp.ones(3)},
        "dense2": {"kernel": jnp.ones((3, 4)), "bias": jnp.arange(4.0)},
        "head": {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)},
    }
    keep = jax.tree.map(lambda x: jnp.ones(x.shape, bool), params)
    keep["head"]["bias"] = jnp.ones((), bool)
    rule = l1_channels.remove_filters("mlp", 2 / 3, 5)
    for count in (4, 5):
        masks, weights = rule(Moment(jnp.array(count), keep, params, params))
    assert weights is params
    np.testing.assert_array_equal(masks["dense1"]["kernel"], [[0, 1, 1]] * 2)
    np.testing.assert_array_equal(masks["dense1"]["bias"], [0, 1, 1])
    np.testing.assert_array_equal(masks["dense2"]["kernel"][:, 3], [0, 1, 1])
    # Of equal ones the first goes.
    np.testing.assert_array_equal(masks["dense2"]["bias"], [0, 1, 1, 1])
    assert masks["head"]["bias"].shape == ()
