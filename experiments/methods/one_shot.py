"""Dense training, one pruning by magnitude, and fine-tuning of what is left; in one budget.

Han, Pool, Tran and Dally, *Learning both weights and connections*, NeurIPS 2015; the choices of the
learning rate are those of Renda, Frankle and Carbin, *Comparing rewinding and fine-tuning in neural
network pruning*, ICLR 2020.
"""

import dataclasses
from typing import TYPE_CHECKING, get_args

from experiments.checks import check_choice
from experiments.methods._allocation import Allocation, allocate
from experiments.methods._masks import with_masks
from experiments.methods._once import Cut, prune_once

if TYPE_CHECKING:
    from experiments.train import Job, Trained


@dataclasses.dataclass(frozen=True)
class Settings(Cut):
    """When the weights go, how the learning rate goes on, and where weights compete."""

    allocation: Allocation = "global"
    """Whether weights compete over the whole network, or each layer has its own sparsity."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        self.check("one_shot")
        check_choice("one_shot.allocation", self.allocation, get_args(Allocation))


def run(job: "Job") -> "Trained":
    """Trains once, with a cut."""
    settings = job.config.one_shot
    step = settings.step(job)
    job = job.with_learning_rate(settings.learning_rate(job, step))
    rule = prune_once(allocate(job, settings.allocation), step)
    return job.train(with_masks(job.base_optimizer(), rule, job.penalised))
