r"""What gRDA computes, on least squares, where it can be written down; and what it is not.

Gradients are H (w - w*) for a matrix H with 40 curved and 60 flat directions. Let t = n * gamma be
the training time, lambda = h_n the threshold, P0 the projection on the flat directions, w_SGD the
minimum that SGD reaches from the same start, and sg = sign(w_SGD).

1. While no weight has reached zero, gRDA is directional pruning with the scores
   s_t = sg * phi_mu(t H) sg,  phi_mu(x) = mu * int_0^1 exp(-x (1 - u)) u^(mu - 1) du,
   which go to s = sg * (P0 sg), the scores of the paper, like 1 / t.
2. With zeros it goes to the l1-smallest point of the flat valley,
   argmin 1/2 |w - w_SGD|^2 + lambda |w|_1  subject to  H (w - w_SGD) = 0.
3. Whatever the batches are, P0 (v_n - w_0) = 0.

Each test of a law is run on wrong versions of the optimizer too, which it has to reject.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from grda_optax import dual_averaging, grda

from .transformations import our_state

RATE, MU, STEPS, SIZE, RANK = 0.1, 0.6, 3000, 100, 40
SEEDS = range(10)

pytestmark = pytest.mark.usefixtures("float64")


class Problem(NamedTuple):
    """Least squares in its eigenbasis: V (100 x 40), the eigenvalues, w*, and the start."""

    basis: np.ndarray
    values: np.ndarray
    target: np.ndarray
    start: np.ndarray

    def flat(self, x):
        """P0 x."""
        return x - self.basis @ (self.basis.T @ x)

    def minimum(self):
        """w_SGD: the start in the flat directions, w* in the curved ones."""
        return self.start + self.basis @ (self.basis.T @ (self.target - self.start))


def problem(seed, crossings):
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(SIZE, RANK)))[0]
    values = np.geomspace(0.5, 2.0, RANK)
    if crossings:
        return Problem(basis, values, rng.normal(size=SIZE), rng.normal(size=SIZE))
    target = rng.choice([-1.0, 1.0], SIZE) * (1 + np.abs(rng.normal(size=SIZE)))
    return Problem(basis, values, target, target + basis @ (0.3 * rng.normal(size=RANK)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def train(tx, steps, problem):
    """The weights after each of so many full gradients, and the last accumulator."""

    def step(carry, _):
        w, state = carry
        gradient = problem.basis @ (problem.values * (problem.basis.T @ (w - problem.target)))
        updates, state = tx.update(gradient, state, w)
        w = optax.apply_updates(w, updates)
        return (w, state), w

    start = problem.start
    (_, state), path = jax.lax.scan(step, (start, tx.init(start)), length=steps)
    return path, state


def law(n, c):
    return c * RATE**0.5 * (n * RATE) ** MU


def run(tx, problem, steps=STEPS):
    path, state = train(tx, steps, jax.tree.map(jnp.asarray, problem))
    return np.asarray(path), state


def error(w, expected, threshold):
    """The distance, in units of the threshold and for each weight."""
    return np.linalg.norm(w - expected) / (threshold * SIZE**0.5)


# --- Right and wrong optimizers ------------------------------------------------------------------


def right(c):
    return grda(RATE, c=c, mu=MU)


def proximal_sgd(c):
    """Sums nothing: the increment of the threshold shrinks the weights themselves."""

    def update(updates, count, params):
        increment = law(count + 1, c) - law(count, c)
        v = params + updates
        w = jnp.sign(v) * jnp.maximum(jnp.abs(v) - increment, 0.0)
        return w - params, count + 1

    shrink = optax.GradientTransformation(lambda params: jnp.zeros([]), update)
    return optax.chain(optax.sgd(RATE), shrink)


def accumulator_from_zero(c):
    """Forgets v_0 = w_0."""
    inner = dual_averaging(functools.partial(law, c=c))

    def init(params):
        return inner.init(params)._replace(accumulator=jnp.zeros_like(params))

    return optax.chain(optax.sgd(RATE), optax.GradientTransformation(init, inner.update))


def with_threshold(rule):
    return optax.chain(optax.sgd(RATE), dual_averaging(rule))


def one_step_late(c):
    return with_threshold(lambda n: law(n - 1, c))


def linear_threshold(c):
    """As high at the end, by another way."""
    return with_threshold(lambda n: law(STEPS, c) * n / STEPS)


def without_root_of_the_rate(c):
    return with_threshold(lambda n: c * (n * RATE) ** MU)


# --- 1: no weight reaches zero -------------------------------------------------------------------

C1 = 0.04
NODES, WEIGHTS = np.polynomial.legendre.leggauss(800)


def phi(x):
    """By u = s^(1/mu) the integral loses its singularity: int_0^1 exp(-x (1 - s^(1/mu))) ds."""
    s = (NODES + 1) / 2
    return np.exp(-np.multiply.outer(x, 1 - s ** (1 / MU))) @ (WEIGHTS / 2)


def test_phi():
    """The limits that make it a filter: one where it is flat, mu / x where it is steep."""
    assert phi(0.0) == pytest.approx(1, abs=1e-12)
    assert phi(1e3) == pytest.approx(MU / 1e3, rel=1e-3)
    assert 1.1 < np.interp(-0.5, -phi(np.linspace(1, 2, 101)), np.linspace(1, 2, 101)) < 1.5
    # Against its series 1F1(1; 1 + mu; -x).
    x, term, total = 3.0, 1.0, 1.0
    for k in range(60):
        term *= -x / (1 + MU + k)
        total += term
    assert phi(x) == pytest.approx(total, rel=1e-12)


def pruned_by(scores, p, threshold):
    """Directional pruning of w_SGD; no weight gets to zero here."""
    w = p.minimum()
    return np.sign(w) * np.maximum(np.abs(w) - threshold * scores, 0.0)


def scores_of_the_paper(p):
    sign = np.sign(p.minimum())
    return sign * p.flat(sign)


def scores_in_time(p, t):
    sign = np.sign(p.minimum())
    curved = p.basis @ (phi(t * p.values) * (p.basis.T @ sign))
    return sign * (p.flat(sign) + curved)


def distance_from_law_1(p, w):
    threshold = law(STEPS, C1)
    return error(w, pruned_by(scores_in_time(p, STEPS * RATE), p, threshold), threshold)


@pytest.mark.parametrize("seed", SEEDS)
def test_without_zeros_it_is_directional_pruning_in_training_time(seed):
    p = problem(seed, crossings=False)
    np.testing.assert_allclose(p.minimum(), p.target, rtol=1e-12)
    path, state = run(right(C1), p)
    w, threshold = path[-1], law(STEPS, C1)
    np.testing.assert_allclose(our_state(state).threshold, threshold, rtol=1e-12)
    assert (path != 0).all()
    assert distance_from_law_1(p, w) <= 1e-5

    # Against the paper's scores: small, and as small as it has to be at this training time.
    found = error(w, pruned_by(scores_of_the_paper(p), p, threshold), threshold)
    sign = np.sign(p.minimum())
    curved = p.basis @ ((p.basis.T @ sign) / p.values)  # H^+ sg
    rest = MU / (STEPS * RATE) * np.linalg.norm(curved) / SIZE**0.5
    assert found <= 0.003
    assert 0.995 <= found / rest <= 1.01


def test_the_rest_falls_like_one_over_training_time():
    p = problem(0, crossings=False)
    path, _ = run(right(C1), p)
    scores, times = scores_of_the_paper(p), np.array([30.0, 100.0, 300.0])
    rest = []
    for t in times:
        n = round(t / RATE)
        rest.append(error(path[n - 1], pruned_by(scores, p, law(n, C1)), law(n, C1)))
    slope = np.polyfit(np.log(times), np.log(rest), 1)[0]
    assert -1.05 <= slope <= -0.95


@pytest.mark.parametrize(
    ("wrong", "at_least"),
    [
        (one_step_late, 1e-4),
        (linear_threshold, 5e-4),
        (without_root_of_the_rate, 1.0),
        (accumulator_from_zero, 0.1),
    ],
)
def test_law_1_rejects(wrong, at_least):
    p = problem(0, crossings=False)
    path, _ = run(wrong(C1), p)
    assert distance_from_law_1(p, path[-1]) > at_least


def test_law_1_rejects_scores_without_the_projection():
    """P0 = I is a soft threshold of w_SGD: magnitude, not direction."""
    p = problem(0, crossings=False)
    path, _ = run(right(C1), p)
    threshold = law(STEPS, C1)
    assert error(path[-1], pruned_by(np.ones(SIZE), p, threshold), threshold) > 0.3


def test_law_1_in_float32():
    p = jax.tree.map(lambda x: x.astype(np.float32), problem(0, crossings=False))
    path, state = run(right(C1), p)
    assert path.dtype == np.float32
    assert our_state(state).threshold.dtype == np.float32
    assert distance_from_law_1(p, path[-1].astype(np.float64)) <= 2e-3


# --- 2: weights reach zero -----------------------------------------------------------------------

C2 = 0.1


def soft(x, threshold):
    return np.sign(x) * np.maximum(np.abs(x) - threshold, 0.0)


def valley_point(p, threshold):
    """The l1-smallest point of the valley: w = soft(w_SGD + V y), with y so that V^T w fits.

    That y maximises a concave function; the residual is its gradient, and Newton's step takes its
    generalised Hessian, V^T D V with D = 1 where w is not zero.
    """
    center = p.minimum()
    wanted, y = p.basis.T @ center, np.zeros(RANK)

    def weights(y):
        return soft(center + p.basis @ y, threshold)

    def dual(y):
        return wanted @ y - 0.5 * np.sum(weights(y) ** 2)

    for _ in range(200):
        w = weights(y)
        residual = wanted - p.basis.T @ w
        if np.abs(residual).max() < 1e-12:
            return w
        active = p.basis[w != 0]
        step = np.linalg.solve(active.T @ active + 1e-10 * np.eye(RANK), residual)
        size = 1.0
        rounding = 1e-14 * (1 + abs(dual(y)))
        while dual(y + size * step) < dual(y) + 1e-4 * size * (residual @ step) - rounding:
            size /= 2
        y = y + size * step
    raise AssertionError("the valley problem was not solved")


def overlap(a, b):
    return np.sum((a != 0) & (b != 0)) / np.sum((a != 0) | (b != 0))


def agrees_with_law_2(p, w):
    threshold = law(STEPS, C2)
    expected = valley_point(p, threshold)
    return error(w, expected, threshold) <= 0.006 and overlap(w, expected) >= 0.97


def test_the_solver_of_the_valley_problem():
    """Optimality: in the valley, and w_SGD - w in the row space plus threshold * sign."""
    p, threshold = problem(0, crossings=True), law(STEPS, C2)
    w = valley_point(p, threshold)
    np.testing.assert_allclose(p.basis.T @ (w - p.minimum()), 0, atol=1e-11)
    gap = p.flat(w - p.minimum())

    def objective(w):
        return 0.5 * np.sum((w - p.minimum()) ** 2) + threshold * np.abs(w).sum()

    for seed in range(20):
        direction = p.flat(np.random.default_rng(seed).normal(size=SIZE))
        for size in (1e-3, 1e-1):
            assert objective(w) < objective(w + size * direction)
    assert np.linalg.norm(gap) > 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_with_zeros_it_is_the_l1_smallest_point_of_the_valley(seed):
    p = problem(seed, crossings=True)
    path, _ = run(right(C2), p)
    assert 0.15 <= np.mean(path[-1] == 0) <= 0.4
    assert agrees_with_law_2(p, path[-1])


@pytest.mark.parametrize(
    "wrong", [proximal_sgd, accumulator_from_zero, without_root_of_the_rate, lambda c: right(2 * c)]
)
def test_law_2_rejects(wrong):
    p = problem(0, crossings=True)
    path, _ = run(wrong(C2), p)
    assert not agrees_with_law_2(p, path[-1])


def test_law_2_rejects_what_is_done_in_one_shot():
    """The paper's formula at real sparsity, magnitude pruning, and a threshold on w_SGD."""
    p, threshold = problem(0, crossings=True), law(STEPS, C2)
    path, _ = run(right(C2), p)
    zeros, w = np.sum(path[-1] == 0), p.minimum()
    magnitude = np.where(np.abs(w) > np.sort(np.abs(w))[zeros - 1], w, 0.0)
    for other in (pruned_by(scores_of_the_paper(p), p, threshold), magnitude, soft(w, threshold)):
        assert not agrees_with_law_2(p, other)


# --- 3: for any batches --------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 3))
def train_on_batches(tx, inputs, labels, steps, start):
    """The largest entry of P0 (v_n - w_0) is taken over all steps by the caller."""
    keys = jax.random.split(jax.random.key(0), steps)

    def step(carry, key):
        w, state = carry
        pick, noise = jax.random.split(key)
        rows = jax.random.choice(pick, inputs.shape[0], (8,), replace=False)
        batch = inputs[rows]
        wrong = batch @ w - labels[rows] - jax.random.normal(noise, (8,), w.dtype)
        updates, state = tx.update(batch.T @ wrong / 8, state, w)
        w = optax.apply_updates(w, updates)
        return (w, state), (w, our_state(state).accumulator)

    return jax.lax.scan(step, (start, tx.init(start)), keys)[1]


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-11), (np.float32, 5e-4)])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_accumulator_never_moves_in_flat_directions(seed, dtype, tolerance):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(64, RANK)) @ rng.normal(size=(RANK, SIZE)) / RANK**0.5
    basis = np.linalg.svd(inputs)[2][:RANK].T
    inputs = inputs.astype(dtype)
    start, labels = rng.normal(size=SIZE).astype(dtype), rng.normal(size=64).astype(dtype)
    tx = grda(0.005, c=1.0, mu=MU, momentum=0.5)
    w, v = map(np.asarray, train_on_batches(tx, inputs, labels, 1000, start))
    assert v.dtype == dtype
    moved = (v - start).astype(np.float64)
    outside = moved - moved @ basis @ basis.T
    assert np.abs(moved).max() > 0.1
    assert np.abs(outside).max() <= tolerance
    # It is the accumulator that stays: the weights do not, for they are pruned in these directions.
    outside = (w - start) - (w - start) @ basis @ basis.T
    assert np.mean(w[-1] == 0) > 0.05
    assert np.abs(outside).max() > 0.1
