"""The l1 penalty by its subgradient (Shor 1985; Han et al., NeurIPS 2015): no weight is ever zero.

It is what "training with L1 regularisation" does in most frameworks. A weight that should be zero
jumps to and fro over it, and is left within a learning rate of it.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from experiments.checks import check_finite

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
        check_finite("l1_subgradient.strength", self.strength)


def add_l1_subgradient(strength: float, mask: Any) -> optax.GradientTransformation:
    r"""The first link of a chain: the gradient of the loss with the penalty.

    .. math:: g_n + \lambda \operatorname{sign}(w_{n-1}), \qquad \operatorname{sign}(0) = 0.

    Args:
        strength: :math:`\lambda \ge 0`.
        mask: from params to a tree of bools: which leaves are penalised.
    """

    def update(gradients: PyTree, params: PyTree) -> PyTree:
        return jax.tree.map(
            lambda g, p, flag: g + strength * jnp.sign(p) if flag else g,
            gradients,
            params,
            mask(params),
        )

    return optax.stateless(update)


def run(job: "Job") -> "Trained":
    """Trains once with the penalty in the gradient."""
    penalty = add_l1_subgradient(job.config.l1_subgradient.strength, job.penalised)
    return job.train(optax.with_extra_args_support(optax.chain(penalty, job.base_optimizer())))
