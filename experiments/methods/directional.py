"""Sequential directional pruning of the trained network, with fine-tuning.

In rounds the weights move along the directions in which the loss is flat, by the theory of gRDA
(Chao, Wang, Xing and Cheng, NeurIPS 2020), until the next of them are zero
(`grda_optax.sequential_directional_prune`); then the others are trained on.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax

from experiments.checks import check, check_finite, check_integer
from experiments.methods._curvature import Loss, in_batches, prune_by_curvature
from experiments.methods._layers import layer_sizes, zeros_wanted
from experiments.methods._once import Cut
from grda_optax import sequential_directional_prune

if TYPE_CHECKING:
    from experiments import data
    from experiments.train import Job, Trained

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Settings(Cut):
    """When the weights go, how the learning rate goes on, and how closely curvature is followed."""

    round_size: float = 0.05
    """The fraction of the weights left that goes in a round."""
    num_iters: int = 40
    """Products with the Hessian in a round."""
    ridge: float = 1e-3
    """What counts as flat: curvature below this fraction of the largest, with a soft edge."""
    examples: int = 1024
    """How many of the last training examples the Hessian is of."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        self.check("directional")
        for name in ("round_size", "ridge"):
            value = getattr(self, name)
            check_finite(f"directional.{name}", value)
            check(0 < value < 1, f"directional.{name}", value, "above 0 and below 1")
        check_integer("directional.num_iters", self.num_iters, 1)
        check_integer("directional.examples", self.examples, 1)


def rounds(zeros: int, total: int, round_size: float) -> int:
    """How many it takes, unless the weights that can go at all run out in one of them."""
    gone = count = 0
    while gone < zeros:
        gone, count = gone + max(1, round(round_size * (total - gone))), count + 1
    return count


def run(job: "Job") -> "Trained":
    """Trains, moves along flat directions, and trains on."""
    settings, sparsity = job.config.directional, job.config.sparsity
    params, _ = job.start()
    sizes = layer_sizes(params, job.penalised(params))
    iterations = min(settings.num_iters, sum(x.size for x in jax.tree.leaves(params)))

    def prune(loss: Loss, params: PyTree, batches: "list[data.Split]", flags: PyTree) -> PyTree:
        return sequential_directional_prune(
            loss,
            params,
            batches,
            sparsity,
            mask=flags,
            round_size=settings.round_size,
            num_iters=settings.num_iters,
            ridge=settings.ridge,
        ).params

    products = iterations * rounds(zeros_wanted(sparsity, sizes), sum(sizes), settings.round_size)
    cost = in_batches(job, 2 * products, settings.examples)
    return prune_by_curvature(job, settings, settings.examples, prune, cost)
