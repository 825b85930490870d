"""Several processes that train one network: how they find each other, and how they end."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments.config import Config, Runtime
from experiments.folder import RunFolder

LOST = 76
"""The exit status of a process that ends because another one is lost (EX_PROTOCOL)."""
GRACE = 10
"""Seconds that a process which has failed waits for the others to end with it."""
WAIT_FOR_FILE = 10
"""Seconds in which a new file has to be seen by every process; network file systems take some."""


class LastWords:
    """Says why a process has ended where it could not say so itself.

    JAX ends a process from one of its own threads as soon as another one is lost, before any
    ``except`` or ``finally``. So a shell stands by, and speaks if its input ends without a word.
    """

    def __init__(self, words: str):
        """Starts the shell."""
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", "trap '' TERM INT; read -r _ || printf '%s\\n' \"$0\" >&2", words],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )

    def unsaid(self) -> None:
        """The process is about to end in order, and has said all itself."""
        self._shell.communicate(b"\n")


def several(runtime: Runtime) -> bool:
    """Whether the run is one of several processes."""
    return runtime.coordinator is not None or runtime.distributed


def join(runtime: Runtime) -> LastWords:
    """Waits for the other processes; to be called before JAX does anything.

    Raises:
        ValueError: there is no cluster that JAX knows here.
    """
    who = "" if runtime.process_id is None else f" {runtime.process_id}"
    words = LastWords(
        f"error: process{who} has been ended, by JAX if the lines above say so: then another "
        f"process of the run was lost, and its own output says why, or it never came. {_GO_ON}"
    )
    try:
        jax.distributed.initialize(
            runtime.coordinator,
            runtime.process_count,
            runtime.process_id,
            heartbeat_timeout_seconds=runtime.heartbeat_seconds,
        )
    except ValueError as error:
        words.unsaid()
        raise ValueError(
            f"distributed finds no cluster that JAX knows here ({error}); pass --coordinator "
            "HOST:PORT, --process-id and --process-count instead."
        ) from error
    return words


_GO_ON = "Start all processes again: the same commands go on from the last checkpoint."


def is_loss(error: Exception) -> bool:
    """Whether JAX says by this error that another process does not answer."""
    signs = ("Gloo", "NCCL", "UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED", "oordination service")
    return any(sign in str(error) for sign in signs)


def lost(error: Exception) -> str:
    """What there is to say about such an error."""
    return (
        f"process {jax.process_index()} can go no further without the others: another process of "
        f"the run was lost, and its own output says why. {_GO_ON} ({str(error).splitlines()[0]})"
    )


def leave(status: int, words: LastWords) -> NoReturn:
    """Ends this process: with the others where they end too, and else without them."""
    together = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    if status != LOST:
        together.start()
        together.join(GRACE if status else None)
    words.unsaid()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # or JAX would wait minutes for those that are lost


def is_first() -> bool:
    """Whether this is the process that writes."""
    return jax.process_index() == 0


def on_first(act: Callable[[], object]) -> None:
    """Process 0 acts while all others wait for it.

    Raises:
        ValueError: in the others, where it raises an error in process 0.
    """
    if jax.process_count() == 1:
        act()
        return
    multihost_utils.sync_global_devices("on_first")
    error: Exception | None = None
    if is_first():
        try:
            act()
        except Exception as caught:
            error = caught
    failed = multihost_utils.broadcast_one_to_all(np.int32(error is not None))
    if error is not None:
        raise error
    if failed:
        raise ValueError("process 0 cannot go on; its own output says why.")


def open_folder(folder: RunFolder, config: Config, *, overwrite: bool = False) -> None:
    """As ``folder.open``, by process 0 for all.

    Raises:
        ValueError: another process does not see what process 0 has written.
    """
    on_first(lambda: folder.open(config, overwrite=overwrite))
    until = time.monotonic() + WAIT_FOR_FILE
    while not folder.config.exists():
        if time.monotonic() > until:
            raise ValueError(
                f"runs_dir must be a folder that all processes share: process 0 wrote "
                f"{folder.config}, and process {jax.process_index()} does not see it."
            )
        time.sleep(0.1)


def check_same(settings: object) -> None:
    """Refuses processes that were told different things.

    Args:
        settings: whose ``repr`` says all of them.

    Raises:
        ValueError: they differ; in every process.
    """
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(hashlib.sha256(repr(settings).encode()).digest(), np.int32)
    digests = multihost_utils.process_allgather(digest)
    others = np.flatnonzero((digests != digests[0]).any(axis=1)).tolist()
    if others:
        raise ValueError(
            "every process must be given the same settings, got others in process "
            f"{', '.join(map(str, others))} than in process 0."
        )
