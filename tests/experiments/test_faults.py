"""What breaks under a run is said in one line that tells what to do; nothing is half written."""

import contextlib
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest

from experiments import data, faults, run
from experiments.checkpoint import Checkpoints, checksum
from experiments.faults import whole
from experiments.folder import RunFolder, write_json
from experiments.log import read_rows

from ..grda_optax.trees import assert_same_bits
from .conftest import SHORT, change, exactly

ARGUMENTS = ["digits", "--method", "grda", "--steps", "22", "--no-progress", "--name", "x"]
FOLDER = ("x", "grda")


@pytest.fixture
def call(data_dir, digits, tmp_path, monkeypatch, capsys):
    """``call(*arguments)``: the exit status, what was printed, and what was said on stderr."""
    del digits  # prepared in data_dir
    monkeypatch.setenv("TERM", "dumb")

    def main(*arguments, runs_dir=tmp_path / "runs", data_dir=data_dir):
        where = ["--data-dir", str(data_dir), "--runs-dir", str(runs_dir)]
        status = run.main([*ARGUMENTS, *where, *arguments])
        return status, *capsys.readouterr()

    return main


def weights(folder):
    checkpoints = Checkpoints(RunFolder(folder), read_only=True)
    state = checkpoints.state()
    checkpoints.close()
    return state["params"]


def is_one_line(text, *parts):
    assert text.count("\n") == 1, text
    assert "Traceback" not in text
    for part in ("error:", *parts):
        assert part in text


# No room.


@contextlib.contextmanager
def no_file_beyond(size):
    """No larger file can be written meanwhile: as with a disk that is full, but for the errno."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of orbax
def test_no_room(call, tmp_path):
    """Then, with room, the same command goes on to the same weights."""
    call("--name", "whole")
    started = ["checkpoints", "config.json", "metrics.jsonl", "tensorboard"]
    for size, left in ((1000, []), (3500, started), (60_000, started)):
        arguments = ["--name", str(size), "--checkpoint-every", "10"]
        with no_file_beyond(size):
            status, _, error = call(*arguments)
        assert status == 4
        folder = tmp_path / "runs" / str(size) / "grda"
        is_one_line(
            error, "File too large", str(folder), "Make room there, or choose another folder"
        )
        assert sorted(x.name for x in folder.iterdir()) == left
        rows = read_rows(folder / "metrics.jsonl")
        assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
        status, _, error = call(*arguments)
        assert (status, error) == (0, "")
        assert [row["step"] for row in read_rows(folder / "metrics.jsonl")] == list(range(1, 23))
        assert_same_bits(weights(folder), weights(tmp_path / "runs" / "whole" / "grda"))


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk(data_dir, digits, tmp_path):
    """A real one, of 400 kB, and a process of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mount is not allowed here")
    try:
        command = [sys.executable, "-m", "experiments.run", *ARGUMENTS, "--checkpoint-every", "5"]
        done = subprocess.run(
            [*command, "--data-dir", str(data_dir), "--runs-dir", str(disk)],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert done.returncode == 4
    is_one_line(done.stderr, "No space left on device", str(disk), "Make room there")


def test_what_is_to_be_written_whole_is_or_is_not(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, [1])
    with pytest.raises(TypeError):
        write_json(path, {1, 2})
    with pytest.raises(KeyError), whole(path) as partial:
        partial.write_bytes(bytes(partial.write_text("half")) + {}["other half"])
    assert json.loads(path.read_text()) == [1]
    assert list(tmp_path.iterdir()) == [path]


# No permission.


@contextlib.contextmanager
def read_only(folder):
    """Nothing in it can be written meanwhile, by root neither."""
    if os.geteuid():
        folder.chmod(0o500)
        try:
            yield
        finally:
            folder.chmod(0o700)
        return
    if subprocess.run(
        ["mount", "--bind", str(folder), str(folder)], check=False, capture_output=True
    ).returncode:
        pytest.skip("mount is not allowed here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_read_only_folder(call, tmp_path):
    """For a new run, for one that would go on, and for data that are yet to be prepared."""
    (tmp_path / "new").mkdir()
    call("--stop-after", "5")
    before = {x: x.stat().st_mtime_ns for x in (tmp_path / "runs").rglob("*")}
    for folder, options in (
        (tmp_path / "new", {"runs_dir": tmp_path / "new"}),
        (tmp_path / "runs" / "x" / "grda", {}),
        (tmp_path / "new", {"data_dir": tmp_path / "new"}),
    ):
        with read_only(folder):
            status, _, error = call(**options)
        assert status == 4
        is_one_line(error, str(folder), "Choose a folder that can be written")
    assert {x: x.stat().st_mtime_ns for x in (tmp_path / "runs").rglob("*")} == before
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(28, "No space left on device", "/x/y"),
            "No space left on device: /x/y. Make room there, or choose another folder with "
            "--runs-dir; the same command goes on from the last checkpoint.",
        ),
        (
            PermissionError(13, "Permission denied", "/x/y"),
            "Permission denied: /x/y. Choose a folder that can be written with --runs-dir (and "
            "with --data-dir for the data), or change its permissions; the same command goes on "
            "from the last checkpoint.",
        ),
        (
            OSError(5, "Input/output error"),
            "Input/output error. The same command goes on from the last checkpoint.",
        ),
        (OSError("as it is"), "as it is"),
        (faults.CheckpointNotWrittenError(5, "as it is"), "[Errno 5] as it is"),
    ],
)
def test_errors_of_the_system_are_explained(error, message):
    assert faults.explain(error) == message


# Checkpoints that are truncated or altered.


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A folder with the checkpoints of steps 3 and 6, made of a small state."""
    folder = tmp_path_factory.mktemp("stopped")
    state = {
        "params": {"kernel": np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32)},
        "statistics": {},
        "opt_state": (np.int32(3), {"a": np.arange(5.0, dtype=np.float32)}),
    }
    checkpoints = Checkpoints(RunFolder(folder))
    for step in (3, 6):
        state["opt_state"] = (np.int32(step), state["opt_state"][1])
        checkpoints.save(step, state)
    checkpoints.close()
    return folder, state


def files(folder):
    return sorted(x for x in folder.rglob("*") if x.is_file())


def opened(folder):
    return contextlib.closing(Checkpoints(RunFolder(folder)))


def refused(step, folder, remedy):
    path = folder / "checkpoints" / str(step)
    message = f"the checkpoint {path} cannot be read: it is truncated or altered. {remedy}"
    return pytest.raises(ValueError, match=exactly(message))


BACK = "Pass --fall-back to delete it and go on from step 3, or --overwrite to start anew."
ALONE = "There is none before it, or --overwrite to start anew."


def test_a_good_checkpoint(stopped):
    folder, state = stopped
    with opened(folder) as checkpoints:
        assert_same_bits(checkpoints.restore(like=state), state)
        assert checksum(checkpoints.state()) == checksum(state)


def test_flipped_bits_of_weights_are_found(stopped, tmp_path):
    """Orbax would take most of them for other weights."""
    folder, state = stopped
    shutil.copytree(folder, tmp_path / "x")
    newest = tmp_path / "x" / "checkpoints" / "6"
    largest = max(files(newest), key=lambda x: x.stat().st_size)
    content = largest.read_bytes()
    for at in np.random.default_rng(0).integers(0, len(content), 12):
        broken = bytearray(content)
        broken[at] ^= 1 << at % 8
        largest.write_bytes(broken)
        with opened(tmp_path / "x") as checkpoints, refused(6, tmp_path / "x", BACK):
            checkpoints.restore(like=state)
    largest.write_bytes(content)
    with opened(tmp_path / "x") as checkpoints:
        assert_same_bits(checkpoints.restore(like=state), state)


DAMAGES = {
    "truncated": lambda x: x.write_bytes(x.read_bytes()[: x.stat().st_size // 2]),
    "emptied": lambda x: x.write_bytes(b""),
    "missing": lambda x: x.unlink(),
    "hostile": lambda x: x.write_bytes(pickle.dumps(Hostile())),
}


class Hostile:
    """What is executed by whoever unpickles it."""

    def __reduce__(self):
        return os.mkdir, (os.environ["GRDA_TEST_HOSTILE"],)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of orbax
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_file_of_a_checkpoint_can_be_damaged(stopped, tmp_path, monkeypatch, damage):
    """Either that is found, or the state is the same; nothing is executed."""
    monkeypatch.setenv("GRDA_TEST_HOSTILE", str(tmp_path / "executed"))
    folder, state = stopped
    found = same = 0
    count = len(files(folder / "checkpoints" / "6"))
    for number in range(count):
        copy = tmp_path / f"{number}"
        shutil.copytree(folder, copy)
        DAMAGES[damage](files(copy / "checkpoints" / "6")[number])
        with opened(copy) as checkpoints:
            if checkpoints.latest() != 6:  # not even taken for a checkpoint
                found += 1
                continue
            try:
                restored = checkpoints.restore(like=state)
            except ValueError as error:
                found += "6 cannot be read: it is truncated or altered" in str(error)
            else:
                same += checksum(restored) == checksum(state)
    assert found + same == count
    assert found >= 3
    assert not (tmp_path / "executed").exists()


def test_the_hostile_file_is_one(tmp_path, monkeypatch):
    monkeypatch.setenv("GRDA_TEST_HOSTILE", str(tmp_path / "executed"))
    pickle.loads(pickle.dumps(Hostile()))
    assert (tmp_path / "executed").is_dir()


def test_falling_back(stopped, tmp_path):
    folder, state = stopped
    shutil.copytree(folder, tmp_path / "x")
    for step in (6, 3):
        for path in files(tmp_path / "x" / "checkpoints" / str(step)):
            path.write_bytes(b"")
        if step == 6:
            with opened(tmp_path / "x") as checkpoints:
                restored = checkpoints.restore(like=state, fall_back=True)
                assert int(restored["opt_state"][0]) == 3
                assert checkpoints.latest() == 3
    with opened(tmp_path / "x") as checkpoints, refused(3, tmp_path / "x", ALONE):
        checkpoints.restore(like=state, fall_back=True)
    assert (tmp_path / "x" / "checkpoints" / "3").is_dir()


@pytest.mark.slow
def test_the_way_back_from_a_checkpoint_that_is_altered(call, tmp_path):
    call("--name", "whole")
    call("--checkpoint-every", "5", "--stop-after", "10")
    folder = tmp_path.joinpath("runs", *FOLDER)
    largest = max(files(folder / "checkpoints" / "10"), key=lambda x: x.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 8
    largest.write_bytes(content)
    status, _, error = call()
    assert status == 2
    is_one_line(error, str(folder / "checkpoints" / "10"), "truncated or altered", "--fall-back")
    status, out, error = call("--fall-back")
    assert (status, error) == (0, "")
    assert "The checkpoint of step 10 was truncated or altered, and is deleted; going on" in out
    assert_same_bits(weights(folder), weights(tmp_path / "runs" / "whole" / "grda"))
    rows = read_rows(folder / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 23))


# Other files of a run.


def test_masks_are_read_without_pickle(tmp_path, monkeypatch):
    monkeypatch.setenv("GRDA_TEST_HOSTILE", str(tmp_path / "executed"))
    folder = RunFolder(tmp_path / "x")
    folder.open(SHORT)
    params = {"a": {"kernel": np.eye(5, dtype=np.float32)}}
    folder.write_masks(1, params, {"a": {"kernel": True}})
    (masks,) = folder.read_masks().values()
    np.testing.assert_array_equal(masks["a/kernel"], np.eye(5) == 1)
    path = folder.masks / "epoch_000001.npz"
    content = path.read_bytes()
    for number, bad in enumerate((content[:-40], content[:9], b"", pickle.dumps(Hostile()))):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"epoch_000001\.npz cannot be read: it is t"):
            folder.read_masks()
        assert not (tmp_path / "executed").exists(), number
    bits = np.array([Hostile()], object)
    for arrays in (
        {"bits/w": bits, "shape/w": np.array([5, 5])},
        {"bits/w": np.zeros(1, np.uint8), "shape/w": np.array([5, 5])},
        {"bits/w": np.zeros(4, np.uint8)},
    ):
        with path.open("wb") as file:
            np.savez(file, **arrays)
        with pytest.raises(ValueError, match=r"epoch_000001\.npz cannot be read: it is t"):
            folder.read_masks()
    assert not (tmp_path / "executed").exists()


def test_rows_that_are_none_are_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = ['{"step": 1}', "3", "[1]", "null", '{"step": "x"}', "{}", '{"step": 2}', '{"st', "["]
    path.write_text("\n".join([*lines, 100_000 * "["]))
    assert read_rows(path, 5) == [{"step": 1}, {"step": 2}]
    assert read_rows(path) == [{"step": 1}, {"step": "x"}, {}, {"step": 2}]


def test_a_start_from_a_run_that_cannot_be_read(make_job, tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json cannot be read: Expecting property name"):
        make_job(tmp_path / "x", change(init_from=str(tmp_path)))
    write_json(tmp_path / "config.json", SHORT.to_json())
    with pytest.raises(ValueError, match="init_from must be a run that has a checkpoint, got"):
        make_job(tmp_path / "x", change(init_from=str(tmp_path)))
    assert not (tmp_path / "x").exists()


# Data that disappear.


@pytest.fixture
def prepared(data_dir, digits, tmp_path):
    del digits
    shutil.copytree(data_dir, tmp_path / "tfds")
    return tmp_path / "tfds"


DATA = {
    "a file is gone": ("*train.array_record*", lambda x: x.unlink()),
    "a file is cut off": ("*test.array_record*", lambda x: x.write_bytes(x.read_bytes()[:9999])),
    "a file is altered": ("*train.array_record*", lambda x: x.write_bytes(_altered(x))),
    "the description is none": ("dataset_info.json", lambda x: x.write_text("{")),
    "the description is gone": ("dataset_info.json", lambda x: x.unlink()),
}


def _altered(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    return bytes(content)


@pytest.mark.parametrize("what", DATA)
def test_data_that_are_damaged(prepared, what):
    pattern, damage = DATA[what]
    damage(next(prepared.rglob(pattern)))
    with pytest.raises(data.DataNotFoundError) as error:
        data.load("digits", prepared)
    message = str(error.value)
    start = f"digits cannot be read from {prepared}: a file is missing or altered ("
    assert message.startswith(start)
    assert message.endswith("). Delete the folder digits there, and it is made anew.")
    assert "\n" not in message
    shutil.rmtree(prepared / "digits")
    assert len(data.load("digits", prepared).train.labels) == 1437


@pytest.mark.slow
def test_data_that_disappear_between_two_commands(call, prepared, tmp_path):
    call("--stop-after", "5", data_dir=prepared)
    before = read_rows(tmp_path.joinpath("runs", *FOLDER, "metrics.jsonl"))
    next(prepared.rglob("*train.array_record*")).unlink()
    data._load.cache_clear()  # which a process of its own would not have
    status, _, error = call(data_dir=prepared)
    assert status == 2
    is_one_line(error, "a file is missing or altered", "Delete the folder digits there")
    assert read_rows(tmp_path.joinpath("runs", *FOLDER, "metrics.jsonl")) == before


@pytest.mark.slow
def test_data_that_disappear_under_a_run_are_not_missed(make_job, prepared, tmp_path, train):
    """They are in memory by then."""
    data._load.cache_clear()
    dataset = data.load("digits", prepared)
    shutil.rmtree(prepared)
    assert train(tmp_path / "run", change(steps=2), dataset=dataset).result is not None


def test_late_answers_are_ignored_and_nothing_else(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda x: seen.append(str(x.exc_value)))
    faults.ignore_late_answers()
    hook = sys.unraisablehook
    faults.ignore_late_answers()
    assert sys.unraisablehook is hook
    for error in (RuntimeError("Event loop is closed"), RuntimeError("other"), ValueError("x")):
        sys.unraisablehook(types.SimpleNamespace(exc_value=error))
    assert seen == ["other", "x"]
