r"""Sparse variational dropout (Molchanov, Ashukha and Vetrov, ICML 2017).

The weights are normal, :math:`w = \theta + \sigma \epsilon`, with a variance
:math:`\sigma^2 = \alpha \theta^2` each (additive noise), and one minimises

.. math::
    \ell(w) + \frac{\kappa_n}{N} \sum_j \operatorname{KL}(\alpha_j), \qquad
    -\operatorname{KL}(\alpha) \approx k_1 \sigma(k_2 + k_3 \log \alpha)
        - \tfrac12 \log(1 + \alpha^{-1}) - k_1,

the divergence from the log-uniform prior, for :math:`N` training examples. Its weight
:math:`\kappa_n` grows from 0 in a straight line. A weight is zero where :math:`\log \alpha > 3`,
that is where it is 95 % noise. The noise is drawn once a batch, for the weights themselves; the
paper draws what it makes of the activations of every example, with less variance.
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
    noise_like,
    total,
    train_parts,
    where_penalised,
)

if TYPE_CHECKING:
    from experiments.train import Job, Trained

PyTree = Any
K1, K2, K3 = 0.63576, 1.87320, 1.48695
"""The paper's fit of the divergence."""
LOG_ALPHA = 3.0
"""Above it a weight is zero."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """The penalty is kappa / N times the divergence; 1 is the variational bound itself."""

    strength: float = 1.0
    """kappa at its highest, at least 0."""
    warm_up: float = 0.3
    """The fraction of training in which kappa grows from 0."""
    start: float = -10.0
    """log sigma^2 of every weight at the start."""
    noise_learning_rate: float = 0.01
    """Of Adam, which moves log sigma^2; it follows the schedule of the config."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        check_finite("variational_dropout.strength", self.strength)
        check_finite("variational_dropout.warm_up", self.warm_up)
        check(self.warm_up <= 1, "variational_dropout.warm_up", self.warm_up, "at most 1")
        check_finite("variational_dropout.start", self.start, at_least=-50)
        check_finite("variational_dropout.noise_learning_rate", self.noise_learning_rate)


def divergence(log_alpha: jax.Array) -> jax.Array:
    r""":math:`\operatorname{KL}(\alpha)`, from 0 at :math:`\alpha = \infty` upwards."""
    return (
        K1 * jax.nn.sigmoid(-(K2 + K3 * log_alpha))  # k1 - k1 sigma(x) = k1 sigma(-x)
        + 0.5 * jax.nn.softplus(-log_alpha)
    )


def log_alpha(params: jax.Array, log_variance: jax.Array) -> jax.Array:
    r""":math:`\log \sigma^2 - \log \theta^2`, within [-8, 8]: no gradient is infinite."""
    return jnp.clip(log_variance - jnp.log(jnp.square(params) + 1e-16), -8, 8)


def additive_noise(strength: optax.Schedule, start: float, penalised: Any) -> Reparameterisation:
    r"""The noise as a reparameterisation, with the raw values ``params`` and ``log_variance``.

    Args:
        strength: :math:`\kappa_n / N`, called with 0 at the first update.
        start: :math:`\log \sigma^2` at the start.
        penalised: from params to a tree of bools: which leaves are noisy.
    """

    def init(params: PyTree, key: jax.Array) -> PyTree:
        del key
        log_variance = beside(lambda p: jnp.full_like(p, start), params, penalised(params))
        return {"params": params, "log_variance": log_variance}

    def weights(raw: PyTree, key: jax.Array, train: bool) -> PyTree:
        if not train:
            return where_penalised(
                lambda p, v: jnp.where(log_alpha(p, v) > LOG_ALPHA, jnp.zeros_like(p), p),
                raw["params"],
                raw["log_variance"],
            )
        noise = noise_like(raw["log_variance"], key, jax.random.normal)
        return where_penalised(
            lambda p, v, x: p + jnp.exp(v / 2) * x, raw["params"], raw["log_variance"], noise
        )

    def penalty(raw: PyTree, step: jax.Array) -> jax.Array:
        each = jax.tree.map(
            lambda v, p: divergence(log_alpha(p, v)),
            raw["log_variance"],
            beside(lambda p: p, raw["params"], penalised(raw["params"])),
        )
        return jnp.asarray(strength(step)) * total(each)

    return Reparameterisation(init, weights, penalty)


def run(job: "Job") -> "Trained":
    """Trains weights and variances together; the zeros are the weights that end as noise."""
    settings, examples = job.config.variational_dropout, job.examples
    rate = same_schedule(job.config, settings.noise_learning_rate, job.total_steps)
    warm_up = optax.linear_schedule(
        0.0, settings.strength / examples, max(1, round(settings.warm_up * job.total_steps))
    )
    noise = additive_noise(warm_up, settings.start, job.penalised)
    tx = train_parts(job.base_optimizer(), log_variance=optax.adam(rate))
    return job.train(tx, reparameterisation=noise)
