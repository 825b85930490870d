"""One step, the same numbers however it is run: over seeds, over devices, params whole or split."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from grda_optax import dual_averaging, grda

from .transformations import our_state
from .trees import assert_close, assert_same_bits, assert_same_zeros, normal_like

STEPS = 30
EXAMPLES, INPUTS, OUTPUTS = 64, 16, 8

TRANSFORMATIONS = {
    "grda": grda(0.1, c=0.2, mu=0.6, momentum=0.5, nesterov=True, weight_decay=1e-3),
    "adamw": optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(0.02),
        dual_averaging(lambda n: 0.01 * n, mask={"kernel": True, "bias": False}, freeze_step=20),
    ),
}


def start(seed):
    params = {"kernel": jnp.zeros((INPUTS, OUTPUTS)), "bias": jnp.zeros(OUTPUTS)}
    return normal_like(jax.random.key(seed), params, scale=0.5)


def data(seed):
    inputs = jax.random.normal(jax.random.key(100 + seed), (EXAMPLES, INPUTS))
    return inputs, jnp.sin(inputs[:, :OUTPUTS])


def loss(params, inputs, labels):
    outputs = jnp.tanh(inputs @ params["kernel"] + params["bias"][None])
    return jnp.mean((outputs - labels) ** 2)


def step(tx, mean, carry, inputs, labels):
    """A data-parallel training step; ``mean`` averages gradients over the devices."""
    params, state = carry
    gradients = mean(jax.grad(loss)(params, inputs, labels))
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state


def alone(gradients):
    return gradients


def over_devices(gradients):
    return jax.lax.pmean(gradients, "d")


@pytest.fixture(scope="module", params=TRANSFORMATIONS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def tx(name):
    return TRANSFORMATIONS[name]


@functools.cache
def plain_python(name, seed):
    """The reference: a loop over steps, nothing compiled."""
    tx = TRANSFORMATIONS[name]
    params = start(seed)
    carry = params, tx.init(params)
    for _ in range(STEPS):
        carry = step(tx, alone, carry, *data(seed))
    return carry


def loop(compiled, carry, *batch):
    for _ in range(STEPS):
        carry = compiled(carry, *batch)
    return carry


def assert_same_run(found, expected):
    """Zeros exactly, everything else to the rounding of sums in another order."""
    assert_same_zeros(found[0], expected[0])
    assert_close(found, expected, rtol=2e-5, atol=2e-6)


@pytest.fixture(scope="module")
def mesh(devices):
    return jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,), devices=devices)


def test_the_problem_is_worth_comparing(name):
    """Zeros are there, and none of them is within rounding of not being one."""
    params, state = plain_python(name, 0)
    zeros = np.mean(np.asarray(params["kernel"]) == 0)
    assert 0.1 < zeros < 0.9
    v = our_state(state).accumulator["kernel"]
    margin = jnp.min(jnp.abs(jnp.abs(v) - our_state(state).threshold)[v != 0])
    assert margin > 1e-5


def test_jit(name, tx):
    compiled = jax.jit(functools.partial(step, tx, alone))
    params = start(0)
    assert_same_run(loop(compiled, (params, tx.init(params)), *data(0)), plain_python(name, 0))


def test_vmap_over_seeds(name, tx):
    seeds = range(3)
    stack = lambda *trees: jax.tree.map(lambda *xs: jnp.stack(xs), *trees)  # noqa: E731
    params = stack(*(start(seed) for seed in seeds))
    compiled = jax.jit(jax.vmap(functools.partial(step, tx, alone)))
    batches = stack(*(data(seed) for seed in seeds))
    carry = loop(compiled, (params, jax.vmap(tx.init)(params)), *batches)
    for seed in seeds:
        assert_same_run(jax.tree.map(lambda x: x[seed], carry), plain_python(name, seed))  # noqa: B023


def test_pmap(name, tx, devices):
    params = start(0)
    compiled = jax.pmap(functools.partial(step, tx, over_devices), axis_name="d", devices=devices)
    split = jax.tree.map(lambda x: x.reshape(8, EXAMPLES // 8, -1), data(0))
    carry = jax.tree.map(lambda x: jnp.stack([x] * 8), (params, tx.init(params)))
    carry = jax.tree.map(np.asarray, loop(compiled, carry, *split))
    for device in range(1, 8):
        assert_same_bits(
            jax.tree.map(lambda x: x[device], carry),  # noqa: B023
            jax.tree.map(lambda x: x[0], carry),
        )
    assert_same_run(jax.tree.map(lambda x: x[0], carry), plain_python(name, 0))


def test_shard_map(name, tx, mesh):
    params = start(0)
    whole, rows = PartitionSpec(), PartitionSpec("d")
    compiled = jax.jit(
        jax.shard_map(
            functools.partial(step, tx, over_devices),
            mesh=mesh,
            in_specs=(whole, rows, rows),
            out_specs=whole,
            check_vma=False,
        )
    )
    carry = loop(compiled, (params, tx.init(params)), *data(0))
    assert_same_run(carry, plain_python(name, 0))


@pytest.mark.parametrize("split", ["replicated", "sharded"])
def test_jit_over_a_mesh(name, tx, mesh, split):
    rows = NamedSharding(mesh, PartitionSpec("d"))
    params = jax.device_put(
        start(0), rows if split == "sharded" else NamedSharding(mesh, PartitionSpec())
    )
    batch = jax.device_put(data(0), rows)
    expected = params["kernel"].sharding
    assert expected.is_fully_replicated == (split == "replicated")
    compiled = jax.jit(functools.partial(step, tx, alone), donate_argnums=0)
    params, state = loop(compiled, (params, tx.init(params)), *batch)
    assert params["kernel"].sharding.is_equivalent_to(expected, 2)
    v = our_state(state).accumulator["kernel"]
    assert v.sharding.is_equivalent_to(expected, 2)
    rows_here = INPUTS // 8 if split == "sharded" else INPUTS
    assert {x.data.shape for x in v.addressable_shards} == {(rows_here, OUTPUTS)}
    assert_same_run((params, state), plain_python(name, 0))


def test_the_update_itself_is_exact_on_a_mesh(name, tx, mesh):
    """Given the gradients, no sum is left that could be done in another order.

    Only clipping by the global norm has one, so it is left out.
    """
    if name == "adamw":
        tx = optax.chain(optax.adamw(0.02), dual_averaging(lambda n: 0.01 * n))
    params, gradients = start(0), start(1)
    rows = NamedSharding(mesh, PartitionSpec("d"))
    update = jax.jit(tx.update)
    expected = update(gradients, tx.init(params), params)
    params, gradients = jax.device_put((params, gradients), rows)
    assert_same_bits(update(gradients, tx.init(params), params), expected)


def test_one_compilation_serves_every_step_on_a_mesh(name, tx, mesh):
    """Once the state has come out of a jitted `init`, which places its scalars too."""
    traces = []

    @jax.jit
    def compiled(carry, inputs, labels):
        traces.append(None)
        return step(tx, alone, carry, inputs, labels)

    rows = NamedSharding(mesh, PartitionSpec("d"))
    params, batch = jax.device_put((start(0), data(0)), rows)
    carry = params, jax.jit(tx.init)(params)
    for _ in range(3):
        carry = compiled(carry, *batch)
    assert len(traces) == 1
