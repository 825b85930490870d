"""Counting: exact, NaN apart, and never one denominator for the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from grda_optax import Count, mask_overlap, nonzero_mask, sparsity, sparsity_report

PARAMS = {
    "dense": {
        "bias": jnp.array([0.0, -0.0, 3.0]),
        "kernel": jnp.array([[0.0, 1.0, jnp.nan], [0.0, 1e-37, -jnp.inf]]),
    },
    "scale": jnp.array(0.0, jnp.bfloat16),
}
MASK = {"dense": {"bias": False, "kernel": True}, "scale": False}
SHAPES = [(3,), (2, 4), ()]

entries = st.sampled_from([0.0, -0.0, 1.0, -2.5, 1e-37, np.nan, np.inf])
trees = st.tuples(*(hnp.arrays(np.float32, shape, elements=entries) for shape in SHAPES))
bool_trees = st.tuples(*(hnp.arrays(np.bool_, shape) for shape in SHAPES))


@given(trees, st.tuples(*(st.booleans() for _ in SHAPES)))
def test_counts_are_exact(tree, flags):
    report = sparsity_report(tree, flags)
    for count, leaf, flag in zip(report.leaves.values(), tree, flags, strict=True):
        values = [float(x) for x in leaf.ravel()]
        assert count == Count(
            nnz=sum(x != 0 for x in values),
            total=len(values),
            nan=sum(x != x for x in values),
            penalised=flag,
        )
    counted = [count for count in report.leaves.values() if count.penalised]
    for total, parts in ((report.penalised, counted), (report.all, report.leaves.values())):
        for field in ("nnz", "total", "nan"):
            assert getattr(total, field) == sum(getattr(count, field) for count in parts)
    np.testing.assert_allclose(sparsity(tree, flags), report.penalised.sparsity, rtol=1e-6)
    np.testing.assert_allclose(sparsity(tree), report.all.sparsity, rtol=1e-6)


def test_report():
    report = sparsity_report(PARAMS, MASK)
    assert report.leaves == {
        "dense/bias": Count(nnz=1, total=3, nan=0, penalised=False),
        "dense/kernel": Count(nnz=4, total=6, nan=1, penalised=True),
        "scale": Count(nnz=0, total=1, nan=0, penalised=False),
    }
    assert report.penalised == Count(nnz=4, total=6, nan=1, penalised=True)
    assert report.all == Count(nnz=5, total=10, nan=1, penalised=False)
    assert report.all.sparsity == 0.5
    assert report.penalised.density == pytest.approx(2 / 3)
    assert all(type(x) is int for x in report.all[:3])


def test_report_prints_as_a_table():
    assert str(sparsity_report(PARAMS, MASK)).splitlines() == [
        "              sparsity  nonzero  total",
        "dense/bias     66.67 %        1      3  not penalised",
        "dense/kernel   33.33 %        4      6  1 NaN",
        "scale         100.00 %        0      1  not penalised",
        "penalised      33.33 %        4      6  1 NaN",
        "all            50.00 %        5     10  1 NaN",
    ]
    table = str(sparsity_report({"w": jnp.ones((2000, 1000))}))
    assert "0.00 %  2,000,000  2,000,000" in table.splitlines()[1]


def test_nothing_to_count():
    report = sparsity_report({"a": jnp.zeros((0, 2)), "b": jnp.zeros(1)}, {"a": True, "b": False})
    assert report.penalised.total == 0
    assert np.isnan(report.penalised.sparsity)
    assert report.all.sparsity == 1.0
    for tree, mask in (({}, None), ({"b": jnp.zeros(1)}, False), (jnp.zeros(0), None)):
        assert jnp.isnan(sparsity(tree, mask))


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (None, 0.5),
        (MASK, 1 / 3),
        ({"dense": True, "scale": False}, 4 / 9),
        (lambda p: jax.tree.map(lambda x: x.ndim == 1, p), 2 / 3),
    ],
)
def test_sparsity_under_masks(mask, expected):
    assert float(sparsity(PARAMS, mask)) == pytest.approx(expected)
    assert float(jax.jit(lambda p: sparsity(p, mask))(PARAMS)) == pytest.approx(expected)
    assert sparsity(PARAMS, mask).dtype == jnp.float32
    assert sparsity_report(PARAMS, mask).penalised.sparsity == pytest.approx(expected)


def test_leaves_that_are_no_weights_are_counted_too():
    tree = {"ids": np.array([0, 1, 2]), "flags": np.array([True, False]), "number": 0.0}
    report = sparsity_report(tree)
    assert [count[:3] for count in report.leaves.values()] == [(1, 2, 0), (2, 3, 0), (0, 1, 0)]
    assert float(sparsity(tree)) == pytest.approx(0.5)


def test_counts_beyond_what_float32_can_count():
    """2^24 + 1 ones cannot be summed in float32."""
    leaf = np.ones(2**24 + 3, np.int8)
    leaf[:2] = 0
    assert sparsity_report(leaf).all == Count(2**24 + 1, 2**24 + 3, 0, True)


def test_nonzero_mask():
    mask = nonzero_mask(PARAMS)
    assert jax.tree.structure(mask) == jax.tree.structure(PARAMS)
    np.testing.assert_array_equal(mask["dense"]["bias"], [False, False, True])
    np.testing.assert_array_equal(
        mask["dense"]["kernel"], [[False, True, True], [False, True, True]]
    )
    assert mask["scale"].dtype == jnp.bool_
    assert not mask["scale"]


@given(bool_trees, bool_trees)
def test_mask_overlap(a, b):
    flat_a, flat_b = (np.concatenate([x.ravel() for x in tree]) for tree in (a, b))
    union = (flat_a | flat_b).sum()
    expected = (flat_a & flat_b).sum() / union if union else 1.0
    np.testing.assert_allclose(mask_overlap(a, b), expected, rtol=1e-6)
    assert mask_overlap(a, b) == mask_overlap(b, a)
    assert mask_overlap(a, a) == 1
    rest = tuple(~x for x in a)
    assert mask_overlap(a, rest) == 0
    assert 0 <= mask_overlap(a, b) <= 1


def test_mask_overlap_under_jit_and_of_nothing():
    a = {"k": jnp.array([True, True, False])}
    b = {"k": jnp.array([True, False, False])}
    assert jax.jit(mask_overlap)(a, b) == 0.5
    assert mask_overlap({}, {}) == 1
    assert mask_overlap(a, b).dtype == jnp.float32
