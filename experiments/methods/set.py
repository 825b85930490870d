"""SET (Mocanu et al., Nature Communications 2018): weights that are small go, random ones come.

*Scalable training of artificial neural networks with adaptive sparse connectivity inspired by
network science*, algorithm 1. As in later comparisons (Evci et al., 2020) the smallest go by
magnitude, not by sign apart. New weights are drawn, with the deviation of their layer's first ones.
"""

import dataclasses
from typing import TYPE_CHECKING, get_args

import jax
import jax.numpy as jnp
import numpy as np

from experiments.checks import check_choice
from experiments.methods._allocation import LayerAllocation, allocate
from experiments.methods._at_start import mask_key, prune_at_start, random_scores
from experiments.methods._dynamic import Rewiring, rewire
from experiments.methods._masks import Moment, with_masks

if TYPE_CHECKING:
    from experiments.train import Job, Trained


@dataclasses.dataclass(frozen=True)
class Settings(Rewiring):
    """When connections are rewired, and how many each layer has."""

    allocation: LayerAllocation = "erk"
    """`erk`: fewer in larger layers, near to the paper's; `uniform`: the same sparsity in all."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        self.check("set")
        check_choice("set.allocation", self.allocation, get_args(LayerAllocation))


def run(job: "Job") -> "Trained":
    """Trains a network that is sparse from the start, rewiring it on the way."""
    settings = job.config.set
    stop_step = round(settings.stop * job.total_steps)
    deviations = [float(np.std(np.asarray(x))) for x in jax.tree.leaves(job.start()[0])]

    def key(n: jax.Array, leaf: int, what: int) -> jax.Array:
        return jax.random.fold_in(
            jax.random.fold_in(jax.random.fold_in(mask_key(job), what), leaf), n
        )

    def growth(moment: Moment, leaf: int) -> jax.Array:
        shape = jax.tree.leaves(moment.weights)[leaf].shape
        return jax.random.uniform(key(moment.count, leaf, 0), shape)

    def value(moment: Moment, leaf: int, grown: jax.Array) -> jax.Array:
        weights = jax.tree.leaves(moment.weights)[leaf]
        drawn = jax.random.normal(key(moment.count, leaf, 1), weights.shape, weights.dtype)
        return jnp.where(grown, deviations[leaf] * drawn, weights)

    groups = allocate(job, settings.allocation)
    rule = rewire(
        groups,
        due=lambda n: (n % settings.update_every == 0) & (n < stop_step),
        fraction=lambda n: settings.drop_fraction,
        growth=growth,
        value=value,
    )
    return job.train(
        with_masks(job.base_optimizer(), rule, job.penalised),
        interventions=[prune_at_start(groups, random_scores)],
    )
