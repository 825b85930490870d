"""CIFAR from archives of the real layout, made here, through TFDS and without TensorFlow."""

import hashlib
import io
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments import data
from experiments.datasets import cifar

from .conftest import exactly

PER_FILE = 3


def records(rng, classes):
    """A file: labels of a byte each, then red, green and blue, row by row."""
    labels = [rng.integers(0, n, PER_FILE).astype(np.uint8) for n in classes]
    images = rng.integers(0, 256, (PER_FILE, 3, 32, 32)).astype(np.uint8)
    rows = [*(x[:, None] for x in labels), images.reshape(PER_FILE, -1)]
    return np.concatenate(rows, axis=1).tobytes(), labels[-1], images.transpose(0, 2, 3, 1)


def archive(path, prefix, names, label_files, classes):
    """Writes the .tar.gz, and returns the examples of each of its files by name."""
    rng, examples = np.random.default_rng(0), {}
    contents = {
        name: "".join(f"{name[:5]} {i}\n" for i in range(n)).encode() + b"\n"
        for name, n in label_files.items()
    }
    for name in names:
        contents[name], *examples[name] = records(rng, classes)
    with tarfile.open(path, "w:gz") as file:
        for name, content in contents.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return examples


LAYOUTS = {
    "cifar10": (
        "cifar-10-binary.tar.gz",
        "cifar-10-batches-bin/",
        [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"],
        {"batches.meta.txt": 10},
        (10,),
    ),
    "cifar100": (
        "cifar-100-binary.tar.gz",
        "cifar-100-binary/",
        ["train.bin", "test.bin"],
        {"coarse_label_names.txt": 20, "fine_label_names.txt": 100},
        (20, 100),
    ),
}


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_archive_becomes_the_data_set(name, tmp_path, monkeypatch):
    file, *layout = LAYOUTS[name]
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    examples = archive(manual / file, *layout)
    content = (manual / file).read_bytes()
    url = f"https://www.cs.toronto.edu/~kriz/{file}"
    registered = tfds.builder_cls(name).url_infos
    assert set(registered) == {url}, "the address that TFDS has registered"
    mine = tfds.download.checksums.UrlInfo(
        size=len(content), checksum=hashlib.sha256(content).hexdigest(), filename=file
    )
    monkeypatch.setattr(cifar._WithTarfile, "url_infos", {url: mine})
    dataset = data.load(name, tmp_path)
    assert dataset.num_classes == layout[-1][-1]
    assert dataset.mean == (0.4914, 0.4822, 0.4465)
    tests = {x for x in examples if x.startswith("test")}
    for split, names in ((dataset.train, examples.keys() - tests), (dataset.test, tests)):
        assert split.inputs.dtype == np.uint8
        wanted = sorted(
            (int(y), x.tobytes()) for k in names for y, x in zip(*examples[k], strict=True)
        )
        found = sorted(
            (int(y), x.tobytes()) for y, x in zip(split.labels, split.inputs, strict=True)
        )
        assert found == wanted
    builder = data.BUILDERS[name](data_dir=tmp_path, file_format="array_record")
    first = builder.info.features["label"].names[0]
    assert first == {"cifar10": "batch 0", "cifar100": "fine_ 0"}[name]
    assert next(x["id"] for x in builder.as_data_source("test")).startswith(b"test_0000")


def test_an_altered_archive_is_refused(tmp_path):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    archive(manual / LAYOUTS["cifar10"][0], *LAYOUTS["cifar10"][1:])
    with pytest.raises(Exception, match=r"cifar-10-binary\.tar\.gz.*\n.*checksum"):
        data.load("cifar10", tmp_path)


def test_without_the_archive_both_ways_to_get_it_are_named_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "_reachable", lambda url: False)
    with pytest.raises(data.DataNotFoundError) as error:
        data.load("cifar100", tmp_path)
    message = str(error.value)
    assert f"put cifar-100-binary.tar.gz into {tmp_path}/downloads/manual" in message
    assert "--data-dir" in message
    assert "apt-get" not in message


def test_files_that_are_cut_off_are_refused():
    message = "3072 bytes are no records of 3073 bytes, as CIFAR has."
    with pytest.raises(ValueError, match=exactly(message)):
        list(cifar.read_records(bytes(3072), 1))
    with pytest.raises(ValueError, match="0 bytes are no records"):
        list(cifar.read_records(b"", 2))
