"""A network is trained, pruned once by what curvature says of its weights, and trained on."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import data
from experiments.interventions import Intervention
from experiments.methods._masks import fixed, impose, with_masks
from experiments.methods._once import Cut

if TYPE_CHECKING:
    from experiments.train import Job, State, Trained

PyTree = Any
Loss = Callable[[PyTree, data.Split], jax.Array]
Prune = Callable[[Loss, PyTree, list[data.Split], PyTree], PyTree]
"""From the loss of trained params, these, batches and a tree of bools (which leaves are pruned) to
params with exact zeros. The others may have moved."""


def prune_by_curvature(
    job: "Job", cut: Cut, examples: int, prune: Prune, gradient_evaluations: int
) -> "Trained":
    """Trains in one budget, with a cut; what is zero after it stays zero.

    Args:
        job: whose penalised leaves are pruned.
        cut: when, and how the learning rate goes on.
        examples: how many of the last training examples the curvature is of.
        prune: is called once, with the loss of evaluation: BatchNorm has its running statistics.
        gradient_evaluations: that it takes, on batches of the config.
    """

    def apply(job: "Job", state: "State") -> "State":
        # From the host, so that one device does it, however many there are.
        params, statistics = jax.device_get((state.params, state.statistics))

        def loss(params: PyTree, batch: data.Split) -> jax.Array:
            logits, _ = job.model.apply(params, statistics, jnp.asarray(batch.inputs), False)
            losses: jax.Array = optax.softmax_cross_entropy_with_integer_labels(
                logits, batch.labels
            )
            return losses.mean()

        flags = job.penalised(params)
        pruned = jax.device_get(prune(loss, params, last_batches(job, examples), flags))
        keep = jax.tree.map(lambda w, flag: w != 0 if flag else np.array(True), pruned, flags)
        return impose(state._replace(params=jax.tree.map(jnp.asarray, pruned)), keep)

    step = cut.step(job)
    job = job.with_learning_rate(cut.learning_rate(job, step))
    tx = with_masks(job.base_optimizer(), fixed, job.penalised)
    return job.train(tx, interventions=[Intervention(step, apply, gradient_evaluations)])


def last_batches(job: "Job", examples: int) -> list[data.Split]:
    """The last training examples, cut into batches of the config; the last may be smaller."""
    train = data.in_memory(job.splits[0])
    inputs, labels = (x[-examples:] for x in train)
    size = job.config.batch_size
    return [
        data.Split(inputs[i : i + size], labels[i : i + size]) for i in range(0, len(labels), size)
    ]


def in_batches(job: "Job", gradients: int, examples: int = 1) -> int:
    """So many gradients of so many examples, in gradients of a batch of the config, rounded up."""
    examples = min(examples, job.examples)
    return math.ceil(gradients * examples / job.config.batch_size)
