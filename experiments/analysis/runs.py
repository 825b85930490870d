"""The runs that an analysis reads: what they are of, and their weights along training."""

import dataclasses
import functools
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments import data, kept
from experiments.checkpoint import Checkpoints
from experiments.checks import check
from experiments.config import Config, Runtime
from experiments.configs import PRESETS, command
from experiments.folder import RunFolder
from experiments.log import Row, read_rows
from experiments.parallel import DataParallel, use_devices
from experiments.train import Job

PyTree = Any
Weights = tuple[PyTree, PyTree]
"""The params, and BatchNorm's statistics."""

NAMES = {"dense": "SGD", "grda": "gRDA"}
SAME = ("dataset", "model", "seed", "batch_size", "init_from", "evaluate")
"""The fields on which a run's start and its batches depend."""


@dataclasses.dataclass(frozen=True)
class Run:
    """The folder of one method's run, which is only read."""

    path: Path
    data_dir: Path | None = None

    @functools.cached_property
    def folder(self) -> RunFolder:
        """Its files."""
        return RunFolder(self.path)

    @functools.cached_property
    def config(self) -> Config:
        """What was run."""
        return self.folder.read_config()

    @property
    def label(self) -> str:
        """What a figure calls it."""
        (method,) = self.config.method
        return NAMES.get(method, method)

    @functools.cached_property
    def job(self) -> Job:
        """Its network and its data, on one device."""
        return Job(
            config=self.config,
            runtime=Runtime(progress=False),
            dataset=data.load(self.config.dataset, self.data_dir),
            parallel=DataParallel("mesh", use_devices(1)),
            folder=self.path,
            console=Console(file=io.StringIO()),
        )

    @property
    def rows(self) -> list[Row]:
        """Its metrics, a row a step."""
        return read_rows(self.folder.metrics)

    @functools.cached_property
    def steps(self) -> list[int]:
        """After how many updates its weights are there; 0 is the start."""
        found = kept.steps(self.folder.params)
        check(len(found) > 0, "run", str(self.path), "the folder of a run with --keep-params")
        return [0, *found]

    def at(self, step: int) -> Weights:
        """The weights after so many updates."""
        start = self.job.start()
        return kept.read(self.folder.params, step, like=start) if step else start

    def last(self) -> Weights:
        """The weights of the newest checkpoint."""
        check(self.folder.checkpoints.is_dir(), "run", str(self.path), "one with a checkpoint")
        logging.getLogger("absl").setLevel(logging.ERROR)  # of settings for reading alone
        checkpoints = Checkpoints(self.folder, read_only=True)
        try:
            check(checkpoints.latest() is not None, "run", str(self.path), "one with a checkpoint")
            return checkpoints.weights()
        finally:
            checkpoints.close()

    def epoch(self, step: int) -> float:
        """How many passes over the training set there are in so many updates."""
        return step / self.job.steps_per_epoch

    def to_json(self) -> Row:
        """What an analysis says of it: its label, its config, and the command that repeats it."""
        preset = min(PRESETS, key=lambda x: len(self.config.differences(PRESETS[x].CONFIG)))
        line = f"{command(self.config, preset)} --name {self.path.absolute().parent.name}"
        for option, there in (
            ("--keep-params", self.folder.params.is_dir()),
            ("--keep-masks", self.folder.masks.is_dir()),
        ):
            line += f" {option}" if there else ""
        return {"label": self.label, "command": line, "config": self.config.to_json()}


def read(paths: Sequence[Path], data_dir: Path | None = None) -> list[Run]:
    """The runs in these folders.

    Raises:
        ValueError: there is none, or one is no run's folder.
    """
    check(len(paths) > 0, "runs", [str(path) for path in paths], "one folder or more")
    runs = [Run(path, data_dir) for path in paths]
    for run in runs:
        holds = run.folder.config.is_file()
        check(holds, "run", str(run.path), "the folder of a method's run, with a config.json")
    return runs


def read_pair(paths: Sequence[Path], data_dir: Path | None = None) -> tuple[Run, Run]:
    """The run of SGD and that of gRDA, from the same start and with the same batches.

    Raises:
        ValueError: they are not two, one is no run's folder, or start or batches differ.
    """
    shown = [str(path) for path in paths]
    check(len(paths) == 2, "runs", shown, "two folders, of SGD and of gRDA")
    first, second = read(paths, data_dir)
    apart = first.config.differences(second.config)
    differ = [name for name in apart if name in SAME]
    check(not differ, "runs", differ, "two from the same start with the same batches, the same in "
          "everything that these depend on")  # fmt: skip
    return first, second


def labels(runs: Sequence[Run]) -> list[str]:
    """A name for each; those of one method have that of their folder too."""
    names = [run.label for run in runs]
    return [
        name if names.count(name) == 1 else f"{name}, {run.path.absolute().parent.name}"
        for name, run in zip(names, runs, strict=True)
    ]
