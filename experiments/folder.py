"""The folder of a run: what its files are called, and who may continue in it."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import kept
from experiments.config import Config
from experiments.faults import whole

PyTree = Any
ANALYSES = (
    "connectivity",
    "curves",
    "layers",
    "norms",
    "projection",
    "spectrum",
    "topology",
)
"""What `experiments.analysis` may write into the folder of a run."""
Masks = dict[str, np.ndarray]
"""Where the weights of each penalised leaf are not zero, by the leaf's path."""


class RunFolder:
    """The folder of one method's run; the only place that knows what the files are called."""

    def __init__(self, path: Path):
        """Names the files; nothing is written."""
        self.path = path.absolute()  # orbax takes no other
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.jsonl"
        self.result = self.path / "result.json"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"
        self.masks = self.path / "masks"
        self.params = self.path / "params"

    def open(self, config: Config, *, overwrite: bool = False) -> None:
        """Makes the folder for this config, or goes on in it if it was made for the same.

        Raises:
            FileExistsError: it holds the run of another config, or files that are no run.
        """
        if overwrite:
            self._delete()
        partial = partial_of(self.config)  # left by a run that was killed as it began
        if self.config.exists():
            try:
                old = self.read_config()
            except (ValueError, TypeError) as error:
                raise FileExistsError(
                    f"{self.config} cannot be read ({error}); choose another folder with "
                    "--runs-dir, or pass --overwrite."
                ) from error
            differences = config.differences(old)
            if differences:
                lines = [
                    f"  {k}: {was!r} there, {now!r} asked for"
                    for k, (now, was) in differences.items()
                ]
                raise FileExistsError(
                    f"{self.path} holds the run of another config:\n"
                    + "\n".join(lines)
                    + "\nChoose another folder with --runs-dir, or pass --overwrite."
                )
        elif self.path.exists() and any(x != partial for x in self.path.iterdir()):
            raise FileExistsError(
                f"{self.path} is not empty and holds no config.json; choose another folder with "
                "--runs-dir."
            )
        else:
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(self.config, config.to_json())

    def analysis(self, name: str) -> Path:
        """Where an analysis writes its numbers (with .json behind it) and its figure (.png)."""
        return self.path / name

    def read_config(self) -> Config:
        """The config that the folder was made for.

        Raises:
            ValueError: the file is no JSON, or that of no config.
        """
        try:
            return Config.from_json(json.loads(self.config.read_text()))
        except RecursionError as error:
            raise ValueError("config.json must be a config, got one that is too deep.") from error

    def _delete(self) -> None:
        """Removes what a run writes, and nothing that somebody else has put there."""
        for path in (self.tensorboard, self.checkpoints, self.masks, self.params):
            shutil.rmtree(path, ignore_errors=True)
        written = (
            self.analysis(name).with_suffix(suffix)
            for name in ANALYSES
            for suffix in (".json", ".png")
        )
        for path in (self.metrics, self.result, self.config, *written):
            path.unlink(missing_ok=True)

    def write_masks(self, epoch: int, params: PyTree, penalised: PyTree) -> None:
        """Writes where the penalised leaves are not zero, a bit a weight; whole or not at all."""
        arrays = {}
        flags = jax.tree.leaves(penalised)
        for (path, leaf), flag in zip(
            jax.tree_util.tree_leaves_with_path(params), flags, strict=True
        ):
            if flag:
                mask = np.asarray(leaf) != 0
                arrays[f"bits/{kept.name(path)}"] = np.packbits(mask)
                arrays[f"shape/{kept.name(path)}"] = np.array(mask.shape)
        self.masks.mkdir(exist_ok=True)
        with whole(self.masks / f"epoch_{epoch:06d}.npz") as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    def read_masks(self) -> dict[int, Masks]:
        """The masks that were written, by epoch, in order.

        Raises:
            ValueError: one of them is truncated or altered.
        """
        masks = {}
        for path in sorted(self.masks.glob("epoch_*.npz")):
            try:
                masks[int(path.stem.removeprefix("epoch_"))] = _read_masks(path)
            except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
                raise ValueError(
                    f"{path} cannot be read: it is truncated or altered. Delete it to leave that "
                    "epoch out."
                ) from error
        return masks


def _read_masks(path: Path) -> Masks:
    with np.load(path, allow_pickle=False) as arrays:
        names = [key.removeprefix("bits/") for key in arrays if key.startswith("bits/")]
        epoch: Masks = {}
        for name in names:
            shape, packed = arrays[f"shape/{name}"], arrays[f"bits/{name}"]
            size = int(shape.prod())
            if len(packed) != -(-size // 8):  # what is missing would be made up of zeros
                raise ValueError(f"{name} has {len(packed)} bytes for {size} bits.")
            bits = np.unpackbits(packed, count=size)
            epoch[name] = bits.astype(bool).reshape(shape)
    return epoch


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file whole or not at all."""
    with whole(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")


def partial_of(path: Path) -> Path:
    """What a file is called until it is whole."""
    return path.with_suffix(".partial")
