"""Weights moved towards zero by given scores, until so many of them are there."""

import functools

import jax
import jax.numpy as jnp

from ._checks import PyTree
from ._nonzero import beside_zero
from ._vectors import size_of


def zeros_wanted(params: PyTree, flags: PyTree, sparsity: float) -> int:
    """How many of the weights that may be pruned are to be zero."""
    return round(sparsity * penalised_size(params, flags))


def penalised_size(params: PyTree, flags: PyTree) -> int:
    """How many weights may be pruned."""
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(flags), strict=True)
    return sum(size_of(leaf) for leaf, flag in pairs if flag)


def zeros_of(params: PyTree, flags: PyTree) -> int:
    """How many of the weights that may be pruned are zero."""
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(flags), strict=True)
    return sum(int(jnp.sum(leaf == 0)) for leaf, flag in pairs if flag)


def reachable(params: PyTree, scores: PyTree, flags: PyTree) -> int:
    """How many can be zero: those that are, and those whose score is positive."""
    leaves = zip(*map(jax.tree.leaves, (params, scores, flags)), strict=True)
    return sum(int(jnp.sum((w == 0) | (s > 0))) for w, s, flag in leaves if flag)


@functools.partial(jax.jit, static_argnums=3)
def move_to_count(
    params: PyTree, directions: PyTree, zeros: jax.Array, flags: tuple[bool, ...]
) -> tuple[PyTree, jax.Array]:
    r"""Moves every weight along its direction until exactly ``zeros`` of them are zero.

    A weight :math:`w_j` whose direction :math:`d_j` has its sign arrives at zero at the strength
    :math:`|w_j| / |d_j|`. Those that arrive first are set to ``+0.0``, and all others are moved
    by the strength at which the last of them arrives. What is zero already is counted and stays.

    Args:
        params: real floating point.
        directions: :math:`d`, a tree like ``params``: :math:`w \leftarrow w - \lambda d`.
        zeros: not more than can be reached.
        flags: for every leaf whether its weights may become zero; all of them move.

    Returns:
        The params in their own dtypes, and the strength :math:`\lambda`.
    """
    leaves, treedef = jax.tree.flatten(params)
    moves = jax.tree.leaves(directions)
    arrivals = [
        _arrival(w.astype(d.dtype), d).ravel()
        for w, d, flag in zip(leaves, moves, flags, strict=True)
        if flag
    ]
    joined = jnp.concatenate(arrivals)
    # By rank and not by strength: of equal ones only as many go as should.
    order = jnp.argsort(joined, stable=True)
    gone = jnp.zeros(joined.size, bool).at[order].set(jnp.arange(joined.size) < zeros)
    last = joined[order[jnp.maximum(zeros - 1, 0)]]
    strength = jnp.where((zeros > 0) & jnp.isfinite(last), last, 0.0)
    moved, at = [], 0
    for w, d, flag in zip(leaves, moves, flags, strict=True):
        new = (w.astype(d.dtype) - strength * d).astype(w.dtype)
        if flag:
            out = gone[at : at + w.size].reshape(w.shape)
            at += w.size
            # One that has all but arrived is not counted, so it must not be rounded to zero, nor
            # go beyond it.
            new = jnp.where(jnp.sign(new) == -jnp.sign(w), jnp.zeros_like(new), new)
            new = jnp.where(out, jnp.zeros_like(new), beside_zero(new, w))
        moved.append(new)
    return jax.tree.unflatten(treedef, moved), strength


def _arrival(w: jax.Array, d: jax.Array) -> jax.Array:
    """The strength at which a weight is zero: never if it moves away, before all if it is."""
    towards = w * d > 0
    at = jnp.where(towards, jnp.abs(w) / jnp.where(towards, jnp.abs(d), 1), jnp.inf)
    return jnp.where(w == 0, -jnp.inf, at)
