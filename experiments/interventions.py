"""Changes to a run between two of its updates, where a gradient transformation cannot reach."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import jax

from experiments.checks import check
from experiments.wrapping import inner_state, with_inner_state

if TYPE_CHECKING:
    from experiments.train import Job, State


@dataclasses.dataclass(frozen=True)
class Intervention:
    """A change of the state; it happens once, also in a run that is stopped and goes on."""

    step: int
    """How many updates come before it: from 0 to the total, which is after the last."""
    apply: Callable[["Job", "State"], "State"]
    """From the state of one device to one of the same shapes and dtypes. Called again with the
    same, it must give the same."""
    gradient_evaluations: int = 0
    """How many it takes beyond those of the updates."""


def check_interventions(interventions: Sequence[Intervention], total: int) -> None:
    """Refuses what would never happen."""
    for x in interventions:
        check(0 <= x.step <= total, "the step of an intervention", x.step, f"from 0 to {total}")


def intervene(
    interventions: Sequence[Intervention], step: int, job: "Job", state: "State"
) -> "State":
    """The state after the interventions of a step, in their order; on the devices, as it was."""
    due = [x for x in interventions if x.step == step]
    if not due:
        return state
    old = new = job.parallel.unreplicate(state)
    for x in due:
        seen = x.apply(job, new._replace(opt_state=inner_state(new.opt_state)))
        new = seen._replace(opt_state=with_inner_state(new.opt_state, seen.opt_state))
    changed = [
        f"{jax.tree_util.keystr(path)} {a.dtype}{list(a.shape)}"
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(old), jax.tree.leaves(new), strict=True
        )
        if (a.dtype, a.shape) != (b.dtype, b.shape)
    ]
    check(not changed, "an intervention", changed, "one that keeps shapes and dtypes")
    placed: State = job.parallel.replicate(new)
    return placed
