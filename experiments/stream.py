"""Examples that do not fit into memory: read, decoded and cropped by grain while others train."""

import dataclasses
import functools
import io
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from PIL import Image

from experiments.augment import Augment, central_crop, generator, random_resized_crop
from experiments.checks import check


class Split(NamedTuple):
    """Examples on the host: uint8 inputs and int32 labels.

    Images (n, height, width, channels) have a label each (n,); texts (n, characters) have one for
    each character, which is the next one (n, characters).
    """

    inputs: np.ndarray
    labels: np.ndarray


class Source(Protocol):
    """Photographs in any order, as TFDS's data sources give them; several threads may ask."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, index: Any) -> dict[str, Any]:
        """The one with this index: ``image``, an encoded file or an array, and ``label``."""


@functools.lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of the examples in an epoch, a permutation that nothing else enters."""
    return np.random.default_rng([seed, epoch]).permutation(size)


@dataclasses.dataclass(frozen=True)
class Stream:
    """Photographs that are read when they are needed.

    A batch is a pure function of seed and step here too, in the order that data in memory have. The
    batch that follows the last one is in the making already; any other is a seek.

    With several processes each reads and decodes its own rows of a batch, and no others: the first
    has the first rows. Joined over the processes it is the batch that a single one would have.
    """

    source: Source
    size: int = 224
    """Of the images, in pixels."""
    first: int = 0
    """The index of the first example that belongs to the split."""
    count: int | None = None
    """How many there are; by default all."""
    process_index: int | None = None
    """Which rows are read; by default those of this process."""
    process_count: int | None = None
    """Among how many processes the rows are shared; by default JAX's."""
    threads: int = 16
    """That read and decode; Pillow lets the others work meanwhile."""
    ahead: int = 2
    """Batches that are kept ready."""
    _running: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        """How many examples there are."""
        return len(self.source) - self.first if self.count is None else self.count

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one example."""
        return (self.size, self.size, 3)

    def part(self, first: int, count: int) -> "Stream":
        """So many of the examples, in the order of the files."""
        return dataclasses.replace(
            self, first=self.first + first, count=min(count, len(self) - first), _running={}
        )

    def batch(self, seed: int, step: int, batch_size: int, augment: Augment) -> Split:
        """This process's rows of training step ``step``."""
        at = (seed, batch_size, augment, step)
        if self._running.get("at") != at:
            rows = self._rows(batch_size)
            views = _TrainingViews(self, seed, batch_size, augment, rows, step)
            self._running["batches"] = self._read(views, len(rows))
        self._running["at"] = None  # until it is there: a source that fails is asked anew
        batch: Split = next(self._running["batches"])
        self._running["at"] = (*at[:-1], step + 1)
        return batch

    def in_order(self, batch_size: int) -> Iterator[tuple[Split, np.ndarray]]:
        """Every example once; the last batch is filled up with examples of weight 0.

        Of each batch, and of its weights, this process's rows.
        """
        rows = self._rows(batch_size)
        batches = self._read(_ScoredViews(self, batch_size, rows), len(rows))
        for start in range(0, len(self), batch_size):
            weight = (start + np.array(rows) < len(self)).astype(np.float32)
            yield next(batches), weight

    def _rows(self, batch_size: int) -> range:
        index = jax.process_index() if self.process_index is None else self.process_index
        count = jax.process_count() if self.process_count is None else self.process_count
        check(batch_size % count == 0, "batch_size", batch_size, f"a multiple of {count} processes")
        each = batch_size // count
        return range(index * each, (index + 1) * each)

    def _read(self, views: "_TrainingViews | _ScoredViews", rows: int) -> Iterator[Split]:
        import grain  # here: it is slow to import, and data in memory do without

        options = grain.ReadOptions(self.threads, max(self.threads, self.ahead * rows))
        examples = grain.MapDataset.source(views).to_iter_dataset(options)
        batches: Iterator[Split] = iter(examples.batch(rows, batch_fn=_stacked))
        return batches

    def example(self, index: int) -> tuple[Image.Image, int]:
        """The photograph, decoded, and its label."""
        record = self.source[self.first + int(index)]
        image = record["image"]
        decoded = Image.open(io.BytesIO(image)) if isinstance(image, bytes) else None
        return decoded or Image.fromarray(image), int(record["label"])


def _stacked(examples: Any) -> Split:
    inputs, labels = zip(*examples, strict=True)
    return Split(np.stack(inputs), np.array(labels, np.int32))


@dataclasses.dataclass(frozen=True)
class _TrainingViews:
    """What grain reads, one after the other: a process's rows of step after step."""

    stream: Stream
    seed: int
    batch_size: int
    augment: Augment
    rows: range
    start: int

    def __len__(self) -> int:
        return 2**62  # training says when it ends

    def __getitem__(self, index: Any) -> tuple[np.ndarray, int]:
        step, row = divmod(int(index), len(self.rows))
        step, row = step + self.start, self.rows[row]
        size = len(self.stream)
        epoch, position = divmod(step, size // self.batch_size)
        order = epoch_order(self.seed, epoch, size)
        image, label = self.stream.example(order[position * self.batch_size + row])
        if self.augment == "none":
            return central_crop(image, self.stream.size), label
        rng = generator(self.seed, step, row)
        return random_resized_crop(image, self.stream.size, rng), label


@dataclasses.dataclass(frozen=True)
class _ScoredViews:
    """A process's rows of every batch of evaluation, filled up with the last example."""

    stream: Stream
    batch_size: int
    rows: range

    def __len__(self) -> int:
        return -(-len(self.stream) // self.batch_size) * len(self.rows)

    def __getitem__(self, index: Any) -> tuple[np.ndarray, int]:
        batch, row = divmod(int(index), len(self.rows))
        place = min(batch * self.batch_size + self.rows[row], len(self.stream) - 1)
        image, label = self.stream.example(place)
        return central_crop(image, self.stream.size), label
