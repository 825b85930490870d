r"""Learning-compression with an l0 constraint (Carreira-Perpinan and Idelbayev, CVPR 2018).

Minimises :math:`\ell(w)` under :math:`w = \theta, |\theta|_0 \le k` by the augmented Lagrangian
with multipliers :math:`\lambda` and a weight :math:`\mu` that grows,

.. math:: \ell(w) - \langle \lambda, w - \theta \rangle + \tfrac{\mu}{2} |w - \theta|^2,

in turns: an *L step* trains :math:`w` on it, and a *C step* compresses,

.. math::
    \theta \leftarrow \Pi_k(w - \lambda / \mu), \qquad
    \lambda \leftarrow \lambda - \mu (w - \theta),

where :math:`\Pi_k` keeps the :math:`k` entries of largest magnitude. The network is first trained
alone, and compressed directly: :math:`\theta = \Pi_k(w), \lambda = 0`. At the end :math:`w` becomes
:math:`\theta`, and what is left of the training moves the weights that are left.
"""

import dataclasses
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.checks import check, check_finite, check_integer
from experiments.methods._layers import (
    apply_masks,
    keep_largest,
    penalised_leaves,
    replace_penalised,
    zeros_wanted,
)
from experiments.precision import copied_wide

if TYPE_CHECKING:
    from experiments.train import Job, Trained

PyTree = Any
Layers = list[jax.Array]


@dataclasses.dataclass(frozen=True)
class Settings:
    """When the turns are taken, and how hard the weights are drawn to their compression."""

    begin: float = 0.3
    """The fraction of training before the first C step."""
    end: float = 0.9
    """The fraction after which the weights are their compression; above ``begin``, at most 1."""
    update_every: int = 50
    """Updates in an L step."""
    mu_start: float = 1e-3
    """mu of the first L step, above 0."""
    mu_end: float = 1.0
    """mu of the last one, at least mu_start; times the learning rate it has to stay below 2."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        check_finite("lc.begin", self.begin)
        check_finite("lc.end", self.end)
        check(self.begin < self.end <= 1, "lc.end", self.end, "above lc.begin and at most 1")
        check_integer("lc.update_every", self.update_every, 1)
        check_finite("lc.mu_start", self.mu_start)
        check(self.mu_start > 0, "lc.mu_start", self.mu_start, "above 0")
        check_finite("lc.mu_end", self.mu_end)
        check(self.mu_end >= self.mu_start, "lc.mu_end", self.mu_end, "at least lc.mu_start")


class LCState(NamedTuple):
    """The compression and the multipliers of every penalised leaf, after how many updates."""

    count: jax.Array  # type: ignore[assignment]  # a tuple has a method of this name
    compressed: Layers
    multipliers: Layers
    base: optax.OptState


def learning_compression(
    base: optax.GradientTransformation,
    sparsity: float,
    *,
    begin_step: int,
    end_step: int,
    update_every: int,
    mu_start: float,
    mu_end: float,
    mask: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""``base``, drawn towards the compression of its weights.

    After update ``begin_step`` is the direct compression; a C step ends each ``update_every``
    updates from there, with :math:`\mu_i` of L step :math:`i` in geometric progression; after
    ``end_step`` exactly ``round(sparsity * total)`` of the penalised weights are zero, and stay so.

    Args:
        base: the optimizer of the L steps.
        sparsity: the fraction of zeros, from 0 to 1.
        begin_step: at least 1.
        end_step: at least ``begin_step``.
        update_every: updates in an L step.
        mu_start: :math:`\mu` of the first L step.
        mu_end: :math:`\mu` of the last.
        mask: from params to a tree of bools: which leaves are pruned.
    """
    base = optax.with_extra_args_support(base)
    turns = max(1, math.ceil((end_step - begin_step) / update_every))

    def mu_of(n: jax.Array) -> jax.Array:
        turn = jnp.clip((n - 1 - begin_step) // update_every, 0, turns - 1)
        return mu_start * (mu_end / mu_start) ** (turn / max(1, turns - 1))

    def init(params: PyTree) -> LCState:
        layers = penalised_leaves(params, mask(params))
        # Copied: what is donated must not be there twice.
        compressed = copied_wide(layers)
        zeros = [jnp.zeros_like(w) for w in compressed]
        return LCState(jnp.zeros([], jnp.int32), compressed, zeros, base.init(params))

    def compress(w: Layers, multipliers: Layers, mu: jax.Array) -> Layers:
        shifted = [x - m / mu for x, m in zip(w, multipliers, strict=True)]
        gone = zeros_wanted(sparsity, [x.size for x in w])
        return apply_masks(shifted, keep_largest(shifted, gone))

    def update(
        updates: PyTree, state: LCState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, LCState]:
        flags = mask(params)
        n = optax.safe_increment(state.count)
        mu = mu_of(n)
        pulled = (begin_step < n) & (n <= end_step)
        gradients = [
            g + jnp.where(pulled, mu * (w - c) - m, jnp.zeros_like(w))
            for g, w, c, m in zip(
                penalised_leaves(updates, flags),
                penalised_leaves(params, flags),
                state.compressed,
                state.multipliers,
                strict=True,
            )
        ]
        updates, base_state = base.update(
            replace_penalised(updates, flags, gradients), state.base, params, **extra_args
        )
        moved = [
            jnp.where((n <= end_step) | (c != 0), w + u, jnp.zeros_like(w))
            for w, u, c in zip(
                penalised_leaves(params, flags),
                penalised_leaves(updates, flags),
                state.compressed,
                strict=True,
            )
        ]

        def c_step() -> tuple[Layers, Layers]:
            compressed = compress(moved, state.multipliers, mu)
            multipliers = [
                # After the direct compression there is no constraint yet to have multipliers of.
                jnp.where(n == begin_step, m, m - mu * (w - c))
                for m, w, c in zip(state.multipliers, moved, compressed, strict=True)
            ]
            return compressed, multipliers

        due = (begin_step <= n) & (n < end_step) & ((n - begin_step) % update_every == 0)
        compressed, multipliers = jax.lax.cond(
            due | (n == end_step), c_step, lambda: (state.compressed, state.multipliers)
        )
        steps = [
            jnp.where(n == end_step, c, w) - p
            for c, w, p in zip(compressed, moved, penalised_leaves(params, flags), strict=True)
        ]
        new = LCState(n, compressed, multipliers, base_state)
        return replace_penalised(updates, flags, steps), new

    return optax.GradientTransformationExtraArgs(init, update)


def run(job: "Job") -> "Trained":
    """Trains once, in turns; ends with the sparsity of the config."""
    settings, total = job.config.lc, job.total_steps
    begin = max(1, round(settings.begin * total))
    tx = learning_compression(
        job.base_optimizer(),
        job.config.sparsity,
        begin_step=begin,
        end_step=max(begin, round(settings.end * total)),
        update_every=settings.update_every,
        mu_start=settings.mu_start,
        mu_end=settings.mu_end,
        mask=job.penalised,
    )
    return job.train(tx)
