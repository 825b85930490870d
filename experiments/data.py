"""A data set by its TFDS name, as arrays; and its batches, as a pure function of seed and step."""

import functools
import logging
import socket
import tempfile
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from experiments.datasets import BUILDERS, TEXTS
from experiments.datasets.fashion_mnist import (
    DEBIAN_FOLDER,
    DEBIAN_PACKAGE,
    restore_originals,
)
from experiments.faults import first_line


class Split(NamedTuple):
    """Examples on the host: uint8 inputs and int32 labels.

    Images (n, height, width, channels) have a label each (n,); texts (n, characters) have one for
    each character, which is the next one (n, characters).
    """

    inputs: np.ndarray
    labels: np.ndarray


class Dataset(NamedTuple):
    """Both splits, and the mean and deviation of the training pixels (from 0 to 1).

    Text has no pixels: its mean is 0, and its deviation 1.
    """

    train: Split
    test: Split
    num_classes: int
    mean: float
    std: float


class DataNotFoundError(Exception):
    """The data set is neither prepared here nor can it be had."""


def load(name: str, data_dir: Path | None = None) -> Dataset:
    """Loads a data set, preparing it on the first time (digits 0.3 s, Fashion-MNIST 20 s)."""
    return _load(name, None if data_dir is None else Path(data_dir).expanduser().absolute())


@functools.lru_cache(maxsize=4)  # two methods in one process read it once
def _load(name: str, data_dir: Path | None) -> Dataset:
    if name in TEXTS:
        splits = {split: Split(*arrays) for split, arrays in TEXTS[name].read().items()}
        return Dataset(**splits, num_classes=len(TEXTS[name].SYMBOLS), mean=0.0, std=1.0)
    # Both settings are TFDS's own: without the format it would look for TensorFlow's.
    logging.getLogger("absl").setLevel(logging.ERROR)  # of OpenCV and folders yet to be made
    try:
        builder = BUILDERS[name](data_dir=data_dir, file_format="array_record")
    except OSError:
        raise
    except Exception as error:  # protobuf and TFDS each have their own
        raise _unreadable(name, data_dir or "TFDS's folder", error) from error
    if not builder.is_prepared():
        _prepare(builder)
    try:
        splits = {split: _read(builder.as_data_source(split=split)) for split in ("train", "test")}
    except Exception as error:  # array_record, protobuf and TFDS each have their own
        raise _unreadable(name, builder.data_path.parents[1], error) from error
    pixels = splits["train"].inputs / np.float32(255)
    return Dataset(
        **splits,
        num_classes=builder.info.features["label"].num_classes,
        mean=float(pixels.mean(dtype=np.float64)),
        std=float(pixels.std(dtype=np.float64)),
    )


def _unreadable(name: str, folder: Any, error: Exception) -> DataNotFoundError:
    return DataNotFoundError(
        f"{name} cannot be read from {folder}: a file is missing or altered "
        f"({first_line(error)[:200]}). Delete the folder {name} there, and it is made anew."
    )


def _prepare(builder: Any) -> None:
    """Writes the data set's files, from what is on this machine or from the network."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    config = {"try_download_gcs": False}
    if not builder.url_infos:  # nothing to download
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(**config))
    elif builder.name == "fashion_mnist" and DEBIAN_FOLDER.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            restore_originals(DEBIAN_FOLDER, Path(folder))
            builder.download_and_prepare(
                download_dir=Path(folder) / "downloads",
                download_config=tfds.download.DownloadConfig(manual_dir=folder, **config),
            )
    elif _reachable(builder.URL):
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(**config))
    else:
        debian = f"install the Debian package {DEBIAN_PACKAGE} (apt-get install {DEBIAN_PACKAGE})"
        raise DataNotFoundError(
            f"{builder.name} is not prepared in {builder.data_path}, and its source "
            f"{builder.URL} cannot be reached from here. Either {debian}, or run this once where "
            "there is a network (TFDS downloads it) and pass the folder with --data-dir."
        )


def _reachable(url: str) -> bool:
    """Whether the host answers; TFDS itself would go on trying for minutes."""
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname, port), timeout=5).close()
    except OSError:
        return False
    return True


def _read(source: Any) -> Split:
    examples = source.__getitems__(range(len(source)))
    return Split(
        inputs=np.stack([example["image"] for example in examples]),
        labels=np.array([example["label"] for example in examples], np.int32),
    )


def splits(dataset: Dataset, evaluate: str) -> tuple[Split, Split]:
    """What to train on and what to score: the test set, or the last sixth of the training set."""
    if evaluate == "test":
        return dataset.train, dataset.test
    size = len(dataset.train.labels)
    cut = size - size // 6
    return (
        Split(dataset.train.inputs[:cut], dataset.train.labels[:cut]),
        Split(dataset.train.inputs[cut:], dataset.train.labels[cut:]),
    )


@functools.lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of the examples in an epoch, a permutation that nothing else enters."""
    return np.random.default_rng([seed, epoch]).permutation(size)


def batch(split: Split, seed: int, step: int, batch_size: int) -> Split:
    """The examples of training step ``step`` (from 0): the step number is the whole state.

    An epoch leaves out what does not fill a batch, other examples each time.
    """
    size = len(split.labels)
    epoch, position = divmod(step, size // batch_size)
    index = epoch_order(seed, epoch, size)[position * batch_size : (position + 1) * batch_size]
    return Split(split.inputs[index], split.labels[index])


def evaluation_batches(split: Split, batch_size: int) -> list[tuple[Split, np.ndarray]]:
    """Every example once, in order; the last batch is filled up with examples of weight 0."""
    batches = []
    for start in range(0, len(split.labels), batch_size):
        index = np.arange(start, start + batch_size)
        weight = (index < len(split.labels)).astype(np.float32)
        index = np.minimum(index, len(split.labels) - 1)
        batches.append((Split(split.inputs[index], split.labels[index]), weight))
    return batches
