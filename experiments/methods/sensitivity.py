"""Layer sparsities by greedy sensitivity: prune, bit by bit, the layer that can best spare it.

The cheap stand-in for a search of layer sparsities (Li et al., *Pruning Filters for Efficient
ConvNets*, ICLR 2017, prune by layers' sensitivity, each on its own; here it is measured anew after
every increment). A trained network loses a small part of one layer at a time, the smallest weights
of that in which it raises the loss least for each of them, until the sparsity is reached; then it
is trained on.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from experiments.checks import check, check_finite, check_integer
from experiments.methods._layers import most_zeros, zeros_wanted
from experiments.methods._prune_trained import Scores, prune_trained

if TYPE_CHECKING:
    from experiments.train import Job, Trained

if TYPE_CHECKING:
    pass


@dataclasses.dataclass(frozen=True)
class Settings:
    """When, in what increments, and on which examples the loss is measured."""

    begin: float = 0.4
    """The fraction of training before the weights go, above 0 and below 1."""
    increment: float = 0.02
    """The fraction of what is left in a layer that goes at a time, above 0."""
    examples: int = 1000
    """How many of the last training examples the loss is measured on."""
    most: float = 0.99
    """The fraction of a layer that may go at most, unless the sparsity is above it."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        check_finite("sensitivity.begin", self.begin)
        check(0 < self.begin < 1, "sensitivity.begin", self.begin, "above 0 and below 1")
        check_finite("sensitivity.increment", self.increment)
        check(0 < self.increment <= 1, "sensitivity.increment", self.increment, "in (0, 1]")
        check_integer("sensitivity.examples", self.examples, 1)
        check_finite("sensitivity.most", self.most)
        check(self.most <= 1, "sensitivity.most", self.most, "at most 1")


def allocate(
    loss: Callable[[Sequence[int]], float],
    sizes: Sequence[int],
    sparsity: float,
    *,
    increment: float,
    most: float,
) -> list[int]:
    """How many weights of every layer go: ``round(sparsity * total)`` together.

    Args:
        loss: of the network without so many of the smallest weights of every layer.
        sizes: the weights of every layer.
        sparsity: from 0 to below 1.
        increment: the fraction of what is left in a layer that goes at a time, or one weight.
        most: the fraction of a layer that may go at most, unless ``sparsity`` is above it.
    """
    room = most_zeros(sizes, sparsity, most)
    wanted = zeros_wanted(sparsity, sizes)
    zeros, now = [0] * len(sizes), loss([0] * len(sizes))
    while (left := wanted - sum(zeros)) > 0:
        choices = []
        for i in range(len(sizes)):
            step = max(1, round(increment * (sizes[i] - zeros[i])))
            count = min(step, left, room[i] - zeros[i])
            if count > 0:
                candidate = [*zeros]
                candidate[i] += count
                then = loss(candidate)
                choices.append(((then - now) / count, i, then, candidate))
        _, _, now, zeros = min(choices)
    return zeros


def run(job: "Job") -> "Trained":
    """Trains, prunes what the network is least sensitive to, and trains on."""
    settings = job.config.sensitivity

    def allocation(scores: Scores, shapes: list[tuple[int, ...]]) -> list[int]:
        return allocate(
            lambda zeros: scores(zeros)[1],
            [math.prod(shape) for shape in shapes],
            job.config.sparsity,
            increment=settings.increment,
            most=settings.most,
        )

    return prune_trained(job, settings.begin, settings.examples, allocation)
