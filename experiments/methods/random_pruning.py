"""Random masks before the first update, which stay: what every choice of weights must beat.

Liu et al., *The unreasonable effectiveness of random pruning*, ICLR 2022: the layers' densities are
what counts.
"""

import dataclasses
from typing import TYPE_CHECKING, get_args

from experiments.checks import check_choice
from experiments.methods._allocation import LayerAllocation, allocate
from experiments.methods._at_start import prune_at_start, random_scores
from experiments.methods._masks import fixed, with_masks

if TYPE_CHECKING:
    from experiments.train import Job, Trained


@dataclasses.dataclass(frozen=True)
class Settings:
    """How many weights each layer keeps."""

    allocation: LayerAllocation = "erk"
    """`uniform`: the same sparsity in every layer; `erk`: more in larger ones."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        check_choice("random_pruning.allocation", self.allocation, get_args(LayerAllocation))


def run(job: "Job") -> "Trained":
    """Draws the masks, and trains what they leave."""
    groups = allocate(job, job.config.random_pruning.allocation)
    return job.train(
        with_masks(job.base_optimizer(), fixed, job.penalised),
        interventions=[prune_at_start(groups, random_scores)],
    )
