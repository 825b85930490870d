r"""STR, soft threshold reparameterisation (Kusupati et al., ICML 2020).

Every layer learns its own threshold: the network sees

.. math:: w = \operatorname{sign}(\theta) \max(|\theta| - \sigma(s), 0),

and :math:`s` is trained with the weights. It starts far below zero, where :math:`\sigma(s)` is
next to nothing, and its weight decay draws it up towards zero; the loss holds against it.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from experiments.checks import check, check_finite
from experiments.optimizers import same_schedule
from experiments.reparameterisation import (
    Reparameterisation,
    beside,
    total,
    train_parts,
    where_penalised,
)
from grda_optax import soft_threshold

if TYPE_CHECKING:
    from experiments.train import Job, Trained

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Settings:
    """The penalty is lambda / 2 times the sum of s^2 over the layers."""

    strength: float = 5e-4
    """lambda, the weight decay of s, at least 0."""
    start: float = -8.0
    """s of every layer at the start, below 0."""
    threshold_learning_rate: float = 0.1
    """Of SGD with the config's momentum, which moves s; it follows the schedule of the config."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        name = "soft_threshold_reparameterisation"
        check_finite(f"{name}.strength", self.strength)
        check_finite(f"{name}.start", self.start, at_least=-1e6)
        check(self.start < 0, f"{name}.start", self.start, "below 0")
        check_finite(f"{name}.threshold_learning_rate", self.threshold_learning_rate)


def learned_thresholds(strength: float, start: float, penalised: Any) -> Reparameterisation:
    r"""The thresholds as a reparameterisation, with the raw values ``params`` and ``s``.

    Args:
        strength: :math:`\lambda` of the penalty :math:`\lambda / 2 \sum s^2`.
        start: :math:`s` at the start.
        penalised: from params to a tree of bools: which leaves have a threshold.
    """

    def init(params: PyTree, key: jax.Array) -> PyTree:
        del key
        s = beside(lambda p: jnp.full([], start, p.dtype), params, penalised(params))
        return {"params": params, "s": s}

    def weights(raw: PyTree, key: jax.Array, train: bool) -> PyTree:
        del key, train
        return where_penalised(
            lambda p, s: soft_threshold(p, jax.nn.sigmoid(s)), raw["params"], raw["s"]
        )

    def penalty(raw: PyTree, step: jax.Array) -> jax.Array:
        del step
        return strength / 2 * total(jax.tree.map(jnp.square, raw["s"]))

    return Reparameterisation(init, weights, penalty)


def run(job: "Job") -> "Trained":
    """Trains weights and thresholds together."""
    config, settings = job.config, job.config.soft_threshold_reparameterisation
    rate = same_schedule(config, settings.threshold_learning_rate, job.total_steps)
    thresholds = learned_thresholds(settings.strength, settings.start, job.penalised)
    tx = train_parts(job.base_optimizer(), s=optax.sgd(rate, momentum=config.momentum or None))
    return job.train(tx, reparameterisation=thresholds)
