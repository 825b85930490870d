"""What is timed: the update alone, and the training step of a small CNN."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from experiments import data
from experiments.bench.timing import Cost, interleaved
from experiments.config import Config, Runtime
from experiments.parallel import DataParallel, use_devices
from experiments.train import Job, State
from grda_optax import grda, prune_with

PyTree = Any

# A multiple of the updates between two quantiles of the recipe, so that each block has as many.
STEPS = 10
LEAVES = 8
COLUMNS = 256


def optimizers(
    rounds: int, mask: PyTree = None
) -> dict[str, optax.GradientTransformationExtraArgs]:
    """SGD with momentum, which the others are held against, then gRDA and the recipe."""
    sgd = optax.sgd(0.1, momentum=0.9)
    measured = STEPS * (1 + rounds)
    return {
        "sgd, momentum": sgd,
        "grda": grda(0.1, c=0.005, mu=0.51, mask=mask),
        # The ramp is twice as long as what is timed, so that it goes on throughout.
        "prune_with(sgd), in the ramp": prune_with(
            sgd, 0.9, 2 * measured, ramp_end=1.0, freeze_at=1.0, mask=mask
        ),
        # Frozen at the third update, within the round that does not count.
        "prune_with(sgd), frozen": prune_with(sgd, 0.9, 4, mask=mask),
    }


def time_update(weights: int, rounds: int) -> tuple[int, dict[str, Cost]]:
    """The update and its addition to float32 weights, jitted and donated.

    Returns:
        How many weights there are, ``weights`` rounded to whole rows, and the costs.
    """
    shape = (max(1, weights // (LEAVES * COLUMNS)), COLUMNS)
    rng = np.random.default_rng(0)

    def tree(scale: float) -> PyTree:
        return {
            f"kernel{i}": jnp.asarray(scale * rng.standard_normal(shape, np.float32))
            for i in range(LEAVES)
        }

    params, gradients = tree(0.05), tree(1e-3)
    blocks = {}
    for name, tx in optimizers(rounds).items():

        def step(state: PyTree, gradients: PyTree, tx: Any = tx) -> PyTree:
            params, opt_state = state
            updates, opt_state = tx.update(gradients, opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        state = jax.tree.map(jnp.copy, (params, tx.init(params)))
        blocks[name] = _block(jax.jit(step, donate_argnums=0), state, gradients)
    return LEAVES * shape[0] * shape[1], interleaved(blocks, rounds, STEPS)


def time_training(batch_size: int, rounds: int) -> dict[str, Cost]:
    """The whole training step of `small_cnn` on 28 x 28 images, on one device."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, 28, 28, 1)).astype(np.uint8)
    split = data.Split(images, rng.integers(0, 10, batch_size).astype(np.int32))
    job = Job(
        config=Config(model="small_cnn", batch_size=batch_size),
        runtime=Runtime(progress=False),
        dataset=data.Dataset(split, split, num_classes=10, mean=0.5, std=0.3),
        parallel=DataParallel("mesh", use_devices(1)),
        folder=Path(),  # which nothing is written to
        console=Console(quiet=True),
    )
    params, statistics = job.start()
    blocks = {}
    for name, tx in optimizers(rounds, job.penalised).items():
        state = State(jnp.zeros([], jnp.int32), params, statistics, tx.init(params))
        step = job.compiled_step(tx)
        blocks[name] = _block(
            lambda state, batch, step=step: step(state, batch)[0],
            job.parallel.replicate(state),
            job.parallel.split(split),
        )
    return interleaved(blocks, rounds, STEPS)


def _block(step: Callable[..., PyTree], state: PyTree, batch: PyTree) -> Callable[[], None]:
    """Some steps, which go on where the block before has ended."""

    def block() -> None:
        nonlocal state
        for _ in range(STEPS):
            state = step(state, batch)
        jax.block_until_ready(state)

    return block
