"""Dense training, removal of the filters of smallest l1 norm in each layer, and fine-tuning.

Li, Kadav, Durdanovic, Samet and Graf, *Pruning filters for efficient ConvNets*, ICLR 2017: once, by
the sum of magnitudes in a filter. The sparsity is the fraction of operations, as of `channels`.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import optax

from experiments.checks import check, check_finite
from experiments.methods._channels import in_units, l1_norms, unit_masks, width_by_flops
from experiments.methods._masks import Moment, Rule, rank, with_masks
from experiments.models.channels import ties

if TYPE_CHECKING:
    from experiments.train import Job, Trained

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Settings:
    """When the filters go."""

    prune_at: float = 0.5
    """The fraction of training that is dense, from 0 to 1; the learning rate's schedule is gone
    through before, and once more after."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        check_finite("l1_channels.prune_at", self.prune_at)
        check(self.prune_at <= 1, "l1_channels.prune_at", self.prune_at, "at most 1")


def run(job: "Job") -> "Trained":
    """Trains once, with a cut."""
    total = job.total_steps
    step = max(1, round(job.config.l1_channels.prune_at * total))
    width = width_by_flops(job)
    schedules = [job.schedule(step), job.schedule(max(1, total - step))]
    job = job.with_learning_rate(optax.join_schedules(schedules, [step]))
    layers = ties(job.config.model)
    rule = remove_filters(job.config.model, width, step)
    return job.train(with_masks(job.base_optimizer(), rule, lambda p: in_units(p, layers)))


def remove_filters(model: str, width: float, step: int) -> Rule:
    """After update ``step`` each layer keeps this fraction of its filters, the largest."""
    layers = ties(model)

    def rule(moment: Moment) -> tuple[PyTree, PyTree]:
        def prune() -> PyTree:
            left = []
            for tie in layers:
                norms = l1_norms(moment.weights, tie)
                left.append(rank(norms) >= norms.size - max(2, round(width * norms.size)))
            masks = unit_masks(moment.weights, layers, left)
            return jax.tree.map(
                lambda keep, mask: mask if keep.shape == mask.shape else keep, moment.keep, masks
            )

        return jax.lax.cond(moment.count == step, prune, lambda: moment.keep), moment.weights

    return rule
