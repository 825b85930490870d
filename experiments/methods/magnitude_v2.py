"""Magnitude pruning with the hand-made layer rules of Gale, Elsen and Hooker.

*The state of sparsity in deep neural networks*, 2019, section 5 ("magnitude pruning v2"): the first
layer stays dense, the last has at most 80 % zeros, and all others have the same sparsity, such that
the network has the one that is asked for.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax

from experiments import models
from experiments.checks import check, check_choice, check_finite
from experiments.methods._allocation import apportion, by_leaf, penalised_shapes
from experiments.methods._masks import with_masks
from experiments.methods._ramp import check_ramp, prune_along_ramp

if TYPE_CHECKING:
    from experiments.train import Job, Trained


@dataclasses.dataclass(frozen=True)
class Settings:
    """The ramp, and what the last layer bears."""

    ramp_end: float = 0.75
    """The fraction of training after which the sparsity is reached."""
    update_every: int = 50
    """Steps between two prunings."""
    last_at_most: float = 0.8
    """The fraction of zeros that the last layer never exceeds."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        check_ramp("magnitude_v2", self.ramp_end, self.update_every)
        check_finite("magnitude_v2.last_at_most", self.last_at_most)
        check(self.last_at_most <= 1, "magnitude_v2.last_at_most", self.last_at_most, "at most 1")


def layer_zeros(
    sparsity: float, sizes: Sequence[int], first: int, last: int, last_at_most: float
) -> list[int]:
    """How many zeros each layer has; together ``round(sparsity * sum(sizes))``.

    Args:
        sparsity: of the network.
        sizes: of the layers.
        first: the place of the one that stays dense.
        last: the place of the one with a limit.
        last_at_most: that limit.

    Raises:
        ValueError: without weights of the first layer there are not enough to prune.
    """
    zeros = round(sparsity * sum(sizes))
    limits = list(sizes)
    limits[first] = 0
    if last != first:
        limits[last] = int(last_at_most * sizes[last])
    check(
        zeros <= sum(limits),
        "sparsity",
        sparsity,
        f"at most {sum(limits) / sum(sizes):.4f} for magnitude_v2 on this network, whose first "
        "layer stays dense",
    )
    middle = [i for i in range(len(sizes)) if i not in (first, last)]
    free = sum(sizes[i] for i in middle)
    capped = zeros / max(1, free + (last != first) * sizes[last]) * sizes[last] > limits[last]
    shares = [0.0] * len(sizes)
    spread = zeros - limits[last] if capped else zeros
    pool = middle if capped or last == first else [*middle, last]
    for i in pool:
        shares[i] = spread * sizes[i] / sum(sizes[j] for j in pool)
    if capped:
        shares[last] = float(limits[last])
    return apportion(zeros, shares, limits)


def run(job: "Job") -> "Trained":
    """Trains once with the base optimizer, pruning on the way."""
    settings, config = job.config.magnitude_v2, job.config
    check_choice("model (for magnitude_v2)", config.model, tuple(models.ENDS))
    shapes = penalised_shapes(job)
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(job.start()[0])
    ]
    names = [paths[i].split("/")[0] for i in shapes]
    first, last = (names.index(name) for name in models.ENDS[config.model])
    groups = by_leaf(shapes, [0] * len(shapes))
    zeros = layer_zeros(
        config.sparsity, [g.size for g in groups], first, last, settings.last_at_most
    )
    rule = prune_along_ramp(
        by_leaf(shapes, zeros),
        max(1, round(settings.ramp_end * job.total_steps)),
        settings.update_every,
    )
    return job.train(with_masks(job.base_optimizer(), rule, job.penalised))
