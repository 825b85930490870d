"""Where a number comes from: what stands in a row beside its config, command and result."""

import importlib.metadata
import os
import platform
from pathlib import Path

import jax

from experiments.log import Row

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("jax", "jaxlib", "optax", "flax", "numpy", "grda_optax")


def of(*more: str) -> Row:
    """The versions, of ``more`` packages too, and the device of what has just been run."""
    cores = len(os.sched_getaffinity(0))
    return {
        "versions": {name: importlib.metadata.version(name) for name in (*PACKAGES, *more)},
        "python": platform.python_version(),
        "device": f"{jax.devices()[0].device_kind}, {cores} core{'s' if cores > 1 else ''}",
    }
