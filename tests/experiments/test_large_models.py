"""The networks of the paper: sizes as published, and the same numbers on any number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, Mesh, PartitionSpec

from experiments import models
from experiments.flops import forward_flops
from experiments.models.axis import DEVICE_AXIS
from experiments.models.dropout import Dropout
from experiments.models.initializers import linear
from experiments.models.wide_resnet import WideResNet

CIFAR, IMAGENET = (32, 32, 3), (224, 224, 3)


def leaves(name, shape, classes):
    return jax.eval_shape(models.build(name, shape, classes).init, jax.random.key(0))


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("name", "shape", "classes", "published"),
    [
        # Thirteen convolutions and three dense layers, each with a bias.
        ("vgg16", CIFAR, 10, 14_714_688 + 2 * (512 * 512 + 512) + 512 * 10 + 10),
        # And a scale and a bias for each of the 4,224 channels.
        ("vgg16_bn", CIFAR, 10, 15_245_130 + 2 * 4_224),
        ("wrn_28_10", CIFAR, 10, 36_489_290),  # as the authors' logs print it
        pytest.param("wrn_28_10", CIFAR, 100, 36_546_980, marks=pytest.mark.slow),
        ("resnet50", IMAGENET, 1000, 25_557_032),
    ],
)
def test_sizes_are_the_published_ones(name, shape, classes, published):
    assert count(leaves(name, shape, classes)[0]) == published


@pytest.mark.parametrize(("classes", "published"), [(10, 36_479_194), (100, 36_536_884)])
def test_without_biases_it_is_the_wide_resnet_of_its_paper(classes, published):
    def init(key):
        module = WideResNet(CIFAR, classes, rngs=nnx.Rngs(params=key), use_bias=False)
        return nnx.to_pure_dict(nnx.state(module, nnx.Param))

    assert count(jax.eval_shape(init, jax.random.key(0))) == published


@pytest.mark.parametrize(
    ("name", "shape", "multiply_adds"),
    # In thousands of millions: the figures that are usually given, borders counted.
    [
        ("vgg16", CIFAR, 0.314),
        pytest.param("resnet50", IMAGENET, 4.09, marks=pytest.mark.slow),
    ],
)
def test_operations_are_the_published_ones(name, shape, multiply_adds):
    found = forward_flops(models.build(name, shape, 10), shape) / 2e9
    assert found == pytest.approx(multiply_adds, rel=0.005)


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn", "wrn_28_10", "resnet50"])
@pytest.mark.parametrize("shape", [(32, 32, 3), (40, 24, 1)])
@pytest.mark.slow
def test_other_image_shapes(name, shape):
    model = models.build(name, shape, 7)

    def logits(key):
        return model.apply(*model.init(key), jnp.zeros((2, *shape), jnp.uint8), False)[0]

    assert jax.eval_shape(logits, jax.random.key(0)).shape == (2, 7)


@pytest.mark.slow
def test_the_ends_are_layers():
    for name, (first, last) in models.ENDS.items():
        shape = (64,) if name in models.TEXT_MODELS else CIFAR
        assert {first, last} <= set(leaves(name, shape, 10)[0])


def test_the_last_norm_of_the_wide_resnet_forgets_as_the_authors_does():
    module = jax.eval_shape(lambda: nnx.split(WideResNet(CIFAR, 10, rngs=nnx.Rngs(0))))
    module = nnx.merge(*module)
    assert (module.norm.momentum, module.block1_1.norm1.momentum) == (0.1, 0.9)


def test_a_layer_starts_as_pytorchs_does():
    """Uniform within 1 / sqrt(inputs): variance 1 / (3 inputs), weights and biases."""
    layer = linear(64, 4000, nnx.Rngs(0))
    for values in (layer.kernel[...], layer.bias[...]):
        assert jnp.abs(values).max() <= 1 / 8
        assert jnp.abs(values).max() > 0.99 / 8
        assert float(values.var()) == pytest.approx(1 / (3 * 64), rel=0.05)


def dropped(devices, parts, steps=1):
    """What dropout of 1/4 makes of ones, the batch cut into so many parts."""
    mesh = Mesh(np.array(devices[:parts]), (DEVICE_AXIS,), axis_types=(AxisType.Auto,))
    graph, state = nnx.split(Dropout(0.25, rngs=nnx.Rngs(7)))

    def apply(state, x):
        module = nnx.merge(graph, state)
        for _ in range(steps):
            y = module(x)
        return y

    spec = PartitionSpec(DEVICE_AXIS)
    mapped = jax.shard_map(
        apply, mesh=mesh, in_specs=(PartitionSpec(), spec), out_specs=spec, check_vma=False
    )
    return jax.jit(mapped)(state, jnp.ones((8, 500)))


def test_dropout_is_the_same_on_any_number_of_devices(devices):
    whole = dropped(devices, 1)
    np.testing.assert_array_equal(dropped(devices, 4), whole)


def test_dropout_keeps_the_mean_and_drops_anew_each_time(devices):
    first, second = dropped(devices, 1), dropped(devices, 1, steps=2)
    for values in (first, second):
        np.testing.assert_allclose(np.unique(values), [0, 4 / 3], rtol=1e-6)
        assert float((values == 0).mean()) == pytest.approx(0.25, abs=0.03)
    assert not np.array_equal(first, second)
    assert len({row.tobytes() for row in np.asarray(first)}) == 8, "every example has its own"


def test_dropout_does_nothing_outside_training():
    module = Dropout(0.5, rngs=nnx.Rngs(0))
    module.eval()
    np.testing.assert_array_equal(module(jnp.ones((2, 3))), jnp.ones((2, 3)))
    assert int(module.batches[...]) == 0


def test_each_channel_has_a_mean_of_its_own():
    model = models.build("mlp", (1, 1, 2), 3, mean=(0.2, 0.4), std=(0.5, 0.25))
    same = models.build("mlp", (1, 1, 2), 3)
    params, statistics = model.init(jax.random.key(0))
    # (102 / 255 - 0.2) / 0.5 = 0.4 and (153 / 255 - 0.4) / 0.25 = 0.8.
    given = jnp.array([102, 153], jnp.uint8).reshape(1, 1, 1, 2)
    wanted = 255 * jnp.array([0.4, 0.8]).reshape(1, 1, 1, 2)
    np.testing.assert_allclose(
        model.apply(params, statistics, given, False)[0],
        same.apply(params, statistics, wanted, False)[0],
        rtol=1e-5,
        atol=1e-6,
    )
