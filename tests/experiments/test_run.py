"""The command line, as somebody uses it."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from experiments import run
from experiments.checkpoint import Checkpoints
from experiments.config import Config
from experiments.folder import RunFolder
from experiments.log import read_rows

SHORT = ["digits", "--epochs", "3", "--batch-size", "128", "--no-progress"]


@pytest.fixture
def call(data_dir, digits, tmp_path, monkeypatch, capsys):
    """``call(*arguments)``: the exit status, and what was printed, errors last."""
    del digits  # prepared in data_dir
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "dumb")

    def main(*arguments):
        where = ["--data-dir", str(data_dir), "--runs-dir", str(tmp_path), "--devices", "8"]
        status = run.main([*SHORT, *where, *arguments])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return main


def events(folder):
    """The scalars of a TensorBoard file: (tag, step) of each."""
    (path,) = folder.glob("events*")
    content, found, at = path.read_bytes(), [], 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 8], "little")
        event = Event.FromString(content[at + 12 : at + 12 + size])
        found += [(value.tag, event.step) for value in event.summary.value]
        at += 16 + size
    return found


def test_a_comparison_from_end_to_end(call, tmp_path):
    status, out = call()
    assert status == 0
    for words in (
        "dense",
        "grda",
        "test accuracy",
        "sparsity of penalised weights",
        "sparsity of all weights",
        "nonzero, penalised",
        "50,200",
        "50,610",
        "seconds",
        "dense1/kernel",
        "dense1/bias *",
    ):
        assert words in out, words
    (folder,) = tmp_path.iterdir()
    assert folder.name == "digits-epochs=3-batch_size=128"
    for method in ("dense", "grda"):
        mine = RunFolder(folder / method)
        config = Config.from_json(json.loads(mine.config.read_text()))
        assert (config.method, config.epochs) == ((method,), 3)
        assert [row["step"] for row in read_rows(mine.metrics)] == list(range(1, 34))
        result = json.loads(mine.result.read_text())
        assert f"{result['all']['nnz']:,}" in out
        assert f"{result['eval_accuracy']:.2%}" in out
        tags = events(mine.tensorboard)
        assert ("eval_accuracy", 33) in tags
        assert ("threshold" in {tag for tag, _ in tags}) == (method == "grda")
        checkpoints = Checkpoints(mine)
        assert checkpoints.latest() == 33
        checkpoints.close()
    picture = np.asarray(Image.open(folder / "comparison.png").convert("L"))
    assert min(picture.shape) > 300
    assert picture.std() > 10  # something is drawn


def test_finished_work_is_not_done_again(call, tmp_path):
    call("--method", "grda", "--name", "x")
    result = tmp_path / "x" / "grda" / "result.json"
    before = result.read_text()
    status, out = call("--method", "grda", "--name", "x")
    assert status == 0
    assert result.read_text() == before
    assert "test accuracy" in out


def test_stop_and_go_on(call, tmp_path):
    status, out = call("--method", "grda", "--name", "x", "--stop-after", "7")
    assert status == 0
    assert "grda stopped after step 7 of 33, as asked." in out
    status, out = call("--method", "grda", "--name", "x")
    assert status == 0
    assert len(read_rows(tmp_path / "x" / "grda" / "metrics.jsonl")) == 33


def test_another_config_in_the_folder_is_an_error_and_overwrite_is_the_way(call, tmp_path):
    call("--method", "grda", "--name", "x", "--stop-after", "1")
    status, out = call("--method", "grda", "--name", "x", "--seed", "5")
    assert status == 2
    assert "holds the run of another config" in out
    assert "seed: 0 there, 5 asked for" in out
    status, _ = call("--method", "grda", "--name", "x", "--seed", "5", "--overwrite")
    assert status == 0
    config = json.loads((tmp_path / "x" / "grda" / "config.json").read_text())
    assert config["seed"] == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learning-rate", "-1"], "learning_rate must be a finite number >= 0, got -1.0."),
        (["--grda.mu", "2"], "grda.mu must be in (0, 1], got 2.0."),
        (["--batch-size", "100000"], "batch_size must be at most the 1437 examples, got 100000."),
        (["--batch-size", "12"], "batch_size must be a multiple of the 8 devices, got 12."),
        (["--devices", "99"], "devices must be at most the 8 that JAX has here, got 99."),
    ],
)
def test_bad_settings_are_named_before_anything_is_written(call, tmp_path, arguments, message):
    status, out = call(*arguments)
    assert status == 2
    assert message in " ".join(out.split())
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["digit"], [], ["digits", "--model", "vgg"]])
def test_the_parser_refuses_what_it_does_not_know(arguments):
    with pytest.raises(SystemExit) as error:
        run.main(arguments)
    assert error.value.code == 2


def test_help_says_what_every_setting_is(capsys):
    with pytest.raises(SystemExit) as error:
        run.main(["digits", "--help"])
    assert error.value.code == 0
    out = re.sub(r"[│╭╮╰╯─\s]+", " ", capsys.readouterr().out)
    for name in ("--learning-rate", "--method", "--grda.mu", "--parallel", "--stop-after"):
        assert name in out
    assert "How fast the threshold grows" in out
    assert "default: 0.1" in out


@pytest.mark.slow
def test_as_a_process_on_fake_devices(tmp_path, data_dir, digits):
    """Eight CPU devices that were asked for, in a process that has none of ours."""
    command = [sys.executable, "-m", "experiments.run", *SHORT, "--data-dir", str(data_dir)]
    for mode in ("mesh", "pmap"):
        place = ["--runs-dir", str(tmp_path), "--name", mode, "--parallel", mode]
        done = subprocess.run(
            [*command, *place, "--devices", "8"],
            env={"PATH": "", "HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    results = [
        json.loads((tmp_path / mode / "grda" / "result.json").read_text())
        for mode in ("mesh", "pmap")
    ]
    assert results[0]["penalised"]["nnz"] == pytest.approx(results[1]["penalised"]["nnz"], rel=1e-3)
