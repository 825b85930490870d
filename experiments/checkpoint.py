"""The folder of a run: its files' names, its checkpoints (orbax), and who may continue in it."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from experiments import kept
from experiments.checks import check
from experiments.config import Config

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
        """The config that the folder was made for."""
        return Config.from_json(json.loads(self.config.read_text()))

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
        target = self.masks / f"epoch_{epoch:06d}.npz"
        partial = target.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        partial.replace(target)

    def read_masks(self) -> dict[int, Masks]:
        """The masks that were written, by epoch, in order."""
        masks = {}
        for path in sorted(self.masks.glob("epoch_*.npz")):
            with np.load(path) as arrays:
                names = [key.removeprefix("bits/") for key in arrays if key.startswith("bits/")]
                epoch: Masks = {}
                for name in names:
                    shape = arrays[f"shape/{name}"]
                    bits = np.unpackbits(arrays[f"bits/{name}"], count=int(shape.prod()))
                    epoch[name] = bits.astype(bool).reshape(shape)
            masks[int(path.stem.removeprefix("epoch_"))] = epoch
        return masks


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file whole or not at all."""
    partial = partial_of(path)
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(path)


def partial_of(path: Path) -> Path:
    """What a file is called until it is whole."""
    return path.with_suffix(".partial")


class Checkpoints:
    """The last two checkpoints of a run, each whole or absent."""

    def __init__(self, folder: RunFolder, *, read_only: bool = False):
        """Opens the folder's checkpoints.

        Incomplete ones from a run that died are removed, unless ``read_only``: then the folder may
        be that of a run which is still going on, and nothing in it is touched.
        """
        self._manager = ocp.CheckpointManager(
            folder.checkpoints,
            item_handlers=ocp.StandardCheckpointHandler(),
            options=ocp.CheckpointManagerOptions(read_only=True)
            if read_only
            else ocp.CheckpointManagerOptions(
                max_to_keep=2, create=True, cleanup_tmp_directories=True
            ),
        )

    def latest(self) -> int | None:
        """The step of the newest one."""
        step = self._manager.latest_step()
        return None if step is None else int(step)

    def save(self, step: int, state: PyTree) -> None:
        """Writes the state in the background; a step that is there already is left as it is.

        It is on the host; or in arrays over all processes, which then all call this.
        """
        if step != self.latest():
            self._manager.save(step, args=ocp.args.StandardSave(state))

    def restore(self, like: PyTree, step: int | None = None) -> PyTree:
        """The state of a step, by default the newest, with the structure and dtypes of ``like``."""
        return jax.tree.map(jax.numpy.asarray, self._read(step, like))

    def weights(self) -> tuple[PyTree, PyTree]:
        """The params and the statistics of the newest one, whatever optimizer made them."""
        state = self._read(None)
        return state["params"], state["statistics"]

    def _read(self, step: int | None, like: PyTree = None) -> PyTree:
        """All of it in this process, whatever processes and devices have written it."""
        step = self.latest() if step is None else step
        try:
            if like is None:
                like = self._manager.item_metadata(step).tree
            host = jax.tree.map(lambda x: np.empty(np.shape(x), x.dtype), like)
            return self._manager.restore(step, args=ocp.args.StandardRestore(host))
        except Exception as error:  # orbax and tensorstore each have their own
            raise ValueError(
                f"the checkpoint {Path(self._manager.directory) / str(step)} cannot be read: it is "
                "truncated or altered. Delete that folder to go on from the one before it, or pass "
                "--overwrite to start anew."
            ) from error

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.wait_until_finished()
        self._manager.close()


def trained_weights(config: Config, like: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
    """The params and the statistics that the run ``config.init_from`` ended with so far.

    Args:
        config: of the run that starts from them.
        like: its own params and statistics, whose names and shapes the others must have.

    Raises:
        ValueError: there is no such run, it has no checkpoint, its network is another one, or it
            was trained on the examples that this one is scored on.
    """
    source = config.init_from
    folder = RunFolder(Path(source or "").expanduser())

    def check_source(holds: bool, wanted: str) -> None:
        check(holds, "init_from", source, wanted)

    check_source(folder.config.is_file(), "the folder of a method's run, which holds a config.json")
    theirs = folder.read_config()
    if config.evaluate == "validation":
        check_source(
            theirs.evaluate == "validation",
            "a run with evaluate = 'validation', since others train on what is held out",
        )
    check_source(folder.checkpoints.is_dir(), "a run that has a checkpoint")
    checkpoints = Checkpoints(folder, read_only=True)
    try:
        check_source(checkpoints.latest() is not None, "a run that has a checkpoint")
        weights = checkpoints.weights()
    finally:
        checkpoints.close()
    here, there = _shapes(like), _shapes(weights)
    for name in [*here, *there]:
        mine, other = here.get(name, "missing"), there.get(name, "missing")
        check_source(
            mine == other, f"a run of the same network ({name} is {other} there and {mine} here)"
        )
    return weights


def _shapes(weights: tuple[PyTree, PyTree]) -> dict[str, str]:
    """Every leaf's path, with its dtype and shape."""
    return {
        kept.name(path): f"{leaf.dtype}{list(leaf.shape)}"
        for part in weights
        for path, leaf in jax.tree_util.tree_leaves_with_path(part)
    }
