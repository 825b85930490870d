"""Where a number comes from: what stands in a row beside its config, command and result."""

import importlib.metadata
import os
import platform
from pathlib import Path

import jax

from experiments.log import Row

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("jax", "jaxlib", "optax", "flax", "numpy", "grda_optax")


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def of(*more: str) -> Row:
    """The versions, of ``more`` packages too, and the device of what has just been run."""
    count = cores()
    return {
        "versions": {name: importlib.metadata.version(name) for name in (*PACKAGES, *more)},
        "python": platform.python_version(),
        "device": f"{jax.devices()[0].device_kind}, {count} core{'s' if count > 1 else ''}",
    }
