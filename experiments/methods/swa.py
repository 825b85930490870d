"""Stochastic weight averaging (Izmailov et al., UAI 2018), of a dense network or of a sparse one.

*Averaging weights leads to wider optima and better generalization*: at the end of training the
weights of several moments are averaged while the learning rate stays up. A sparse network is pruned
as by `gmp` or `recipe` first; from then on its zeros stand, and so do those of the mean.
"""

import dataclasses
from typing import TYPE_CHECKING, Literal

import optax

from experiments.checks import check, check_finite, check_integer
from experiments.methods import recipe
from experiments.methods._allocation import allocate
from experiments.methods._masks import with_masks
from experiments.methods._ramp import prune_along_ramp

if TYPE_CHECKING:
    from experiments.train import Job, Trained


@dataclasses.dataclass(frozen=True)
class Settings:
    """When averaging starts, of what, and at which rate."""

    start: float = 0.75
    """The fraction of training after which weights enter the mean; with `prune` not before the
    sparsity is reached."""
    rate: float = 0.5
    """The learning rate from then on, in units of the highest."""
    every: int | None = None
    """Steps between two that enter; by default an epoch, as in the paper."""
    prune: bool = False
    """Whether the network is pruned to the sparsity of the config first."""
    pruner: Literal["gmp", "recipe"] = "gmp"
    """By which method it is, if it is."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        check_finite("swa.start", self.start)
        check(self.start <= 1, "swa.start", self.start, "at most 1")
        check_finite("swa.rate", self.rate)
        if self.every is not None:
            check_integer("swa.every", self.every, 1)


def learning_rate(peak: float, rate: float, start_step: int) -> optax.Schedule:
    """The authors' schedule: the peak to 1/2 of ``start_step``, a line to 9/10, then constant."""
    first, last = round(0.5 * start_step), round(0.9 * start_step)
    line: optax.Schedule = optax.linear_schedule(peak, rate * peak, max(1, last - first), first)
    return line


def run(job: "Job") -> "Trained":
    """Trains once, and ends with the mean."""
    settings, total = job.config.swa, job.total_steps
    start_step = round(settings.start * total)
    job = job.with_learning_rate(learning_rate(job.config.learning_rate, settings.rate, start_step))
    tx = job.base_optimizer()
    if settings.prune:
        gmp = job.config.gmp
        by_recipe = settings.pruner == "recipe"
        pruned_at = job.config.recipe.fraction("freeze_at") if by_recipe else gmp.ramp_end
        pruned_step = max(1, round(pruned_at * total))
        start_step = max(start_step, pruned_step)
        if by_recipe:
            tx = recipe.pruned(job)
        else:
            rule = prune_along_ramp(allocate(job, gmp.allocation), pruned_step, gmp.update_every)
            tx = with_masks(tx, rule, job.penalised)
    return job.average(tx, start=start_step, every=settings.every or job.steps_per_epoch)
