"""What is timed: the update alone, and the training step of a network."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from experiments import data
from experiments.bench.timing import Cost, in_place, interleaved
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


def in_place_update(tx: optax.GradientTransformation) -> Callable[[PyTree, PyTree], PyTree]:
    """The update and its addition: (params, state) and gradients to (params, state), donated."""

    def step(state: PyTree, gradients: PyTree) -> PyTree:
        params, opt_state = state
        updates, opt_state = tx.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return jax.jit(step, donate_argnums=0)


def kernels(weights: int, leaves: int, scale: float = 0.05) -> dict[str, jax.Array]:
    """So many equal kernels, together of ``weights`` rounded down to whole rows, float32."""
    each = max(1, weights // leaves)
    columns = min(COLUMNS, 2 ** int(math.log2(each) / 2))
    shape = (each // columns, columns)
    rng = np.random.default_rng(0)
    return {
        f"kernel{i}": jnp.asarray(scale * rng.standard_normal(shape, np.float32))
        for i in range(leaves)
    }


def count(params: PyTree) -> int:
    """How many weights there are."""
    return sum(x.size for x in jax.tree.leaves(params))


def time_update(weights: int, rounds: int) -> tuple[int, dict[str, Cost]]:
    """The update and its addition to float32 weights, jitted and donated.

    Returns:
        How many weights there are, ``weights`` rounded to whole rows, and the costs.
    """
    params, gradients = kernels(weights, LEAVES), kernels(weights, LEAVES, 1e-3)
    blocks = {}
    for name, tx in optimizers(rounds).items():
        state = jax.tree.map(jnp.copy, (params, tx.init(params)))
        blocks[name] = in_place(in_place_update(tx), state, gradients, STEPS)
    return count(params), interleaved(blocks, rounds, STEPS)


def job(model: str, batch_size: int, image: tuple[int, ...], classes: int) -> Job:
    """A run on one device, of images that are noise; it writes nothing."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, *image)).astype(np.uint8)
    split = data.Split(images, rng.integers(0, classes, batch_size).astype(np.int32))
    config: Any = {"model": model, "batch_size": batch_size}
    return Job(
        config=Config(**config),
        runtime=Runtime(progress=False),
        dataset=data.Dataset(split, split, num_classes=classes, mean=0.5, std=0.3),
        parallel=DataParallel("mesh", use_devices(1)),
        folder=Path(),  # which nothing is written to
        console=Console(quiet=True),
    )


def time_training(
    batch_size: int,
    rounds: int,
    model: str = "small_cnn",
    image: tuple[int, ...] = (28, 28, 1),
    classes: int = 10,
    more: Mapping[str, optax.GradientTransformation] | None = None,
) -> dict[str, Cost]:
    """The whole training step of a network, on one device; with ``more`` optimizers beside ours."""
    run = job(model, batch_size, image, classes)
    params, statistics = run.start()
    blocks = {}
    for name, tx in (optimizers(rounds, run.penalised) | dict(more or {})).items():
        tx = optax.with_extra_args_support(tx)
        state = State(jnp.zeros([], jnp.int32), params, statistics, tx.init(params))
        blocks[name] = in_place(
            _state_of(run.compiled_step(tx)),
            run.parallel.replicate(state),
            run.parallel.split(run.dataset.train),
            STEPS,
        )
    return interleaved(blocks, rounds, STEPS)


def _state_of(step: Callable[[PyTree, PyTree], PyTree]) -> Callable[[PyTree, PyTree], PyTree]:
    return lambda state, batch: step(state, batch)[0]
