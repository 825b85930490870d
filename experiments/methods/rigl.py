"""RigL (Evci, Gale, Menick, Castro and Elsen, *Rigging the lottery*, ICML 2020), algorithm 1.

The smallest weights of a layer go, and those of its masked weights come back whose gradient is
largest; they start from zero. At those updates the weights are moved as at all others, which the
paper leaves out.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

import jax
import jax.numpy as jnp

from experiments.checks import check_choice
from experiments.methods._allocation import Group, LayerAllocation, allocate
from experiments.methods._at_start import prune_at_start, random_scores
from experiments.methods._dynamic import Rewiring, cosine_fraction, rewire
from experiments.methods._masks import Moment, Rule, with_masks

if TYPE_CHECKING:
    from experiments.train import Job, Trained


@dataclasses.dataclass(frozen=True)
class Settings(Rewiring):
    """When connections are rewired, and how many each layer has; fewer go as time passes."""

    allocation: LayerAllocation = "erk"
    """`erk`: fewer weights are left in larger layers; `uniform`: the same sparsity in all."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        self.check("rigl")
        check_choice("rigl.allocation", self.allocation, get_args(LayerAllocation))


def grow_by_gradient(groups: Sequence[Group], settings: Rewiring, stop_step: int) -> Rule:
    """The rule: the drop fraction falls to zero like a cosine, growth is by ``|gradient|``.

    Args:
        groups: whose leaves are rewired.
        settings: when, and how much.
        stop_step: the update from which on the topology stands.
    """

    def growth(moment: Moment, leaf: int) -> jax.Array:
        return jnp.abs(jax.tree.leaves(moment.gradient)[leaf])

    return rewire(
        groups,
        due=lambda n: (n % settings.update_every == 0) & (n < stop_step),
        fraction=lambda n: cosine_fraction(settings.drop_fraction, n, stop_step),
        growth=growth,
    )


def run(job: "Job") -> "Trained":
    """Trains a network that is sparse from the start, rewiring it on the way."""
    settings = job.config.rigl
    groups = allocate(job, settings.allocation)
    rule = grow_by_gradient(groups, settings, round(settings.stop * job.total_steps))
    return job.train(
        with_masks(job.base_optimizer(), rule, job.penalised),
        interventions=[prune_at_start(groups, random_scores)],
    )
