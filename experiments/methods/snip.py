"""SNIP (Lee, Ajanthan and Torr, ICLR 2019): before training, by connection sensitivity.

The effect on the loss of removing a weight is, to first order, ``|g w|`` with ``g`` the gradient at
the initial weights, equation (5).
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from experiments import data
from experiments.checks import check_integer
from experiments.methods._allocation import allocate
from experiments.methods._at_start import mean_over_batches, prune_at_start
from experiments.methods._masks import fixed, with_masks
from experiments.models.axis import DEVICE_AXIS

if TYPE_CHECKING:
    from experiments.train import Job, State, Trained

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Settings:
    """How well the gradient is known."""

    batches: int = 1
    """How many batches its mean is taken over; one in the paper."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        check_integer("snip.batches", self.batches, 1)


def sensitivity(weights: PyTree, gradient: PyTree) -> PyTree:
    """``|g w|``, the larger the more a weight matters."""
    return jax.tree.map(lambda w, g: jnp.abs(g * w), weights, gradient)


def run(job: "Job") -> "Trained":
    """Prunes, and trains what is left."""
    batches = job.config.snip.batches

    def scores(job: "Job", state: "State") -> PyTree:
        def gradient(at: tuple[PyTree, PyTree], batch: data.Split) -> PyTree:
            found = jax.grad(lambda params: job.loss(params, at[1], batch)[0])(at[0])
            return jax.lax.pmean(found, DEVICE_AXIS)

        at = state.params, state.statistics
        return sensitivity(state.params, mean_over_batches(job, gradient, at, batches))

    return job.train(
        with_masks(job.base_optimizer(), fixed, job.penalised),
        interventions=[prune_at_start(allocate(job, "global"), scores, batches)],
    )
