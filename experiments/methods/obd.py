r"""Optimal Brain Damage (LeCun, Denker and Solla, NeurIPS 1989) on the trained network.

The weights with the smallest :math:`\tfrac12 H_{jj} w_j^2` go, and the others are trained on. The
diagonal of the Hessian is estimated from products with random signs (`grda_optax.obd_saliency`).
"""

import dataclasses
from typing import TYPE_CHECKING, Any

from experiments.checks import check_integer
from experiments.methods._at_start import mask_key
from experiments.methods._curvature import Loss, in_batches, prune_by_curvature
from experiments.methods._once import Cut
from grda_optax import obd_saliency, prune_smallest

if TYPE_CHECKING:
    from experiments import data
    from experiments.train import Job, Trained

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Settings(Cut):
    """When the weights go, how the learning rate goes on, and how well curvature is known."""

    num_samples: int = 64
    """How many products with the Hessian its diagonal is estimated from."""
    examples: int = 512
    """How many of the last training examples it is of."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        self.check("obd")
        check_integer("obd.num_samples", self.num_samples, 2)
        check_integer("obd.examples", self.examples, 1)


def run(job: "Job") -> "Trained":
    """Trains, prunes by saliency, and trains on."""
    settings = job.config.obd

    def prune(loss: Loss, params: PyTree, batches: "list[data.Split]", flags: PyTree) -> PyTree:
        saliency = obd_saliency(
            loss,
            params,
            batches,
            method="stochastic",
            num_samples=settings.num_samples,
            key=mask_key(job),
            mask=flags,
        )
        return prune_smallest(params, saliency.values, job.config.sparsity, flags)

    cost = in_batches(job, 2 * settings.num_samples, settings.examples)
    return prune_by_curvature(job, settings, settings.examples, prune, cost)
