"""What a run tells while it goes: metrics.jsonl, TensorBoard, a progress bar."""

import contextlib
import json
import math
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from experiments.faults import naming, whole
from experiments.folder import RunFolder
from experiments.tensorboard import EventFile

Row = dict[str, Any]

# Beyond this nearly always a threshold that outruns learning, and ends with no weight at all.
TOO_SPARSE = 0.995


class Log:
    """One row a step, and the scores at the end of each epoch; written when asked to flush."""

    def __init__(
        self,
        folder: RunFolder,
        *,
        name: str,
        total: int,
        start: int,
        every: int,
        progress: bool,
        console: Console,
    ):
        """Opens the files. Rows beyond ``start``, of a run that went on from there, are dropped."""
        self._every, self._console, self._warned = every, console, False
        self.rows = read_rows(folder.metrics, start)
        with whole(folder.metrics) as partial:
            partial.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        self._file = folder.metrics.open("a")
        self._folder = folder.path
        with naming(folder.path):
            self._writer = EventFile(folder.tensorboard, purge_step=start + 1)
        self._progress = Progress(
            TextColumn("{task.description:>8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
            console=console,
            disable=not progress,
        )
        self._task = self._progress.add_task(name, total=total, completed=start, status="")

    def __enter__(self) -> Self:
        """Starts the progress bar."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes everything, whatever has happened."""
        self._progress.stop()
        # An error that is on its way already says what these would say again.
        quiet = contextlib.nullcontext() if error is None else contextlib.suppress(OSError)
        for opened in (self._file, self._writer):
            with quiet, naming(self._folder):
                opened.close()

    def write(self, rows: list[Row]) -> None:
        """Appends rows, each with its ``step``, in order."""
        with naming(self._folder):
            for row in map(_plain, rows):
                self.rows.append(row)
                self._file.write(json.dumps(row) + "\n")
                if "eval_accuracy" in row or row["step"] % self._every == 0:
                    for name, value in row.items():
                        if name != "step" and isinstance(value, int | float):
                            self._writer.add_scalar(name, value, row["step"])
            self._file.flush()
            self._writer.flush()
        if rows:
            self._progress.update(self._task, completed=rows[-1]["step"], status=_status(rows[-1]))
            self._warn(rows[-1])

    def _warn(self, row: Row) -> None:
        if not self._warned and row.get("sparsity_penalised", 0) > TOO_SPARSE:
            self._warned = True
            self._console.print(
                f"[yellow]Over {TOO_SPARSE:.1%} of the penalised weights are zero at step "
                f"{row['step']}: the threshold outruns learning. Lower c or mu.[/yellow]"
            )


class Rows:
    """The rows alone, of a process that leaves it to another to write them."""

    def __init__(self, folder: RunFolder, start: int):
        """Reads those up to ``start``."""
        self.rows = read_rows(folder.metrics, start)

    def __enter__(self) -> Self:
        """As ``Log`` does."""
        return self

    def __exit__(self, *error: object) -> None:
        """Has nothing to close."""

    def write(self, rows: list[Row]) -> None:
        """Keeps them."""
        self.rows += rows


def append_row(path: Path, row: Row) -> None:
    """Adds a row to a file of rows; a last line that a killed run has cut off is ended before."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(row).encode() + b"\n")


def read_rows(path: Path, until: int | None = None) -> list[Row]:
    """The rows of a file, such as metrics.jsonl up to a step; lines cut off are left out."""
    rows: list[Row] = []
    if path.exists():
        for line in path.read_text(errors="replace").splitlines():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if not isinstance(row, dict):
                continue
            if until is None or (isinstance(row.get("step"), int) and row["step"] <= until):
                rows.append(row)
    return rows


def _plain(row: Row) -> Row:
    """The row with None for what is no number, which JSON has no word for."""
    return {k: None if isinstance(x, float) and not math.isfinite(x) else x for k, x in row.items()}


def _status(row: Row) -> str:
    parts = [f"loss {row['loss']:.4f}"]
    if "eval_accuracy" in row:
        parts.append(f"accuracy {row['eval_accuracy']:.2%}")
    if not math.isnan(row.get("sparsity_penalised", math.nan)):
        parts.append(f"zeros {row['sparsity_penalised']:.1%}")
    return "  ".join(parts)
