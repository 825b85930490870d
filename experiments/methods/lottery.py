"""The lottery ticket: iterative magnitude pruning, each time back to an early moment of training.

Frankle, Dziugaite, Roy and Carbin, *Linear mode connectivity and the lottery ticket hypothesis*,
ICML 2020, algorithm 2. Back go the weights, BatchNorm's statistics, the state of the optimizer and
the learning rate; the order of the examples goes on.
"""

import dataclasses
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.checks import check, check_finite
from experiments.interventions import Intervention
from experiments.methods._allocation import Group, allocate
from experiments.methods._masks import (
    MaskState,
    fixed,
    impose,
    magnitudes,
    with_masks,
    without_lowest,
)

if TYPE_CHECKING:
    from experiments.train import Job, State, Trained

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Settings:
    """How many weights go at a time, and how far back the others."""

    prune_fraction: float = 0.2
    """Of the weights that are left, after each training."""
    rewind_to: float = 0.05
    """The fraction of a training to the end of which the weights go back."""
    equal_budget: bool = False
    """Whether all trainings together have the steps of the config, and not each of them; then
    each is shorter by so much."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        for name in ("prune_fraction", "rewind_to"):
            value = getattr(self, name)
            check_finite(f"lottery.{name}", value)
            check(value < 1, f"lottery.{name}", value, "below 1")
        check(self.prune_fraction > 0, "lottery.prune_fraction", self.prune_fraction, "above 0")


class Plan(NamedTuple):
    """The trainings of a run, one after another."""

    length: int
    """Updates of the first training."""
    rewind: int
    """To the weights after this many of them all others go back."""
    zeros: list[int]
    """How many weights are gone in each training but the first."""

    @property
    def ends(self) -> list[int]:
        """After how many updates weights go."""
        return [self.length + i * (self.length - self.rewind) for i in range(len(self.zeros))]

    @property
    def total(self) -> int:
        """Updates of all trainings."""
        return self.length + len(self.zeros) * (self.length - self.rewind)

    def step_of_training(self, step: jax.Array | int) -> jax.Array:
        """Where in its training an update is."""
        step = jnp.asarray(step)
        later = self.rewind + (step - self.length) % (self.length - self.rewind)
        return jnp.where(step < self.length, step, later)


def plan(settings: Settings, group: Group, steps: int) -> Plan:
    """The trainings that lead to the sparsity of a group.

    Args:
        settings: of the method.
        group: the weights that are pruned.
        steps: of the config; with an equal budget at most so many over all trainings.

    Raises:
        ValueError: the budget is too small for so many trainings.
    """
    left = 1 - settings.prune_fraction
    rounds = math.ceil(math.log(1 - group.sparsity) / math.log(left) - 1e-9)
    zeros = [round((1 - left**i) * group.size) for i in range(1, rounds)]
    zeros += [group.zeros] if rounds else []
    length = steps
    if settings.equal_budget:
        length = int(steps / (1 + rounds * (1 - settings.rewind_to)))
        while length and Plan(length, round(settings.rewind_to * length), zeros).total > steps:
            length -= 1
    rewind = round(settings.rewind_to * length)
    check(length > rewind, "epochs", f"{steps} steps", f"enough for {rounds + 1} trainings")
    return Plan(length, rewind, zeros)


class Early(NamedTuple):
    """What weights go back to."""

    params: PyTree
    statistics: PyTree
    base: optax.OptState


class LotteryState(NamedTuple):
    """The masks and the optimizer, and the early moment."""

    masks: MaskState
    early: Early


def remembering(
    tx: optax.GradientTransformationExtraArgs, statistics: PyTree
) -> optax.GradientTransformationExtraArgs:
    """An optimizer with a place for an early moment; at first it holds the start of training."""

    def init(params: PyTree) -> LotteryState:
        masks = tx.init(params)
        return LotteryState(masks, jax.tree.map(jnp.array, Early(params, statistics, masks.base)))

    def update(
        gradient: PyTree, state: LotteryState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, LotteryState]:
        step, masks = tx.update(gradient, state.masks, params, **extra)
        return step, state._replace(masks=masks)

    return optax.GradientTransformationExtraArgs(init, update)


def remember(job: "Job", state: "State") -> "State":
    """Takes the moment as the early one."""
    del job
    both: LotteryState = state.opt_state
    early = Early(state.params, state.statistics, both.masks.base)
    return state._replace(opt_state=both._replace(early=early))


def prune_and_rewind(state: "State", group: Group, zeros: int) -> "State":
    """The smallest weights of the network go; what is left goes back to the early moment."""
    masks, early = state.opt_state
    keep = without_lowest(magnitudes(state.params), masks.keep, [group], [zeros])
    back = state._replace(
        params=early.params,
        statistics=early.statistics,
        opt_state=masks._replace(base=early.base),
    )
    back = impose(back, keep)
    return back._replace(opt_state=LotteryState(back.opt_state, early))


def run(job: "Job") -> "Trained":
    """Trains as often as it takes, in one run of so many updates."""
    (group,) = allocate(job, "global")
    trainings = plan(job.config.lottery, group, job.total_steps)
    schedule = job.schedule(trainings.length)
    # The optimizer counts from the early moment again; the log counts on.
    base = job.with_learning_rate(schedule).base_optimizer()
    job = job.with_steps(trainings.total).with_learning_rate(
        lambda step: schedule(trainings.step_of_training(step))
    )
    tx = remembering(with_masks(base, fixed, job.penalised), job.start()[1])

    def rewind(end: int, zeros: int) -> Intervention:
        return Intervention(end, lambda job, state: prune_and_rewind(state, group, zeros))

    early = Intervention(trainings.rewind, remember)
    return job.train(tx, interventions=[early, *map(rewind, trainings.ends, trainings.zeros)])
