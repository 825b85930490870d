"""The recipe of grda_optax: the base optimizer, a sparsity, and exact zeros (`prune_with`)."""

import dataclasses
import inspect
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp
import optax

from experiments.checks import check, check_finite
from grda_optax import prune_with, soft_threshold

if TYPE_CHECKING:
    from experiments.train import Job, Trained


@dataclasses.dataclass(frozen=True)
class Settings:
    """The keyword arguments of `prune_with`; None is its own default."""

    ramp_end: float | None = None
    """The fraction of training after which the sparsity is reached."""
    freeze_at: float | None = None
    """The fraction of training after which the zeros stay."""
    prox: Literal["soft", "firm", "hard", "steep"] | None = None
    """How the accumulator is read out; `steep` is 1.5 times soft, a control."""
    ratio: float | None = None
    """Of the firm threshold, above 1."""
    leak: float | None = None
    """What the accumulator of a zero weight forgets at each update."""
    per_leaf: bool = False
    """Whether every layer has the sparsity, and not the network as a whole."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        for name in ("ramp_end", "freeze_at", "leak"):
            value = getattr(self, name)
            if value is not None:
                check_finite(f"recipe.{name}", value)
                check(value <= 1, f"recipe.{name}", value, "at most 1")
        if self.ratio is not None:
            check_finite("recipe.ratio", self.ratio)
            check(self.ratio > 1, "recipe.ratio", self.ratio, "above 1")
        # As `prune_with` itself would say, but before a folder is made.
        end, freeze = self.fraction("ramp_end"), self.fraction("freeze_at")
        check(freeze >= end, "recipe.freeze_at", freeze, f"at least ramp_end = {end:g}")

    def fraction(self, name: Literal["ramp_end", "freeze_at"]) -> float:
        """Of training, where the default of `prune_with` holds, too."""
        given: float | None = getattr(self, name)
        default: float = inspect.signature(prune_with).parameters[name].default
        return default if given is None else given


def steep_threshold(x: jax.Array, threshold: jax.Array) -> jax.Array:
    r"""The slope of the firm threshold of ratio 3 near zero, without its end, as a control.

    .. math:: w = \tfrac32 S_h(v) \text{ where } h > 0, \text{ else } v,

    with the soft threshold :math:`S_h`. With :math:`h = 0` it is the identity, as every operator
    is; so at the first :math:`h > 0` the penalised weights grow by a half at once.
    """
    return jnp.where(threshold > 0, 1.5 * soft_threshold(x, threshold), x)


def pruned(job: "Job") -> optax.GradientTransformationExtraArgs:
    """The optimizer of a job, as the recipe has it."""
    given = {k: v for k, v in dataclasses.asdict(job.config.recipe).items() if v is not None}
    if given.get("prox") == "steep":
        given["prox"] = steep_threshold
    return prune_with(
        job.base_optimizer(),
        job.config.sparsity,
        job.total_steps,
        mask=job.penalised,
        **given,
    )


def run(job: "Job") -> "Trained":
    """Trains once; ends with the sparsity of the config."""
    return job.train(pruned(job))
