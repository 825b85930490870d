"""Gradual magnitude pruning (Zhu and Gupta, ICLR workshop 2018), over the whole network at once."""

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.checks import check, check_finite, check_integer

if TYPE_CHECKING:
    from experiments.train import Job, Trained

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Settings:
    """When weights go: along a cubic ramp from the first step on."""

    ramp_end: float = 0.75
    """The fraction of training after which the sparsity is reached."""
    update_every: int = 50
    """Steps between two prunings."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        check_finite("gmp.ramp_end", self.ramp_end)
        check(self.ramp_end <= 1, "gmp.ramp_end", self.ramp_end, "at most 1")
        check_integer("gmp.update_every", self.update_every, 1)


class MagnitudeState(NamedTuple):
    """Which weights are left, after how many updates."""

    count: jax.Array  # type: ignore[assignment]  # a tuple has a method of this name
    keep: PyTree


def gradual_magnitude(
    sparsity: float, end_step: int, update_every: int, mask: Any
) -> optax.GradientTransformation:
    r"""The last link of a chain: every ``update_every`` updates the smallest weights go for good.

    After :math:`n` updates the fraction :math:`s (1 - (1 - n / N)^3)` of the penalised weights is
    zero, the smallest of the whole network by magnitude; at :math:`N` exactly
    ``round(sparsity * total)`` of them. A weight that has gone stays zero, whatever its gradient.

    Args:
        sparsity: :math:`s`, from 0 to 1.
        end_step: :math:`N`, the update after which the sparsity is reached.
        update_every: updates between two prunings.
        mask: from params to a tree of bools: which leaves are pruned.
    """

    def init(params: PyTree) -> MagnitudeState:
        flags = mask(params)
        keep = jax.tree.map(lambda p, f: jnp.ones(p.shape if f else (), bool), params, flags)
        return MagnitudeState(jnp.zeros([], jnp.int32), keep)

    def prune(n: jax.Array, params: PyTree, keep: PyTree) -> PyTree:
        flags = jax.tree.leaves(mask(params))
        sizes = jnp.concatenate(
            [jnp.abs(p).ravel() for p, f in zip(jax.tree.leaves(params), flags, strict=True) if f]
        )
        left = 1 - jnp.minimum(n / max(end_step, 1), 1.0)
        gone = jnp.round(sparsity * (1 - left**3) * sizes.size).astype(jnp.int32)
        # The rank decides, not the magnitude: of equal weights only as many go as should.
        rank = (
            jnp.zeros(sizes.size, jnp.int32)
            .at[jnp.argsort(sizes, stable=True)]
            .set(jnp.arange(sizes.size, dtype=jnp.int32))
        )
        kept, at = [], 0
        for k, f in zip(jax.tree.leaves(keep), flags, strict=True):
            kept.append((rank[at : at + k.size] >= gone).reshape(k.shape) if f else k)
            at += k.size if f else 0
        return jax.tree.unflatten(jax.tree.structure(keep), kept)

    def update(
        updates: PyTree, state: MagnitudeState, params: PyTree = None
    ) -> tuple[PyTree, MagnitudeState]:
        n = state.count + 1
        moved = jax.tree.map(
            lambda p, u, k: jnp.where(k, p + u, jnp.zeros_like(p)), params, updates, state.keep
        )
        due = ((n % update_every == 0) & (n < end_step)) | (n == end_step)
        keep = jax.lax.cond(due, lambda: prune(n, moved, state.keep), lambda: state.keep)
        new = jax.tree.map(lambda w, k: jnp.where(k, w, jnp.zeros_like(w)), moved, keep)
        return jax.tree.map(jnp.subtract, new, params), MagnitudeState(n, keep)

    return optax.GradientTransformation(init, update)


def run(job: "Job") -> "Trained":
    """Trains once with the base optimizer, pruning on the way."""
    settings = job.config.gmp
    prune = gradual_magnitude(
        job.config.sparsity,
        max(1, round(settings.ramp_end * job.total_steps)),
        settings.update_every,
        job.penalised,
    )
    return job.train(optax.with_extra_args_support(optax.chain(job.base_optimizer(), prune)))
