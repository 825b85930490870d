"""The library against its equations, and its three limits: SGD, RDA and the plain power law."""

import functools

import flax.core
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings

from grda_optax import dual_averaging, grda, power_threshold

from . import oracle
from .transformations import our_state
from .trees import assert_close, assert_same_bits, leaves_by_path, normal_like

STEPS = 4

shapes = st.sampled_from([(), (1,), (5,), (0,), (2, 3), (3, 0, 2), (2, 1, 2, 2)])


def containers(children):
    names = st.sampled_from(["kernel", "bias", "scale", "0"])
    return st.one_of(
        st.lists(children, min_size=1, max_size=3),
        st.lists(children, min_size=1, max_size=3).map(tuple),
        st.dictionaries(names, children, min_size=1, max_size=3),
        st.dictionaries(names, children, min_size=1, max_size=3).map(flax.core.freeze),
    )


trees_of_shapes = st.recursive(shapes.map(lambda s: Shape(s)), containers, max_leaves=4)


class Shape:
    """A shape that is a leaf, where a tuple would be a tree."""

    def __init__(self, shape):
        self.shape = shape

    def __repr__(self):
        return f"Shape{self.shape}"


def schedules(rate):
    """A learning rate as optax takes it; the oracle reads the same object."""
    return st.sampled_from(
        [
            rate,
            optax.constant_schedule(rate),
            optax.exponential_decay(rate, 1, 0.7),
            optax.piecewise_constant_schedule(rate, {2: 0.1}),
            optax.cosine_decay_schedule(rate, STEPS - 1),
            optax.warmup_exponential_decay_schedule(0.0, rate, 2, 1, 0.5),
        ]
    )


@st.composite
def settings_of_grda(draw):
    rate = draw(st.floats(1e-3, 1.0))
    momentum = draw(st.none() | st.floats(0.0, 0.99))
    return {
        "learning_rate": draw(schedules(rate)),
        "c": draw(st.floats(0.0, 2.0)),
        "mu": draw(st.floats(0.05, 1.0)),
        "momentum": momentum,
        "nesterov": momentum is not None and draw(st.booleans()),
        "weight_decay": draw(st.sampled_from([0.0, 1e-4, 0.3])),
    }


def rate_of(learning_rate):
    """The rate of update n, from 1."""
    if not callable(learning_rate):
        return lambda n: learning_rate
    return lambda n: float(learning_rate(jnp.asarray(n - 1, jnp.int32)))


def library_run(tx, params, gradient, steps=STEPS):
    state = tx.init(params)
    for n in range(1, steps + 1):
        updates, state = tx.update(gradient(n, params), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def fixed_part(shape, n):
    """A gradient that is different at every update and every entry."""
    size = int(np.prod(shape))
    return np.sin(1.0 + 2.3 * n + 1.7 * np.arange(size)).reshape(shape)


def check_against_oracle(params, options, mask=None):
    leaves, treedef = jax.tree.flatten(params)
    flags = None if mask is None else jax.tree.leaves(mask)

    def gradient(n, tree):
        """Depends on the weights, so that a wrong one shows in every later step."""
        return jax.tree.map(lambda w: w + fixed_part(np.shape(w), n), tree)

    tx = grda(**options, mask=mask)
    found, state = library_run(tx, params, gradient)
    learning_rate = rate_of(options["learning_rate"])
    w, v, h = oracle.grda(
        leaves,
        gradient,
        STEPS,
        learning_rate,
        **{k: x for k, x in options.items() if k != "learning_rate"},
        penalised=flags,
    )
    assert jax.tree.structure(found) == treedef
    for got, want in zip(jax.tree.leaves(found), w, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)
    ours = our_state(state)
    expected = [x for x, flag in zip(v, flags or [True] * len(v), strict=True) if flag]
    for got, want in zip(jax.tree.leaves(ours.accumulator), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)
    # With nothing penalised there is no dtype to take, and the threshold is a float32.
    rtol = 1e-9 if expected else 1e-6
    np.testing.assert_allclose(ours.threshold, h, rtol=rtol, atol=1e-12)


def start_of(shape, i=0):
    return jnp.asarray(np.cos(0.7 * i + np.arange(int(np.prod(shape)))).reshape(shape))


def is_shape(x):
    return isinstance(x, Shape)


@pytest.mark.usefixtures("float64")
class TestEquations:
    @settings(max_examples=25)
    @given(trees_of_shapes, settings_of_grda())
    def test_trees(self, tree, options):
        params = jax.tree.map(lambda s: start_of(s.shape), tree, is_leaf=is_shape)
        check_against_oracle(params, options)

    @settings(max_examples=15)
    @given(settings_of_grda(), st.lists(st.booleans(), min_size=3, max_size=3))
    def test_masks(self, options, flags):
        params = {"a": start_of((2, 2)), "b": (start_of((3,), 1), start_of((), 2))}
        mask = jax.tree.unflatten(jax.tree.structure(params), flags)
        check_against_oracle(params, options, mask)

    @settings(max_examples=6)
    @given(settings_of_grda())
    def test_flax_state(self, options):
        model = nnx.Sequential(
            nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Linear(3, 1, rngs=nnx.Rngs(1))
        )
        params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
        state = nnx.state(model, nnx.Param)
        nnx.replace_by_pure_dict(state, jax.tree.map(lambda x: x.astype(jnp.float64), params))
        assert isinstance(state, nnx.State)
        check_against_oracle(state, options)


INPUTS = jax.random.normal(jax.random.key(3), (64, 20))
LABELS = INPUTS @ jnp.linspace(-1, 1, 60).reshape(20, 3)
START = {"kernel": 0.3 * jax.random.normal(jax.random.key(4), (20, 3)), "bias": jnp.zeros(3)}


def loss(params):
    residual = INPUTS @ params["kernel"] + params["bias"][None] - LABELS
    return 0.5 * jnp.mean(jnp.sum(residual**2, axis=1))


def given_gradients(steps, key=5):
    keys = jax.random.split(jax.random.key(key), steps)
    return jax.vmap(lambda k: normal_like(k, START))(keys)


@functools.partial(jax.jit, static_argnums=(0, 1))
def scan(tx, steps, params, gradients=None):
    """The params and the state after so many steps; with full gradients if none are given."""

    def step(carry, g):
        params, state = carry
        g = jax.grad(loss)(params) if g is None else g
        updates, state = tx.update(g, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), gradients, length=steps)[0]


DECAY = optax.cosine_decay_schedule(0.05, 500, alpha=0.1)
SGD_SETTINGS = {
    "plain": {"learning_rate": 0.05},
    "schedule": {"learning_rate": DECAY},
    "momentum": {"learning_rate": 0.02, "momentum": 0.9},
    "nesterov": {"learning_rate": DECAY, "momentum": 0.8, "nesterov": True},
    "decay": {"learning_rate": 0.05, "weight_decay": 1e-2},
    "all": {"learning_rate": DECAY, "momentum": 0.8, "nesterov": True, "weight_decay": 1e-2},
}


def sgd(learning_rate, momentum=None, nesterov=False, weight_decay=0.0):
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.sgd(learning_rate, momentum, nesterov),
    )


@pytest.mark.parametrize("options", SGD_SETTINGS.values(), ids=SGD_SETTINGS)
class TestSGDLimit:
    def test_follows_sgd(self, options):
        """The rounding of the weights does not add up: 500 steps end within a few units of it."""
        expected, _ = scan(sgd(**options), 500, START)
        found, state = scan(grda(**options, c=0.0), 500, START)
        assert_close(found, expected, rtol=0, atol=5e-7)
        assert our_state(state).threshold == 0

    @pytest.mark.slow
    def test_is_sgd_in_the_accumulator(self, options):
        """For gradients that the weights do not change, bit for bit.

        Operation by operation, since a compiler may round a product and a sum once or twice.
        """
        if "weight_decay" in options:
            options = {k: v for k, v in options.items() if k != "weight_decay"}
        gradients = given_gradients(30)
        with jax.disable_jit():
            expected, _ = scan(sgd(**options), 30, START, gradients)
            _, state = scan(grda(**options, c=0.0), 30, START, gradients)
        assert_same_bits(our_state(state).accumulator, expected)

    def test_is_not_sgd_with_a_threshold(self, options):
        expected, _ = scan(sgd(**options), 500, START)
        found, _ = scan(grda(**options, c=1e-3), 500, START)
        with pytest.raises(AssertionError):
            assert_close(found, expected, rtol=0, atol=5e-7)


def test_mu_one_is_rda():
    """The weights are those of Xiao's closed form, from the plain sum of all gradients so far.

    min over w of <sum of g, w> + n * penalty * |w|_1 + |w - w_0|^2 / (2 gamma), with
    penalty = c * gamma^(1/2): soft(w_0 - gamma * sum of g, gamma * n * penalty).
    """
    rate, c, steps = 0.02, 0.4, 300
    gradients = given_gradients(steps)
    found, state = scan(grda(rate, c=c, mu=1.0), steps, START, gradients)
    total = jax.tree.map(lambda g: np.asarray(g, np.float64).sum(axis=0), gradients)
    penalty = c * rate**0.5
    expected = {
        k: oracle.soft(np.asarray(START[k], np.float64) - rate * total[k], rate * steps * penalty)
        for k in START
    }
    np.testing.assert_allclose(our_state(state).threshold, rate * steps * penalty, rtol=1e-5)
    assert_close(found, expected, rtol=0, atol=2e-6)
    zeros = np.mean(leaves_by_path(found)["['kernel']"] == 0)
    assert 0.05 < zeros < 0.95
    for k in START:
        np.testing.assert_array_equal(np.asarray(found[k]) == 0, expected[k] == 0)


@pytest.mark.parametrize("mu", [0.4, 0.51, 0.7, 1.0])
def test_the_power_law_as_a_schedule_is_power_threshold(mu):
    """For a constant rate the increments telescope; a schedule is called with n from 1."""
    rate, c = 0.02, 0.05

    def law(n):
        return c * rate**0.5 * (n * rate) ** mu

    rule = optax.chain(optax.sgd(rate), dual_averaging(power_threshold(rate, c, mu)))
    schedule = optax.chain(optax.sgd(rate), dual_averaging(law))
    first, second = (scan(tx, 100, START) for tx in (rule, schedule))
    assert_close(first[0], second[0], rtol=1e-5, atol=1e-6)
    for n in (1, 2):
        state = our_state(library_run(schedule, START, lambda n, p: START, steps=n)[1])
        np.testing.assert_allclose(state.threshold, law(n), rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(options, id=name, marks=[] if name == "plain" else pytest.mark.slow)
        for name, options in SGD_SETTINGS.items()
    ],
)
def test_grda_is_sgd_and_dual_averaging(options):
    """The two ways to write the optimizer of the paper."""
    rate = options["learning_rate"]
    chain = optax.chain(sgd(**options), dual_averaging(power_threshold(rate, 0.02, 0.6)))
    gradients = given_gradients(30)
    with jax.disable_jit():
        one, _ = scan(grda(**options, c=0.02, mu=0.6), 30, START, gradients)
        two, _ = scan(chain, 30, START, gradients)
    assert_same_bits(one, two)
