r"""DPF, dynamic pruning with feedback (Lin, Stich, Barba, Dmitriev and Jaggi, ICLR 2020).

.. math:: w_{n+1} = w_n - \gamma_n \, g(m_n \odot w_n)

The gradient is taken at the pruned weights and moves the dense ones, so that a weight which was
pruned too early comes back. The masks :math:`m` are made anew from the magnitudes of the dense
weights every so many updates.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from experiments.checks import check_choice
from experiments.methods._allocation import Allocation, Group, allocate
from experiments.methods._masks import magnitudes, masked, without_lowest
from experiments.methods._ramp import check_ramp, cubic_ramp
from experiments.precision import copied_wide

if TYPE_CHECKING:
    from experiments.train import Job, Trained

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the sparsity rises, and how often the masks are made."""

    ramp_end: float = 0.5
    """The fraction of training after which the sparsity is reached, along a cubic ramp."""
    update_every: int = 16
    """Steps between two masks."""
    allocation: Allocation = "global"
    """Whether weights compete over the whole network, or each layer has its own sparsity."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        check_ramp("dpf", self.ramp_end, self.update_every)
        check_choice("dpf.allocation", self.allocation, get_args(Allocation))


class FeedbackState(NamedTuple):
    """The dense weights of which the params are the pruned ones."""

    count: jax.Array  # type: ignore[assignment]  # a tuple has a method of this name
    keep: PyTree
    dense: PyTree
    base: optax.OptState


def with_feedback(
    base: optax.GradientTransformation,
    groups: list[Group],
    end_step: int,
    update_every: int,
    penalised: Callable[[PyTree], PyTree],
) -> optax.GradientTransformationExtraArgs:
    """The base optimizer on dense weights, with the gradients of pruned ones.

    Args:
        base: from gradients to updates; it sees the dense weights as params.
        groups: leaves that compete, each with its sparsity in the end.
        end_step: the update after which that is reached.
        update_every: updates between two masks; one is made at ``end_step`` as well.
        penalised: from params to a tree of bools: which leaves are pruned.
    """
    base = optax.with_extra_args_support(base)

    def init(params: PyTree) -> FeedbackState:
        keep = jax.tree.map(
            lambda p, flag: jnp.ones(p.shape if flag else (), bool), params, penalised(params)
        )
        dense = copied_wide(params)  # a copy, since it is donated beside them
        return FeedbackState(jnp.zeros([], jnp.int32), keep, dense, base.init(params))

    def update(
        gradient: PyTree, state: FeedbackState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, FeedbackState]:
        n = state.count + 1
        updates, inner = base.update(gradient, state.base, state.dense, **extra)
        dense = jax.tree.map(jnp.add, state.dense, updates)

        def prune() -> PyTree:
            everything = jax.tree.map(jnp.ones_like, state.keep)
            return without_lowest(
                magnitudes(dense), everything, groups, cubic_ramp(groups, n, end_step)
            )

        due = (n % update_every == 0) | (n == end_step)
        keep = jax.lax.cond(due, prune, lambda: state.keep)
        step = jax.tree.map(jnp.subtract, masked(dense, keep), params)
        return step, FeedbackState(n, keep, dense, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def run(job: "Job") -> "Trained":
    """Trains once; what is scored are the pruned weights."""
    settings = job.config.dpf
    tx = with_feedback(
        job.base_optimizer(),
        allocate(job, settings.allocation),
        max(1, round(settings.ramp_end * job.total_steps)),
        settings.update_every,
        job.penalised,
    )
    return job.train(tx)
