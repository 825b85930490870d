"""Photographs that are read when they are needed: the same batches, however they are read."""

import dataclasses
import io

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from experiments import data
from experiments.config import Config
from experiments.datasets import imagenet
from experiments.stream import Stream, epoch_order

from .conftest import exactly

SIZE = 8


class Numbered:
    """So many grey images, each of the colour of its number; remembers which were asked for."""

    def __init__(self, count):
        self.count, self.asked = count, []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.asked.append(index)
        return {"image": np.full((9, 12, 3), index, np.uint8), "label": index}


def stream(count=23, **fields):
    return Stream(Numbered(count), SIZE, threads=2, **fields)


def test_a_batch_is_a_function_of_seed_and_step():
    """In order, backwards and after a jump: the examples that data in memory would give."""
    images = np.arange(23)[:, None, None, None].astype(np.uint8)
    split = data.Split(images, np.arange(23, dtype=np.int32))
    one = stream()
    for step in (0, 1, 2, 7, 3, 3, 4):
        found = data.batch(one, 5, step, 4)
        wanted = data.batch(split, 5, step, 4)
        np.testing.assert_array_equal(found.labels, wanted.labels)
        assert found.labels.dtype == np.int32
        assert (found.inputs == wanted.inputs).all(), "each image with its label"
        assert (found.inputs.shape, found.inputs.dtype) == ((4, SIZE, SIZE, 3), np.uint8)


def test_views_are_a_function_of_seed_and_step_too():
    rng = np.random.default_rng(0)
    photographs = rng.integers(0, 256, (10, 20, 30, 3)).astype(np.uint8)
    source = [{"image": x, "label": i} for i, x in enumerate(photographs)]

    def views(seed, step):
        return Stream(source, SIZE, threads=2).batch(seed, step, 5, "crop_flip").inputs

    first = views(0, 3)
    running = Stream(source, SIZE, threads=2)
    for step in range(4):
        last = running.batch(0, step, 5, "crop_flip").inputs
    np.testing.assert_array_equal(last, first)
    assert not np.array_equal(views(0, 5), first), "the same examples an epoch later, seen anew"
    assert not np.array_equal(views(1, 3), first)


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_a_batch_and_read_no_more_than_their_part(processes):
    whole = stream().batch(1, 2, 8, "crop_flip")
    rows = []
    for index in range(processes):
        part = stream(process_index=index, process_count=processes, ahead=1)
        rows.append(part.batch(1, 2, 8, "crop_flip"))
        order = epoch_order(1, 1, 23)[:8]  # the first batch of the second epoch
        mine = order[index * 8 // processes : (index + 1) * 8 // processes]
        # Threads ask in any order, and for rows of the batch after it.
        assert set(mine) <= set(part.source.asked)
        assert not {*part.source.asked} & ({*order} - {*mine})
    for name in ("inputs", "labels"):
        joined = np.concatenate([getattr(x, name) for x in rows])
        np.testing.assert_array_equal(joined, getattr(whole, name))


@pytest.mark.parametrize(("count", "processes"), [(1, 1), (8, 2), (9, 1), (9, 2), (23, 4)])
def test_scoring_counts_every_example_once(count, processes):
    seen = []
    for index in range(processes):
        one = stream(count, process_index=index, process_count=processes)
        for split, weight in data.evaluation_batches(one, 8):
            assert len(split.labels) == len(weight) == 8 // processes
            seen += list(split.labels[weight == 1])
    assert sorted(seen) == list(range(count))


def test_scoring_between_steps_does_not_disturb_training():
    one = stream()
    first = one.batch(0, 0, 4, "crop_flip")
    list(one.in_order(8))
    after = one.batch(0, 1, 4, "crop_flip")
    np.testing.assert_array_equal(after.inputs, stream().batch(0, 1, 4, "crop_flip").inputs)
    np.testing.assert_array_equal(first.inputs, one.batch(0, 0, 4, "crop_flip").inputs)


def test_validation_is_held_out_of_a_stream():
    dataset = data.Dataset(stream(), stream(), 10, 0.0, 1.0)
    train, scored = data.splits(dataset, "validation")
    assert (len(train), len(scored)) == (20, 3)
    labels = [x for step in range(5) for x in train.batch(0, step, 4, "none").labels]
    assert sorted(labels) == list(range(20))
    (batch, weight), *rest = scored.in_order(4)
    assert list(batch.labels[weight == 1]) == [20, 21, 22]
    assert not rest


def test_what_cannot_be_shared_is_refused():
    message = "batch_size must be a multiple of 3 processes, got 8."
    with pytest.raises(ValueError, match=exactly(message)):
        stream(process_index=0, process_count=3).batch(0, 0, 8, "none")


def test_a_source_that_fails_says_so_and_is_asked_again():
    class Failing(Numbered):
        def __getitem__(self, index):
            if not self.asked:
                self.asked.append(index)
                raise OSError("the disk is gone")
            return super().__getitem__(index)

    one = Stream(Failing(8), SIZE, threads=1)
    with pytest.raises(OSError, match="the disk is gone"):
        one.batch(0, 0, 4, "none")
    wanted = Stream(Numbered(8), SIZE).batch(0, 0, 4, "none")
    np.testing.assert_array_equal(one.batch(0, 0, 4, "none").labels, wanted.labels)


def test_methods_that_look_at_all_data_refuse_a_stream():
    message = "the data must be in memory for this, and 23 images are read as a stream."
    with pytest.raises(ValueError, match=exactly(message)):
        data.in_memory(stream())


class Imagenet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """ImageNet's features and splits in TFDS, with a few photographs of two sizes."""

    name = imagenet.NAME
    VERSION = tfds.core.Version(imagenet.VERSION)
    TRAIN, TEST = 50, 9

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(num_classes=1000),
                    "file_name": tfds.features.Text(),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(0, self.TRAIN),
            "validation": self._generate_examples(1000, self.TEST),
        }

    def _generate_examples(self, first, count):
        for i in range(first, first + count):
            file = io.BytesIO()
            photograph(i).save(file, "JPEG", quality=95)
            file.seek(0)
            yield i, {"image": file, "label": i % 1000, "file_name": f"{i}.JPEG"}


def photograph(i):
    """Of one colour, which says its number."""
    shade = i % 1000 * 4
    return Image.new("RGB", (60, 40) if i % 2 else (40, 70), (shade, 255 - shade, 128))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imagenet")
    builder = Imagenet(data_dir=folder, file_format="array_record")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
    return folder


def test_imagenet_is_read_as_tfds_has_prepared_it(prepared):
    dataset = data.load("imagenet2012", prepared)
    assert (len(dataset.train), len(dataset.test)) == (Imagenet.TRAIN, Imagenet.TEST)
    assert (dataset.num_classes, dataset.train.shape) == (1000, (224, 224, 3))
    seen = []
    for step in range(5):
        batch = data.batch(dataset.train, 0, step, 10, "crop_flip")
        for image, label in zip(batch.inputs, batch.labels, strict=True):
            colour = np.array(photograph(label).getpixel((0, 0)))
            assert np.abs(image.astype(int) - colour).max() <= 4, "JPEG changes it a little"
            seen.append(int(label))
    assert sorted(seen) == list(range(50))
    scored = [x for split, w in dataset.test.in_order(4) for x in split.labels[w == 1]]
    assert sorted(scored) == list(range(9))


def test_without_imagenet_the_way_to_it_is_named(tmp_path):
    with pytest.raises(data.DataNotFoundError) as error:
        data.load("imagenet2012", tmp_path)
    for text in (str(tmp_path), "image-net.org", "download_and_prepare", "array_record"):
        assert text in str(error.value)


@pytest.mark.slow
def test_a_run_on_a_stream_goes_on_where_it_was_stopped(prepared, train, tmp_path):
    """From TFDS's files to weights, with and without a stop in the middle of an epoch."""
    dataset = data.load("imagenet2012", prepared)
    small = data.Dataset(
        dataclasses.replace(dataset.train, size=16, _running={}),
        dataclasses.replace(dataset.test, size=16, _running={}),
        *dataset[2:],
    )
    config = Config(
        dataset="imagenet2012",
        model="small_cnn",
        method=("grda",),
        epochs=2,
        batch_size=20,
        augment="crop_flip",
    )
    whole = train(tmp_path / "whole", config, dataset=small)
    assert whole.result["steps"] == 4
    assert train(tmp_path / "parts", config, dataset=small, stop_after=3).result is None
    parts = train(tmp_path / "parts", config, dataset=small)
    for a, b in zip(*(jax.tree.leaves(x.params) for x in (whole, parts)), strict=True):
        np.testing.assert_array_equal(a, b)
    for name in ("eval_loss", "eval_accuracy", "train_loss"):
        assert whole.result[name] == parts.result[name]
