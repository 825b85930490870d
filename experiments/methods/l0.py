r"""L0 regularisation by hard concrete gates (Louizos, Welling and Kingma, ICLR 2018).

Every penalised weight :math:`\theta` has a random gate :math:`z \in [0, 1]` that is exactly 0 or 1
with positive probability, and the network sees :math:`\theta z`. With logistic noise
:math:`\epsilon = \log u - \log(1 - u)`,

.. math::
    z = \min(1, \max(0, \bar s)), \qquad
    \bar s = \sigma((\epsilon + \log \alpha) / \beta) (\zeta - \gamma) + \gamma,

and the penalty is the expected number of gates that are not zero,

.. math:: P(z \ne 0) = \sigma(\log \alpha - \beta \log(-\gamma / \zeta)),

times :math:`\lambda / N` for :math:`N` training examples. In evaluation
:math:`\hat z = \min(1, \max(0, \sigma(\log \alpha) (\zeta - \gamma) + \gamma))`. A gate is drawn
once a batch.
"""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from experiments.checks import check, check_finite
from experiments.optimizers import same_schedule
from experiments.reparameterisation import (
    Reparameterisation,
    beside,
    noise_like,
    total,
    train_parts,
    where_penalised,
)

if TYPE_CHECKING:
    from experiments.train import Job, Trained

PyTree = Any
BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
"""The paper's temperature, and the ends to which the gates are stretched."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """The penalty is lambda / N times the expected number of weights that are not zero."""

    strength: float = 0.1
    """lambda, at least 0."""
    drop_rate: float = 0.2
    """1 - sigma(log alpha) at the start, above 0 and below 1."""
    gate_learning_rate: float = 0.01
    """Of Adam, which moves log alpha; it follows the schedule of the config."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        check_finite("l0.strength", self.strength)
        check_finite("l0.drop_rate", self.drop_rate)
        check(0 < self.drop_rate < 1, "l0.drop_rate", self.drop_rate, "above 0 and below 1")
        check_finite("l0.gate_learning_rate", self.gate_learning_rate)


def hard_concrete(log_alpha: jax.Array, noise: jax.Array) -> jax.Array:
    r""":math:`z`, from 0 to 1, for logistic noise."""
    stretched = jax.nn.sigmoid((noise + log_alpha) / BETA) * (ZETA - GAMMA) + GAMMA
    return jnp.clip(stretched, 0, 1)


def probability_open(log_alpha: jax.Array) -> jax.Array:
    r""":math:`P(z \ne 0)`."""
    return jax.nn.sigmoid(log_alpha - BETA * math.log(-GAMMA / ZETA))


def evaluation_gate(log_alpha: jax.Array) -> jax.Array:
    r""":math:`\hat z`, from 0 to 1: 0 where :math:`\sigma(\log \alpha) \le 1/12`."""
    return jnp.clip(jax.nn.sigmoid(log_alpha) * (ZETA - GAMMA) + GAMMA, 0, 1)


def hard_concrete_gates(strength: float, drop_rate: float, penalised: Any) -> Reparameterisation:
    r"""The gates as a reparameterisation, with the raw values ``params`` and ``log_alpha``.

    Args:
        strength: what the expected number of nonzero weights is multiplied by.
        drop_rate: :math:`1 - \sigma(\log \alpha)` at the start, within noise of 0.01.
        penalised: from params to a tree of bools: which leaves have gates.
    """
    center = math.log(1 - drop_rate) - math.log(drop_rate)

    def init(params: PyTree, key: jax.Array) -> PyTree:
        gates = beside(jnp.zeros_like, params, penalised(params))
        noise = noise_like(gates, key, jax.random.normal)
        return {"params": params, "log_alpha": jax.tree.map(lambda x: center + 0.01 * x, noise)}

    def weights(raw: PyTree, key: jax.Array, train: bool) -> PyTree:
        if train:
            noise = noise_like(raw["log_alpha"], key, jax.random.logistic)
            gates = jax.tree.map(hard_concrete, raw["log_alpha"], noise)
        else:
            gates = jax.tree.map(evaluation_gate, raw["log_alpha"])
        return where_penalised(
            lambda p, z: jnp.where(z == 0, jnp.zeros_like(p), p * z), raw["params"], gates
        )

    def penalty(raw: PyTree, step: jax.Array) -> jax.Array:
        del step
        return strength * total(jax.tree.map(probability_open, raw["log_alpha"]))

    return Reparameterisation(init, weights, penalty)


def run(job: "Job") -> "Trained":
    """Trains weights and gates together; the zeros are the gates that end closed."""
    settings = job.config.l0
    rate = same_schedule(job.config, settings.gate_learning_rate, job.total_steps)
    gates = hard_concrete_gates(settings.strength / job.examples, settings.drop_rate, job.penalised)
    tx = train_parts(job.base_optimizer(), log_alpha=optax.adam(rate))
    return job.train(tx, reparameterisation=gates)
