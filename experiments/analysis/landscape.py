"""Loss and accuracy of a run's network at any weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import data
from experiments.averaging import statistics_of
from experiments.train import Job

PyTree = Any
BATCH = 2000


class Scores(NamedTuple):
    """Means over the examples; losses in nats, accuracies in per cent."""

    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float


class Landscape:
    """The network of a job as a function of its params alone.

    BatchNorm's statistics are made anew wherever it is looked at: those of a mean of two networks
    are not the mean of theirs.
    """

    def __init__(self, job: Job, examples: int | None = None):
        """Looks at so many training examples (drawn once), and at all that are scored."""
        self._job = job
        self._statistics = job.start()[1]
        self._fitting = statistics_of(job)
        train, scored = (data.in_memory(split) for split in job.splits)
        self._train = _batches(some(train, examples))
        self._scored = _batches(scored)
        self._sums = jax.jit(self._sum)

    def statistics(self, params: PyTree) -> PyTree:
        """Those of BatchNorm that fit the params."""
        return self._fitting(params, self._statistics)

    def _sum(self, params: PyTree, statistics: PyTree, batch: Any, weight: jax.Array) -> PyTree:
        logits, _ = self._job.model.apply(params, statistics, batch.inputs, False)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
        right = logits.argmax(-1) == batch.labels
        weight = weight.reshape(-1, *[1] * (right.ndim - 1))  # of a text, each character counts
        weight = jnp.broadcast_to(weight, right.shape)
        return jnp.sum(weight * losses), jnp.sum(weight * right), jnp.sum(weight)

    def at(self, params: PyTree) -> Scores:
        """Its scores there."""
        statistics = self.statistics(params)
        found: list[float] = []
        for batches in (self._train, self._scored):
            sums = [self._sums(params, statistics, *batch) for batch in batches]
            loss, right, count = np.sum(jax.device_get(sums), axis=0, dtype=np.float64)
            found += [float(loss / count), float(100 * right / count)]
        return Scores(*found)


def some(split: data.Split, examples: int | None) -> data.Split:
    """So many examples of a split, the same each time; all of them by default."""
    size = len(split.labels)
    if examples is None or examples >= size:
        return split
    chosen = np.sort(np.random.default_rng(0).permutation(size)[:examples])
    return data.Split(split.inputs[chosen], split.labels[chosen])


def _batches(split: data.Split) -> list[Any]:
    batches = data.evaluation_batches(split, min(BATCH, len(split.labels)))
    return list(jax.tree.map(jnp.asarray, batches))
