"""Smaller networks of the same outputs, and sparse matrices of other libraries."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from jax.experimental.sparse import BCOO

from grda_optax import (
    Blocks,
    Tied,
    compact,
    fold_constants,
    from_bcoo,
    from_csr,
    group_threshold,
    to_bcoo,
    to_csr,
)

from .trees import assert_same_bits, normal_like

HEADS, SIZE, WIDTH = 4, 3, 10
ATTENTION = {
    "query": jnp.zeros((WIDTH, HEADS * SIZE)),
    "key": jnp.zeros((WIDTH, HEADS * SIZE)),
    "value": jnp.zeros((WIDTH, HEADS, SIZE)),
    "out": jnp.zeros((HEADS * SIZE, WIDTH)),
}
HEAD_TIES = Tied({"value": 1}, followers={"query|key": (1, SIZE), "out": (0, SIZE)})
LAYERS = {
    "a": {"kernel": jnp.zeros((7, 12)), "bias": jnp.zeros(12)},
    "b": {"kernel": jnp.zeros((12, 9)), "bias": jnp.zeros(9)},
    "c": {"kernel": jnp.zeros((9, 5)), "bias": jnp.zeros(5)},
}
LAYER_TIES = [Tied({"a/": -1}, {"b/kernel": 0}), Tied({"b/": -1}, {"c/kernel": 0})]


def exactly(message):
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


def mlp(params, x, activation=jax.nn.relu):
    x = activation(x @ params["a"]["kernel"] + params["a"]["bias"][None])
    x = activation(x @ params["b"]["kernel"] + params["b"]["bias"][None])
    return x @ params["c"]["kernel"] + params["c"]["bias"][None]


def attention(params, x):
    """(positions, width) to the same, with as many heads as there are."""
    value = params["value"]
    heads, size = value.shape[1:]
    query, key = ((x @ params[k]).reshape(len(x), heads, size) for k in ("query", "key"))
    weights = jax.nn.softmax(jnp.einsum("phd,qhd->hpq", query, key), axis=-1)
    mixed = jnp.einsum("hpq,qw,whd->phd", weights, x, value)
    return mixed.reshape(len(x), heads * size) @ params["out"]


@pytest.mark.slow
@pytest.mark.parametrize("activation", [jax.nn.relu, jax.nn.gelu, jnp.tanh])
def test_the_outputs_stay(activation):
    params = normal_like(jax.random.key(0), LAYERS)
    sparse = jax.jit(lambda p: group_threshold(p, 0.95, LAYER_TIES))(params)
    small = compact(sparse, LAYER_TIES)
    kept = [int(np.sum(np.any(sparse[k]["kernel"] != 0, axis=0))) for k in "ab"]
    assert 0 < kept[0] < 12
    assert 0 < kept[1] < 9
    assert small["a"]["kernel"].shape == (7, kept[0])
    assert small["b"]["kernel"].shape == tuple(kept)
    assert small["c"]["kernel"].shape == (kept[1], 5)
    assert small["c"]["bias"] is sparse["c"]["bias"]
    x = np.random.default_rng(1).normal(size=(20, 7))
    np.testing.assert_allclose(
        mlp(small, x, activation), mlp(sparse, x, activation), rtol=1e-5, atol=1e-5
    )


@pytest.mark.slow
def test_heads_go_as_wholes():
    params = normal_like(jax.random.key(0), ATTENTION)
    params["value"] = params["value"].at[:, jnp.array([0, 2])].set(0)
    small = compact(params, HEAD_TIES)
    assert small["value"].shape == (WIDTH, 2, SIZE)
    assert small["query"].shape == (WIDTH, 2 * SIZE)
    assert small["out"].shape == (2 * SIZE, WIDTH)
    np.testing.assert_array_equal(small["key"][:, :SIZE], params["key"][:, SIZE : 2 * SIZE])
    x = jax.random.normal(jax.random.key(1), (6, WIDTH))
    np.testing.assert_allclose(attention(small, x), attention(params, x), rtol=1e-4, atol=1e-5)


def test_units_on_a_residual_stream():
    """A channel goes only where every block that writes to it is zero there."""
    params = {
        "in": jnp.ones((3, 4)).at[:, 1:3].set(0),
        "block1": {"read": jnp.ones((4, 2)), "write": jnp.ones((2, 4)).at[:, 1:].set(0)},
        "block2": {"read": jnp.ones((4, 2)), "write": jnp.ones((2, 4)).at[:, 2].set(0)},
    }
    small = compact(params, Tied({"^in": -1, "write": -1}, followers={"read": 0}))
    assert small["in"].shape == (3, 3)
    assert small["block2"]["write"].shape == (2, 3)
    assert small["block1"]["read"].shape == (3, 2)


def test_one_unit_is_left():
    params = jax.tree.map(jnp.zeros_like, LAYERS)
    small = compact(params, LAYER_TIES)
    assert [small[k]["kernel"].shape for k in "abc"] == [(7, 1), (1, 1), (1, 5)]


def test_nothing_to_cut_is_the_same_tree():
    params = normal_like(jax.random.key(0), LAYERS)
    small = compact(params, LAYER_TIES)
    assert all(a is b for a, b in zip(*map(jax.tree.leaves, (small, params)), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("activation", [jax.nn.relu, jax.nn.gelu, jax.nn.sigmoid])
def test_constants_move_on(activation):
    """Units without inputs but with a bias, of either sign, layer after layer."""
    params = normal_like(jax.random.key(0), LAYERS)
    params["a"]["kernel"] = params["a"]["kernel"].at[:, ::2].set(0)
    params["b"]["kernel"] = params["b"]["kernel"].at[:, 3].set(0)
    folded = params
    for layer, reader in ("ab", "bc"):
        folded = fold_constants(
            folded,
            f"{layer}/kernel",
            f"{layer}/bias",
            f"{reader}/kernel",
            f"{reader}/bias",
            activation,
        )
    assert (folded["a"]["bias"][::2] == 0).all()
    assert not np.signbit(folded["a"]["bias"][::2]).any()
    small = compact(folded, LAYER_TIES)
    assert [small[k]["kernel"].shape for k in "abc"] == [(7, 6), (6, 8), (8, 5)]
    x = jax.random.normal(jax.random.key(1), (20, 7))
    expected = mlp(params, x, activation)
    for found in (folded, small):
        np.testing.assert_allclose(mlp(found, x, activation), expected, rtol=1e-5, atol=1e-5)
    # Without the folding it is the constants that keep the units.
    assert compact(params, LAYER_TIES)["a"]["kernel"].shape == (7, 12)


def test_dtypes_and_kinds_of_arrays_stay():
    params = {
        "kernel": np.eye(3, dtype=np.float64)[:, :2],
        "bias": jnp.zeros(2, jnp.bfloat16),
        "count": np.arange(2),
        "none": None,
    }
    params["kernel"][:, 1] = 0
    small = compact(params, Tied({"kernel": 1, "bias": 0}, {"count": 0}))
    assert small["kernel"].dtype == np.float64
    assert isinstance(small["count"], np.ndarray)
    assert small["bias"].dtype == jnp.bfloat16
    assert small["none"] is None


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "complex64"])
@pytest.mark.parametrize("shape", [(5, 7), (3, 0), (1, 1)])
def test_bcoo(dtype, shape):
    v = jax.random.normal(jax.random.key(0), shape)
    w = jnp.where(jnp.abs(v) < 1, 0, 10 * v).astype(dtype)
    sparse = to_bcoo(w)
    assert isinstance(sparse, BCOO)
    assert sparse.nse == int((w != 0).sum())
    assert_same_bits(from_bcoo(sparse), w)
    if dtype == "float32":
        x = jax.random.normal(jax.random.key(1), (shape[1], 2))
        np.testing.assert_allclose(jax.jit(lambda s, x: s @ x)(sparse, x), w @ x, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "int32", "bool"])
def test_csr(dtype):
    v = jax.random.normal(jax.random.key(0), (5, 7))
    w = jnp.where(jnp.abs(v) < 1, 0, 10 * v).astype(dtype)
    sparse = to_csr(w)
    assert sparse.nnz == int((w != 0).sum())
    assert sparse.dtype == dtype
    assert_same_bits(from_csr(sparse), w)
    assert_same_bits(from_csr(sparse.tocoo()), w)
    np.testing.assert_allclose(sparse @ np.ones(7, dtype), np.asarray(w) @ np.ones(7, dtype), 1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: compact({"a": jnp.ones((2, 2))}, Blocks((1,))),
            "ties must be Tied, or a list of them, got Blocks(shape=(1,), pattern=None, "
            "scale=1.0).",
        ),
        (
            lambda: fold_constants(LAYERS, "kernel", "a/bias", "b/kernel", "b/bias"),
            "kernel must be found in the path of one leaf, got 'kernel', which is in that of 3.",
        ),
        (
            lambda: fold_constants(LAYERS, "a/kernel", "a/bias", "c/kernel", "c/bias"),
            "next_kernel must have the shape (12, 5), got (9, 5).",
        ),
        (lambda: to_bcoo(jnp.ones(3)), "weight must be a matrix, got shape (3,)."),
        (lambda: to_csr(jnp.ones((1, 1, 1))), "weight must be a matrix, got shape (1, 1, 1)."),
        (
            lambda: to_csr(jnp.ones((2, 2), jnp.bfloat16)),
            "weight must be of a dtype that scipy multiplies, got bfloat16.",
        ),
        (lambda: from_csr([[1]]), "sparse must be a sparse matrix of scipy, got [[1]]."),
        (
            lambda: from_bcoo(7),
            "sparse must be a BCOO matrix without batch or dense axes, got 7.",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with exactly(message):
        make()


def test_a_place_that_comes_twice_is_a_sum():
    doubled = scipy.sparse.coo_array(([1.0, 2.0], ([0, 0], [1, 1])), shape=(1, 2))
    np.testing.assert_array_equal(from_csr(doubled), [[0.0, 3.0]])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda x: compact({"a": x}, Tied({"a": 1})),
            "params must be arrays with values, got a traced one at a.",
        ),
        (to_bcoo, "weight must be an array with values, got a traced one."),
        (to_csr, "weight must be an array with values, got a traced one."),
    ],
)
def test_what_has_no_values_yet_is_refused(function, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        jax.jit(function)(jnp.ones((2, 2)))
