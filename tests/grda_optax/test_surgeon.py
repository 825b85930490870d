"""Optimal Brain Surgeon against the constrained minimum of a quadratic, from its KKT system."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grda_optax import obs_prune, obs_saliency, sparsity_report

FISHER = ["low_rank", "block"]
EVERY = ["exact", *FISHER]


def raises(message):
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


def loss(w, batch):
    """Least squares; the Hessian is ``X^T X / n`` wherever it is taken."""
    inputs, labels = batch
    return 0.5 * jnp.mean((inputs @ w - labels) ** 2)


def problem(size=8, examples=40, noise=0.0, seed=0):
    """A minimum, the data, the Hessian. With noise of +-1 it is the Fisher matrix as well.

    The gradient of an example is then plus or minus its inputs.
    """
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(examples, size)) @ (
        np.eye(size) + 0.4 * rng.normal(size=(size, size))
    )
    w = rng.normal(size=size) + np.sign(rng.normal(size=size))
    labels = inputs @ w + noise * rng.choice([-1.0, 1.0], size=examples)
    return jnp.asarray(w), (jnp.asarray(inputs), jnp.asarray(labels)), inputs.T @ inputs / examples


def in_batches(batch, *ends):
    return [tuple(x[a:b] for x in batch) for a, b in zip((0, *ends), (*ends, None), strict=True)]


def constrained_minimum(matrix, w, removed):
    """The step of least ``1/2 step' H step`` with ``(w + step)[removed] = 0``."""
    d, k = len(w), len(removed)
    system = np.zeros((d + k, d + k))
    system[:d, :d] = matrix
    system[d + np.arange(k), removed] = system[removed, d + np.arange(k)] = 1
    right = np.concatenate([np.zeros(d), -np.asarray(w)[removed]])
    return np.linalg.solve(system, right)[:d]


def damped(matrix, damping):
    return matrix + damping * np.linalg.eigvalsh(matrix).max() * np.eye(len(matrix))


def check_zeros(params, count):
    values = np.concatenate([np.ravel(x) for x in jax.tree.leaves(params)])
    assert int((values == 0).sum()) == count
    assert not np.signbit(values[values == 0]).any()


def test_one_weight_costs_its_saliency(float64):
    w, batch, matrix = problem()
    saliency = np.asarray(obs_saliency(loss, w, [batch], damping=0.0).values)
    inverse = np.linalg.inv(matrix)
    np.testing.assert_allclose(saliency, w**2 / (2 * np.diag(inverse)), rtol=1e-9)
    result = obs_prune(loss, w, [batch], 1 / 8, damping=0.0)
    q = int(np.argmin(saliency))
    np.testing.assert_allclose(loss(result.params, batch), saliency[q], rtol=1e-9)
    np.testing.assert_allclose(result.loss_increase, saliency[q], rtol=1e-9)
    step = -w[q] / inverse[q, q] * inverse[:, q]
    np.testing.assert_allclose(result.params, w + step, atol=1e-9)
    check_zeros(result.params, 1)
    assert result[2:] == (0, 8)


@pytest.mark.parametrize("count", [2, 4, 7])
def test_several_weights_go_to_the_constrained_minimum(count, float64):
    w, batch, matrix = problem()
    saliency = np.asarray(obs_saliency(loss, w, [batch], damping=0.0).values)
    removed = np.argsort(saliency)[:count]
    result = obs_prune(loss, w, [batch], count / 8, damping=0.0)
    np.testing.assert_allclose(
        result.params, w + constrained_minimum(matrix, w, removed), rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(loss(result.params, batch), result.loss_increase, rtol=1e-9)
    check_zeros(result.params, count)


def test_all_weights_of_a_small_network():
    w, batch, _ = problem(size=3)
    result = obs_prune(loss, w, [batch], 0.99)
    check_zeros(result.params, 3)
    np.testing.assert_allclose(result.loss_increase, loss(result.params, batch), rtol=1e-3)


@pytest.mark.parametrize("inverse", EVERY)
def test_vanishing_damping_moves_in_the_flat_space(inverse, float64):
    """Ten examples leave 10 of 20 directions flat; six weights go in them, at no loss."""
    w, batch, matrix = problem(size=20, examples=10, noise=1.0)
    options = {"inverse": inverse, "damping": 1e-9, "block_size": 20}
    result = obs_prune(loss, w, [batch], 0.3, **options)
    removed = np.flatnonzero(result.params == 0)
    assert len(removed) == 6
    _, vectors = np.linalg.eigh(matrix)
    flat = vectors[:, :10] @ vectors[:, :10].T
    small = np.linalg.solve(flat[np.ix_(removed, removed)], np.asarray(w)[removed])
    np.testing.assert_allclose(result.params, w - flat[:, removed] @ small, atol=1e-5)
    assert result.loss_increase < 1e-7
    np.testing.assert_allclose(loss(result.params, batch), loss(w, batch), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("inverse", FISHER)
@pytest.mark.parametrize("ends", [(7, 15)])
def test_where_the_fisher_matrix_is_the_hessian_all_agree(inverse, ends, float64):
    """One block, all examples; in one batch or in three of different sizes."""
    w, batch, matrix = problem(size=12, examples=30, noise=1.0)
    options = {"damping": 1e-3}
    fisher = {"inverse": inverse, "block_size": 12, "chunk_size": 4} | options
    expected = obs_saliency(loss, w, [batch], **options).values
    actual = obs_saliency(loss, w, in_batches(batch, *ends), **fisher).values
    oracle = w**2 / (2 * np.diag(np.linalg.inv(damped(matrix, 1e-3))))
    np.testing.assert_allclose(expected, oracle, rtol=1e-8)
    np.testing.assert_allclose(actual, expected, rtol=1e-8)
    expected = obs_prune(loss, w, in_batches(batch, *ends), 0.5, **options)
    actual = obs_prune(loss, w, in_batches(batch, *ends), 0.5, **fisher)
    np.testing.assert_allclose(actual.params, expected.params, rtol=1e-8)
    np.testing.assert_allclose(actual.loss_increase, expected.loss_increase, rtol=1e-8)
    assert (actual.gradients, actual.products) == (30, 0)
    removed = np.flatnonzero(actual.params == 0)
    step = constrained_minimum(damped(matrix, 1e-3), w, removed)
    np.testing.assert_allclose(actual.params, w + step, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("size", [1, 5, 6])
def test_blocks_are_those_of_the_flattened_params(size, float64):
    """A size of 5 leaves a last block of 2; one of 1 is Optimal Brain Damage."""
    w, batch, matrix = problem(size=12, examples=30, noise=1.0)
    places = np.arange(12) // size
    blocks = np.where(places[:, None] == places, matrix, 0)
    options = {"inverse": "block", "block_size": size, "damping": 1e-3}
    params = {"a": w[:7].reshape(7, 1), "b": w[7:]}

    def tree_loss(params, batch):
        return loss(jnp.concatenate([params["a"].ravel(), params["b"]]), batch)

    found = obs_saliency(tree_loss, params, [batch], **options).values
    oracle = w**2 / (2 * np.diag(np.linalg.inv(damped(blocks, 1e-3))))
    np.testing.assert_allclose(jax.flatten_util.ravel_pytree(found)[0], oracle, rtol=1e-9)
    pruned = obs_prune(tree_loss, params, [batch], 0.5, **options).params
    after = np.asarray(jax.flatten_util.ravel_pytree(pruned)[0])
    step = constrained_minimum(damped(blocks, 1e-3), w, np.flatnonzero(after == 0))
    np.testing.assert_allclose(after, w + step, rtol=1e-9, atol=1e-9)
    check_zeros(pruned, 6)


@pytest.mark.slow
@pytest.mark.parametrize("inverse", FISHER)
def test_fewer_gradients_are_spread_over_the_data(inverse, float64):
    """Four of 30 are examples 0, 7, 15 and 22; groups of three average, times three."""
    w, batch, _ = problem(size=6, examples=30, noise=1.0)
    gradients = np.asarray(jax.vmap(jax.grad(loss), (None, 0))(w, tuple(x[:, None] for x in batch)))
    for group, rows in (
        (1, gradients[[0, 7, 15, 22]]),
        (3, gradients.reshape(10, 3, 6).mean(axis=1)[[0, 2, 5, 7]]),
    ):
        options = {"num_gradients": 4, "examples_per_gradient": group, "damping": 0.01}
        found = obs_saliency(loss, w, in_batches(batch, 12), inverse=inverse, **options).values
        fisher = group * rows.T @ rows / 4
        oracle = w**2 / (2 * np.diag(np.linalg.inv(damped(fisher, 0.01))))
        np.testing.assert_allclose(found, oracle, rtol=1e-9)


def test_low_rank_with_many_weights():
    """More than fit into one slice; against Woodbury's identity in numpy, float32 and float64."""
    size, examples = 70_000, 6
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(examples, size)).astype(np.float32)
    w = rng.normal(size=size).astype(np.float32)
    batch = inputs, inputs @ w + np.float32([1, -1, 1, 1, -1, -1])
    rows = inputs.astype(np.float64) / examples**0.5
    gram = rows @ rows.T
    delta = 0.5 * np.linalg.eigvalsh(gram).max()
    result = obs_prune(loss, jnp.asarray(w), [batch], 0.9, inverse="low_rank", damping=0.5)
    removed = np.asarray(result.params) == 0
    assert removed.sum() == 63_000
    inner = np.linalg.inv(gram + delta * np.eye(examples))
    inverse = (1 - np.einsum("ij,ik,kj->j", rows, inner, rows)) / delta
    saliency = w**2 / (2 * inverse)
    assert saliency[removed].max() <= saliency[~removed].min() * (1 + 1e-4)
    stay = rows * ~removed
    system = stay @ stay.T + delta * np.eye(examples)
    step = stay.T @ np.linalg.solve(system, rows @ (w * removed))
    np.testing.assert_allclose(result.params, np.where(removed, 0, w + step), rtol=1e-3, atol=1e-5)


def test_negative_curvature_counts_as_flat(float64):
    """Eigenvalues -3, 1 and 2: damping is relative to 3, and the first is taken for zero."""
    rng = np.random.default_rng(1)
    basis, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    matrix = jnp.asarray(basis @ np.diag([-3.0, 1.0, 2.0]) @ basis.T)
    w = jnp.array([1.0, 2.0, 3.0])

    def saddle(x, batch):
        return jnp.mean(batch) * 0.5 * (x - w) @ matrix @ (x - w)

    used = basis @ np.diag([0.3, 1.3, 2.3]) @ basis.T
    found = obs_saliency(saddle, w, [jnp.ones(2)], damping=0.1).values
    np.testing.assert_allclose(found, w**2 / (2 * np.diag(np.linalg.inv(used))), rtol=1e-9)
    pruned = obs_prune(saddle, w, [jnp.ones(2)], 1 / 3, damping=0.1).params
    step = constrained_minimum(used, w, np.flatnonzero(pruned == 0))
    np.testing.assert_allclose(pruned, w + step, atol=1e-9)
    with raises("damping must be above 0 where the Hessian is not positive definite, got 0."):
        obs_saliency(saddle, w, [jnp.ones(2)], damping=0)


def test_rounds_of_one_weight_are_the_original_algorithm(float64):
    """Removing weights one by one ends where the numpy loop over the same formula does."""
    w, batch, matrix = problem()
    expected, left = np.asarray(w), np.arange(8)
    for _ in range(5):
        inverse = np.linalg.inv(matrix[np.ix_(left, left)])
        q = np.argmin(expected[left] ** 2 / np.diag(inverse))
        expected = expected.copy()
        expected[left] -= expected[left[q]] / inverse[q, q] * inverse[:, q]
        expected[left[q]] = 0
        left = np.delete(left, q)
    result = obs_prune(loss, w, [batch], 5 / 8, rounds=5, damping=0.0)
    np.testing.assert_allclose(result.params, expected, rtol=1e-9, atol=1e-10)
    assert result.products == 8 + 7 + 6 + 5 + 4
    np.testing.assert_allclose(result.loss_increase, loss(result.params, batch), rtol=1e-8)
    # At once other weights go, and it costs more: the curvature of the rest counts.
    assert result.loss_increase < obs_prune(loss, w, [batch], 5 / 8, damping=0.0).loss_increase


NET = {"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4), "out": jnp.zeros(4), "step": 3}


def net_loss(params, batch):
    inputs, labels = batch
    hidden = jnp.tanh(inputs @ params["kernel"] + params["bias"][None])
    return jnp.mean((hidden @ params["out"] - labels) ** 2)


def net(dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 2)
    kernel = jax.random.normal(keys[0], (3, 4)).at[0, 1].set(-0.0).astype(dtype)
    out = jnp.array([1.0, -1.0, 2.0, 0.5], dtype)
    params = NET | {"kernel": kernel, "out": out, "bias": jnp.zeros(4, dtype)}
    inputs = jax.random.normal(keys[1], (20, 3))
    teacher = params | {"bias": jnp.full(4, 0.3)}
    hidden = jnp.tanh(inputs @ teacher["kernel"].astype(jnp.float32) + 0.3)
    return params, (inputs, hidden @ out.astype(jnp.float32) + 0.1 * jnp.sin(50 * inputs[:, 0]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("inverse", "dtype"),
    [*((inverse, jnp.float32) for inverse in EVERY), ("low_rank", jnp.bfloat16)],
)
def test_trees_masks_and_rounds(inverse, dtype):
    """Exactly half of the kernel goes; a zero stays, other leaves move, integers do not."""
    params, batch = net(dtype)
    options = {"inverse": inverse, "mask": "kernel", "damping": 1e-2}
    seen = [obs_prune(net_loss, params, [batch], 0.5, rounds=r, **options).params for r in (1, 3)]
    for pruned in seen:
        assert jax.tree.structure(pruned) == jax.tree.structure(params)
        check_zeros(pruned["kernel"], 6)
        assert pruned["kernel"][0, 1] == 0
        assert pruned["step"] == 3
        assert pruned["bias"].dtype == pruned["kernel"].dtype == dtype
        # A bias of zero is not prunable here, so it is free to move.
        assert (pruned["bias"] != 0).all()
        assert (pruned["out"] != params["out"]).any()
        report = sparsity_report({"kernel": pruned["kernel"]})
        assert report.all.nan == 0
    saliency = obs_saliency(net_loss, params, [batch], **options).values
    assert np.isposinf(np.asarray(saliency["out"], np.float32)).all()
    assert saliency["kernel"][0, 1] == 0
    assert saliency["kernel"].dtype == jnp.float32
    assert int((saliency["kernel"] > 0).sum()) == 11
    assert np.isposinf(saliency["step"])


@pytest.mark.slow
@pytest.mark.parametrize("inverse", EVERY)
def test_float32_is_close_to_float64(inverse, float64):
    w, batch, _ = problem(size=12, examples=30, noise=1.0)
    options = {"inverse": inverse, "damping": 1e-4, "rounds": 3, "block_size": 5}
    expected = obs_prune(loss, w, [batch], 0.5, **options)
    narrow = jax.tree.map(lambda x: x.astype(jnp.float32), (w, batch))
    actual = obs_prune(loss, narrow[0], [narrow[1]], 0.5, **options)
    assert actual.params.dtype == jnp.float32
    np.testing.assert_allclose(actual.params, expected.params, rtol=2e-3, atol=1e-4)


def test_zeros_are_frozen_and_take_no_part(float64):
    """With one weight at zero the rest behaves as if it had never been there."""
    w, (inputs, labels), _ = problem()
    w = w.at[3].set(-0.0)
    others = np.delete(np.arange(8), 3)
    expected = obs_prune(loss, w[others], [(inputs[:, others], labels)], 2 / 7, rounds=2)
    actual = obs_prune(loss, w, [(inputs, labels)], 3 / 8, rounds=2)
    np.testing.assert_allclose(actual.params[others], expected.params, rtol=1e-9)
    check_zeros(actual.params, 3)
    assert actual.products == expected.products == 7 + 6


@pytest.mark.parametrize("inverse", EVERY)
@pytest.mark.parametrize("asked", [0.0, 0.2])
def test_more_zeros_than_asked_for_stay(inverse, asked):
    w, batch, _ = problem()
    w = w.at[jnp.array([1, 4])].set(-0.0)
    result = obs_prune(loss, w, [batch], asked, inverse=inverse)
    np.testing.assert_array_equal(result.params, w)
    check_zeros(result.params, 2)
    assert result[1:] == (0, 0, 0)


def test_schedule(float64):
    """Of 20 weights: 15 in the first of two rounds, or none in it, which then costs nothing."""
    w, batch, _ = problem(size=20)
    late = obs_prune(loss, w, [batch], 0.8, rounds=2, schedule=lambda t: float(t == 1))
    once = obs_prune(loss, w, [batch], 0.8)
    np.testing.assert_array_equal(late.params, once.params)
    assert late.products == 20
    early = obs_prune(loss, w, [batch], 0.8, rounds=2, schedule=lambda t: 1 - (1 - t) ** 4)
    assert early.products == 20 + 5
    check_zeros(early.params, 16)


@pytest.mark.parametrize("inverse", EVERY)
def test_a_loss_that_is_flat_everywhere(inverse):
    """Then nothing is worth more than its magnitude, and nothing has to make up for it."""
    w = jnp.array([3.0, -1.0, 2.0, 0.5])
    result = obs_prune(lambda x, b: jnp.mean(b), w, [jnp.ones(3)], 0.5, inverse=inverse)
    np.testing.assert_array_equal(result.params, [3.0, 0.0, 2.0, 0.0])
    assert result.loss_increase == 0


def test_bad_arguments():
    w, batch, _ = problem()
    positive = "a finite number > 0"
    calls = {
        "inverse must be one of 'block', 'exact', 'low_rank', got 'fisher'.": {"inverse": "fisher"},
        "damping must be a finite number >= 0, got -0.1.": {"damping": -0.1},
        f"damping must be {positive}, got 0.": {"damping": 0, "inverse": "low_rank"},
        f"damping must be {positive}, got -1.": {"damping": -1, "inverse": "block"},
        "num_gradients must be a finite number >= 1, got 0.": {"num_gradients": 0},
        "block_size must be a finite number >= 1, got 0.": {"block_size": 0},
        "block_size must be an integer, got 8.0.": {"block_size": 8.0},
        "chunk_size must be a finite number >= 1, got -1.": {"chunk_size": -1},
        "examples_per_gradient must be a finite number >= 1, got 0.": {"examples_per_gradient": 0},
        "examples_per_gradient must be at most the examples of a batch, 40, got 41.": {
            "examples_per_gradient": 41,
            "inverse": "block",
        },
        "params must have weights that are penalised, got none.": {"mask": False},
    }
    for message, options in calls.items():
        with raises(message):
            obs_saliency(loss, w, [batch], **options)
        with raises(message):
            obs_prune(loss, w, [batch], 0.5, **options)
    for value in (-0.1, 1.0, float("nan")):
        with raises(f"sparsity must be a finite number >= 0 and < 1, got {value:g}."):
            obs_prune(loss, w, [batch], value)
    with raises("rounds must be a finite number >= 1, got 0."):
        obs_prune(loss, w, [batch], 0.5, rounds=0)
    with raises("schedule must be None or a function, got 3."):
        obs_prune(loss, w, [batch], 0.5, schedule=3)
    for schedule, numbers in ((lambda t: t / 2, "0.25, 0.5"), (lambda t: 2 - t, "1.5, 1")):
        with raises(f"schedule must rise from at least 0 to 1 at 1, got {numbers}."):
            obs_prune(loss, w, [batch], 0.5, rounds=2, schedule=schedule)
    with raises("loss must be finite at params, got nan."):
        obs_prune(lambda x, b: jnp.nan * loss(x, b), w, [batch], 0.5)
    with raises("loss must return a real floating point scalar, got float32[8]."):
        obs_prune(lambda x, b: x, w, [batch], 0.5)


@pytest.mark.parametrize("inverse", EVERY)
def test_derivatives_that_are_not_finite(inverse):
    with raises("loss must have finite derivatives at params, got some that are not."):
        obs_prune(
            lambda x, b: jnp.mean(b) * jnp.sum(jnp.sqrt(x["a"]) + x["b"] ** 2),
            {"a": jnp.array([0.0, 1.0]), "b": jnp.array([1.0, 2.0])},
            [jnp.ones(3)],
            0.5,
            inverse=inverse,
            mask={"a": False, "b": True},
        )


def test_too_many_weights_for_the_dense_hessian():
    message = (
        "params must have at most 20,000 weights for inverse='exact', got 20,001, whose Hessian "
        "takes 3 GB, five times over; use inverse='low_rank' or 'block'."
    )
    with raises(message):
        obs_prune(lambda x, b: jnp.mean(b) * x @ x, jnp.ones(20_001), [jnp.ones(2)], 0.5)


@pytest.mark.parametrize("inverse", FISHER)
def test_batches_that_have_no_single_examples(inverse):
    w, (inputs, labels), _ = problem()

    def scaled(x, batch):
        return batch[2] * loss(x, batch[:2])

    obs_prune(scaled, w, [(inputs, labels, jnp.ones([]))], 0.5)
    with raises(
        "batches must have the examples along the first axis of every leaf, 40 of them, got the "
        "shape ()."
    ):
        obs_prune(scaled, w, [(inputs, labels, jnp.ones([]))], 0.5, inverse=inverse)
