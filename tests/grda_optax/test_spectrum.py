"""Eigenpairs and functions of matrices with a prescribed spectrum, and of a trained network."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from grda_optax import hvp, spectral_function, top_eigenpairs
from grda_optax._filter import phi

from . import small_mlp

SIZE = 120
SPECTRA = {
    "decaying": np.geomspace(1, 1e-6, SIZE),
    "clustered": np.concatenate([5 + 1e-3 * np.arange(5), np.linspace(0, 1, SIZE - 5)]),
    "negative": np.linspace(-3, 1, SIZE),
    "multiple": np.concatenate([np.full(3, 2.0), np.linspace(0, 1, SIZE - 3)]),
    "of low rank": np.concatenate([[1.0, 2.0, 3.0], np.zeros(SIZE - 3)]),
}


def with_spectrum(values, seed=0):
    """A symmetric matrix with random eigenvectors, which is multiplied in parts of a tree."""
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values),) * 2))[0]
    matrix = q @ np.diag(values) @ q.T
    here = jnp.asarray((matrix + matrix.T) / 2)

    @jax.jit
    def matvec(tree):
        x = jnp.concatenate([tree["a"].ravel(), tree["b"]])
        y = jnp.dot(here, x, precision="highest")
        return {"a": y[:20].reshape(4, 5), "b": y[20:]}

    return matrix, matvec


def parts(x):
    x = jnp.asarray(x)
    return {"a": x[:20].reshape(4, 5), "b": x[20:]}


def rows(tree):
    """The vectors as rows of a matrix."""
    return np.concatenate([np.reshape(tree["a"], (-1, 20)), tree["b"]], axis=1).astype(float)


def wanted(values, which, k):
    order = {"largest": -values, "smallest": values, "magnitude": -np.abs(values)}[which]
    return values[np.argsort(order, kind="stable")[:k]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "which"),
    [
        ("decaying", "largest"),
        ("clustered", "largest"),
        ("negative", "largest"),
        ("negative", "smallest"),
        ("negative", "magnitude"),
        ("multiple", "largest"),
        ("of low rank", "magnitude"),
    ],
)
def test_eigenpairs_in_float64(name, which, float64):
    check_eigenpairs(SPECTRA[name], which, 1e-5, 1e-8)


@pytest.mark.parametrize(
    "name",
    [
        "negative",
        pytest.param("decaying", marks=pytest.mark.slow),
        pytest.param("clustered", marks=pytest.mark.slow),
    ],
)
def test_eigenpairs_in_float32(name):
    check_eigenpairs(SPECTRA[name], "magnitude", 1e-3, 3e-5)


def check_eigenpairs(values, which, tolerance, residual):
    matrix, matvec = with_spectrum(values)
    calls = []

    def counted(tree):
        calls.append(1)
        return matvec(tree)

    found = top_eigenpairs(counted, parts(np.zeros(SIZE)), 5, which=which)
    scale = np.abs(values).max()
    np.testing.assert_allclose(
        found.values, wanted(values, which, 5), rtol=0, atol=tolerance * scale
    )
    vectors = rows(found.vectors)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(5), rtol=0, atol=10 * residual)
    true = np.linalg.norm(vectors @ matrix - found.values[:, None] * vectors, axis=1)
    np.testing.assert_allclose(found.residuals, true, rtol=0, atol=residual * scale)
    assert found.products == len(calls)
    assert (found.residuals <= residual * scale).all()


def test_what_has_not_converged_says_so(float64):
    _, matvec = with_spectrum(np.linspace(0, 1, SIZE))
    few = top_eigenpairs(matvec, parts(np.zeros(SIZE)), 5, num_vectors=8, max_products=8)
    assert few.residuals.max() > 1e-3
    more = top_eigenpairs(matvec, parts(np.zeros(SIZE)), 5, num_vectors=8, max_products=1000)
    assert more.residuals.max() < 1e-8


def test_all_eigenpairs_of_a_small_matrix(float64):
    values = np.array([3.0, -1.0, 2.0])
    found = top_eigenpairs(lambda u: values * u, jnp.zeros(3), 3)
    np.testing.assert_allclose(found.values, [3, 2, -1], atol=1e-12)


def test_the_key_makes_it_repeatable():
    _, matvec = with_spectrum(SPECTRA["decaying"])
    like = parts(np.zeros(SIZE))
    first, second = (top_eigenpairs(matvec, like, 3, key=jax.random.key(4)) for _ in range(2))
    np.testing.assert_array_equal(first.values, second.values)
    np.testing.assert_array_equal(rows(first.vectors), rows(second.vectors))


FUNCTIONS = {
    "exp": lambda x: np.exp(-x),
    "phi": lambda x: phi(500 * x, 0.6),
    "square": lambda x: x**2,
}


@pytest.mark.slow
@pytest.mark.parametrize("keep_basis", [True, False])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_in_float64(name, keep_basis, float64):
    check_function(FUNCTIONS[name], keep_basis, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("keep_basis", [True, False])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_in_float32(name, keep_basis):
    check_function(FUNCTIONS[name], keep_basis, 1e-3)


def check_function(function, keep_basis, tolerance):
    values = np.geomspace(1e-8, 1, SIZE)
    matrix, matvec = with_spectrum(values)
    vector = np.sign(np.random.default_rng(3).normal(size=SIZE))
    spectrum, basis = np.linalg.eigh(matrix)
    expected = basis @ (function(spectrum) * (basis.T @ vector))
    found = spectral_function(matvec, parts(vector), function, 50, keep_basis=keep_basis)
    off = np.linalg.norm(rows(jax.tree.map(lambda x: x[None], found.value))[0] - expected)
    assert off <= tolerance * np.linalg.norm(vector)
    assert found.products <= (50 if keep_basis else 100)


def test_the_error_follows_the_error(float64):
    """At every number of products it is within a factor of thirty, as long as there is one."""
    values = np.geomspace(1e-8, 1, SIZE)
    matrix, matvec = with_spectrum(values)
    vector = np.ones(SIZE)
    spectrum, basis = np.linalg.eigh(matrix)
    function = FUNCTIONS["phi"]
    expected = basis @ (function(spectrum) * (basis.T @ vector))
    for m in (10, 20, 30):
        found = spectral_function(matvec, parts(vector), function, m)
        off = np.linalg.norm(rows(jax.tree.map(lambda x: x[None], found.value))[0] - expected)
        assert off / 30 <= found.error <= 300 * off


def test_low_degree_polynomials_are_exact(float64):
    matrix, matvec = with_spectrum(SPECTRA["negative"])
    vector = np.arange(SIZE) / SIZE
    found = spectral_function(matvec, parts(vector), lambda x: x**3 - x, 4)
    expected = matrix @ matrix @ matrix @ vector - matrix @ vector
    np.testing.assert_allclose(
        rows(jax.tree.map(lambda x: x[None], found.value))[0], expected, rtol=0, atol=1e-11
    )


def test_a_space_that_closes_ends_early(float64):
    _, matvec = with_spectrum(SPECTRA["of low rank"])
    found = spectral_function(matvec, parts(np.ones(SIZE)), np.exp, 100)
    assert found.products < 20
    assert found.error < 1e-10


def test_the_zero_vector():
    found = spectral_function(lambda u: u, jnp.zeros(3), np.exp, 2)
    np.testing.assert_array_equal(found.value, np.zeros(3))
    assert (found.error, found.products) == (0.0, 0)


# --- A trained network ----------------------------------------------------------------------------


def matrix_of_digits():
    """The Hessian of the digits MLP, column by column, in the precision that is on."""
    train, _ = small_mlp.digits()
    params = small_mlp.trained_digits(0)
    dtype = jnp.result_type(float)
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), params)
    batch = (jnp.asarray(train[0], dtype), jnp.asarray(train[1]))
    flat, unravel = ravel_pytree(params)
    matvec = functools.partial(hvp, small_mlp.loss, params, batches=[batch])

    @jax.jit
    def columns(first):
        unit = jax.vmap(lambda i: jnp.zeros_like(flat).at[i].set(1.0))(first + jnp.arange(121))
        return jax.vmap(lambda u: ravel_pytree(matvec(unravel(u)))[0])(unit)

    matrix = np.concatenate([columns(i) for i in range(0, flat.size, 121)])
    return (matrix + matrix.T) / 2, matvec, params


@pytest.mark.slow
def test_the_digits_mlp(float64):
    """Eigenpairs beside scipy's, and the filter of training time within fifty products."""
    from scipy.sparse.linalg import eigsh

    matrix, matvec, params = matrix_of_digits()
    assert len(matrix) == 3630
    found = top_eigenpairs(matvec, params, 10)
    expected = eigsh(matrix, 10, which="LA")[0][::-1]
    np.testing.assert_allclose(found.values, expected, rtol=1e-5)

    flat, unravel = ravel_pytree(params)
    signs = np.sign(flat)
    spectrum, basis = np.linalg.eigh(matrix)
    assert spectrum[0] < 0  # so that the rule for negative eigenvalues is put to the test
    time = 500 / spectrum[-1]
    expected = basis @ (phi(time * spectrum, 0.6) * (basis.T @ signs))
    value = spectral_function(
        matvec, unravel(jnp.asarray(signs)), lambda x: phi(time * x, 0.6), 50
    ).value
    off = np.linalg.norm(ravel_pytree(value)[0] - expected) / np.linalg.norm(signs)
    assert off <= 1e-3


# --- Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 0}, "k must be a finite number >= 1 and <= 4, got 0."),
        ({"k": 5}, "k must be a finite number >= 1 and <= 4, got 5."),
        ({"which": "top"}, "which must be 'largest', 'smallest' or 'magnitude', got 'top'."),
        ({"num_vectors": 2}, "num_vectors must be a finite number >= 3 and <= 4, got 2."),
        ({"tolerance": 0.0}, "tolerance must be a finite number > 0, got 0."),
        ({"max_products": 3}, "max_products must be a finite number >= 4, got 3."),
        ({"like": jnp.zeros(0)}, "like must have at least one entry, got PyTreeDef(*)."),
        ({"like": jnp.arange(4)}, "like must be real floating point, got int32 at params."),
        (
            {"matvec": lambda u: u[:2]},
            "the result of matvec must have the shapes of the vector, (4,) at params, got (2,).",
        ),
        ({"matvec": lambda u: u * jnp.nan}, "matvec must return finite numbers, got NaN or inf."),
    ],
)
def test_errors_of_eigenpairs(changes, message):
    arguments = {"matvec": lambda u: u * jnp.arange(4.0), "like": jnp.zeros(4), "k": 2} | changes
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        top_eigenpairs(**arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_iters": 0}, "num_iters must be a finite number >= 1, got 0."),
        ({"num_iters": 2.0}, "num_iters must be an integer, got 2.0."),
        ({"vector": jnp.full(4, jnp.nan)}, "vector must be finite, got NaN or inf."),
        ({"matvec": lambda u: u * jnp.inf}, "matvec must return finite numbers, got NaN or inf."),
    ],
)
@pytest.mark.parametrize("keep_basis", [True, False])
def test_errors_of_functions(changes, message, keep_basis):
    arguments = {
        "matvec": lambda u: u * jnp.arange(4.0),
        "vector": jnp.ones(4),
        "function": np.exp,
        "num_iters": 3,
        "keep_basis": keep_basis,
    }
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        spectral_function(**(arguments | changes))


def test_too_many_products_are_clamped_and_it_says_so():
    message = "num_iters is clamped to the dimension, 4, got 9."
    with pytest.warns(UserWarning, match=f"^{re.escape(message)}$"):
        found = spectral_function(lambda u: u * jnp.arange(4.0), jnp.ones(4), np.exp, 9)
    assert found.products == 4
    np.testing.assert_allclose(found.value, np.exp(np.arange(4)), rtol=1e-5)
