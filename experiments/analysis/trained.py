"""Trained networks to be pruned without retraining: weights, a loss and the data."""

import dataclasses
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from experiments import data
from experiments.config import Config, Runtime
from experiments.parallel import DataParallel, use_devices
from experiments.train import Job

PyTree = Any
Batch = tuple[jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True)
class Network:
    """A trained network as pure functions."""

    params: PyTree
    forward: Callable[[PyTree, Batch], jax.Array]
    train: Batch
    test: Batch

    def loss(self, params: PyTree, batch: Batch) -> jax.Array:
        """The mean cross entropy."""
        logits = self.forward(params, batch)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
        mean: jax.Array = losses.mean()
        return mean

    def scores(self, params: PyTree) -> dict[str, float]:
        """The training loss, and the test accuracy in per cent."""
        right = self.forward(params, self.test).argmax(-1) == self.test[1]
        return {
            "train_loss": float(jax.jit(self.loss)(params, self.train)),
            "test_accuracy": float(100 * jnp.mean(right)),
        }


def digits_tanh(seed: int) -> Network:
    """64-40-20-10 with tanh on digits: small enough for its whole Hessian."""
    dataset = data.load("digits")
    train, test = (_floats(data.in_memory(x)) for x in (dataset.train, dataset.test))
    sizes, steps = (64, 40, 20, 10), 3000
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {
        f"dense{i + 1}": {"kernel": jax.random.normal(k, (m, n)) / m**0.5, "bias": jnp.zeros(n)}
        for i, (k, m, n) in enumerate(zip(keys, sizes[:-1], sizes[1:], strict=True))
    }
    tx = optax.chain(
        optax.add_decayed_weights(1e-4),
        optax.sgd(optax.cosine_decay_schedule(0.1, steps), momentum=0.9),
    )
    network = Network(params, _tanh, train, test)

    def step(carry: Any, key: jax.Array) -> Any:
        params, state = carry
        chosen = jax.random.randint(key, (128,), 0, len(train[1]))
        gradient = jax.grad(network.loss)(params, (train[0][chosen], train[1][chosen]))
        updates, state = tx.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.key(1000 + seed), steps)
    (params, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, keys))((params, tx.init(params)))
    return dataclasses.replace(network, params=params)


def _tanh(params: PyTree, batch: Batch) -> jax.Array:
    x = batch[0]
    for name in ("dense1", "dense2"):
        x = jnp.tanh(x @ params[name]["kernel"] + params[name]["bias"])
    logits: jax.Array = x @ params["dense3"]["kernel"] + params["dense3"]["bias"]
    return logits


def _floats(split: data.Split) -> Batch:
    inputs = np.asarray(split.inputs, np.float32) / 255
    return jnp.asarray(inputs.reshape(len(inputs), -1)), jnp.asarray(split.labels)


def of_config(config: Config, examples: int) -> Network:
    """The dense network of a config, with so many training examples for its curvature."""
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            config=config,
            runtime=Runtime(progress=False, log_every=200, checkpoint_every=10**9),
            dataset=data.load(config.dataset),
            parallel=DataParallel("mesh", use_devices(1)),
            folder=Path(folder) / "run",
            console=Console(quiet=True),
        )
        trained = job.train(job.base_optimizer())

    def forward(params: PyTree, batch: Batch) -> jax.Array:
        return job.model.apply(params, trained.statistics, batch[0], False)[0]

    train, test = (data.in_memory(split) for split in job.splits)
    chosen = np.random.default_rng(config.seed).permutation(len(train.labels))[:examples]
    return Network(
        jax.tree.map(jnp.asarray, trained.params),
        forward,
        (jnp.asarray(train.inputs[chosen]), jnp.asarray(train.labels[chosen])),
        (jnp.asarray(test.inputs), jnp.asarray(test.labels)),
    )


@functools.cache
def network(problem: str, seed: int) -> Network:
    """By the name of the problem."""
    from experiments.configs import fashion_mnist_recipe

    if problem == "digits":
        return digits_tanh(seed)
    if problem == "digits_300_100":
        return of_config(
            Config(
                dataset="digits",
                method=("dense",),
                momentum=0.9,
                learning_rate=0.1,
                schedule="cosine",
                weight_decay=1e-4,
                seed=seed,
            ),
            examples=1437,
        )
    config = dataclasses.replace(fashion_mnist_recipe.CONFIG, method=("dense",), seed=seed)
    return of_config(config, examples=2000)
