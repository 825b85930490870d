"""A run that is killed, or asked to end, and started again: no bit of it changes."""

import json
import signal
import time

import numpy as np
import pytest

from experiments import preemption
from experiments.checkpoint import Checkpoints
from experiments.folder import RunFolder
from experiments.log import read_rows

from ..grda_optax.trees import assert_same_bits

KILLS = 21
STEPS = 1000


@pytest.fixture(scope="module")
def start(forks, data_dir, digits):
    """``start(folder, *arguments)``: the run of a folder, whose last part is the method."""
    del digits  # prepared in data_dir

    def launch(folder, *arguments):
        command = ["digits", "--method", "recipe", "--momentum", 0.9, "--steps", STEPS]
        command += ["--no-progress", "--data-dir", data_dir, "--runs-dir", folder.path.parents[1]]
        return forks.start(*command, "--name", folder.path.parent.name, *arguments)

    return launch


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """A run that nothing has interrupted."""
    folder = RunFolder(tmp_path_factory.mktemp("whole") / "run" / "recipe")
    process = start(folder)
    assert process.wait() == 0, process.output
    return folder


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run" / "recipe")


def rows_of(folder):
    return [
        {name: value for name, value in row.items() if name != "seconds"}
        for row in read_rows(folder.metrics)
    ]


def steps_saved(folder):
    return [int(x.name) for x in folder.checkpoints.glob("*") if x.name.isdigit()]


def being_written(folder):
    """Checkpoints that are not whole; each with a number of its own, since names come again."""
    found = set()
    for path in folder.checkpoints.glob("*"):
        if not path.name.isdigit():
            try:
                found.add((path.name, path.stat().st_ino))
            except FileNotFoundError:  # whole by now
                continue
    return found


def assert_same_end(found, expected):
    assert rows_of(found) == rows_of(expected)
    assert [row["step"] for row in rows_of(found)] == list(range(1, STEPS + 1))
    results = [json.loads(folder.result.read_text()) for folder in (found, expected)]
    assert [result.pop("seconds") > 0 for result in results] == [True, True]
    assert results[0] == results[1]
    weights = []
    for folder in (found, expected):
        checkpoints = Checkpoints(folder, read_only=True)
        assert checkpoints.latest() == STEPS
        weights.append(checkpoints.weights())
        checkpoints.close()
    assert_same_bits(*weights)


@pytest.mark.slow
def test_killed_at_any_moment(start, whole, folder):
    """In turn at some time after its start, while a checkpoint is written, and after a few."""
    rng = np.random.default_rng(0)
    often = ["--checkpoint-every", 5, "--log-every", 2]
    incomplete = 0
    for kill in range(KILLS):
        goal = max(steps_saved(folder), default=0) + 5 * rng.integers(1, 4)
        partial = being_written(folder)
        process = start(folder, *often)
        match kill % 3:
            case 0:
                time.sleep(rng.uniform(0, 1.5))
            case 1:
                process.wait_while_alive_until(lambda: being_written(folder) - partial)  # noqa: B023
                time.sleep(rng.uniform(0, 0.02))
            case 2:
                process.wait_while_alive_until(lambda: max(steps_saved(folder), default=0) >= goal)  # noqa: B023
                time.sleep(rng.uniform(0, 0.05))
        process.send(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        incomplete += bool(being_written(folder))
    assert incomplete >= 3  # or the test would not be what it says
    assert 0 < max(steps_saved(folder)) < STEPS
    last = start(folder)
    assert last.wait() == 0, last.output
    assert_same_end(folder, whole)


@pytest.mark.slow
def test_sigterm_saves_and_ends(start, whole, folder):
    """As often as it comes; every time with a checkpoint of the very step."""
    for _ in range(2):
        before = len(read_rows(folder.metrics))
        process = start(folder, "--log-every", 2)
        process.wait_while_alive_until(lambda: len(read_rows(folder.metrics)) > before + 10)  # noqa: B023
        process.send(signal.SIGTERM)
        assert process.wait() == preemption.STATUS, process.output
        (step,) = {max(steps_saved(folder)), len(read_rows(folder.metrics))}
        said = " ".join(process.output.split())
        assert (
            f"recipe was asked to end (SIGTERM), and stopped after step {step} of {STEPS}" in said
        )
        assert "the same command goes on from there" in said
    assert start(folder).wait() == 0
    assert_same_end(folder, whole)
