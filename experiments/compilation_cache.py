"""Compiled programs, kept for the next run."""

import os
from pathlib import Path

import jax


def default_folder() -> Path:
    """In the user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "grda_optax" / "xla"


def use(folder: Path | None) -> None:
    """Keeps every program that is compiled from now on, and takes those that are there.

    A folder that JAX has been given already, as by JAX_COMPILATION_CACHE_DIR, is left to it. Where
    a program cannot be read or written, JAX warns and compiles it.

    Args:
        folder: made where it is missing; ``None`` keeps nothing.
    """
    if folder is None or jax.config.jax_compilation_cache_dir is not None:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder.expanduser().absolute()))
    # By default what compiles within a second is not kept: here that is nearly everything.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
