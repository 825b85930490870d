"""What products with the Hessian cost beside gradients, and Lanczos beside its products."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.bench.timing import Cost, interleaved
from grda_optax import hvp, spectral_function

PyTree = Any

STEPS = 50
"""Of Lanczos."""
INPUTS, CLASSES = 784, 10


def network(weights: int, examples: int) -> tuple[Callable[..., jax.Array], PyTree, PyTree]:
    """A loss, params and a batch: an MLP with two hidden layers, of about so many weights."""
    width = max(2, round((-INPUTS - CLASSES + ((INPUTS + CLASSES) ** 2 + 4 * weights) ** 0.5) / 2))
    rng = np.random.default_rng(0)
    sizes = [INPUTS, width, width, CLASSES]
    params = [
        jnp.asarray(rng.normal(0, m**-0.5, (m, n)), jnp.float32)
        for m, n in itertools.pairwise(sizes)
    ]
    batch = (
        jnp.asarray(rng.normal(size=(examples, INPUTS)), jnp.float32),
        jnp.asarray(rng.integers(0, CLASSES, examples)),
    )

    def loss(params: PyTree, batch: PyTree) -> jax.Array:
        x = batch[0]
        for kernel in params[:-1]:
            x = jnp.tanh(x @ kernel)
        losses = optax.softmax_cross_entropy_with_integer_labels(x @ params[-1], batch[1])
        mean: jax.Array = losses.mean()
        return mean

    return loss, params, batch


def time_products(weights: int, examples: int, rounds: int) -> dict[str, Cost]:
    """A product with the Hessian beside a gradient over the same data."""
    loss, params, batch = network(weights, examples)
    vector = jax.tree.map(jnp.ones_like, params)
    gradient = jax.jit(jax.grad(loss))
    return interleaved(
        {
            "gradient": lambda: jax.block_until_ready(gradient(params, batch)),
            "product": lambda: jax.block_until_ready(hvp(loss, params, vector, [batch])),
        },
        rounds,
        1,
    )


def time_lanczos(weights: int, examples: int, rounds: int) -> dict[str, Cost]:
    """So many steps of Lanczos beside as many products."""
    loss, params, batch = network(weights, examples)
    vector = jax.tree.map(jnp.sign, params)

    def products() -> None:
        u = vector
        for _ in range(STEPS):
            u = hvp(loss, params, u, [batch])
        jax.block_until_ready(u)

    return interleaved(
        {
            f"{STEPS} products": products,
            f"{STEPS} steps of Lanczos": lambda: _lanczos(loss, params, batch, vector, True),
        },
        rounds,
        1,
    )


def _lanczos(loss: Any, params: PyTree, batch: PyTree, vector: PyTree, keep_basis: bool) -> None:
    def matvec(u: PyTree) -> PyTree:
        return hvp(loss, params, u, [batch])

    result = spectral_function(
        matvec, vector, lambda x: np.exp(-np.abs(x)), STEPS, keep_basis=keep_basis
    )
    jax.block_until_ready(result.value)


def peak_bytes(what: str, weights: int, examples: int) -> int:
    """The largest memory of a process of its own that does one thing.

    Args:
        what: ``products``, ``basis`` or ``no_basis``.
        weights: of the network.
        examples: in the batch.
    """
    words = [sys.executable, "-m", "experiments.bench.curvature", what, str(weights), str(examples)]
    # Memory that is given back leaves the process, so that holes in it do not count.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    out = subprocess.run(words, capture_output=True, text=True, check=True, env=env)
    return int(out.stdout.split()[-1])


def memory(weights: int, examples: int) -> dict[str, float]:
    """What Lanczos holds beyond its products: in bases where it keeps one, in vectors without."""
    products, basis, no_basis = (
        peak_bytes(what, weights, examples) for what in ("products", "basis", "no_basis")
    )
    _, params, _ = network(weights, 1)
    vector = sum(4 * x.size for x in params)
    return {
        "basis": (basis - products) / (STEPS * vector),
        "no_basis": (no_basis - products) / vector,
    }


def _measure(what: str, weights: int, examples: int) -> int:
    # What it takes to compile is no memory of the method: it is taken, and given back, before.
    loss, params, batch = network(10 * STEPS, 2)
    for keep_basis in (True, False):
        _lanczos(loss, params, batch, params, keep_basis)
    loss, params, batch = network(weights, examples)
    vector = jax.tree.map(jnp.sign, params)
    if what == "products":
        for _ in range(3):
            vector = hvp(loss, params, vector, [batch])
        jax.block_until_ready(vector)
    else:
        _lanczos(loss, params, batch, vector, what == "basis")
    # Of this process alone: what `resource` tells is never less than the parent's.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


if __name__ == "__main__":
    print(_measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
