"""A network is trained, pruned layer by layer to fractions that are looked for, and trained on."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from experiments import data
from experiments.interventions import Intervention
from experiments.methods._layers import (
    keep_largest_by_layer,
    layer_scores,
    penalised_leaves,
    replace_penalised,
)
from experiments.methods._masks import fixed, impose, with_masks

if TYPE_CHECKING:
    from experiments.models import Model
    from experiments.train import Job, State, Trained

PyTree = Any
Scores = Callable[[Sequence[int]], tuple[float, float]]
"""From the zeros of every layer to the accuracy and the loss of the network pruned so."""
Allocate = Callable[[Scores, list[tuple[int, ...]]], list[int]]
"""From the scores and the shapes of the layers to the zeros of every layer."""


def prune_trained(job: "Job", begin: float, examples: int, allocate: Allocate) -> "Trained":
    """Trains once by the config's schedule; what is pruned on the way stays zero.

    Args:
        job: whose penalised leaves are the layers.
        begin: the fraction of training that is dense.
        examples: how many of the last training examples the scores are of.
        allocate: is called once, with the trained network's scores.
    """

    def apply(job: "Job", state: "State") -> "State":
        # From the host, so that one device does it, however many there are.
        params, statistics = jax.device_get((state.params, state.statistics))
        flags = job.penalised(params)
        layers = penalised_leaves(params, flags)
        last = jax.tree.map(lambda x: jnp.asarray(x[-examples:]), data.in_memory(job.splits[0]))
        scores = network_scores(job.model, params, statistics, flags, last)
        zeros = allocate(scores, [layer.shape for layer in layers])
        keep = keep_largest_by_layer(layers, zeros)
        return impose(state, replace_penalised(state.opt_state.keep, flags, keep))

    step = max(1, round(begin * job.total_steps))
    tx = with_masks(job.base_optimizer(), fixed, job.penalised)
    return job.train(tx, interventions=[Intervention(step, apply)])


def network_scores(
    model: "Model", params: PyTree, statistics: PyTree, flags: PyTree, examples: data.Split
) -> Scores:
    """The scores on some examples, without any training."""

    def score(
        params: PyTree, statistics: PyTree, examples: data.Split
    ) -> tuple[jax.Array, jax.Array]:
        logits, _ = model.apply(params, statistics, jnp.asarray(examples.inputs), False)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, examples.labels)
        return jnp.mean(logits.argmax(-1) == examples.labels), losses.mean()

    scores = layer_scores(score, params, flags, statistics, examples)

    def as_floats(zeros: Sequence[int]) -> tuple[float, float]:
        accuracy, loss = scores(zeros)
        return float(accuracy), float(loss)

    return as_floats
