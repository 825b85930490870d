"""A run that is asked to end by SIGTERM, as clusters ask before they take a machine away."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils

STATUS = 75
"""The exit status of a run that was asked to end, and can go on (EX_TEMPFAIL)."""

_asked = threading.Event()


class PreemptedError(Exception):
    """The run was asked to end, and has saved all that it needs to go on."""


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Notes a SIGTERM instead of dying of it.

    Over several processes JAX does so itself, once they have joined; not here.
    """
    main = threading.current_thread() is threading.main_thread()  # no other may listen
    if jax.distributed.is_initialized() or not main:
        yield
        return
    _asked.clear()
    before = signal.signal(signal.SIGTERM, _note)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _note(number: int, frame: FrameType | None) -> None:
    del number, frame
    _asked.set()


def asked(step: int) -> bool:
    """Whether to end after this step; to be called after every one, with the same answer in all."""
    if jax.process_count() > 1:
        return bool(multihost_utils.reached_preemption_sync_point(step))
    return _asked.is_set()
