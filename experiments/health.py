"""Whether a run goes well: its numbers on the host, and what is said when one is not finite."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from experiments.checkpoint import Checkpoints
from experiments.folder import RunFolder
from experiments.log import Row
from experiments.parallel import DataParallel

PyTree = Any


class DivergedError(Exception):
    """A loss or a gradient was not finite."""


def fetch(pending: list[tuple[int, dict[str, jax.Array]]], parallel: DataParallel) -> list[Row]:
    """Waits for the steps that are under way, and brings their metrics to the host."""
    fetched = jax.device_get([parallel.unreplicate(metrics) for _, metrics in pending])
    return [
        {"step": step, **{name: float(value) for name, value in metrics.items()}}
        for (step, _), metrics in zip(pending, fetched, strict=True)
    ]


def healthy(rows: list[Row]) -> list[Row]:
    """The rows before the first whose loss or gradient is not finite, and was not skipped."""
    for i, row in enumerate(rows):
        finite = math.isfinite(row["loss"]) and math.isfinite(row["gradient_norm"])
        if not (finite or row.get("skipped")):
            return rows[:i]
    return rows


@jax.jit
def _all_finite(tree: PyTree) -> jax.Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def all_finite(tree: PyTree) -> bool:
    """Whether no entry of a tree, wherever it is, is infinite or NaN."""
    return bool(_all_finite(tree))


def diverged(what: str, row: Row, checkpoints: Checkpoints, folder: RunFolder) -> DivergedError:
    """The error for a row, after which nothing more is written."""
    threshold = f", threshold {row['threshold']:g}" if "threshold" in row else ""
    good = checkpoints.latest()
    checkpoints.close()  # which waits until that one is written
    kept = (
        "no checkpoint was reached"
        if good is None
        else f"the last good checkpoint, of step {good}, is in {folder.checkpoints}"
    )
    return DivergedError(
        f"{what} at step {row['step']}: loss {row['loss']:g}, norm of the gradient "
        f"{row['gradient_norm']:g}, learning rate {row['learning_rate']:g}{threshold}; {kept}. "
        "Try a lower --learning-rate."
    )
