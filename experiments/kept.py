"""Weights along training, as a run with --keep-params leaves them: a file for each moment."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

PyTree = Any


def name(path: Any) -> str:
    """A leaf's path, such as dense1/kernel."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def write(folder: Path, step: int, params: PyTree, statistics: PyTree) -> None:
    """Writes the weights after so many updates; whole or not at all."""
    arrays = {
        f"{part}/{name(path)}": np.asarray(leaf)
        for part, tree in (("params", params), ("statistics", statistics))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    folder.mkdir(exist_ok=True)
    target = folder / f"step_{step:08d}.npz"
    partial = target.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    partial.replace(target)


def steps(folder: Path) -> list[int]:
    """After how many updates there are weights, in order."""
    return sorted(int(path.stem.removeprefix("step_")) for path in folder.glob("step_*.npz"))


def read(folder: Path, step: int, like: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
    """The params and the statistics after so many updates, in the structure of ``like``."""
    with np.load(folder / f"step_{step:08d}.npz") as arrays:
        params, statistics = (
            jax.tree_util.tree_map_with_path(
                lambda path, _, part=part: np.asarray(arrays[f"{part}/{name(path)}"]), tree
            )
            for part, tree in zip(("params", "statistics"), like, strict=True)
        )
    return params, statistics
