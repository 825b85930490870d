"""The checkpoints of a run (orbax), each whole or absent, and the weights in them."""

import contextlib
import errno
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from experiments import kept, precision
from experiments.checks import check
from experiments.config import Config
from experiments.faults import (
    CheckpointNotWrittenError,
    advice,
    first_line,
    ignore_late_answers,
)
from experiments.folder import RunFolder

PyTree = Any


def checksum(state: PyTree) -> str | None:
    """A CRC-32 of every leaf, with its path, dtype and shape.

    The same of a tree that is restored as nested dicts and lists. Orbax itself takes most flipped
    bits of a weight for another weight. ``None`` of a state of which this process has but a part.
    """
    parts = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if isinstance(leaf, jax.Array) and leaf.is_fully_replicated:
            leaf = leaf.addressable_data(0)
        elif isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return None
        array = np.asarray(leaf)
        crc = zlib.crc32(np.ascontiguousarray(array).tobytes())
        parts.append(f"{kept.name(path)} {array.dtype} {array.shape} {crc:08x}")
    return f"{zlib.crc32(chr(10).join(sorted(parts)).encode()):08x}"


class Checkpoints:
    """The last two checkpoints of a run, each whole or absent."""

    def __init__(self, folder: RunFolder, *, read_only: bool = False):
        """Opens the folder's checkpoints.

        Incomplete ones from a run that died are removed, unless ``read_only``: then the folder may
        be that of a run which is still going on, and nothing in it is touched.
        """
        # It logs, with tracebacks, what it raises as well.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
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

        Raises:
            CheckpointNotWrittenError: this one or the one before it cannot be written.
        """
        if step != self.latest():
            with self._writing():
                self._manager.save(
                    step,
                    args=ocp.args.StandardSave(state),
                    custom_metadata={"crc32": checksum(state)},
                )

    def restore(self, like: PyTree, *, fall_back: bool = False) -> PyTree:
        """The newest state, with the structure and dtypes of ``like``.

        With ``fall_back`` one that cannot be read is deleted where there is another before it.

        Raises:
            ValueError: it is truncated or altered, or of another structure.
        """
        *older, step = sorted(self._manager.all_steps())
        if older:
            remedy = f"Pass --fall-back to delete it and go on from step {older[-1]}"
        else:
            remedy = "There is none before it"
        try:
            restored = self._read(step, f"{remedy}, or --overwrite to start anew.", like)
        except ValueError:
            if not (fall_back and older):
                raise
            self._manager.delete(step)
            return self.restore(like, fall_back=True)
        return jax.tree.map(jax.numpy.asarray, restored)

    def state(self) -> PyTree:
        """The newest state as nested dicts and lists, whatever optimizer made it."""
        remedy = "Pass --fall-back to that run's own command, or start it anew with --overwrite."
        return self._read(self.latest(), remedy)

    def weights(self) -> tuple[PyTree, PyTree]:
        """The params and the statistics of the newest one."""
        state = self.state()
        return state["params"], state["statistics"]

    def _read(self, step: int | None, remedy: str, like: PyTree = None) -> PyTree:
        """All of it in this process, whatever processes and devices have written it."""
        ignore_late_answers()
        try:
            if like is None:
                like = self._manager.item_metadata(step).tree
            host = jax.tree.map(lambda x: np.empty(np.shape(x), x.dtype), like)
            state = self._manager.restore(step, args=ocp.args.StandardRestore(host))
            metadata = self._manager.metadata(step).custom_metadata or {}
            wanted = metadata.get("crc32")  # which earlier releases did not write
            check(wanted in (None, checksum(state)), "crc32", wanted, "that of the state")
        except Exception as error:  # orbax and tensorstore each have their own
            raise ValueError(
                f"the checkpoint {Path(self._manager.directory) / str(step)} cannot be read: it is "
                f"truncated or altered. {remedy}"
            ) from error
        return state

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        ignore_late_answers()
        try:
            yield
        except Exception as error:  # orbax and tensorstore each have their own
            number = error.errno if isinstance(error, OSError) else None
            reason = first_line(error).rpartition(": ")[2]
            raise CheckpointNotWrittenError(
                f"no checkpoint can be written to {self._manager.directory}: {reason}. "
                f"{advice(number if number is not None else errno.ENOSPC)}"
            ) from error

    def close(self) -> None:
        """Waits for what is being written.

        Raises:
            CheckpointNotWrittenError: it cannot be written.
        """
        with self._writing():
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
    try:
        theirs = folder.read_config()
    except ValueError as error:
        raise ValueError(f"{folder.config} cannot be read: {error}") from error
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
    here = _shapes((precision.cast(like[0], theirs.param_dtype), like[1]))
    there = _shapes(weights)
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
