"""Files that are written whole or not at all, and what a person is told when they cannot be."""

import contextlib
import errno
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_ALLOWED = {errno.EROFS, errno.EACCES, errno.EPERM}


class CheckpointNotWrittenError(OSError):
    """The state of a run could not be kept; its message says it all."""


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file to write that takes the place of ``path`` at the end, and goes if that fails."""
    partial = path.with_suffix(".partial")
    try:
        with naming(path):
            yield partial
            partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # of which the first is what counts
            partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the system that do not say where they come from are given this path."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def first_line(error: BaseException) -> str:
    """What an error says, in short."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def explain(error: OSError) -> str:
    """One line for an error of the operating system."""
    if isinstance(error, FileExistsError | CheckpointNotWrittenError) or error.errno is None:
        return str(error)
    where = f": {error.filename}" if error.filename else ""
    return f"{error.strerror}{where}. {advice(error.errno)}"


def advice(number: int | None) -> str:
    """What can be done about it."""
    if number in _NO_ROOM:
        return (
            "Make room there, or choose another folder with --runs-dir; the same command goes on "
            "from the last checkpoint."
        )
    if number in _NOT_ALLOWED:
        return (
            "Choose a folder that can be written with --runs-dir (and with --data-dir for the "
            "data), or change its permissions; the same command goes on from the last checkpoint."
        )
    return "The same command goes on from the last checkpoint."


def ignore_late_answers() -> None:
    """After a read or a write that failed: of several files only the first is waited for.

    The others report to an event loop that is closed by then, from a thread of tensorstore's, and
    the traceback of that would stand before the message that counts.
    """
    shown = sys.unraisablehook
    if getattr(shown, "ignores_late_answers", False):
        return

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            shown(unraisable)

    hook.ignores_late_answers = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook
