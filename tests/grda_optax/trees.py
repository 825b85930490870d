"""Trees of small arrays, and how they are compared."""

import jax
import numpy as np


def normal_like(key, tree, scale=1.0):
    """A tree of the same shapes and dtypes with normal entries."""
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    drawn = [
        (scale * jax.random.normal(k, np.shape(x))).astype(x.dtype)
        for k, x in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, drawn)


def leaves_by_path(tree):
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def assert_same_bits(actual, expected):
    """Same structure, dtypes and shapes, and every bit: -0.0 is not 0.0, and a NaN is itself."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    actual, expected = leaves_by_path(actual), leaves_by_path(expected)
    for path, want in expected.items():
        got = actual[path]
        assert (got.dtype, got.shape) == (want.dtype, want.shape), path
        assert got.tobytes() == want.tobytes(), (path, got, want)


def assert_close(actual, expected, rtol, atol):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    actual, expected = leaves_by_path(actual), leaves_by_path(expected)
    for path, want in expected.items():
        np.testing.assert_allclose(
            actual[path].astype(np.float64),
            want.astype(np.float64),
            rtol=rtol,
            atol=atol,
            err_msg=path,
        )


def assert_same_zeros(actual, expected):
    for path, want in leaves_by_path(expected).items():
        np.testing.assert_array_equal(
            leaves_by_path(actual)[path] == 0, want == 0, err_msg=f"zeros of {path}"
        )
