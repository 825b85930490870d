"""Optimal Brain Damage against the Hessian itself, and the removal of exactly so many weights."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from grda_optax import nonzero_mask, obd_saliency, prune_smallest, sparsity_report

from .trees import assert_close, assert_same_bits, normal_like

SHAPES = {"first": {"bias": jnp.zeros(3), "kernel": jnp.zeros((4, 3))}, "last": jnp.zeros(3)}
PARAMS = normal_like(jax.random.key(0), SHAPES)
DATA = (jax.random.normal(jax.random.key(1), (12, 4)), jnp.arange(12) % 3 - 1.0)
UNEVEN = [tuple(x[part] for x in DATA) for part in (slice(0, 5), slice(5, 7), slice(7, 12))]


def raises(message):
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


def loss(params, batch):
    """A network of 18 weights, whose Hessian is full and indefinite."""
    inputs, labels = batch
    hidden = jnp.tanh(inputs @ params["first"]["kernel"] + params["first"]["bias"][None])
    return jnp.mean((hidden @ params["last"] - labels) ** 2)


def hessian(params=PARAMS):
    point, unravel = jax.flatten_util.ravel_pytree(params)
    return np.asarray(jax.hessian(lambda w: loss(unravel(w), DATA))(point))


def flat(tree):
    return np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(tree)])


@pytest.mark.parametrize("chunk_size", [5, 100])
def test_exact_is_the_diagonal_of_the_hessian(chunk_size):
    found = obd_saliency(loss, PARAMS, [DATA], chunk_size=chunk_size)
    expected = 0.5 * flat(PARAMS) ** 2 * np.diag(hessian())
    assert expected.min() < -0.01  # a negative one is not cut off
    np.testing.assert_allclose(flat(found.values), expected, rtol=1e-4, atol=1e-6)
    assert jax.tree.map(jnp.shape, found.values) == jax.tree.map(jnp.shape, PARAMS)
    assert found.standard_error is None
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(found.values))


def test_it_is_what_a_removal_costs_in_a_quadratic_without_coupling(float64):
    """Zero at the minimum: the loss rises by the saliency, to the last digit."""
    curvature, w = jnp.array([0.5, 2.0, 3.0]), jnp.array([1.0, -2.0, 0.1])

    def quadratic(x, batch):
        return jnp.mean(0.5 * jnp.sum(curvature[None] * (x - w)[None] ** 2 * batch, axis=1))

    batch = jnp.ones((2, 1)) * jnp.ones((1, 3))
    values = obd_saliency(quadratic, w, [batch]).values
    for j in range(3):
        np.testing.assert_allclose(values[j], quadratic(w.at[j].set(0), batch), rtol=1e-14)


@pytest.mark.slow
def test_float64_where_it_is_enabled(float64):
    params = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), PARAMS)
    found = obd_saliency(loss, params, [DATA])
    expected = 0.5 * flat(params) ** 2 * np.diag(hessian(params))
    assert found.values["last"].dtype == jnp.float64
    np.testing.assert_allclose(flat(found.values), expected, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["exact", "stochastic"])
def test_batches_of_any_size_are_the_data_at_once(method):
    """Weighted by their examples: 5, 2 and 5 of 12."""
    options = {"method": method, "key": jax.random.key(2), "num_samples": 32}
    whole = obd_saliency(loss, PARAMS, [DATA], **options)
    parts = obd_saliency(loss, PARAMS, UNEVEN, **options)
    assert_close(parts, whole, rtol=1e-4, atol=1e-5)
    unweighted = obd_saliency(loss, PARAMS, [*UNEVEN, UNEVEN[1]], **options)
    assert np.abs(flat(unweighted.values) - flat(whole.values)).max() > 0.01


def test_low_precision_is_differentiated_in_float32():
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), half)
    assert_same_bits(
        obd_saliency(loss, half, [DATA]).values, obd_saliency(loss, wide, [DATA]).values
    )


@pytest.mark.parametrize("method", ["exact", "stochastic"])
def test_what_the_mask_leaves_out_is_never_pruned(method):
    """It is at infinity, also without a mask at the pruner; an integer is no weight at all."""
    params = PARAMS | {"step": jnp.array([7, 7])}
    options = {"method": method, "key": jax.random.key(2), "num_samples": 10}
    found = obd_saliency(loss, params, [DATA], mask="kernel", **options)
    whole = obd_saliency(loss, PARAMS, [DATA], **options)
    assert np.isposinf(flat((found.values["last"], found.values["step"]))).all()
    assert np.isposinf(flat(found.values["first"]["bias"])).all()
    kernels = found.values["first"]["kernel"], whole.values["first"]["kernel"]
    np.testing.assert_allclose(*kernels, rtol=1e-4)
    if method == "stochastic":
        assert flat(found.standard_error["last"]).sum() == 0
        assert flat(found.standard_error["first"]["kernel"]).min() > 0
    floating = {"first": params["first"], "last": params["last"]}
    scores = {"first": found.values["first"], "last": found.values["last"]}
    pruned = prune_smallest(floating, scores, 0.5)
    assert sparsity_report(pruned).leaves["first/kernel"].nnz == 18 - 9 - 6


SAMPLES = 400
KEY = jax.random.key(4)


@pytest.fixture(scope="module")
def stochastic():
    return obd_saliency(
        loss, PARAMS, UNEVEN, method="stochastic", num_samples=SAMPLES, key=jax.random.key(5)
    )


def test_stochastic_is_within_its_standard_errors(stochastic):
    """With 18 weights 4 are passed once in a thousand keys; a bias of half of H would be seen."""
    matrix, half = hessian(), 0.5 * flat(PARAMS) ** 2
    off = np.abs(flat(stochastic.values) - half * np.diag(matrix)) / flat(stochastic.standard_error)
    assert off.max() < 4
    assert np.mean(off**2) > 0.3


@pytest.mark.slow
def test_the_standard_error_is_that_of_the_formula(stochastic):
    matrix, half = hessian(), 0.5 * flat(PARAMS) ** 2
    variance = np.sum(matrix**2, axis=1) - np.diag(matrix) ** 2
    expected = half * np.sqrt(variance / SAMPLES)
    np.testing.assert_allclose(flat(stochastic.standard_error), expected, rtol=0.25)


def test_the_standard_error_falls_like_the_root(stochastic):
    fewer = obd_saliency(
        loss, PARAMS, [DATA], method="stochastic", num_samples=SAMPLES // 16, key=jax.random.key(6)
    )
    ratio = flat(fewer.standard_error) / flat(stochastic.standard_error)
    np.testing.assert_allclose(np.median(ratio), 4, rtol=0.15)


def test_samples_do_not_depend_on_the_chunks():
    options = {"method": "stochastic", "num_samples": 7, "key": jax.random.key(3)}
    one = obd_saliency(loss, PARAMS, [DATA], chunk_size=1, **options)
    three = obd_saliency(loss, PARAMS, [DATA], chunk_size=3, **options)
    assert_close(three, one, rtol=1e-4, atol=1e-5)
    assert_same_bits(three, obd_saliency(loss, PARAMS, [DATA], chunk_size=3, **options))
    other = obd_saliency(loss, PARAMS, [DATA], chunk_size=3, **options | {"key": KEY})
    assert np.abs(flat(other.values) - flat(one.values)).max() > 0.01


def test_a_diagonal_hessian_is_estimated_exactly():
    found = obd_saliency(
        lambda w, batch: jnp.mean(batch) * jnp.sum(w**4),
        jnp.array([1.0, 2.0]),
        [jnp.ones(3)],
        method="stochastic",
        num_samples=2,
        key=jax.random.key(0),
    )
    np.testing.assert_allclose(found.values, [6.0, 96.0], rtol=1e-6)
    np.testing.assert_allclose(found.standard_error, [0, 0], atol=1e-5)


def test_bad_arguments_of_obd():
    calls = {
        "method must be 'exact' or 'stochastic', got 'diagonal'.": {"method": "diagonal"},
        "key must be given for method='stochastic', got None.": {"method": "stochastic"},
        "num_samples must be a finite number >= 2, got 1.": {"num_samples": 1},
        "num_samples must be an integer, got 2.5.": {"num_samples": 2.5},
        "chunk_size must be a finite number >= 1, got 0.": {"chunk_size": 0},
        "params must have weights that are penalised, got none.": {"mask": False},
        "mask must be found in the path of a leaf, got 'conv' for first/bias, first/kernel, "
        "last.": {"mask": "conv"},
    }
    for message, options in calls.items():
        with raises(message):
            obd_saliency(loss, PARAMS, [DATA], **options)
    for message, batches in {
        "batches must be a list of batches, got a dict.": {"x": DATA},
        "batches must hold at least one batch, got none.": [],
        "batches must have the examples along their first axis, got the shape ().": [1.0],
        "batches must have the examples along their first axis, got no array.": [{}],
    }.items():
        with raises(message):
            obd_saliency(loss, PARAMS, batches)
    for message, function in {
        "loss must return a real floating point scalar, got float32[3].": lambda w, b: w["last"],
        "loss must return a real floating point scalar, got int32[].": lambda w, b: jnp.array(1),
        "loss must return a scalar, got a tuple.": lambda w, b: (loss(w, b), None),
        "loss must be finite at params, got nan.": lambda w, b: jnp.nan * loss(w, b),
        "loss must be finite at params, got inf.": lambda w, b: jnp.inf * loss(w, b),
    }.items():
        with raises(message):
            obd_saliency(function, PARAMS, [DATA])


@pytest.mark.parametrize("method", ["exact", "stochastic"])
def test_derivatives_that_are_not_finite(method):
    """The root has a value at zero, and no derivative."""
    with raises("loss must have finite derivatives at params, got some that are not."):
        obd_saliency(
            lambda w, batch: jnp.mean(batch) * jnp.sum(jnp.sqrt(w)),
            jnp.array([0.0, 1.0]),
            [jnp.ones(3)],
            method=method,
            num_samples=2,
            key=jax.random.key(0),
        )


entries = st.sampled_from([0.0, -0.0, 1.0, -2.5, 1e-30, 3.0])
values = st.sampled_from([-np.inf, -1.0, 0.0, 1.0, 1.0, 2.0])


@given(
    st.tuples(*(hnp.arrays(np.float32, shape, elements=entries) for shape in [(3,), (2, 4), ()])),
    st.tuples(*(hnp.arrays(np.float32, shape, elements=values) for shape in [(3,), (2, 4), ()])),
    st.floats(0, 0.99),
    st.tuples(st.just(True), st.booleans(), st.booleans()),
)
def test_prune_smallest_removes_exactly_so_many(params, scores, asked, mask):
    """Zeros first, then by score, then by position; nothing else changes."""
    pruned = prune_smallest(params, scores, asked, mask)
    before, score, after = (
        np.concatenate([np.ravel(x) for x, flag in zip(tree, mask, strict=True) if flag])
        for tree in (params, scores, pruned)
    )
    wanted = max(round(asked * before.size), int((before == 0).sum()))
    order = sorted(range(before.size), key=lambda j: (before[j] != 0, score[j], j))
    expected = before.copy()
    expected[order[:wanted]] = 0.0
    assert after.tobytes() == expected.tobytes()  # so every zero is +0.0
    for old, new, flag in zip(params, pruned, mask, strict=True):
        assert flag or new is old
        assert np.asarray(new).dtype == np.float32


def test_prune_smallest_keeps_dtypes():
    params = {"a": jnp.array([1.0, -3.0], jnp.bfloat16), "b": np.float16([[2.0], [4.0]])}
    pruned = prune_smallest(params, jax.tree.map(np.abs, params), 0.5)
    assert [leaf.dtype for leaf in jax.tree.leaves(pruned)] == [jnp.bfloat16, jnp.float16]
    np.testing.assert_array_equal(flat(nonzero_mask(pruned)), [0, 1, 0, 1])


def test_bad_arguments_of_prune_smallest():
    params = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([0.0, 3.0])}
    scores = {"a": jnp.array([1.0, jnp.inf]), "b": jnp.array([jnp.inf, jnp.inf])}
    report = sparsity_report(prune_smallest(params, scores, 0.5))
    assert report.all.nnz == 2
    with raises(
        "sparsity must remove at most 2 of 4 weights, since the scores of the others are infinite, "
        "got 0.75."
    ):
        prune_smallest(params, scores, 0.75)
    for value in (-0.1, 1.0, float("nan")):
        with raises(f"sparsity must be a finite number >= 0 and < 1, got {value:g}."):
            prune_smallest(params, scores, value)
    with raises("scores must not be NaN, got one at b."):
        prune_smallest(params, scores | {"b": jnp.array([1.0, jnp.nan])}, 0.5)
    nan_outside = prune_smallest(
        params, scores | {"b": jnp.array([1.0, jnp.nan])}, 0.5, {"a": True, "b": False}
    )
    assert sparsity_report(nan_outside).leaves["a"].nnz == 1
    with raises("scores must have the shapes of params, (2,) at b, got (1,)."):
        prune_smallest(params, scores | {"b": jnp.ones(1)}, 0.5)
    with raises(
        "scores must have the structure of params, PyTreeDef({'a': *, 'b': *}), got PyTreeDef(*)."
    ):
        prune_smallest(params, jnp.ones(2), 0.5)
    with raises("params must have weights that are penalised, got none."):
        prune_smallest(params, scores, 0.5, False)
    with raises(
        "params that are penalised must be real floating point, got int32 at params; a mask that "
        "is False there leaves it out."
    ):
        prune_smallest(jnp.arange(3), jnp.arange(3), 0.5)
