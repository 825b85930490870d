"""The ways in which flax and Equinox hold params, on one problem: all end with the same zeros."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

from grda_optax import grda, prune_with, sparsity_report

from .transformations import our_state
from .trees import assert_close, assert_same_zeros

STEPS, IN, WIDTH = 150, 6, 16


def draw(key, *shape):
    return jax.random.normal(jax.random.key(key), shape)


INPUTS = draw(0, 64, IN)
LABELS = jnp.sin(INPUTS[:, :1])
START = {
    "first": {"kernel": draw(1, IN, WIDTH) / 2, "bias": jnp.zeros(WIDTH)},
    "second": {"kernel": draw(2, WIDTH, 1) / 4, "bias": jnp.zeros(1)},
}


def kernels(params):
    return jax.tree.map(lambda x: x.ndim >= 2, params)


MASKS = {"every leaf": None, "kernels": kernels}


def optimizer(mask):
    return grda(0.1, c=0.2, mu=0.6, momentum=0.5, mask=mask)


def mean_square(outputs):
    return jnp.mean((outputs - LABELS) ** 2)


def functional(mask):
    """A plain loop over a dict of arrays."""
    tx = optimizer(mask)

    def loss(params):
        hidden = INPUTS @ params["first"]["kernel"] + params["first"]["bias"][None]
        return mean_square(
            jnp.tanh(hidden) @ params["second"]["kernel"] + params["second"]["bias"][None]
        )

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    params, state = START, tx.init(START)
    for _ in range(STEPS):
        params, state = step(params, state)
    return params, our_state(state).threshold


def linen(mask):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(1, name="second")(jnp.tanh(nn.Dense(WIDTH, name="first")(x)))

    state = TrainState.create(
        apply_fn=Net().apply, params=jax.tree.map(jnp.copy, START), tx=optimizer(mask)
    )

    @jax.jit
    def step(state):
        gradients = jax.grad(lambda p: mean_square(state.apply_fn({"params": p}, INPUTS)))(
            state.params
        )
        return state.apply_gradients(grads=gradients)

    for _ in range(STEPS):
        state = step(state)
    assert state.step == STEPS
    return state.params, our_state(state.opt_state).threshold


def nnx_optimizer(mask):
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(IN, WIDTH, rngs=rngs)
            self.second = nnx.Linear(WIDTH, 1, rngs=rngs)

        def __call__(self, x):
            return self.second(jnp.tanh(self.first(x)))

    model = Net(nnx.Rngs(0))
    start = nnx.state(model, nnx.Param)
    nnx.replace_by_pure_dict(start, jax.tree.map(jnp.copy, START))
    nnx.update(model, start)
    state = nnx.Optimizer(model, optimizer(mask), wrt=nnx.Param)

    @nnx.jit
    def step(model, state):
        state.update(model, nnx.grad(lambda model: mean_square(model(INPUTS)))(model))

    for _ in range(STEPS):
        step(model, state)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    threshold = optax.tree.get(state.opt_state, "threshold")
    return params, threshold


def equinox(mask):
    """A filtered tree: what is no array is None in it, and the transposed kernels come first."""
    model = eqx.nn.MLP(IN, 1, WIDTH, 1, activation=jnp.tanh, key=jax.random.key(0))
    first, second = START["first"], START["second"]
    model = eqx.tree_at(
        lambda m: [m.layers[0].weight, m.layers[0].bias, m.layers[1].weight, m.layers[1].bias],
        model,
        [first["kernel"].T, first["bias"], second["kernel"].T, second["bias"]],
    )
    params, static = eqx.partition(model, eqx.is_inexact_array)
    assert any(x is None for x in jax.tree.leaves(params, is_leaf=lambda x: x is None))
    if mask is not None:
        mask = mask(params)  # a tree in the shape of the module, which can be called like one
        assert callable(mask)
    tx = optimizer(mask)

    @jax.jit
    def step(params, state):
        gradients = jax.grad(lambda p: mean_square(jax.vmap(eqx.combine(p, static))(INPUTS)))(
            params
        )
        updates, state = tx.update(gradients, state, params)
        return eqx.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(STEPS):
        params, state = step(params, state)
    layers = [{"kernel": x.weight.T, "bias": x.bias} for x in params.layers]
    return dict(zip(("first", "second"), layers, strict=True)), our_state(state).threshold


@pytest.fixture(scope="module", params=MASKS)
def mask(request):
    return MASKS[request.param]


@pytest.fixture(scope="module")
def expected(mask):
    return functional(mask)


def test_functional_loop_prunes_and_learns(expected, mask):
    params, threshold = expected
    report = sparsity_report(params, mask)
    assert 0.3 < report.penalised.sparsity < 0.95
    assert threshold > 0
    biases = [count for name, count in report.leaves.items() if "bias" in name]
    assert all(count.penalised == (mask is None) for count in biases)
    hidden = np.tanh(INPUTS @ params["first"]["kernel"] + params["first"]["bias"][None])
    outputs = hidden @ params["second"]["kernel"] + params["second"]["bias"][None]
    assert mean_square(outputs) < 0.3 * mean_square(jnp.zeros(()))


@pytest.mark.parametrize("way", [linen, nnx_optimizer, equinox])
def test_every_way_is_the_functional_loop(way, expected, mask):
    params, threshold = way(mask)
    assert_same_zeros(params, expected[0])
    assert_close(params, expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(threshold[...], expected[1], rtol=1e-6)


def test_the_paths_of_an_nnx_state_are_those_of_its_variables():
    """JAX calls the array of a variable its ``value``; nobody who writes a pattern would."""

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(IN, WIDTH, rngs=rngs)
            self.value = nnx.Linear(WIDTH, 1, rngs=rngs)

    model = Network(nnx.Rngs(0))
    state = nnx.state(model, nnx.Param)
    report = sparsity_report(state, mask="kernel$")
    names = ["first/bias", "first/kernel", "value/bias", "value/kernel"]
    assert list(report.leaves) == names
    assert [name for name in names if report.leaves[name].penalised] == names[1::2]
    for pattern, found in (("kernel/value$", names[1::2]), ("^value/", names[2:])):
        leaves = sparsity_report(state, mask=pattern).leaves
        assert [name for name in names if leaves[name].penalised] == found
    with pytest.raises(ValueError, match="got 'kernels' for first/bias, first/kernel, value/bias"):
        sparsity_report(state, mask="kernels")

    tx = prune_with(optax.sgd(0.0), 0.5, total_steps=4, mask="^first/kernel$")
    opt = nnx.Optimizer(model, tx, wrt=nnx.Param)
    for _ in range(4):
        opt.update(model, jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param)))
    assert int((model.first.kernel[...] == 0).sum()) == IN * WIDTH // 2
    assert (model.value.kernel[...] != 0).all()
