"""The Hessian of a run's training loss, as a product with vectors."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments import data
from experiments.analysis.density import MatVec
from experiments.analysis.landscape import some
from experiments.train import Job

PyTree = Any
BATCH = 2000


class Curvature:
    """Of the mean loss over some training examples, the network as it is evaluated.

    BatchNorm uses its running statistics, and these are held: the loss is a mean over examples.
    """

    def __init__(self, job: Job, examples: int | None = None):
        """Takes so many training examples, drawn once; by default all."""
        split = some(data.in_memory(job.splits[0]), examples)
        self._model = job.model
        self.examples = len(split.labels)
        self.batches = [
            (jnp.asarray(split.inputs[i : i + BATCH]), jnp.asarray(split.labels[i : i + BATCH]))
            for i in range(0, len(split.labels), BATCH)
        ]

    def _loss(self, params: PyTree, statistics: PyTree, batch: Any) -> jax.Array:
        logits, _ = self._model.apply(params, statistics, batch[0], False)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
        mean: jax.Array = losses.mean()
        return mean

    @functools.cached_property
    def _product(self) -> Any:
        def product(params: PyTree, statistics: PyTree, vector: PyTree, batch: Any) -> PyTree:
            gradient = jax.grad(lambda w: self._loss(w, statistics, batch))
            return jax.jvp(gradient, (params,), (vector,))[1]

        return jax.jit(product)  # once for all weights: none of them is compiled into it

    def at(self, params: PyTree, statistics: PyTree) -> MatVec:
        """The Hessian there."""
        at = jax.tree.map(jnp.asarray, (params, statistics))

        def matvec(vector: PyTree) -> PyTree:
            total = None
            for batch in self.batches:
                part, share = self._product(*at, vector, batch), len(batch[1]) / self.examples
                total = _added(total, part, share)
            return total

        return matvec


@jax.jit
def _added(total: PyTree, part: PyTree, share: float) -> PyTree:
    if total is None:
        return jax.tree.map(lambda x: share * x, part)
    return jax.tree.map(lambda a, x: a + share * x, total, part)
