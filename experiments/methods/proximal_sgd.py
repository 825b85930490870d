r"""Proximal SGD, or ISTA (Combettes and Wajs 2005; Duchi and Singer, JMLR 10, 2009).

After every update of the base optimizer the weights go through the soft threshold, which is the
proximal operator of the l1 penalty. The threshold is that of one update, :math:`\gamma \lambda`:
where gRDA's grows with training time, a weight near zero is thrown off it here by the noise of the
next batch.

With momentum :math:`\beta` the threshold is :math:`\gamma \lambda / (1 - \beta)`, since that is how
far a constant gradient :math:`\lambda` would move a weight in an update: then the weights come to
rest at the same minimum of :math:`\ell + \lambda |w|_1` as without. With Adam and Lion, which
normalise their gradients, it is :math:`\gamma \lambda`: the penalty is then decoupled from the loss
as their weight decay is.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from experiments.checks import check_finite
from experiments.optimizers import long_run_rate
from grda_optax import soft_threshold

if TYPE_CHECKING:
    from experiments.train import Job, Trained

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Settings:
    """The penalty is lambda |w|_1."""

    strength: float = 1e-4
    """lambda, at least 0."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        check_finite("proximal_sgd.strength", self.strength)


def proximal_step(
    strength: float, learning_rate: optax.Schedule, mask: Any
) -> optax.GradientTransformation:
    r"""The last link of a chain: the soft threshold of where the update would lead.

    .. math:: w_n = S_{\gamma_n \lambda}(w_{n-1} + u_n).

    Args:
        strength: :math:`\lambda \ge 0`.
        learning_rate: :math:`\gamma_n`, called with 0 at the first update.
        mask: from params to a tree of bools: which leaves are penalised.
    """

    def init(params: PyTree) -> optax.ScaleByScheduleState:
        del params
        return optax.ScaleByScheduleState(jnp.zeros([], jnp.int32))

    def update(
        updates: PyTree, state: optax.ScaleByScheduleState, params: PyTree = None
    ) -> tuple[PyTree, optax.ScaleByScheduleState]:
        height = learning_rate(state.count) * strength
        steps = jax.tree.map(
            lambda u, p, flag: soft_threshold(p + u, height) - p if flag else u,
            updates,
            params,
            mask(params),
        )
        return steps, optax.ScaleByScheduleState(optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)


def run(job: "Job") -> "Trained":
    """Trains once; the zeros are those of the last step."""
    rate = long_run_rate(job.config, job.learning_rate)
    prox = proximal_step(job.config.proximal_sgd.strength, rate, job.penalised)
    return job.train(optax.with_extra_args_support(optax.chain(job.base_optimizer(), prox)))
