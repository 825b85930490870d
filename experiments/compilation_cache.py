"""Compiled programs, kept for the next run."""

import os
from pathlib import Path

import jax

from experiments.checks import check


def default_folder() -> Path:
    """In the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "grda_optax" / "xla"


def use(folder: Path | None) -> None:
    """Keeps every program that is compiled from now on, and takes those that are there.

    A folder that JAX has been given already, as by JAX_COMPILATION_CACHE_DIR, is left to it. Where
    a program cannot be read, JAX warns and compiles it.

    Args:
        folder: made where it is missing; ``None`` keeps nothing, and neither does the default one
            where it cannot be written.

    Raises:
        ValueError: the folder is not the default one and cannot be written.
    """
    if folder is None or jax.config.jax_compilation_cache_dir is not None:
        return
    place = _writable(folder)
    if place is None:
        wanted = "a folder that can be written, or None"
        check(folder == default_folder(), "compilation_cache", str(folder), wanted)
        return
    jax.config.update("jax_compilation_cache_dir", str(place))
    # By default what compiles within a second is not kept: here that is nearly everything.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _writable(folder: Path) -> Path | None:
    try:
        place = folder.expanduser().absolute()
        place.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # the latter where there is no home
        return None
    return place if os.access(place, os.W_OK) else None
