"""gRDA by the paper (Chao, Wang, Xing and Cheng, NeurIPS 2020): c and mu set the sparsity."""

import dataclasses
from typing import TYPE_CHECKING

from experiments.checks import check, check_finite
from grda_optax import grda, suggest_c

if TYPE_CHECKING:
    from experiments.train import Job, Trained


@dataclasses.dataclass(frozen=True)
class Settings:
    """The threshold after n updates at rate gamma is c gamma^(1/2) (n gamma)^mu."""

    c: float | None = 0.005
    """The strength of the penalty, at least 0; None is what `suggest_c` takes for the sparsity."""
    mu: float = 0.6
    """How fast the threshold grows, above 0 to 1."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        if self.c is not None:
            check_finite("grda.c", self.c)
        check_finite("grda.mu", self.mu)
        check(0 < self.mu <= 1, "grda.mu", self.mu, "in (0, 1]")


def run(job: "Job") -> "Trained":
    """Trains once; the zeros come with the threshold."""
    config = job.config
    c, mu = config.grda.c, config.grda.mu
    if c is None:
        params, _ = job.start()
        mask = job.penalised(params)
        c = suggest_c(params, job.learning_rate, mu, job.total_steps, config.sparsity, mask)
    tx = grda(
        job.learning_rate,
        c=c,
        mu=mu,
        momentum=config.momentum or None,
        weight_decay=config.weight_decay,
        mask=job.penalised,
    )
    return job.train(tx)
