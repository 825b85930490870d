"""A dense network with fewer units: what as many weights do that are not chosen.

Zhu and Gupta, *To prune, or not to prune*, ICLR workshop 2018: large and sparse against small and
dense. It has no more penalised weights than a pruned network keeps, and lacks less than what one
more unit of the last hidden layer would take.

All hidden layers have the same fraction of their units, but that the classes are not read from
fewer than two units each: a factor for all would leave 2 of the MLP's last 100 at 98 %.
"""

import dataclasses
import math
from typing import TYPE_CHECKING, Literal

import jax

from experiments.checks import check, check_choice
from experiments.methods._channels import width_by_flops
from experiments.methods._width import widest
from experiments.models import TEXT_MODELS
from experiments.models.channels import width_of
from experiments.models.widths import units

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

    narrow = job.with_width(sizes(job))
    return narrow.train(narrow.base_optimizer())


def sizes(job: "Job") -> tuple[int, ...]:
    """The units of every hidden layer."""
    params, _ = jax.eval_shape(job.model.init, jax.random.key(0))
    full = width_of(job.config.model, params)
    classes = 0 if job.config.model in TEXT_MODELS else job.dataset.num_classes
    least = min(full[-1], 2 * classes)

    def at(width: float) -> tuple[int, ...]:
        *others, last = units(full, width)
        return (*others, max(last, least))

    def weights(sizes: tuple[int, ...]) -> int:
        narrow, _ = jax.eval_shape(job.with_width(sizes).model.init, jax.random.key(0))
        flags = jax.tree.leaves(job.penalised(narrow))
        leaves = zip(jax.tree.leaves(narrow), flags, strict=True)
        return sum(math.prod(leaf.shape) for leaf, flag in leaves if flag)

    wanted = math.floor((1 - job.config.sparsity) * weights(full) + 1e-6)
    *others, last = at(widest(lambda width: weights(at(width)), wanted))
    # What is left, since units are whole, goes to the layer whose units are the smallest.
    left = wanted - weights((*others, last))
    unit = weights((*others, last + 1)) - weights((*others, last))
    return (*others, min(full[-1], last + max(0, left) // unit))
