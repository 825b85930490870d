"""One run over two processes: the same numbers, the same files, and a common end."""

import functools
import json
import signal
import socket

import jax
import numpy as np
import pytest

from experiments.checkpoint import Checkpoints
from experiments.configs import digits as preset
from experiments.distributed import LOST, LastWords
from experiments.folder import RunFolder
from experiments.log import read_rows
from experiments.preemption import STATUS

from .conftest import change

STEPS = 20
CONFIG = change(preset.CONFIG, steps=STEPS, learning_rate=0.05, momentum=0.9)


@pytest.fixture
def start(forks, data_dir, digits, tmp_path):
    """``start(name, *arguments)``: two processes of two devices each, in folder ``name``."""
    del digits  # prepared in data_dir

    def launch(name, *arguments, steps=STEPS, each=((), ())):
        with socket.create_server(("localhost", 0)) as server:
            address = f"localhost:{server.getsockname()[1]}"
        command = ["digits", "--steps", steps, "--learning-rate", 0.05, "--momentum", 0.9]
        command += ["--no-progress", "--data-dir", data_dir, "--runs-dir", tmp_path]
        command += ["--name", name, "--log-every", 5, "--devices", 2, *arguments]
        together = ["--coordinator", address, "--process-count", 2]
        return [forks.start(*command, *each[i], *together, "--process-id", i) for i in range(2)]

    return launch


def said(process):
    return " ".join(process.output.split())


def finish(processes):
    for process in processes:
        assert process.wait() == 0, process.output
    return processes


def losses(folder):
    rows = read_rows(folder / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    return [row["loss"] for row in rows]


def weights(folder):
    checkpoints = Checkpoints(RunFolder(folder), read_only=True)
    found = checkpoints.weights()
    checkpoints.close()
    return found


def assert_same_run(found, expected):
    """As far as sums in another order can be the same."""
    np.testing.assert_allclose(losses(found), losses(expected), rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        weights(found),
        weights(expected),
    )
    results = [json.loads((folder / "result.json").read_text()) for folder in (found, expected)]
    for name in ("eval_accuracy", "eval_loss"):
        assert results[0][name] == pytest.approx(results[1][name], rel=1e-4)
    assert results[0]["penalised"]["nnz"] == pytest.approx(results[1]["penalised"]["nnz"], rel=1e-3)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """``alone(train, method)``: the folder of a run in one process on one device."""
    folder = tmp_path_factory.mktemp("alone")

    @functools.cache
    def run(train, method):
        train(folder / method, change(CONFIG, method=(method,)))
        return folder / method

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "methods"), [("mesh", ["grda"]), ("pmap", ["grda"]), ("fsdp", ["recipe"])]
)
def test_two_processes_train_as_one_does(start, alone, train, tmp_path, mode, methods):
    first, second = finish(start("two", "--parallel", mode, "--method", *methods))
    for method in methods:
        assert_same_run(tmp_path / "two" / method, alone(train, method))
    assert "sparsity of penalised weights" in first.output
    assert "sparsity" not in second.output
    assert (tmp_path / "two" / "comparison.png").exists()


@pytest.mark.slow
def test_a_checkpoint_serves_other_numbers_of_processes(start, alone, train, tmp_path):
    """From two to one and from one to two, each time on other devices."""
    config = change(CONFIG, method=("grda",))
    whole = alone(train, "grda")
    finish(start("out", "--method", "grda", "--stop-after", 10, "--parallel", "fsdp"))
    assert len(read_rows(tmp_path / "out" / "grda" / "metrics.jsonl")) == 10
    train(tmp_path / "out" / "grda", config, devices=8)
    assert_same_run(tmp_path / "out" / "grda", whole)

    train(tmp_path / "back" / "grda", config, stop_after=10)
    finish(start("back", "--method", "grda"))
    assert_same_run(tmp_path / "back" / "grda", whole)


@pytest.mark.slow
def test_sigterm_to_one_saves_and_ends_both(start, tmp_path):
    processes = start("run", "--method", "grda", steps=10**6)
    metrics = tmp_path / "run" / "grda" / "metrics.jsonl"
    processes[0].wait_while_alive_until(lambda: len(read_rows(metrics)) > 0)
    processes[1].send(signal.SIGTERM)
    assert [process.wait() for process in processes] == [STATUS, STATUS], processes[0].output
    checkpoints = Checkpoints(RunFolder(tmp_path / "run" / "grda"))
    step = checkpoints.latest()
    checkpoints.close()
    message = f"grda was asked to end (SIGTERM), and stopped after step {step} of 1000000"
    assert message in said(processes[0])
    assert [row["step"] for row in read_rows(metrics)] == list(range(1, step + 1))


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_one_that_dies_ends_the_other(start, tmp_path, victim):
    arguments = ["--method", "grda", "--heartbeat-seconds", 10]
    processes = start("run", *arguments, steps=10**6)
    metrics = tmp_path / "run" / "grda" / "metrics.jsonl"
    processes[0].wait_while_alive_until(lambda: len(read_rows(metrics)) > 0)
    processes[victim].send(signal.SIGKILL)
    other = processes[1 - victim]
    # By itself, or by JAX, which aborts.
    assert other.wait() in (LOST, -signal.SIGABRT), other.output
    # After an abort a shell says this, and it may come to that a little later.
    other.wait_until(lambda: "the same commands go on from the last checkpoint" in said(other))
    assert "the run was lost, and its own output says why" in said(other)


@pytest.mark.slow
def test_all_end_where_one_cannot_begin(start, train, tmp_path):
    train(tmp_path / "run" / "grda", change(CONFIG, method=("grda",), seed=1), stop_after=1)
    processes = start("run", "--method", "grda")
    assert [process.wait() for process in processes] == [2, 2]
    assert "seed: 1 there, 0 asked for" in said(processes[0])
    assert "process 0 cannot go on; its own output says why." in processes[1].output


@pytest.mark.slow
def test_where_there_is_no_cluster_the_other_way_is_told(forks):
    process = forks.start("digits", "--distributed")
    assert process.wait() == 2
    message = "pass --coordinator HOST:PORT, --process-id and --process-count instead."
    assert message in said(process)


def test_last_words_are_for_a_process_that_could_not_speak(capfd):
    LastWords("gone").unsaid()
    assert capfd.readouterr() == ("", "")
    words = LastWords("gone, 100%")
    words._shell.communicate()
    assert capfd.readouterr() == ("", "gone, 100%\n")


@pytest.mark.slow
def test_all_must_be_told_the_same(start, tmp_path):
    processes = start("run", "--method", "grda", each=(["--seed", 2], ["--seed", 3]))
    assert [process.wait() for process in processes] == [2, 2]
    message = "every process must be given the same settings, got others in process 1 than in"
    assert all(message in said(process) for process in processes)
    assert not (tmp_path / "run").exists()
