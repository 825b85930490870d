"""Data sets as TFDS gives them, without TensorFlow; and batches that only seed and step decide."""

import gzip
import hashlib
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from experiments import data
from experiments.datasets import fashion_mnist

from .conftest import needs_fashion_mnist


def test_digits_are_scikit_learns(digits):
    """Every image is there once, in one of the splits, with its label and all of its 17 greys."""
    assert [len(split.labels) for split in (digits.train, digits.test)] == [1437, 360]
    assert digits.train.inputs.dtype == np.uint8
    assert digits.num_classes == 10
    images = np.concatenate([digits.train.inputs, digits.test.inputs])[..., 0]
    labels = np.concatenate([digits.train.labels, digits.test.labels])
    found = sorted(
        (label, np.round(x * (16 / 255)).tobytes()) for x, label in zip(images, labels, strict=True)
    )
    original = load_digits()
    wanted = sorted(
        (label, x.astype(np.float64).tobytes())
        for x, label in zip(original.images, original.target, strict=True)
    )
    assert found == wanted
    pixels = digits.train.inputs / 255
    assert digits.mean == pytest.approx(pixels.mean(), rel=1e-6)
    assert digits.std == pytest.approx(pixels.std(), rel=1e-6)


def test_nothing_imports_tensorflow(data_dir, digits):
    code = (
        "import sys; from experiments import data, run; from pathlib import Path; "
        f"data.load('digits', Path({str(data_dir)!r})); "
        "assert not any(m.split('.')[0] == 'tensorflow' for m in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_batches_are_a_function_of_seed_and_step(digits):
    steps = [data.batch(digits.train, 3, step, 100) for step in (20, 0, 13)]
    for step, before in zip((20, 0, 13), steps, strict=True):
        again = data.batch(digits.train, 3, step, 100)
        np.testing.assert_array_equal(again.inputs, before.inputs)
        np.testing.assert_array_equal(again.labels, before.labels)
    other = data.batch(digits.train, 4, 0, 100)
    assert not np.array_equal(other.labels, steps[1].labels)


def test_the_parts_of_a_batch_make_the_whole(digits):
    whole = data.batch(digits.train, 3, 7, 32)
    parts = [data.batch(digits.train, 3, 7, 32, rows=slice(i, i + 8)) for i in range(0, 32, 8)]
    for all_of_it, *pieces in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(np.concatenate(pieces), all_of_it)


def test_an_epoch_takes_no_example_twice_and_differs_from_the_next():
    split = data.Split(np.arange(1003).reshape(-1, 1, 1, 1), np.arange(1003))
    epochs = [
        np.concatenate([data.batch(split, 0, 10 * epoch + i, 100).labels for i in range(10)])
        for epoch in range(2)
    ]
    for labels in epochs:
        assert len(labels) == len(set(labels)) == 1000
    assert not np.array_equal(*epochs)


@pytest.mark.parametrize("size", [1, 99, 100, 101, 360])
def test_evaluation_counts_every_example_once(size):
    split = data.Split(np.zeros((size, 1, 1, 1), np.uint8), np.arange(size))
    seen = []
    for batch, weight in data.evaluation_batches(split, 100):
        assert len(batch.labels) == len(weight) == 100
        seen += list(batch.labels[weight == 1])
        assert set(weight) <= {0, 1}
    assert seen == list(range(size))


def test_validation_is_held_out_of_training(digits):
    train, scored = data.splits(digits, "validation")
    assert len(scored.labels) == 1437 // 6
    np.testing.assert_array_equal(
        np.concatenate([train.inputs, scored.inputs]), digits.train.inputs
    )
    assert data.splits(digits, "test") == (digits.train, digits.test)


def test_without_the_data_both_ways_to_get_it_are_named_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "DEBIAN_FOLDER", tmp_path / "nowhere")
    monkeypatch.setattr(data, "_reachable", lambda url: False)
    with pytest.raises(data.DataNotFoundError) as error:
        data.load("fashion_mnist", tmp_path)
    message = str(error.value)
    assert "apt-get install dataset-fashion-mnist" in message
    assert "--data-dir" in message
    assert str(tmp_path) in message
    assert not any(tmp_path.iterdir()), "nothing is written on failure"


def test_a_host_that_does_not_answer_is_not_reachable():
    assert not data._reachable("http://127.0.0.1:9/data")  # the discard port, where none listens


def test_idx_files_are_read_and_others_refused(tmp_path):
    path = tmp_path / "x.gz"
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    header = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))
    np.testing.assert_array_equal(fashion_mnist.read_idx(path), array)
    path.write_bytes(gzip.compress(b"\x00\x00\x0d\x01" + b"\0" * 8))
    with pytest.raises(ValueError, match="is not an IDX file of unsigned bytes"):
        fashion_mnist.read_idx(path)


@needs_fashion_mnist
def test_debians_files_become_the_registered_ones(tmp_path):
    fashion_mnist.restore_originals(fashion_mnist.DEBIAN_FOLDER, tmp_path)
    registered = {
        info.checksum
        for info in fashion_mnist.FashionMNIST(data_dir=tmp_path / "x").url_infos.values()
    }
    found = {hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.glob("*.gz")}
    assert len(found) == 4
    assert found == registered


@pytest.mark.slow
@needs_fashion_mnist
def test_fashion_mnist_is_its_files(data_dir):
    dataset = data.load("fashion_mnist", data_dir)
    folder = fashion_mnist.DEBIAN_FOLDER
    for split, prefix in ((dataset.train, "train"), (dataset.test, "t10k")):
        images = fashion_mnist.read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
        labels = fashion_mnist.read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
        # TFDS shuffles, once and for all: the same pairs in another order.
        key = lambda pairs: sorted((int(y), x.tobytes()) for x, y in pairs)  # noqa: E731
        assert key(zip(split.inputs[..., 0], split.labels, strict=True)) == key(
            zip(images, labels, strict=True)
        )
