"""Small networks whose curvature can be written out, and the digits MLP that the limits are for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree


def init(seed, sizes):
    """Layers as dicts, kernels scaled by the inputs, biases zero."""
    keys = jax.random.split(jax.random.key(seed), len(sizes) - 1)
    return [
        {"kernel": jax.random.normal(k, (m, n)) / m**0.5, "bias": jnp.zeros(n)}
        for k, m, n in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def forward(params, batch):
    x = batch[0]
    for layer in params[:-1]:
        x = jnp.tanh(x @ layer["kernel"] + layer["bias"][None])
    return x @ params[-1]["kernel"] + params[-1]["bias"][None]


def cross_entropy(logits, batch):
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()


def loss(params, batch):
    return cross_entropy(forward(params, batch), batch)


def accuracy(params, batch):
    return float(jnp.mean(forward(params, batch).argmax(-1) == batch[1]))


def problem(seed=0, sizes=(5, 4, 3), examples=12):
    """Random data for a network of a few dozen weights."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(examples, sizes[0]))
    labels = rng.integers(sizes[-1], size=examples)
    return init(seed, sizes), (jnp.asarray(inputs, jnp.result_type(float)), jnp.asarray(labels))


def hessian(params, batch):
    """The whole matrix, of the raveled params."""
    flat, unravel = ravel_pytree(params)
    return np.asarray(jax.hessian(lambda w: loss(unravel(w), batch))(flat))


@functools.cache
def digits():
    """Training and test data of scikit-learn's digits, four to one."""
    from sklearn.datasets import load_digits

    inputs, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    inputs, labels = (inputs[order] / 16).astype(np.float32), labels[order].astype(np.int32)
    cut = 1437
    return (inputs[:cut], labels[:cut]), (inputs[cut:], labels[cut:])


@functools.cache
def trained_digits(seed, sizes=(64, 40, 20, 10), steps=3000):
    """3,630 weights, trained by momentum with a cosine and a little weight decay."""
    inputs, labels = map(jnp.asarray, digits()[0])
    tx = optax.chain(
        optax.add_decayed_weights(1e-4),
        optax.sgd(optax.cosine_decay_schedule(0.1, steps), momentum=0.9),
    )

    def step(carry, key):
        params, state = carry
        chosen = jax.random.randint(key, (128,), 0, len(labels))
        gradient = jax.grad(loss)(params, (inputs[chosen], labels[chosen]))
        updates, state = tx.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def train(params):
        keys = jax.random.split(jax.random.key(100 + seed), steps)
        return jax.lax.scan(step, (params, tx.init(params)), keys)[0][0]

    return train(init(seed, sizes))
