r"""GraSP (Wang, Zhang and Grosse, ICLR 2020): before training, so that gradients still flow.

Removing the weight :math:`w_q` changes the squared norm of the gradient :math:`g` by about
:math:`-2 w_q (H g)_q`, with :math:`H` the Hessian, equation (8). Weights with the largest of these
go first: those whose removal lets the gradient grow most, or shrink least.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from experiments import data
from experiments.checks import check, check_finite, check_integer
from experiments.methods._allocation import allocate
from experiments.methods._at_start import mean_over_batches, prune_at_start
from experiments.methods._masks import fixed, with_masks
from experiments.models.axis import DEVICE_AXIS

if TYPE_CHECKING:
    from experiments.train import Job, State, Trained

PyTree = Any
Loss = Callable[[PyTree], jax.Array]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How well the curvature is known, and of which loss."""

    batches: int = 1
    """How many batches the gradient and its product with the Hessian are means over."""
    temperature: float = 200.0
    """The logits are divided by it, so that no class is preferred yet."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        check_integer("grasp.batches", self.batches, 1)
        check_finite("grasp.temperature", self.temperature)
        check(self.temperature > 0, "grasp.temperature", self.temperature, "above 0")


def hessian_times(loss: Loss, params: PyTree, vector: PyTree) -> PyTree:
    """``H v`` of a loss, by forward over reverse differentiation."""
    return jax.jvp(jax.grad(loss), (params,), (vector,))[1]


def gradient_flow(weights: PyTree, product: PyTree) -> PyTree:
    """How much a weight is needed by the flow: ``w H g``; those with the largest ``-w H g`` go."""
    return jax.tree.map(jnp.multiply, weights, product)


def run(job: "Job") -> "Trained":
    """Prunes, and trains what is left."""
    settings = job.config.grasp

    def loss(params: PyTree, statistics: PyTree, batch: data.Split) -> jax.Array:
        logits, _ = job.model.apply(params, statistics, jnp.asarray(batch.inputs), True)
        losses: jax.Array = optax.softmax_cross_entropy_with_integer_labels(
            logits / settings.temperature, batch.labels
        )
        return losses.mean()

    def scores(job: "Job", state: "State") -> PyTree:
        def gradient(at: tuple[PyTree, PyTree], batch: data.Split) -> PyTree:
            return jax.lax.pmean(jax.grad(loss)(*at, batch), DEVICE_AXIS)

        def product(at: tuple[PyTree, PyTree, PyTree], batch: data.Split) -> PyTree:
            params, statistics, vector = at
            found = hessian_times(lambda p: loss(p, statistics, batch), params, vector)
            return jax.lax.pmean(found, DEVICE_AXIS)

        at = state.params, state.statistics
        found = mean_over_batches(job, gradient, at, settings.batches)
        # The flow through the weights that can go; the others are no part of it.
        flags = job.penalised(state.params)
        found = jax.tree.map(lambda g, flag: g if flag else jnp.zeros_like(g), found, flags)
        return gradient_flow(
            state.params, mean_over_batches(job, product, (*at, found), settings.batches)
        )

    return job.train(
        with_masks(job.base_optimizer(), fixed, job.penalised),
        interventions=[prune_at_start(allocate(job, "global"), scores, 3 * settings.batches)],
    )
