"""One step, the same numbers however it is run: over seeds, over devices, params whole or split."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from grda_optax import dual_averaging, grda, prune_with, target_sparsity
from grda_optax._counting import _count_plainly

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
    "recipe": prune_with(optax.sgd(0.1, momentum=0.9), 0.7, STEPS, update_every=4, leak=1e-3),
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


@pytest.mark.slow
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
    rows = NamedSharding(mesh, PartitionSpec("d"))
    # On one device of the mesh, since a GPU fuses products and sums that a CPU rounds one by one.
    params, gradients = jax.device_put((start(0), start(1)), mesh.devices.flat[0])
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


WIDTHS = {"first": (16, 12), "second": (24, 8), "vector": (64,), "odd": (8, 3, 5)}
ZEROS = {k: jnp.zeros(shape) for k, shape in WIDTHS.items()}


def pruned(**options):
    return optax.chain(
        optax.sgd(0.3, momentum=0.9),
        dual_averaging(
            target_sparsity(0.8, end_step=5, update_every=2, **options),
            prox="firm",
            freeze_step=8,
        ),
    )


def noisy_run(update, place=lambda tree: tree, init=None, steps=12):
    """The params after every step, with gradients that no device has to agree on."""
    params = place(normal_like(jax.random.key(0), ZEROS))
    # Weights of one magnitude in different leaves and on different devices.
    params = place(jax.tree.map(lambda x: jnp.round(4 * x) / 4, params))
    state, history = init(params), []
    for i in range(steps):
        gradients = place(
            jax.tree.map(lambda x: jnp.round(8 * x) / 8, normal_like(jax.random.key(i), ZEROS))
        )
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        history.append(jax.tree.map(np.asarray, params))
    return history


@pytest.mark.parametrize("per_leaf", [False, pytest.param(True, marks=pytest.mark.slow)])
class TestSplitParams:
    """The params over devices, of which each counts its own."""

    @pytest.mark.slow
    def test_shard_map(self, per_leaf, mesh):
        tx = pruned(per_leaf=per_leaf)
        expected = noisy_run(jax.jit(tx.update), init=tx.init)
        rows, whole = PartitionSpec("d"), PartitionSpec()
        tx = pruned(per_leaf=per_leaf, axis_name="d")
        params = jax.tree.map(lambda x: rows, ZEROS)
        state = optax.tree.map_params(
            tx, lambda _: rows, tx.init(ZEROS), transform_non_params=lambda _: whole
        )
        update = jax.shard_map(
            tx.update,
            mesh=mesh,
            in_specs=(params, state, params),
            out_specs=(params, state),
            check_vma=per_leaf,  # either way it works
        )
        place = lambda tree: jax.device_put(tree, NamedSharding(mesh, rows))  # noqa: E731
        self.compare(noisy_run(jax.jit(update), place, tx.init), expected, per_leaf)

    @pytest.mark.slow
    def test_pmap(self, per_leaf, devices):
        tx = pruned(per_leaf=per_leaf)
        expected = noisy_run(jax.jit(tx.update), init=tx.init)
        tx = pruned(per_leaf=per_leaf, axis_name="d")

        def place(tree):
            return {k: x.reshape(8, WIDTHS[k][0] // 8, *WIDTHS[k][1:]) for k, x in tree.items()}

        found = noisy_run(
            jax.pmap(tx.update, axis_name="d", devices=devices),
            place,
            jax.pmap(tx.init, axis_name="d", devices=devices),
        )
        found = [{k: x.reshape(WIDTHS[k]) for k, x in params.items()} for params in found]
        self.compare(found, expected, per_leaf)

    @pytest.mark.slow
    def test_jit(self, per_leaf, mesh):
        """No program for split params gathers one; the counts of axis 0 are only summed."""
        axes = (None, "d") if per_leaf else ("d",)
        tx = pruned(per_leaf=per_leaf)
        expected = noisy_run(jax.jit(tx.update), init=tx.init)
        shardings = {
            k: NamedSharding(
                mesh,
                PartitionSpec(*axes)
                if len(shape) >= len(axes) and shape[len(axes) - 1] % 8 == 0
                else PartitionSpec("d"),
            )
            for k, shape in WIDTHS.items()
        }
        place = lambda tree: jax.device_put(tree, shardings)  # noqa: E731
        update = jax.jit(tx.update)
        self.compare(noisy_run(update, place, tx.init), expected, per_leaf)
        params = place(ZEROS)
        text = update.lower(params, jax.jit(tx.init)(params), params).compile().as_text()
        assert "all-reduce" in text
        assert "all-to-all" not in text
        assert "collective-permute" not in text
        if axes == ("d",):
            assert "all-gather" not in text

    def compare(self, found, expected, per_leaf):
        for mine, theirs in zip(found[:7], expected[:7], strict=True):
            assert_same_zeros(mine, theirs)
            assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
        counts = [{k: int((x == 0).sum()) for k, x in run[-1].items()} for run in (found, expected)]
        sizes = {k: x.size for k, x in expected[-1].items()}
        if per_leaf:
            assert counts[0] == counts[1] == {k: n - round(0.2 * n) for k, n in sizes.items()}
        else:
            total = sum(sizes.values())
            assert [sum(c.values()) for c in counts] == [total - round(0.2 * total)] * 2
        for mine in found[7:]:
            assert_same_zeros(mine, found[7])


def test_sums_over_any_axis_gather_nothing_where_they_are_plain(mesh):
    """As they are on every platform but the CPU."""
    for spec in (PartitionSpec("d"), PartitionSpec(None, "d")):
        x = jax.device_put(jnp.ones((16, 24)), NamedSharding(mesh, spec))
        counted = jax.jit(lambda x: _count_plainly([[[x < 0, x < 1]]], jnp.int32))
        text = counted.lower(x).compile().as_text()
        assert "all-reduce" in text
        assert "all-gather" not in text
