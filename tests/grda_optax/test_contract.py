"""One contract, kept by every transformation: what optax and its users may do with it."""

import functools

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from grda_optax import dual_averaging, grda

from .transformations import RATE, TRANSFORMATIONS, is_ours, our_state, transformation
from .trees import assert_close, assert_same_bits, assert_same_zeros, normal_like

pytestmark = pytest.mark.parametrize("name", TRANSFORMATIONS)

PARAMS = {
    "dense": {"kernel": jnp.linspace(-0.3, 0.4, 48).reshape(8, 6), "bias": jnp.zeros(8)},
    "scale": jnp.float32(0.7),
    "empty": jnp.zeros((0, 3)),
}
GRADIENTS = normal_like(jax.random.key(0), PARAMS)
# Half precision only where rounding does not matter: jit may keep more digits than the dtype has.
LOW_PARAMS = PARAMS | {"half": jnp.linspace(-1, 1, 16, dtype=jnp.bfloat16).reshape(8, 2)}
LOW_GRADIENTS = normal_like(jax.random.key(0), LOW_PARAMS)


@functools.cache
def jitted_step(name):
    """One training step, how often it was traced, and the transformation."""
    tx, traces = transformation(name), []

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, gradients):
        traces.append(None)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return step, traces


@functools.cache
def eager_run(name, steps=4):
    """The params and the state after some steps without jit."""
    tx = transformation(name)
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(steps):
        updates, state = tx.update(GRADIENTS, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def wrapped_run(tx, params=PARAMS, gradients=GRADIENTS, steps=4):
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def is_masked(node):
    return isinstance(node, optax.MaskedNode)


def description(tree):
    """What a jitted function is compiled for."""
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


def test_ignores_extra_arguments(name):
    tx = transformation(name)
    plain = tx.update(GRADIENTS, tx.init(PARAMS), PARAMS)
    extra = tx.update(GRADIENTS, tx.init(PARAMS), PARAMS, value=jnp.ones([]), unheard_of="x")
    assert_same_bits(extra, plain)


def test_keeps_structure_shapes_dtypes_and_weak_types(name):
    tx = transformation(name)
    state = tx.init(LOW_PARAMS)
    updates, later = tx.update(LOW_GRADIENTS, state, LOW_PARAMS)
    # Of a chain our part only: optax's adamw keeps bfloat16 moments that become float32.
    for mine in (our_state, *[lambda whole: whole] * name.startswith("grda")):
        assert description(mine(later)) == description(mine(state))
        assert not any(x.weak_type for x in jax.tree.leaves(mine(state)))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), updates) == jax.tree.map(
        lambda x: (x.shape, x.dtype), LOW_PARAMS
    )
    ours = our_state(later)
    assert ours.count == 1
    assert ours.count.dtype == jnp.int32
    assert {x.shape for x in jax.tree.leaves(ours.threshold)} == {()}
    assert {x.dtype for x in jax.tree.leaves(ours.accumulator)} == {jnp.dtype(jnp.float32)}


def test_compiles_once_and_survives_donation(name):
    step, traces = jitted_step(name)
    tx = transformation(name)
    params = jax.tree.map(jnp.array, PARAMS)
    # Buffers that appear twice among the donated arguments make the first call raise.
    state = tx.init(params)
    before = jax.tree.leaves((params, our_state(state).accumulator))
    for _ in range(4):
        params, state = step(params, state, GRADIENTS)
    assert len(traces) == 1
    assert all(x.is_deleted() for x in before if x.size), "the buffers were donated"
    expected_params, expected_state = eager_run(name)
    assert_close(params, expected_params, rtol=1e-5, atol=1e-6)
    assert_close(our_state(state), our_state(expected_state), rtol=1e-5, atol=1e-6)
    assert_same_zeros(params, expected_params)


def _targets():
    key = jax.random.key(1)
    left = jnp.eye(4) + 0.2 * jax.random.normal(key, (4, 4))
    return {"left": left, "solution": jnp.linspace(-1, 1, 8).reshape(4, 2)}


TARGETS = _targets()
STARTS = {
    "parabola": jnp.array([-1.0, 10.0, 1.0]),
    "rosenbrock": jnp.array([0.0, 0.5]),
    "matrix": jnp.zeros((4, 2)),
    "mixed": {"a": jnp.float32(3.0), "b": [jnp.ones((2, 3)), (jnp.zeros((0, 2)), -jnp.ones(1))]},
}


def _problem(params):
    """The four losses, of which each has its one minimum at zero."""
    x, y = params["rosenbrock"]
    residual = jnp.dot(TARGETS["left"], params["matrix"] - TARGETS["solution"])
    return {
        "parabola": jnp.sum((params["parabola"] - jnp.array([1.0, 0.0, -2.0])) ** 2),
        "rosenbrock": (1 - x) ** 2 + 100 * (y - x**2) ** 2,
        "matrix": jnp.sum(residual**2),
        "mixed": sum(jnp.sum((x - 0.5) ** 2) for x in jax.tree.leaves(params["mixed"])),
    }


OPTIMA = {
    "parabola": jnp.array([1.0, 0.0, -2.0]),
    "rosenbrock": jnp.array([1.0, 1.0]),
    "matrix": TARGETS["solution"],
    "mixed": jax.tree.map(lambda x: jnp.full(x.shape, 0.5), STARTS["mixed"]),
}
STEPS = 30_000  # Rosenbrock's valley is long: the rate has to be small and its curvature is 0.4


@functools.cache
def solution(name):
    """All four at once: a transformation that keeps the leaves apart solves each alone."""
    peak = 0.01 if name in ("adamw_power", "lion_power") else 1.5e-3
    half = STEPS // 2
    tx = TRANSFORMATIONS[name](optax.linear_schedule(peak, peak / 100, half, half))

    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            gradients = jax.grad(lambda p: sum(_problem(p).values()))(params)
            updates, state = tx.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=STEPS)
        return params

    return run(STARTS)


@pytest.mark.parametrize("problem", STARTS)
def test_converges(name, problem):
    start, found, optimum = (tree[problem] for tree in (STARTS, solution(name), OPTIMA))
    distance = lambda x: max(  # noqa: E731
        float(jnp.max(jnp.abs(a - b)))
        for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(optimum), strict=True)
        if a.size
    )
    assert distance(start) > 0.4
    assert distance(found) < 5e-4  # lion moves by 1e-4 to the end, whatever the gradient is


def test_works_in_inject_hyperparams(name):
    """With numbers and schedules alike it is the transformation itself."""
    make = TRANSFORMATIONS[name]
    expected, _ = eager_run(name)
    params, state = wrapped_run(optax.inject_hyperparams(make)(RATE))
    assert state.hyperparams["rate"] == np.float32(RATE)
    assert_close(params, expected, rtol=1e-6, atol=1e-7)
    assert_same_zeros(params, expected)

    schedule = optax.exponential_decay(RATE, 1, 0.5)
    params, state = wrapped_run(optax.inject_hyperparams(make)(schedule))
    expected, _ = wrapped_run(make(schedule))
    assert_close(params, expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(state.hyperparams["rate"], RATE * 0.5**3, rtol=1e-6)


def test_works_in_multi_steps(name):
    """The state stands still between the steps, and the mean of the gradients counts."""
    tx = optax.MultiSteps(transformation(name), every_k_schedule=2)
    state, params, update = tx.init(PARAMS), PARAMS, jax.jit(tx.update)
    doubled, nothing = jax.tree.map(lambda g: 2 * g, GRADIENTS), optax.tree.zeros_like(GRADIENTS)
    for i in range(8):
        before = state.inner_opt_state
        updates, state = update((doubled, nothing)[i % 2], state, params)
        if i % 2 == 0:
            assert_same_bits(state.inner_opt_state, before)
            assert all((u == 0).all() for u in jax.tree.leaves(updates))
        params = optax.apply_updates(params, updates)
    assert our_state(state).count == 4
    expected_params, expected_state = eager_run(name)
    assert_close(params, expected_params, rtol=1e-5, atol=1e-6)
    assert_close(our_state(state), our_state(expected_state), rtol=1e-5, atol=1e-6)
    assert_same_zeros(params, expected_params)


def test_works_in_apply_if_finite(name):
    """A step that is not finite leaves params and state alone, to the bit."""
    tx = optax.apply_if_finite(transformation(name), max_consecutive_errors=3)
    params, state, update = PARAMS, tx.init(PARAMS), jax.jit(tx.update)
    broken = GRADIENTS | {"scale": jnp.array(jnp.nan)}
    for _ in range(4):
        updates, after = update(broken, state, params)
        assert_same_bits(after.inner_state, state.inner_state)
        assert all((u == 0).all() for u in jax.tree.leaves(updates))
        updates, state = update(GRADIENTS, after, params)
        params = optax.apply_updates(params, updates)
    expected_params, expected_state = eager_run(name)
    assert_close(params, expected_params, rtol=1e-5, atol=1e-6)
    assert_close(our_state(state), our_state(expected_state), rtol=1e-5, atol=1e-6)
    assert_same_zeros(params, expected_params)


def test_works_in_partition(name):
    """Each part of the tree sees its own optimizer and nothing of the other's."""
    tx = optax.partition(
        {"ours": transformation(name), "theirs": optax.adam(RATE)},
        {"dense": "ours", "scale": "theirs", "empty": "ours"},
    )
    params, state = wrapped_run(tx)
    ours = ("dense", "empty")
    pick = lambda tree, keys: {k: tree[k] for k in keys}  # noqa: E731
    expected, _ = wrapped_run(transformation(name), pick(PARAMS, ours), pick(GRADIENTS, ours))
    assert_same_bits(pick(params, ours), expected)
    theirs = ("scale",)
    expected, _ = wrapped_run(optax.adam(RATE), pick(PARAMS, theirs), pick(GRADIENTS, theirs))
    assert_same_bits(pick(params, theirs), expected)
    assert our_state(state).count == 4


def test_works_in_named_chain(name):
    expected_params, expected_state = eager_run(name)
    params, state = wrapped_run(optax.named_chain(("sparse", transformation(name))))
    assert_same_bits(params, expected_params)
    assert_same_bits(state["sparse"], expected_state)


def test_a_schedule_equals_the_constant_it_returns(name):
    expected, expected_state = eager_run(name)
    params, state = wrapped_run(TRANSFORMATIONS[name](optax.constant_schedule(RATE)))
    assert_same_bits(params, expected)
    assert_same_bits(our_state(state), our_state(expected_state))


def test_keeps_shardings(name, devices):
    """What is averaged lies where the params lie, after `init` and after a jitted update."""
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,), devices=devices)
    rows = NamedSharding(mesh, PartitionSpec("d"))
    whole = NamedSharding(mesh, PartitionSpec())
    shardings = jax.tree.map(lambda x: rows if x.ndim and x.shape[0] == 8 else whole, PARAMS)
    params, gradients = jax.device_put((PARAMS, GRADIENTS), (shardings, shardings))
    tx = transformation(name)

    def check(state):
        ours = our_state(state).accumulator
        for (path, v), sharding in zip(
            jax.tree_util.tree_leaves_with_path(ours, is_leaf=is_masked),
            jax.tree.leaves(shardings),
            strict=True,
        ):
            if not is_masked(v):
                assert v.sharding.is_equivalent_to(sharding, v.ndim), (path, v.sharding)

    state = tx.init(params)
    check(state)
    step, _ = jitted_step(name)
    new_params, state = step(jax.tree.map(jnp.copy, params), state, gradients)
    check(state)
    for got, want in zip(jax.tree.leaves(new_params), jax.tree.leaves(params), strict=True):
        assert got.sharding.is_equivalent_to(want.sharding, want.ndim)


def test_serialises_with_flax(name):
    tx = transformation(name)
    params, state = wrapped_run(tx, LOW_PARAMS, LOW_GRADIENTS)
    blob = flax.serialization.to_bytes((params, state))
    restored = flax.serialization.from_bytes((LOW_PARAMS, tx.init(LOW_PARAMS)), blob)
    assert_same_bits(restored, (params, state))
    # And training goes on from there as if nothing had happened.
    restored_params, restored_state = jax.tree.map(jnp.asarray, restored)
    assert_same_bits(
        tx.update(LOW_GRADIENTS, restored_state, restored_params),
        tx.update(LOW_GRADIENTS, state, params),
    )


def test_serialises_with_orbax(name, tmp_path):
    tx = transformation(name)
    # Orbax refuses arrays of size zero.
    params, gradients = (
        {k: v for k, v in tree.items() if k != "empty"} for tree in (LOW_PARAMS, LOW_GRADIENTS)
    )
    params, state = wrapped_run(tx, params, gradients)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "checkpoint", (params, state))
        checkpointer.wait_until_finished()
        template = jax.eval_shape(lambda: (params, state))
        restored = checkpointer.restore(tmp_path / "checkpoint", template)
    assert_same_bits(restored, (params, state))


def test_state_is_found_at_any_depth(name):
    tx = optax.MultiSteps(optax.chain(optax.identity(), optax.chain(transformation(name))), 1)
    state = tx.init(PARAMS)
    _, state = tx.update(GRADIENTS, state, PARAMS)
    ours = our_state(state)
    threshold = optax.tree.get(state, "threshold")
    assert_same_bits(threshold, ours.threshold)
    assert all(x > 0 for x in jax.tree.leaves(threshold))
    assert_same_bits(optax.tree.get(state, "accumulator"), ours.accumulator)
    raised = optax.tree.set(state, threshold=jnp.full([], 9.0, jnp.float32))
    assert optax.tree.get(raised, "threshold") == 9.0


def test_map_params_reaches_the_accumulator_and_nothing_else(name):
    tx = optax.MultiSteps(optax.chain(optax.identity(), optax.chain(transformation(name))), 1)
    state = tx.init(PARAMS)
    mapped = optax.tree.map_params(
        tx, lambda leaf: "param", state, transform_non_params=lambda leaf: "other"
    )
    ours = our_state(mapped)
    assert ours.count == ours.threshold == "other"
    assert set(jax.tree.leaves(ours.rule_state)) <= {"other"}
    leaves = jax.tree.leaves(ours.accumulator)
    assert leaves == ["param"] * len(jax.tree.leaves(our_state(state).accumulator))


def test_a_masked_tree_is_mapped_too(name):
    """With a mask given as a tree, which no placeholder of `map_params` has the structure of."""
    mask = {"dense": {"kernel": True, "bias": False}, "scale": False, "empty": True}
    tx = optax.chain(transformation(name), dual_averaging(0.1, mask=mask), grda(0.1, mask=mask))
    mapped = optax.tree.map_params(tx, lambda leaf: "param", tx.init(PARAMS))
    states = [x for x in jax.tree.leaves(mapped, is_leaf=is_ours) if is_ours(x)]
    assert len(states) == 3
    for state in states[1:]:
        assert jax.tree.leaves(state.accumulator) == ["param"] * 2
        assert state.accumulator["scale"] == optax.MaskedNode()
