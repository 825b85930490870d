r"""Optimal Brain Damage (LeCun, Denker and Solla, NeurIPS 1989) on the trained network.

The weights with the smallest :math:`\tfrac12 H_{jj} w_j^2` go, and the others are trained on. LeCun
et al. take the diagonal of the Gauss-Newton matrix, which is never negative. In its place is that
of the empirical Fisher matrix, the mean square of each derivative over the examples. An estimate of
the Hessian's own diagonal, from products with random signs (`grda_optax.obd_saliency`), is there,
too; of a network with more than some thousand weights it is mostly noise.
"""

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from experiments.checks import check_choice, check_integer
from experiments.methods._at_start import mask_key
from experiments.methods._curvature import Loss, in_batches, prune_by_curvature
from experiments.methods._once import Cut
from grda_optax import obd_saliency, obs_saliency, prune_smallest

if TYPE_CHECKING:
    from experiments import data
    from experiments.train import Job, Trained

PyTree = Any
DAMPING = 1e-4  # of the Fisher matrix, relative to its largest entry: pixels that are always 0


@dataclasses.dataclass(frozen=True)
class Settings(Cut):
    """When the weights go, how the learning rate goes on, and how well curvature is known."""

    diagonal: Literal["fisher", "hessian"] = "fisher"
    """Of which matrix."""
    num_samples: int = 64
    """How many products with the Hessian its diagonal is estimated from."""
    examples: int = 512
    """How many of the last training examples the matrix is of."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        self.check("obd")
        check_choice("obd.diagonal", self.diagonal, ("fisher", "hessian"))
        check_integer("obd.num_samples", self.num_samples, 2)
        check_integer("obd.examples", self.examples, 1)


def run(job: "Job") -> "Trained":
    """Trains, prunes by saliency, and trains on."""
    settings = job.config.obd
    examples = min(settings.examples, job.examples)

    def prune(loss: Loss, params: PyTree, batches: "list[data.Split]", flags: PyTree) -> PyTree:
        if settings.diagonal == "fisher":
            saliency = obs_saliency(
                loss,
                params,
                batches,
                inverse="block",
                block_size=1,
                damping=DAMPING,
                num_gradients=examples,
                mask=flags,
            )
        else:
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

    gradients = 1 if settings.diagonal == "fisher" else 2 * settings.num_samples
    cost = in_batches(job, gradients, examples)
    return prune_by_curvature(job, settings, settings.examples, prune, cost)
