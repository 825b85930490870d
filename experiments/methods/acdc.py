"""AC/DC (Peste, Iofinova, Vladu and Alistarh, NeurIPS 2021): sparse and dense phases in turns.

*AC/DC: Alternating compressed/decompressed training of deep neural networks*, algorithm 1. Training
starts dense; each sparse phase keeps the largest weights of the network, and the last one goes on
to the end. Weights that come back start from zero, without momentum.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from experiments.checks import check, check_finite
from experiments.methods._allocation import Group, allocate
from experiments.methods._masks import Moment, Rule, magnitudes, with_masks, without_lowest

if TYPE_CHECKING:
    from experiments.train import Job, Trained

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Settings:
    """The phases, as fractions of training; the defaults are those of ImageNet in the paper."""

    warm_up: float = 0.1
    """The first phase, dense."""
    phase: float = 0.05
    """Each phase after it, sparse and dense in turns."""
    last_dense: float = 0.1
    """The last dense phase, at least."""
    fine_tune: float = 0.15
    """The last phase, sparse."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        for name in ("warm_up", "phase", "last_dense", "fine_tune"):
            check_finite(f"acdc.{name}", getattr(self, name))
        check(self.phase > 0, "acdc.phase", self.phase, "above 0")
        used = self.warm_up + self.last_dense + self.fine_tune
        check(used <= 1, "acdc.warm_up + acdc.last_dense + acdc.fine_tune", used, "at most 1")


def switches(settings: Settings, total: int) -> tuple[list[int], list[int]]:
    """After which updates weights go, and after which they may come back."""
    end = max(1, total - round(settings.fine_tune * total))
    last_dense = end - round(settings.last_dense * total)
    length = max(1, round(settings.phase * total))
    compress: list[int] = []
    decompress: list[int] = []
    for i, n in enumerate(range(max(1, round(settings.warm_up * total)), last_dense, length)):
        (decompress if i % 2 else compress).append(n)
    if len(compress) > len(decompress) and last_dense < end:
        decompress.append(last_dense)
    return [*compress, end], decompress


def alternate(groups: list[Group], compress: list[int], decompress: list[int]) -> Rule:
    """The rule: at some updates the smallest weights go, at others all masks are lifted."""

    def rule(moment: Moment) -> tuple[PyTree, PyTree]:
        everything = jax.tree.map(jnp.ones_like, moment.keep)

        def prune() -> PyTree:
            gone = [group.zeros for group in groups]
            return without_lowest(magnitudes(moment.weights), everything, groups, gone)

        def at(steps: list[int]) -> jax.Array:
            return jnp.any(moment.count == jnp.array(steps, jnp.int32))

        keep = jax.lax.cond(at(compress), prune, lambda: moment.keep)
        keep = jax.tree.map(lambda k: k | at(decompress), keep)
        return keep, moment.weights

    return rule


def run(job: "Job") -> "Trained":
    """Trains once with the base optimizer; ends sparse."""
    rule = alternate(allocate(job, "global"), *switches(job.config.acdc, job.total_steps))
    return job.train(with_masks(job.base_optimizer(), rule, job.penalised))
