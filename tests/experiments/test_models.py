"""Networks as pure functions give what their modules give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import models
from experiments.models.axis import DEVICE_AXIS
from experiments.models.small_cnn import SmallCNN

LARGE_MODELS = ["vgg16", "vgg16_bn", "wrn_28_10", "resnet50"]
IMAGE_MODELS = [name for name in models.MODELS if name not in models.TEXT_MODELS]
SMALL_MODELS = [name for name in IMAGE_MODELS if name not in LARGE_MODELS]
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1)).astype(np.uint8)
# By hand: each kernel, each bias, and a scale and a bias for each channel that is normalised.
COUNTS = {
    "mlp": 266_610,
    "small_cnn": 143_114,
    "small_cnn_quarter": 9_290,
    "small_cnn_sixteenth": 674,
    "lenet5": 61_706,
}


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_parameter_counts(name):
    params, _ = jax.eval_shape(models.build(name, (28, 28, 1), 10).init, jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(params)) == COUNTS[name]


@pytest.mark.parametrize(
    "name",
    [x if x == "mlp" else pytest.param(x, marks=pytest.mark.slow) for x in SMALL_MODELS],
)
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


def test_widths_never_fall_below_two():
    module = SmallCNN((28, 28, 1), 10, rngs=nnx.Rngs(0), width=1 / 1000)
    params = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    assert params["conv3"]["kernel"].shape == (3, 3, 2, 2)
    assert params["head"]["kernel"].shape == (2, 10)


@pytest.mark.slow
def test_lenets_border_is_that_of_the_first_convolution():
    """On 28 x 28 it is LeNet-5 with a first convolution that keeps the side."""
    module = models.MODELS["lenet5"]((28, 28, 1), 10, rngs=nnx.Rngs(0))
    images = jnp.asarray(IMAGES, jnp.float32)
    padded = jnp.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    np.testing.assert_allclose(module(images), module(padded), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SMALL_MODELS)
@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3), (1, 1, 1)])
def test_other_image_shapes(name, shape):
    model = models.build(name, shape, 7)

    def logits(key):
        return model.apply(*model.init(key), jnp.zeros((2, *shape), jnp.uint8), False)[0]

    assert jax.eval_shape(logits, jax.random.key(0)).shape == (2, 7)
