"""Dense training, one pruning by magnitude, and fine-tuning of what is left; in one budget.

Han, Pool, Tran and Dally, *Learning both weights and connections*, NeurIPS 2015; the choices of the
learning rate are those of Renda, Frankle and Carbin, *Comparing rewinding and fine-tuning in neural
network pruning*, ICLR 2020.
"""

import dataclasses
from typing import TYPE_CHECKING, Literal, get_args

import optax

from experiments.checks import check, check_choice, check_finite
from experiments.methods._allocation import Allocation, allocate
from experiments.methods._masks import with_masks
from experiments.methods._once import prune_once

if TYPE_CHECKING:
    from experiments.train import Job, Trained

Rate = Literal["rewind", "continue", "low"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """When the weights go, and how the learning rate goes on."""

    prune_at: float = 0.5
    """The fraction of training that is dense, from 0 to 1."""
    rate: Rate = "rewind"
    """`rewind`: the whole schedule over the dense part, and once more over the sparse part;
    `low`: the whole schedule over the dense part, then `low_rate`; `continue`: one schedule."""
    low_rate: float = 0.1
    """The constant rate of fine-tuning, in units of the highest."""
    allocation: Allocation = "global"
    """Whether weights compete over the whole network, or each layer has its own sparsity."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        check_finite("one_shot.prune_at", self.prune_at)
        check(self.prune_at <= 1, "one_shot.prune_at", self.prune_at, "at most 1")
        check_finite("one_shot.low_rate", self.low_rate)
        check_choice("one_shot.rate", self.rate, get_args(Rate))
        check_choice("one_shot.allocation", self.allocation, get_args(Allocation))


def run(job: "Job") -> "Trained":
    """Trains once, with a cut."""
    settings, total = job.config.one_shot, job.total_steps
    step = max(1, round(settings.prune_at * total))
    job = job.with_learning_rate(learning_rate(job, step))
    rule = prune_once(allocate(job, settings.allocation), step)
    return job.train(with_masks(job.base_optimizer(), rule, job.penalised))


def learning_rate(job: "Job", step: int) -> optax.Schedule:
    """The rate before and after the pruning at ``step``."""
    settings = job.config.one_shot
    if settings.rate == "continue":
        return job.learning_rate
    after = (
        job.schedule(max(1, job.total_steps - step))
        if settings.rate == "rewind"
        else optax.constant_schedule(settings.low_rate * job.config.learning_rate)
    )
    joined: optax.Schedule = optax.join_schedules([job.schedule(step), after], [step])
    return joined
