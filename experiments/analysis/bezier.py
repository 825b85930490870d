r"""A curve of low loss between two networks: a quadratic Bezier curve whose bend is trained.

.. math:: \phi_\theta(t) = (1 - t)^2 w_1 + 2 t (1 - t) \theta + t^2 w_2, \qquad
    \min_\theta \; \mathbb{E}_{t \sim U(0, 1)} L(\phi_\theta(t)).

Garipov, Izmailov, Podoprikhin, Vetrov and Wilson, *Loss surfaces, mode connectivity, and fast
ensembling of DNNs*, NeurIPS 2018, section 3.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import data
from experiments.checks import check, check_finite, check_integer
from experiments.train import Job

PyTree = Any


def point(first: PyTree, bend: PyTree, last: PyTree, t: jax.typing.ArrayLike) -> PyTree:
    """The weights at ``t`` on the curve; 0 is the first network and 1 the last."""
    a, b, c = (1 - t) ** 2, 2 * t * (1 - t), t**2
    return jax.tree.map(lambda x, y, z: a * x + b * y + c * z, first, bend, last)


def straight(first: PyTree, last: PyTree, t: jax.typing.ArrayLike) -> PyTree:
    """The weights at ``t`` on the straight line."""
    return jax.tree.map(lambda x, z: (1 - t) * x + t * z, first, last)


@dataclasses.dataclass(frozen=True)
class Training:
    """How a bend is trained: SGD with momentum, at a rate that falls to a hundredth at the end."""

    epochs: int = 10
    """Passes over the training set."""
    learning_rate: float = 0.02
    """At its highest, for the first half; then it falls in a line to 9/10 of training."""
    momentum: float = 0.9
    """From 0 to below 1."""

    def __post_init__(self) -> None:
        """Refuses what is out of range."""
        check_integer("epochs", self.epochs, 1)
        check_finite("learning_rate", self.learning_rate)
        check_finite("momentum", self.momentum)
        check(self.momentum < 1, "momentum", self.momentum, "below 1")

    def optimizer(self, steps: int) -> optax.GradientTransformationExtraArgs:
        """Over so many updates."""
        half, last = steps // 2, max(steps // 2 + 1, (9 * steps) // 10)
        rate = optax.linear_schedule(
            self.learning_rate, 0.01 * self.learning_rate, last - half, half
        )
        return optax.sgd(rate, momentum=self.momentum)


Place = Callable[[PyTree, PyTree, jax.Array], PyTree]
"""From what is trained, what is held, and t, to the weights whose loss is taken."""


def on_the_curve(bend: PyTree, ends: PyTree, t: jax.Array) -> PyTree:
    """The point of the curve with this bend between the ends."""
    return point(ends[0], bend, ends[1], t)


def itself(params: PyTree, held: PyTree, t: jax.Array) -> PyTree:
    """The weights themselves: training of a network as it is."""
    del held, t
    return params


def train(
    job: Job,
    start: PyTree,
    held: PyTree,
    place: Place,
    training: Training,
    progress: Callable[[int], object] = lambda _: None,
) -> PyTree:
    """Minimises the loss of the places that a random ``t`` takes, one for each batch.

    Args:
        job: whose network it is and whose batches are taken, those after its last.
        start: what is trained; it is left as it is.
        held: what the places depend on besides.
        place: where the loss is taken.
        training: for how long, and how fast.
        progress: called with the number of updates that are done.
    """
    split, config = job.splits[0], job.config
    steps = training.epochs * job.steps_per_epoch
    tx = training.optimizer(steps)
    statistics = job.start()[1]

    def step(state: PyTree, batch: data.Split) -> PyTree:
        trained, opt_state, held, n = state
        t = jax.random.uniform(jax.random.fold_in(jax.random.key(config.seed), n))

        def loss(trained: PyTree) -> jax.Array:
            # In training mode, where BatchNorm takes the statistics of the batch.
            return job.loss(place(trained, held, t), statistics, batch)[0]

        updates, opt_state = tx.update(jax.grad(loss)(trained), opt_state, trained)
        return optax.apply_updates(trained, updates), opt_state, held, n + 1

    compiled = job.parallel.wrap(step)
    trained = jax.tree.map(jnp.asarray, start)
    state = (trained, tx.init(trained), jax.tree.map(jnp.asarray, held), jnp.zeros([], jnp.int32))
    state = job.parallel.replicate(state)
    for n in range(steps):
        batch = data.batch(
            split, config.seed, job.total_steps + n, config.batch_size, config.augment
        )
        state = compiled(state, job.parallel.split(batch))
        if n % 20 == 19 or n == steps - 1:  # not far ahead of what is computed
            jax.block_until_ready(state)
            progress(n + 1)
    return jax.tree.map(np.asarray, job.parallel.unreplicate(state)[0])


class Plane:
    r"""The plane through three networks, with orthonormal coordinates.

    The origin is the first of them, the first axis goes to the second, and the other one to the
    side on which the third is (Garipov et al., 2018, section A).
    """

    def __init__(self, first: PyTree, second: PyTree, third: PyTree):
        """Takes the three; they must not lie on one line."""
        self.origin = first
        along, aside = (jax.tree.map(np.subtract, x, first) for x in (second, third))
        self.length = _dot(along, along) ** 0.5
        check(self.length > 0, "the second network", self.length, "apart from the first")
        self.x = jax.tree.map(lambda u: u / self.length, along)
        self.third = [_dot(aside, self.x), 0.0]
        left = jax.tree.map(lambda v, u: v - self.third[0] * u, aside, self.x)
        self.third[1] = _dot(left, left) ** 0.5
        beside = self.third[1] > 1e-6 * self.length
        check(beside, "the third network", self.third[1], "beside the line through the others")
        self.y = jax.tree.map(lambda v: v / self.third[1], left)

    def at(self, x: float, y: float) -> PyTree:
        """The weights at these coordinates."""
        return jax.tree.map(lambda w, u, v: w + x * u + y * v, self.origin, self.x, self.y)


def _dot(a: PyTree, b: PyTree) -> float:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return float(
        sum(np.vdot(np.asarray(x, np.float64), np.asarray(y, np.float64)) for x, y in pairs)
    )
