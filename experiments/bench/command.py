"""What the benches that are commands of their own share, from the arguments to the file."""

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import tyro
from rich.console import Console

from experiments import errors, provenance
from experiments.bench.shown import Shown
from experiments.checks import check
from experiments.folder import write_json
from experiments.log import Row


class Arguments(Protocol):
    """What such a command is told."""

    @property
    def save(self) -> Path | None:
        """A JSON file to write to, with versions, device and command."""

    def validate(self) -> None:
        """Refuses what cannot be measured, naming the argument and its value."""


Told = TypeVar("Told", bound=Arguments)


def check_save(save: Path | None) -> None:
    """Refuses a file in no folder, before an hour is spent on what it would hold."""
    if save is not None:
        check(save.parent.is_dir(), "save", str(save), "in a folder that exists")


def main(
    name: str,
    kind: type[Told],
    measure: Callable[[Told], Iterable[Row]],
    shown: Callable[[Row], Shown],
    arguments: Sequence[str] | None,
    *packages: str,
) -> int:
    """Measures, prints and saves; an error of the user's is one line, and exit status 2.

    Args:
        name: of the module in this folder.
        kind: of the arguments.
        measure: gives what there is so far as it goes; each is saved at once, over the one before,
            since what comes next can take long, and fail.
        shown: the table of what was saved last.
        arguments: the words of the command line; by default those of this process.
        packages: whose versions matter beside those that always do.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    prog = f"python -m experiments.bench.{name}"
    try:
        parsed: Any = tyro.cli(kind, prog=prog, args=words)
        parsed.validate()
    except ValueError as error:
        errors.tell(error)
        return 2
    load = round(os.getloadavg()[0], 2)  # before, since what is timed here adds to it
    saved: Row | None = None
    for found in measure(parsed):
        command = shlex.join([*prog.split(), *words])
        saved = {"command": command, **found, **provenance.of(*packages), "load": load}
        if parsed.save is not None:
            write_json(parsed.save, saved)
    if saved is not None:
        shown(saved).print(Console())
    return 0
