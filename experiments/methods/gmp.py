"""Gradual magnitude pruning (Zhu and Gupta, ICLR workshop 2018), by the network or by layer."""

import dataclasses
from typing import TYPE_CHECKING, get_args

from experiments.checks import check_choice
from experiments.methods._allocation import Allocation, allocate
from experiments.methods._masks import with_masks
from experiments.methods._ramp import check_ramp, prune_along_ramp

if TYPE_CHECKING:
    from experiments.train import Job, Trained


@dataclasses.dataclass(frozen=True)
class Settings:
    """When weights go: along a cubic ramp from the first step on."""

    ramp_end: float = 0.75
    """The fraction of training after which the sparsity is reached."""
    update_every: int = 50
    """Steps between two prunings."""
    allocation: Allocation = "global"
    """Whether weights compete over the whole network, or each layer has its own sparsity: the same
    in all (as in the paper), or by Erdos-Renyi-kernel."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        check_ramp("gmp", self.ramp_end, self.update_every)
        check_choice("gmp.allocation", self.allocation, get_args(Allocation))


def run(job: "Job") -> "Trained":
    """Trains once with the base optimizer, pruning on the way."""
    settings = job.config.gmp
    rule = prune_along_ramp(
        allocate(job, settings.allocation),
        max(1, round(settings.ramp_end * job.total_steps)),
        settings.update_every,
    )
    return job.train(with_masks(job.base_optimizer(), rule, job.penalised))
