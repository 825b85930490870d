"""Params and state split over devices as large models are: by FSDP, by tensor parallelism."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from grda_optax import _counting, _quantile, grda, prune_with, sparsity_report

from .transformations import our_state
from .trees import assert_close, assert_same_bits, assert_same_zeros, normal_like

STEPS = 12
EXAMPLES, WIDTH, HIDDEN = 32, 16, 64
ZEROS = {
    "up": {"kernel": jnp.zeros((WIDTH, HIDDEN)), "bias": jnp.zeros(HIDDEN)},
    "down": {"kernel": jnp.zeros((HIDDEN, WIDTH)), "bias": jnp.zeros(WIDTH)},
}
AXES = ("data", "model")


def largest_axis(x):
    """FSDP: over all eight devices, along the largest axis that they divide."""
    axis = int(np.argmax([n if n % 8 == 0 else 0 for n in x.shape]))
    return PartitionSpec(*[None] * axis, AXES)


# The first kernel by columns and the second by rows: each device has some hidden units whole.
TENSOR = {
    "up": {"kernel": PartitionSpec(None, "model"), "bias": PartitionSpec("model")},
    "down": {"kernel": PartitionSpec("model", None), "bias": PartitionSpec()},
}
# And the other axis of each over the devices that have the same units.
BOTH = {
    "up": {"kernel": PartitionSpec("data", "model"), "bias": PartitionSpec("model")},
    "down": {"kernel": PartitionSpec("model", "data"), "bias": PartitionSpec()},
}
LAYOUTS = {"fsdp": jax.tree.map(largest_axis, ZEROS), "tensor": TENSOR, "both": BOTH}


@pytest.fixture(scope="module")
def mesh(devices):
    return jax.make_mesh((4, 2), AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


@pytest.fixture
def layout(request, mesh):
    """By the name that a test asks for."""
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, spec),
        LAYOUTS[request.param],
        is_leaf=lambda x: isinstance(x, PartitionSpec),
    )


def in_layouts(*names):
    return pytest.mark.parametrize("layout", names, indirect=True)


slow = pytest.mark.slow


def start():
    return normal_like(jax.random.key(0), ZEROS, scale=0.3)


def loss(params, inputs):
    """A network of one hidden layer learns the sine of its inputs."""
    hidden = jnp.tanh(inputs @ params["up"]["kernel"] + params["up"]["bias"][None])
    outputs = hidden @ params["down"]["kernel"] + params["down"]["bias"][None]
    return jnp.mean((outputs - jnp.sin(inputs)) ** 2)


INPUTS = jax.random.normal(jax.random.key(1), (EXAMPLES, WIDTH))
gradient_on_one_device = jax.jit(jax.grad(loss))


def recipe():
    return prune_with(optax.sgd(0.2, momentum=0.9), 0.8, STEPS, update_every=2)


def assert_layout(tree, layout):
    for x, sharding in zip(jax.tree.leaves(tree), jax.tree.leaves(layout), strict=True):
        assert x.sharding.is_equivalent_to(sharding, x.ndim)


@slow
@in_layouts(*LAYOUTS)
def test_grda_is_exact(layout):
    """Given the gradients, every number of every step is the one of a single device.

    The settings are powers of two: their products are not rounded, so it is the same whether a
    compiler makes them one operation with a sum, which depends on the shape it has to do with.
    """
    tx = grda(2**-2, c=0.1, mu=0.6, momentum=2**-1, weight_decay=2**-10)

    @jax.jit
    def step(gradients, state, params):
        updates, state = tx.update(gradients, state, params)
        return state, optax.apply_updates(params, updates)

    params, split = start(), jax.device_put(start(), layout)
    state, split_state = tx.init(params), jax.jit(tx.init)(split)
    for _ in range(STEPS):
        gradients = gradient_on_one_device(params, INPUTS)
        state, params = step(gradients, state, params)
        split_state, split = step(jax.device_put(gradients, layout), split_state, split)
        assert_same_bits((split, split_state), (params, state))
    assert_layout(split, layout)
    assert_layout(our_state(split_state).accumulator, layout)
    assert 0.1 < sparsity_report(params).all.sparsity < 0.9


@slow
@in_layouts("fsdp", "tensor")
def test_a_run_of_the_recipe_has_the_zeros_of_one_device(layout, mesh):
    """Forward, backward and update, all of them over the devices."""

    def run(params, inputs, place):
        tx = recipe()

        @jax.jit
        def step(params, state):
            gradients = place(jax.grad(loss)(params, inputs))
            updates, state = tx.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        state = jax.jit(tx.init)(params)
        for _ in range(STEPS):
            params, state = step(params, state)
        return params

    params = run(start(), INPUTS, lambda tree: tree)
    rows = NamedSharding(mesh, PartitionSpec("data"))
    split = run(
        jax.device_put(start(), layout),
        jax.device_put(INPUTS, rows),
        lambda tree: jax.lax.with_sharding_constraint(tree, layout),
    )
    assert_same_zeros(split, params)
    assert_close(split, params, rtol=1e-4, atol=1e-5)
    assert_layout(split, layout)
    counts = sparsity_report(split, lambda p: jax.tree.map(lambda x: x.ndim > 1, p)).penalised
    assert counts.total - counts.nnz == round(0.8 * counts.total)


def collectives(tx, layout):
    """(operation, numbers in its result) of each in the compiled update."""
    params = jax.device_put(start(), layout)
    state = jax.jit(tx.init)(params)
    text = jax.jit(tx.update).lower(params, state, params).compile().as_text()
    found = re.findall(
        r"= (\([^)]*\)|\S+) ((?:all|reduce-scatter|ragged|collective)[\w-]*)\(", text
    )
    return [
        (name, sum(np.prod([int(n) for n in shape.split(",") if n]) for shape in shapes))
        for result, name in found
        for shapes in [re.findall(r"\w\[([\d,]*)\]", result)]
    ]


@in_layouts(*LAYOUTS)
def test_the_update_of_grda_talks_to_no_other_device(layout):
    tx = grda(0.2, c=0.1, mu=0.6, momentum=0.5, weight_decay=1e-3)
    assert collectives(tx, layout) == []


@in_layouts("fsdp")
def test_the_search_for_collectives_finds_them(layout):
    """Of the gradient's norm, by which one clips: as many sums as there are leaves, at most."""
    found = collectives(optax.clip_by_global_norm(1.0), layout)
    assert {name for name, _ in found} == {"all-reduce"}
    assert 1 <= sum(numbers for _, numbers in found) <= 4


@slow
@in_layouts(*LAYOUTS)
def test_the_update_of_the_recipe_sums_a_few_numbers(layout, monkeypatch):
    """The counts, of six candidates for either kernel, as on every platform but the CPU."""
    monkeypatch.setattr(_counting, "_count_by_rows", _counting._count_plainly)
    found = collectives(recipe(), layout)
    assert {name for name, _ in found} == {"all-reduce"}
    assert max(numbers for _, numbers in found) <= 2 * len(_quantile.OFTEN.factors)
