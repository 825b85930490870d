r"""Regularised dual averaging (Xiao, JMLR 11, 2010), with the l1 penalty.

.. math::
    w_n = \operatorname{argmin}_w \sum_{i \le n} \gamma_i \left( \langle g_i, w \rangle
        + \lambda |w|_1 \right) + \tfrac12 |w - w_0|^2
        = S_{\lambda (\gamma_1 + \ldots + \gamma_n)}(w_0 - \sum_{i \le n} \gamma_i g_i).

The threshold grows linearly with training time; gRDA's grows like a power of it. The centre
:math:`w_0` is the network's start, where Xiao's is zero: a network cannot learn from there. Other
optimizers than SGD propose :math:`u_i` in the place of :math:`-\gamma_i g_i`, and with momentum
:math:`\beta` the threshold is divided by :math:`1 - \beta`, as their sum is.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import optax

from experiments.checks import check_finite
from experiments.optimizers import long_run_rate
from grda_optax import dual_averaging, power_threshold

if TYPE_CHECKING:
    from experiments.train import Job, Trained


@dataclasses.dataclass(frozen=True)
class Settings:
    """The penalty is lambda |w|_1."""

    strength: float = 1e-5
    """lambda, at least 0."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        check_finite("rda.strength", self.strength)


def regularised_dual_averaging(
    strength: float, learning_rate: optax.Schedule, mask: Any
) -> optax.GradientTransformationExtraArgs:
    r"""The last link of a chain: sums the updates, and reads the weights out of the sum.

    The threshold is :math:`\lambda \sum_i \gamma_i`.

    Args:
        strength: :math:`\lambda \ge 0`.
        learning_rate: :math:`\gamma_i`, called with 0 at the first update.
        mask: from params to a tree of bools: which leaves are penalised.
    """
    # With mu = 1 an update adds c * rate^(3/2) to the threshold, and lambda * gamma is wanted.
    rule = power_threshold(lambda step: learning_rate(step) ** (2 / 3), c=strength, mu=1.0)
    return dual_averaging(rule, mask=mask)


def run(job: "Job") -> "Trained":
    """Trains once; the zeros come with the threshold."""
    rate = long_run_rate(job.config, job.learning_rate)
    readout = regularised_dual_averaging(job.config.rda.strength, rate, job.penalised)
    return job.train(optax.with_extra_args_support(optax.chain(job.base_optimizer(), readout)))
