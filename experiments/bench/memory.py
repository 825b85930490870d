"""Memory of an update and of whole training steps, from the programs compiled for shapes alone."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments import plan
from experiments.bench.shown import Shown
from experiments.bench.updates import LEAVES, in_place_update
from experiments.config import Config, Runtime
from experiments.configs import PRESETS
from experiments.log import Row
from experiments.parallel import use_devices
from grda_optax import grda, prune_with


def optimizers(mask: Any = None) -> dict[str, optax.GradientTransformationExtraArgs]:
    """SGD with momentum, which the others are held against, and the others."""
    sgd = optax.sgd(0.1, momentum=0.9)
    return {
        "sgd, momentum": sgd,
        "adam": optax.with_extra_args_support(optax.adam(1e-3)),
        "grda": grda(0.1, c=0.005, mu=0.51, mask=mask),
        "prune_with(sgd)": prune_with(sgd, 0.9, 1000, mask=mask),
    }


def peak(compiled: Any) -> int:
    """Bytes of arguments, of results that do not take an argument's place, and of temporaries."""
    memory = compiled.memory_analysis()
    return int(
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )


def of_update(weights: int) -> Row:
    """Of the update alone, in place."""
    leaf = jax.ShapeDtypeStruct((max(1, weights // LEAVES),), jnp.float32)
    params = {f"kernel{i}": leaf for i in range(LEAVES)}
    found = {}
    for name, tx in optimizers().items():
        state = jax.eval_shape(tx.init, params)
        step: Any = in_place_update(tx)
        compiled = step.lower((params, state), params).compile()
        found[name] = _row(params, state, compiled)
    return found


def of_training(preset: str, batch_size: int) -> Row:
    """Of the training step of a preset's network on one device."""
    config: Config = dataclasses.replace(PRESETS[preset].CONFIG, batch_size=batch_size)
    job = plan.outline(config, Runtime(), use_devices(1))
    found = {}
    for name, tx in optimizers(job.penalised).items():
        state, batch = plan.abstract_arguments(job, tx)
        step: Any = job.compiled_step(tx)
        compiled = step.lower(*job.parallel.abstract(state, batch)).compile()
        found[name] = _row(state.params, state.opt_state, compiled)
    return found


def _row(params: Any, state: Any, compiled: Any) -> Row:
    weights = sum(math.prod(x.shape) for x in jax.tree.leaves(params))
    return {
        "weights": weights,
        "state_bytes_per_weight": plan.size_of(state) / weights,
        "temporary_bytes": int(compiled.memory_analysis().temp_size_in_bytes),
        "peak_bytes": peak(compiled),
    }


def measure(weights: int, networks: dict[str, int]) -> Row:
    """What is measured, then by optimizer.

    Args:
        weights: of the update alone.
        networks: presets, each with a batch size.
    """
    found = {f"the update of {weights:,} weights": of_update(weights)}
    for preset, batch_size in networks.items():
        found[f"training step of {preset}, batch {batch_size}"] = of_training(preset, batch_size)
    return found


def shown(found: Row) -> list[Shown]:
    """Bytes a weight, and the peak."""
    lines = []
    for what, rows in found.items():
        first = next(iter(rows.values()))["peak_bytes"]
        for name, row in rows.items():
            lines.append(
                [
                    what,
                    name,
                    f"{row['state_bytes_per_weight']:.4g}",
                    f"{row['temporary_bytes'] / 2**20:.1f}",
                    f"{row['peak_bytes'] / 2**20:.1f}",
                    f"{row['peak_bytes'] / first:.3f}",
                ]
            )
    header = ["of", "optimizer", "state, bytes a weight", "temporaries (MiB)", "peak (MiB)"]
    note = (
        "Float32 weights, updated in their own memory. The peak is what the compiled program asks "
        "for: weights, state, batch or gradients, and temporaries, activations among them."
    )
    return [Shown("Memory", [*header, "peak over sgd, momentum"], lines, note)]
