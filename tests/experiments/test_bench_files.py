"""Bytes in a file, beside those of other formats."""

import json

import numpy as np
import pytest

from experiments.bench import files, gains

HEADER = 1000


def test_bytes_by_hand():
    """A bit a weight and four bytes a nonzero one; twelve of these with two indices."""
    row = files.measure(20_000, 0.9)
    assert row["nonzero"] == 2000
    wanted = {"dense": 80_000, "coo": 24_000, "sparse": 10_500, "bfloat16": 6_500}
    for name, size in wanted.items():
        assert size <= row[name] <= size + HEADER, name
    assert row["deflate"] < row["sparse"] - 500
    assert row["gzip"] < row["dense"]


def test_zeros_are_as_many_as_asked_for():
    for sparsity in (0.0, 0.5, 0.999):
        array = files.kernel(2000, sparsity)
        assert array.dtype == np.float32
        assert np.count_nonzero(array) == 2000 - round(2000 * sparsity)


def test_from_the_command_to_the_page(tmp_path, capsys):
    path = tmp_path / gains.FILES
    words = ["--weights", "5000", "--sparsities", "0.5", "0.9", "--save", str(path)]
    assert files.main(words) == 0
    saved = json.loads(path.read_text())
    assert [row["sparsity"] for row in saved["files"]] == [0.5, 0.9]
    assert saved["versions"]["numpy"]
    page = gains.render(tmp_path)
    assert f"Made by `{saved['command']}`" in page
    row = saved["files"][1]
    assert f"| 90 | {row['dense']:,} | {row['gzip'] / row['dense']:.4f} |" in page
    [line] = gains.summary(tmp_path).splitlines()
    assert f"90 % zeros takes {row['sparse'] / row['dense']:.3f} of the dense one's" in line
    assert "save_sparse" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weights", "1500"], "weights must be a multiple of 1000, got 1500."),
        (["--sparsities", "1"], "sparsities must be in [0, 1), got 1.0."),
    ],
)
def test_what_cannot_be_written_is_refused(words, message, capsys):
    assert files.main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert " ".join(printed.err.split()) == f"error: {message}"


def test_a_folder_that_is_not_there_is_named(tmp_path, capsys):
    path = tmp_path / "missing" / "files.json"
    assert files.main(["--save", str(path)]) == 2
    assert repr(str(path)) in " ".join(capsys.readouterr().err.split())
