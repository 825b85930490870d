"""CIFAR-10 and CIFAR-100 as TFDS has them, unpacked without TensorFlow."""

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.image_classification import cifar

SIDE = 32
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
"""What the paper's code takes off each channel, and divides it by; of pixels from 0 to 1."""


class _WithTarfile:
    """A stock builder (same name, version, file and checksum) that unpacks with tarfile."""

    name: str
    info: Any
    _cifar_info: Any

    @property
    def url_infos(self) -> Any:
        """The registered checksum, which lies beside the stock builder."""
        return tfds.builder_cls(self.name).url_infos

    @property
    def URL(self) -> str:
        """Of the archive."""
        url: str = self._cifar_info.url
        return url

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, Any]]]:
        stock, path = self._cifar_info, Path(dl_manager.download(self.URL))
        with tarfile.open(path) as archive:
            for key, name in zip(stock.label_keys, stock.label_files, strict=True):
                names = _member(archive, stock.prefix + name).decode().split("\n")
                self.info.features[key].names = [x for x in names if x]
        return {
            "train": self._generate_examples("train_", path, stock.train_files),
            "test": self._generate_examples("test_", path, stock.test_files),
        }

    def _generate_examples(
        self, prefix: str, path: Path, names: list[str]
    ) -> Iterator[tuple[int, Any]]:
        stock, index = self._cifar_info, 0
        with tarfile.open(path) as archive:
            for name in names:
                content = _member(archive, stock.prefix + name)
                for labels, image in read_records(content, len(stock.label_keys)):
                    yield (
                        index,
                        {
                            **dict(zip(stock.label_keys, labels, strict=True)),
                            "id": f"{prefix}{index:05d}",
                            "image": Image.fromarray(image),
                        },
                    )
                    index += 1


class Cifar10(_WithTarfile, cifar.Cifar10, skip_registration=True):  # type: ignore[misc,call-arg]
    """60,000 images of 32 x 32 in ten classes (Krizhevsky, 2009), 10,000 of them for testing."""


class Cifar100(_WithTarfile, cifar.Cifar100, skip_registration=True):  # type: ignore[misc,call-arg]
    """As many images in a hundred classes."""


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise ValueError(f"{archive.name!s} holds no file {name}.")
    return file.read()


def read_records(content: bytes, labels: int) -> Iterator[tuple[list[int], np.ndarray]]:
    """CIFAR's binary records: some labels of a byte each, then the image, channel by channel.

    Args:
        content: of a file.
        labels: how many a record has.

    Raises:
        ValueError: the content is not a whole number of records.
    """
    length = labels + 3 * SIDE * SIDE
    if not content or len(content) % length:
        raise ValueError(f"{len(content)} bytes are no records of {length} bytes, as CIFAR has.")
    for record in np.frombuffer(content, np.uint8).reshape(-1, length):
        image = record[labels:].reshape(3, SIDE, SIDE).transpose(1, 2, 0)
        yield [int(x) for x in record[:labels]], np.ascontiguousarray(image)
