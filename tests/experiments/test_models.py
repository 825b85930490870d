"""Networks as pure functions give what their modules give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import models
from experiments.models.axis import DEVICE_AXIS

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1)).astype(np.uint8)
COUNTS = {"mlp": 266_610, "small_cnn": 143_114}


@pytest.mark.parametrize("name", models.MODELS)
def test_parameter_counts(name):
    params, _ = models.build(name, (28, 28, 1), 10).init(jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(params)) == COUNTS[name]


@pytest.mark.parametrize("name", models.MODELS)
def test_apply_is_the_module(name):
    model = models.build(name, (28, 28, 1), 10, mean=0.3, std=0.4)
    params, statistics = model.init(jax.random.key(1))
    logits, unchanged = model.apply(params, statistics, jnp.asarray(IMAGES), False)
    module = models.MODELS[name]((28, 28, 1), 10, rngs=nnx.Rngs(params=jax.random.key(1)))
    module.eval()
    np.testing.assert_allclose(logits, module((IMAGES / 255 - 0.3) / 0.4), rtol=2e-4, atol=2e-5)
    jax.tree.map(np.testing.assert_array_equal, unchanged, statistics)


def test_training_moves_the_statistics_and_leaves_the_arguments_alone():
    model = models.build("small_cnn", (28, 28, 1), 10)
    params, statistics = model.init(jax.random.key(1))
    before = jax.tree.map(np.array, statistics)
    apply = jax.vmap(
        lambda images: model.apply(params, statistics, images, True), axis_name=DEVICE_AXIS
    )
    _, after = apply(jnp.asarray(IMAGES)[None])
    jax.tree.map(np.testing.assert_array_equal, statistics, before)
    moved = jax.tree.map(lambda a, b: bool(np.any(a[0] != b)), after, before)
    assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3), (1, 1, 1)])
def test_other_image_shapes(name, shape):
    model = models.build(name, shape, 7)
    params, statistics = model.init(jax.random.key(0))
    logits, _ = model.apply(params, statistics, jnp.zeros((2, *shape), jnp.uint8), False)
    assert logits.shape == (2, 7)
