"""Pruning at a single update: when, with which learning rate before and after, and how."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import jax
import optax

from experiments.checks import check, check_choice, check_finite
from experiments.methods._allocation import Group
from experiments.methods._masks import Moment, Rule, magnitudes, without_lowest

if TYPE_CHECKING:
    from experiments.train import Job

PyTree = Any
Rate = Literal["rewind", "continue", "low"]


@dataclasses.dataclass(frozen=True)
class Cut:
    """When the weights go, and how the learning rate goes on."""

    prune_at: float = 0.5
    """The fraction of training that is dense, from 0 to 1."""
    rate: Rate = "rewind"
    """`rewind`: the whole schedule over the dense part, and once more over the sparse part;
    `low`: the whole schedule over the dense part, then `low_rate`; `continue`: one schedule."""
    low_rate: float = 0.1
    """The constant rate of fine-tuning, in units of the highest."""

    def check(self, method: str) -> None:
        """Refuses what is out of range, in the name of a method."""
        check_finite(f"{method}.prune_at", self.prune_at)
        check(self.prune_at <= 1, f"{method}.prune_at", self.prune_at, "at most 1")
        check_finite(f"{method}.low_rate", self.low_rate)
        check_choice(f"{method}.rate", self.rate, get_args(Rate))

    def step(self, job: "Job") -> int:
        """After how many updates the weights go, 1 at least."""
        return max(1, round(self.prune_at * job.total_steps))

    def learning_rate(self, job: "Job", step: int) -> optax.Schedule:
        """The rate before and after the pruning at ``step``."""
        if self.rate == "continue":
            return job.learning_rate
        after = (
            job.schedule(max(1, job.total_steps - step))
            if self.rate == "rewind"
            else optax.constant_schedule(self.low_rate * job.config.learning_rate)
        )
        joined: optax.Schedule = optax.join_schedules([job.schedule(step), after], [step])
        return joined


def prune_once(groups: Sequence[Group], step: int) -> Rule:
    """After update ``step`` the smallest weights of each group go, and stay away."""

    def rule(moment: Moment) -> tuple[PyTree, PyTree]:
        def prune() -> PyTree:
            gone = [group.zeros for group in groups]
            return without_lowest(magnitudes(moment.weights), moment.keep, groups, gone)

        return jax.lax.cond(moment.count == step, prune, lambda: moment.keep), moment.weights

    return rule
