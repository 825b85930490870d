"""A data set by its name, in memory or as a stream; and its batches, from seed and step alone."""

import functools
import logging
import socket
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from experiments.augment import Augment, pad_crop_flip
from experiments.datasets import BUILDERS, GENERATED, PIXELS, SHAPES, TEXTS, generated, imagenet
from experiments.datasets.fashion_mnist import (
    DEBIAN_FOLDER,
    DEBIAN_PACKAGE,
    restore_originals,
)
from experiments.faults import first_line
from experiments.stream import Split as Split
from experiments.stream import Stream as Stream
from experiments.stream import epoch_order as epoch_order


class Dataset(NamedTuple):
    """Both splits, and the mean and deviation of the training pixels (from 0 to 1).

    Text has no pixels: its mean is 0, and its deviation 1.
    """

    train: Split | Stream
    test: Split | Stream
    num_classes: int
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]


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
    if name in GENERATED:
        return _generated(GENERATED[name])
    if name == imagenet.NAME:
        return _imagenet(data_dir)
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
    mean, std = PIXELS[name] if name in PIXELS else _pixels(splits["train"].inputs)
    classes = builder.info.features["label"].num_classes
    return Dataset(**splits, num_classes=classes, mean=mean, std=std)


def _pixels(images: np.ndarray) -> tuple[float, float]:
    """Their mean and their deviation."""
    pixels = images / np.float32(255)
    return float(pixels.mean(dtype=np.float64)), float(pixels.std(dtype=np.float64))


def _generated(name: str) -> Dataset:
    shape, (mean, std) = SHAPES[name], PIXELS[name]
    if name == imagenet.NAME:
        train, test = (Stream(generated.Source(shape, test)) for test in (False, True))
        return Dataset(train, test, shape.num_classes, mean, std)
    arrays = [Split(*generated.arrays(shape, test)) for test in (False, True)]
    return Dataset(arrays[0], arrays[1], shape.num_classes, mean, std)


def _imagenet(data_dir: Path | None) -> Dataset:
    sources = imagenet.sources(data_dir)
    if sources is None:
        raise DataNotFoundError(
            f"{imagenet.NAME} is not prepared in {imagenet.folder(data_dir)}. Get the two archives "
            "from image-net.org, put them where TFDS looks for them (DATA_DIR/downloads/manual), "
            "and in an environment with TensorFlow run this once (--data-dir names the DATA_DIR): "
            f'python -c "{imagenet.PREPARE}"'
        )
    splits = {name: Stream(source) for name, source in sources.items()}
    mean, std = PIXELS[imagenet.NAME]
    return Dataset(**splits, num_classes=imagenet.CLASSES, mean=mean, std=std)


def outline(name: str) -> Dataset:
    """A data set's shapes without its content, and without any memory: to plan a run."""
    if name in TEXTS:
        return load(name)
    name = GENERATED.get(name, name)
    shape = SHAPES[name]
    mean, std = PIXELS.get(name, (0.0, 1.0))
    train, test = (
        Split(
            np.broadcast_to(np.uint8(0), (count, *shape.image)),
            np.broadcast_to(np.int32(0), (count,)),
        )
        for count in (shape.train, shape.test)
    )
    return Dataset(train, test, shape.num_classes, mean, std)


def _unreadable(name: str, folder: Any, error: Exception) -> DataNotFoundError:
    return DataNotFoundError(
        f"{name} cannot be read from {folder}: a file is missing or altered "
        f"({first_line(error)[:200]}). Delete the folder {name} there, and it is made anew."
    )


def _prepare(builder: Any) -> None:
    """Writes the data set's files, from what is on this machine or from the network."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    config: dict[str, Any] = {"try_download_gcs": False}
    if not builder.url_infos:  # nothing to download
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(**config))
    elif builder.name == "fashion_mnist" and DEBIAN_FOLDER.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            restore_originals(DEBIAN_FOLDER, Path(folder))
            builder.download_and_prepare(
                download_dir=Path(folder) / "downloads",
                download_config=tfds.download.DownloadConfig(manual_dir=folder, **config),
            )
    elif (manual := _manual_folder(builder)) is not None and (manual / _archive(builder)).exists():
        config["manual_dir"] = str(manual)
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(**config))
    elif _reachable(builder.URL):
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(**config))
    else:
        way = (
            f"install the Debian package {DEBIAN_PACKAGE} (apt-get install {DEBIAN_PACKAGE})"
            if manual is None
            else f"put {_archive(builder)} into {manual}"
        )
        raise DataNotFoundError(
            f"{builder.name} is not prepared in {builder.data_path}, and its source "
            f"{builder.URL} cannot be reached from here. Either {way}, or run this once where "
            "there is a network (TFDS downloads it) and pass the folder with --data-dir."
        )


def _archive(builder: Any) -> str:
    """The name of the single file that there is to download."""
    return Path(urlsplit(builder.URL).path).name


def _manual_folder(builder: Any) -> Path | None:
    """Where TFDS looks for archives that somebody has put there; None for Fashion-MNIST's four."""
    if builder.name == "fashion_mnist":
        return None
    # Of DATA_DIR/NAME/VERSION.
    return Path(builder.data_path).parent.parent / "downloads" / "manual"


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


def splits(dataset: Dataset, evaluate: str) -> tuple[Split | Stream, Split | Stream]:
    """What to train on and what to score: the test set, or the last sixth of the training set."""
    if evaluate == "test":
        return dataset.train, dataset.test
    size = examples(dataset.train)
    cut = size - size // 6
    if isinstance(dataset.train, Stream):
        return dataset.train.part(0, cut), dataset.train.part(cut, size - cut)
    return (
        Split(dataset.train.inputs[:cut], dataset.train.labels[:cut]),
        Split(dataset.train.inputs[cut:], dataset.train.labels[cut:]),
    )


def in_memory(split: Split | Stream) -> Split:
    """The arrays, for those that look at data other than batch by batch.

    Raises:
        ValueError: it is a stream, which does not fit.
    """
    if isinstance(split, Stream):
        raise ValueError(
            f"the data must be in memory for this, and {len(split):,} images are read as a stream."
        )
    return split


def examples(split: Split | Stream) -> int:
    """How many there are."""
    return len(split) if isinstance(split, Stream) else len(split.labels)


def input_shape(split: Split | Stream) -> tuple[int, ...]:
    """Of one example."""
    return split.shape if isinstance(split, Stream) else split.inputs.shape[1:]


def batch(
    split: Split | Stream,
    seed: int,
    step: int,
    batch_size: int,
    augment: Augment = "none",
    rows: slice = slice(None),
) -> Split:
    """The examples of training step ``step`` (from 0): the step number is the whole state.

    An epoch leaves out what does not fill a batch, other examples each time. With ``rows`` only
    those of the batch are read; a stream knows by itself which are this process's.
    """
    if isinstance(split, Stream):
        return split.batch(seed, step, batch_size, augment)
    size = len(split.labels)
    epoch, position = divmod(step, size // batch_size)
    index = epoch_order(seed, epoch, size)[position * batch_size : (position + 1) * batch_size]
    inputs = split.inputs[index[rows]]
    if augment == "crop_flip":
        inputs = pad_crop_flip(inputs, seed, step, batch_size, rows)
    return Split(inputs, split.labels[index[rows]])


def evaluation_batches(
    split: Split | Stream, batch_size: int
) -> Iterable[tuple[Split, np.ndarray]]:
    """Every example once, in order; the last batch is filled up with examples of weight 0."""
    if isinstance(split, Stream):
        return split.in_order(batch_size)
    batches = []
    for start in range(0, len(split.labels), batch_size):
        index = np.arange(start, start + batch_size)
        weight = (index < len(split.labels)).astype(np.float32)
        index = np.minimum(index, len(split.labels) - 1)
        batches.append((Split(split.inputs[index], split.labels[index]), weight))
    return batches
