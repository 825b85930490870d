"""Fashion-MNIST as TFDS has it, read from Debian's package or downloaded, without TensorFlow."""

import gzip
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.image_classification import mnist

DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")

# The time in the header of the original gzip files, which Debian strips along with the name.
_ORIGINAL_MTIME = {"train": 1504176606, "t10k": 1504176627}


class FashionMNIST(mnist.FashionMNIST, skip_registration=True):  # type: ignore[misc,call-arg]
    """The stock builder (same name, version, files and checksums) that unpacks with gzip."""

    @property
    def url_infos(self) -> Any:
        """The registered checksums, which lie beside the stock builder."""
        return tfds.builder_cls("fashion_mnist").url_infos

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, Any]]]:
        names = {
            (split, kind): f"{prefix}-{kind}-ubyte.gz"
            for split, prefix in (("train", "train"), ("test", "t10k"))
            for kind in ("images-idx3", "labels-idx1")
        }
        paths = dl_manager.download({key: urljoin(self.URL, name) for key, name in names.items()})
        return {
            split: self._generate_examples(paths[split, "images-idx3"], paths[split, "labels-idx1"])
            for split in ("train", "test")
        }

    def _generate_examples(self, images: Any, labels: Any) -> Iterator[tuple[int, Any]]:
        pairs = zip(read_idx(Path(images)), read_idx(Path(labels)), strict=True)
        for i, (image, label) in enumerate(pairs):
            yield i, {"image": Image.fromarray(image), "label": int(label)}


def read_idx(path: Path) -> np.ndarray:
    """A gzipped file in the IDX format of MNIST, as an array of bytes."""
    with gzip.open(path) as file:
        content = file.read()
    zeros, kind, ndim = struct.unpack_from(">HBB", content)
    if zeros != 0 or kind != 8:  # 8 stands for unsigned bytes
        raise ValueError(f"{path} is not an IDX file of unsigned bytes.")
    shape = struct.unpack_from(f">{ndim}I", content, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * ndim).reshape(shape)


def restore_originals(source: Path, target: Path) -> None:
    """Writes Debian's files as they once were, so that their registered SHA-256 holds again."""
    for path in sorted(source.glob("*-ubyte.gz")):
        mtime = _ORIGINAL_MTIME[path.name.split("-")[0]]
        with path.open("rb") as old, (target / path.name).open("wb") as new:
            magic, _, _, last = struct.unpack("<3sBIH", old.read(10))
            # RFC 1952: flag 8 announces a file name, which ends with a zero byte.
            new.write(struct.pack("<3sBIH", magic, 8, mtime, last))
            new.write(path.name.removesuffix(".gz").encode() + b"\0")
            shutil.copyfileobj(old, new)
