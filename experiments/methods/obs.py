"""Optimal Brain Surgeon (Hassibi and Stork, NeurIPS 1992) on the trained network.

In rounds the weights go whose removal costs least when the others make up for it, and the others
do so; then they are trained on. The Hessian is the empirical Fisher matrix of a few gradients, as
in WoodFisher (Singh and Alistarh, NeurIPS 2020), here without blocks (`grda_optax.obs_prune`).
"""

import dataclasses
from typing import TYPE_CHECKING, Any

from experiments.checks import check, check_finite, check_integer
from experiments.methods._curvature import Loss, in_batches, prune_by_curvature
from experiments.methods._once import Cut
from grda_optax import obs_prune

if TYPE_CHECKING:
    from experiments import data
    from experiments.train import Job, Trained

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Settings(Cut):
    """When the weights go, how the learning rate goes on, and how well curvature is known."""

    rounds: int = 8
    """In how many rounds the weights go, each with fresh curvature."""
    num_gradients: int = 256
    """How many gradients the Fisher matrix is of; so many times the weights are kept in memory."""
    examples_per_gradient: int = 4
    """How many examples each of them is a mean over."""
    damping: float = 1e-3
    """Of the Fisher matrix, relative to its largest eigenvalue."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        self.check("obs")
        for name in ("rounds", "num_gradients", "examples_per_gradient"):
            check_integer(f"obs.{name}", getattr(self, name), 1)
        check_finite("obs.damping", self.damping)
        check(self.damping > 0, "obs.damping", self.damping, "above 0")


def run(job: "Job") -> "Trained":
    """Trains, operates, and trains on."""
    settings = job.config.obs
    examples = settings.num_gradients * settings.examples_per_gradient

    def prune(loss: Loss, params: PyTree, batches: "list[data.Split]", flags: PyTree) -> PyTree:
        return obs_prune(
            loss,
            params,
            batches,
            job.config.sparsity,
            inverse="low_rank",
            damping=settings.damping,
            rounds=settings.rounds,
            num_gradients=settings.num_gradients,
            examples_per_gradient=settings.examples_per_gradient,
            mask=flags,
        ).params

    cost = in_batches(job, settings.rounds, examples)
    return prune_by_curvature(job, settings, examples, prune, cost)
