"""Training without any pruning: what every sparse network is held against."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.train import Job, Trained


def run(job: "Job") -> "Trained":
    """Trains with the base optimizer alone."""
    return job.train(job.base_optimizer())
