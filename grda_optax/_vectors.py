"""Trees as the vectors of linear algebra: checks, inner products, random starts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._checks import PyTree, check_arrays, check_function, path_name, structure
from ._trees import dtype_of, wide

MatVec = Callable[[PyTree], PyTree]
"""A symmetric matrix times a vector, both trees of one structure."""


def size_of(tree: PyTree) -> int:
    """The dimension of the space that the tree is a vector of."""
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(tree))


def check_vector(name: str, tree: PyTree) -> None:
    """Real floating point throughout, and not empty."""
    check_arrays(name, tree)
    if size_of(tree) == 0:
        raise ValueError(f"{name} must have at least one entry, got {structure(tree)}.")
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not jnp.issubdtype(dtype_of(leaf), jnp.floating):
            raise ValueError(
                f"{name} must be real floating point, got {dtype_of(leaf)} at {path_name(path)}."
            )


def check_alike(name: str, tree: PyTree, like_name: str, like: PyTree) -> None:
    """One structure and the same shapes."""
    if structure(tree) != structure(like):
        raise ValueError(
            f"{name} must have the structure of {like_name}, {structure(like)}, "
            f"got {structure(tree)}."
        )
    for (path, leaf), other in zip(
        jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(like), strict=True
    ):
        if jnp.shape(leaf) != jnp.shape(other):
            raise ValueError(
                f"{name} must have the shapes of {like_name}, {jnp.shape(other)} at "
                f"{path_name(path)}, got {jnp.shape(leaf)}."
            )


def widened(tree: PyTree) -> PyTree:
    """Every leaf in float32 or wider."""
    return jax.tree.map(lambda x: wide(x, None), tree)


def dtype_of_sums(tree: PyTree) -> Any:
    """The dtype in which inner products of such vectors come."""
    return jnp.result_type(jnp.float32, *(dtype_of(leaf) for leaf in jax.tree.leaves(tree)))


def dot(a: PyTree, b: PyTree) -> jax.Array:
    """The sum of all products; where leaves are split over devices, one sum of numbers."""
    products = jax.tree.map(lambda x, y: jnp.sum(x * y), a, b)
    return sum(jax.tree.leaves(products), start=jnp.zeros([], dtype_of_sums(a)))


def norm(tree: PyTree) -> jax.Array:
    """The Euclidean norm."""
    return jnp.sqrt(dot(tree, tree))


def random_like(key: jax.Array, tree: PyTree) -> PyTree:
    """Standard normal entries, in the structure, the shapes and the wide dtypes of the tree."""
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(
        treedef,
        [
            jax.random.normal(k, jnp.shape(x), jnp.promote_types(dtype_of(x), jnp.float32))
            for k, x in zip(keys, leaves, strict=True)
        ],
    )


def checked(matvec: MatVec, like: PyTree) -> MatVec:
    """The product, whose result is refused unless it is a vector of the same space."""
    check_function("matvec", matvec)
    checked_once = False

    def product(vector: PyTree) -> PyTree:
        nonlocal checked_once
        result = matvec(vector)
        if not checked_once:
            check_alike("the result of matvec", result, "the vector", like)
            checked_once = True
        return result

    return product
