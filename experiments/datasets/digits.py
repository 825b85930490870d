"""The 1,797 handwritten digits that come with scikit-learn, as a TFDS data set."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

TEST_EXAMPLES = 360


class Digits(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[misc,call-arg]
    """8 x 8 grey images of ten digits; a fifth of them, drawn once and for all, is the test."""

    name = "digits"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> Any:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Optical recognition of handwritten digits, test set, as in scikit-learn.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://doi.org/10.24432/C50P49",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, Any]]]:
        del dl_manager  # nothing to download
        return {"train": self._generate_examples(True), "test": self._generate_examples(False)}

    def _generate_examples(self, train: bool) -> Iterator[tuple[int, Any]]:
        from sklearn.datasets import load_digits  # here: it is slow to import, and rarely needed

        digits = load_digits()
        order = np.random.default_rng(0).permutation(len(digits.target))
        for i in order[TEST_EXAMPLES:] if train else order[:TEST_EXAMPLES]:
            # 0 to 16 becomes 0 to 255; an array would need TensorFlow to be encoded, a PIL image
            # does not.
            pixels = np.round(digits.images[i] * (255 / 16)).astype(np.uint8)
            yield int(i), {"image": Image.fromarray(pixels), "label": int(digits.target[i])}
