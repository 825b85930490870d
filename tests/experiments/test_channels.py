"""Networks without some of their channels give the same logits, and are of the size they say."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import models
from experiments.flops import forward_flops
from experiments.models import channels
from experiments.models.widths import units
from grda_optax import group_norms, group_threshold

from ..grda_optax.trees import normal_like
from .conftest import exactly

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


def test_every_width_has_its_ties():
    assert set(channels.TIES) == set(models.WIDTHS)


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
            "small_cnn_sixteenth, got 'lenet5'."
        ),
    ):
        channels.ties("lenet5")
    with pytest.raises(
        ValueError, match=exactly("width must be a number, or 2 integers >= 1, got (3, 4, 5).")
    ):
        units((300, 100), (3, 4, 5))
