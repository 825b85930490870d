"""A dense network with fewer units: what as many weights do that are not chosen.

Zhu and Gupta, *To prune, or not to prune*, ICLR workshop 2018: large and sparse against small and
dense. The width is that at which the penalised weights are as many as a pruned network keeps.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax

from experiments.checks import check

if TYPE_CHECKING:
    from experiments.train import Job, Trained

HALVINGS = 24


def closest_width(weights: Callable[[float], int], wanted: float) -> float:
    """The width from 0 to 1 at which there are nearest to ``wanted`` weights, by bisection.

    Args:
        weights: how many there are at a width; it grows with it.
        wanted: how many there should be.
    """
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if weights(middle) < wanted else (low, middle)
    return min((low, high), key=lambda width: abs(weights(width) - wanted))


def run(job: "Job") -> "Trained":
    """Trains the narrow network with the base optimizer."""
    source = job.config.init_from
    check(source is None, "init_from", source, "None for dense_narrow, whose network is another")

    def weights(width: float) -> int:
        params, _ = jax.eval_shape(job.with_width(width).model.init, jax.random.key(0))
        flags = jax.tree.leaves(job.penalised(params))
        leaves = zip(jax.tree.leaves(params), flags, strict=True)
        return sum(math.prod(leaf.shape) for leaf, flag in leaves if flag)

    wanted = (1 - job.config.sparsity) * weights(1.0)
    narrow = job.with_width(closest_width(weights, wanted))
    return narrow.train(narrow.base_optimizer())
