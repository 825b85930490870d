"""ImageNet (ILSVRC 2012) as TFDS has prepared it: read here, image by image, without TensorFlow."""

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from experiments.checks import check

NAME, VERSION = "imagenet2012", "5.1.0"
CLASSES = 1000
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What the paper's code takes off each channel, and divides it by; of pixels from 0 to 1."""
PREPARE = (
    "import tensorflow_datasets as tfds; "
    f"tfds.builder('{NAME}:{VERSION}', data_dir=DATA_DIR, file_format='array_record')"
    ".download_and_prepare()"
)


def folder(data_dir: Path | None) -> Path:
    """Where TFDS has it, or would have it."""
    root = Path(tfds.core.constants.DATA_DIR if data_dir is None else data_dir).expanduser()
    return root / NAME / VERSION


def sources(data_dir: Path | None) -> dict[str, Any] | None:
    """Both splits, each from an index to the encoded image and the label; None if not prepared.

    Raises:
        ValueError: it is prepared in a format that cannot be read in any order.
    """
    if not (folder(data_dir) / "dataset_info.json").is_file():
        return None
    builder = tfds.builder_from_directory(folder(data_dir))
    file_format = builder.info.file_format.value
    check(file_format == "array_record", "file_format of imagenet2012", file_format, "array_record")
    # Encoded, since a decoded one is ten times as large, and most of it is cut away.
    decoders = {"image": tfds.decode.SkipDecoding()}
    return {
        split: builder.as_data_source(split=name, decoders=decoders)
        for split, name in (("train", "train"), ("test", "validation"))
    }
