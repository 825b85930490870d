"""The recipe of grda_optax on whole units: a smaller dense network comes out.

The groups are the channels or hidden units with all that belongs to them (`models/channels.py`).
The sparsity is the fraction of the network's operations that goes; every hidden layer loses the
same fraction of its units, and `models.channels.compacted` cuts them out.
"""

import dataclasses
from typing import TYPE_CHECKING

from experiments.methods._channels import width_by_flops
from experiments.models.channels import ties
from grda_optax import prune_with

if TYPE_CHECKING:
    from experiments.train import Job, Trained


def run(job: "Job") -> "Trained":
    """Trains once, with the settings of `recipe`."""
    given = {k: v for k, v in dataclasses.asdict(job.config.recipe).items() if v is not None}
    tx = prune_with(
        job.base_optimizer(),
        1 - width_by_flops(job),
        job.total_steps,
        groups=ties(job.config.model),
        **(given | {"per_leaf": True}),
    )
    return job.train(tx)
