r"""What gRDA computes, on least squares, where it can be written down.

Gradients are :math:`H (w - w^*)` with 40 curved and 60 flat directions. With :math:`t = n \gamma`,
:math:`\lambda = h_n`, :math:`w_\mathrm{SGD}` the point where SGD ends from the same start and
:math:`P_0` the projection on the flat directions:

- while no weight is zero, gRDA is directional pruning with the scores of training time, which go to
  those of the paper like :math:`1/t`;
- with zeros, it goes to the l1-smallest point of the flat valley;
- whatever the batches are, :math:`P_0 (v_n - w_0) = 0`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from grda_optax import directional_scores, grda, valley_prune

RATE, MU, SIZE, RANK = 0.1, 0.6, 100, 40
TIMES = (30, 100, 300, 1000, 3000)
"""In updates; the training time is a tenth of it."""


class Problem(NamedTuple):
    """The basis of the curved directions, their curvature, the minimum and the start."""

    basis: jax.Array
    values: jax.Array
    target: jax.Array
    start: jax.Array

    def flat(self, x: jax.Array) -> jax.Array:
        """The part in the flat directions."""
        return x - self.basis @ (self.basis.T @ x)

    def curvature(self, x: jax.Array) -> jax.Array:
        """The Hessian times a vector."""
        return self.basis @ (self.values * (self.basis.T @ x))

    def minimum(self) -> jax.Array:
        """Where SGD ends: the start in the flat directions, the target in the curved ones."""
        return self.start + self.basis @ (self.basis.T @ (self.target - self.start))


def problem(seed: int, crossings: bool) -> Problem:
    """Far from zero, so that no weight crosses it in time; or near it."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(SIZE, RANK)))[0]
    values = np.geomspace(0.5, 2.0, RANK)
    if crossings:
        target, start = rng.normal(size=SIZE), rng.normal(size=SIZE)
    else:
        target = rng.choice([-1.0, 1.0], SIZE) * (1 + np.abs(rng.normal(size=SIZE)))
        start = target + basis @ (0.3 * rng.normal(size=RANK))
    return Problem(*map(jnp.asarray, (basis, values, target, start)))


def train(p: Problem, c: float, noise: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """The weights after each update, and the last accumulator; ``noise`` is one row an update.

    A row of noise stands for a minibatch: it lies in the curved directions, as every gradient of
    least squares on the same inputs does.
    """
    tx = grda(RATE, c=c, mu=MU)
    steps = TIMES[-1]

    def step(carry: Any, draw: jax.Array) -> Any:
        w, state = carry
        gradient = p.curvature(w - p.target) + p.basis @ draw
        updates, state = tx.update(gradient, state, w)
        w = optax.apply_updates(w, updates)
        return (w, state), w

    draws = jnp.zeros((steps, RANK)) if noise is None else noise
    (_, state), path = jax.lax.scan(step, (p.start, tx.init(p.start)), draws)
    return path, optax.tree.get(state, "accumulator")


def threshold(n: int, c: float) -> float:
    """The paper's rule after n updates."""
    return float(c * RATE**0.5 * (n * RATE) ** MU)


def measure(seed: int) -> dict[str, Any]:
    """All three statements for one seed, in the precision that is on."""
    return {
        "scores": _scores(problem(seed, crossings=False)),
        "valley": _valley(problem(seed, crossings=True)),
        "invariant": _invariant(problem(seed, crossings=True), seed),
    }


def _scores(p: Problem) -> dict[str, Any]:
    """How far the scores that gRDA has realised are from the paper's, and from those in time."""
    c = 0.04
    path, _ = train(p, c)
    w = p.minimum()
    signs = jnp.sign(w)
    paper = directional_scores(w, p.curvature, cut=1e-3)
    curved = jnp.linalg.norm(p.basis @ ((p.basis.T @ signs) / p.values))
    rows = []
    for n in TIMES:
        realised = (jnp.abs(w) - signs * path[n - 1]) / threshold(n, c)
        in_time = directional_scores(w, p.curvature, time=n * RATE, mu=MU)
        rows.append(
            {
                "time": n * RATE,
                "from_paper": _rms(realised - paper),
                "law": float(MU / (n * RATE) * curved / SIZE**0.5),
                "from_time": _rms(realised - in_time),
            }
        )
    return {"c": c, "rows": rows}


def _valley(p: Problem) -> dict[str, Any]:
    """GRDA's end beside the l1-smallest point of the valley."""
    c = 0.1
    path, _ = train(p, c)
    found, strength = path[-1], threshold(TIMES[-1], c)
    valley = valley_prune(p.minimum(), p.flat, strength, tolerance=1e-8).params
    ours, theirs = np.asarray(found) != 0, np.asarray(valley) != 0
    return {
        "c": c,
        "zeros_grda": int((~ours).sum()),
        "zeros_valley": int((~theirs).sum()),
        "overlap_of_nonzeros": float((ours & theirs).sum() / (ours | theirs).sum()),
        "distance": _rms(found - valley) / strength,
        "l1_at_minimum": float(jnp.abs(p.minimum()).sum()),
        "l1_grda": float(jnp.abs(found).sum()),
        "l1_valley": float(jnp.abs(valley).sum()),
    }


def _invariant(p: Problem, seed: int) -> dict[str, Any]:
    """How far random minibatches move the accumulator in the flat directions, and in all."""
    noise = 0.3 * np.random.default_rng(100 + seed).normal(size=(TIMES[-1], RANK))
    _, accumulator = train(p, 0.1, jnp.asarray(noise))
    return {
        "noise": 0.3,
        "moved_in_flat": float(jnp.abs(p.flat(accumulator - p.start)).max()),
        "moved": float(jnp.abs(accumulator - p.start).max()),
    }


def _rms(x: jax.Array) -> float:
    return float(jnp.linalg.norm(x) / SIZE**0.5)
