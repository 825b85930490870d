"""A dense network with fewer units: what as many weights do that are not chosen.

Zhu and Gupta, *To prune, or not to prune*, ICLR workshop 2018: large and sparse against small and
dense. The width is that at which the penalised weights are as many as a pruned network keeps.
"""

import dataclasses
import math
from typing import TYPE_CHECKING, Literal

import jax

from experiments.checks import check, check_choice
from experiments.methods._channels import width_by_flops
from experiments.methods._width import closest_width

if TYPE_CHECKING:
    from experiments.train import Job, Trained


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the narrow network has as much of as a pruned one."""

    by: Literal["weights", "flops"] = "weights"
    """Penalised weights, `1 - sparsity` of them; or operations, as many as `channels` leaves."""

    def validate(self) -> None:
        """Refuses what there is not."""
        check_choice("dense_narrow.by", self.by, ("weights", "flops"))


def run(job: "Job") -> "Trained":
    """Trains the narrow network with the base optimizer."""
    source = job.config.init_from
    check(source is None, "init_from", source, "None for dense_narrow, whose network is another")

    if job.config.dense_narrow.by == "flops":
        narrow = job.with_width(width_by_flops(job))
        return narrow.train(narrow.base_optimizer())

    def weights(width: float) -> int:
        params, _ = jax.eval_shape(job.with_width(width).model.init, jax.random.key(0))
        flags = jax.tree.leaves(job.penalised(params))
        leaves = zip(jax.tree.leaves(params), flags, strict=True)
        return sum(math.prod(leaf.shape) for leaf, flag in leaves if flag)

    wanted = (1 - job.config.sparsity) * weights(1.0)
    narrow = job.with_width(closest_width(weights, wanted))
    return narrow.train(narrow.base_optimizer())
