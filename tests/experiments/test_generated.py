"""Made-up images: of the real shapes, the same each time, and something to be learned from."""

import numpy as np
import pytest

from experiments import data
from experiments.datasets import GENERATED, PIXELS, SHAPES, generated

SMALL = generated.Shape((32, 32, 3), 10, 2000, 500)


def test_outlines_are_the_real_sizes_and_take_no_memory():
    dataset = data.outline("imagenet2012")
    assert dataset.train.inputs.shape == (1_281_167, 224, 224, 3)
    assert dataset.train.inputs.strides == (0, 0, 0, 0)
    assert (data.examples(dataset.test), dataset.num_classes) == (50_000, 1000)
    assert data.outline("generated_cifar100").train.labels.shape == (50_000,)


def test_an_outline_is_the_outline_of_what_is_there(digits):
    outline = data.outline("digits")
    for mine, real in zip(outline[:2], digits[:2], strict=True):
        assert [x.shape for x in mine] == [x.shape for x in real]
        assert [x.dtype for x in mine] == [x.dtype for x in real]
    assert outline.num_classes == digits.num_classes


def test_every_generated_data_set_has_the_shape_of_a_real_one():
    for name, real in GENERATED.items():
        assert name == f"generated_{real}"
        assert real in SHAPES
        assert real in PIXELS


def test_images_are_the_same_each_time_and_differ_from_each_other():
    images, labels = generated.arrays(SMALL, test=False)
    again, _ = generated.arrays(SMALL, test=False)
    np.testing.assert_array_equal(images, again)
    assert len({x.tobytes() for x in images}) == len(images) == 2000
    np.testing.assert_array_equal(np.bincount(labels), [200] * 10)
    tests, _ = generated.arrays(SMALL, test=True)
    assert len(tests) == 500
    assert not {x.tobytes() for x in tests} & {x.tobytes() for x in images}


def test_the_classes_of_training_are_those_of_the_test():
    """The nearest mean of a class finds nearly every label, and chance finds a tenth."""
    images, labels = generated.arrays(SMALL, test=False)
    means = np.stack([images[labels == i].mean(0) for i in range(10)]).reshape(10, -1)
    tests, wanted = generated.arrays(SMALL, test=True)
    distances = ((tests.reshape(500, 1, -1) - means) ** 2).sum(-1)
    assert (distances.argmin(1) == wanted).mean() > 0.95


def test_the_stream_is_as_large_as_imagenet():
    train = data.load("generated_imagenet2012").train
    assert len(train) == 1_281_167
    record = train.source[1234]
    assert (record["image"].shape, record["image"].dtype) == ((224, 224, 3), np.uint8)
    assert record["label"] == 234
    np.testing.assert_array_equal(train.source[1234]["image"], record["image"])
    assert not np.array_equal(train.source[2234]["image"], record["image"])


@pytest.mark.slow
def test_generated_cifar_is_loaded_by_its_name():
    dataset = data.load("generated_cifar100")
    assert dataset.train.inputs.shape == (50_000, 32, 32, 3)
    assert set(dataset.test.labels) == set(range(100))
