"""Damped inverses of the curvature: the Hessian itself, and two forms of the empirical Fisher.

Each is made for those weights that are not held at zero, and gives two things: the diagonal of the
inverse, and the step of the others that makes up for the removal of some. That step is found from
the weights that stay, which are few when much has gone, and not from the removed block of the
inverse, whose condition is that of the curvature.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._checks import check_number
from ._objective import Objective, check_finite_curvature
from ._trees import finfo

MAX_DENSE = 20_000
"""Weights; the dense Hessian of as many and what is computed with it take 16 GB."""


class Inverse(NamedTuple):
    """What is asked of an inverse; vectors over all weights, in float64 on the host."""

    diagonal: np.ndarray
    compensate: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, float]]
    """From the weights and a flag for each that is removed to the step and the predicted loss."""
    gradients: int
    products: int


class Options(NamedTuple):
    """How the inverse is computed; the public functions say what each means."""

    inverse: str
    damping: float
    num_gradients: int
    examples_per_gradient: int
    block_size: int
    chunk_size: int

    def check(self) -> None:
        """Refuses what is out of range, before anything is computed."""
        if not isinstance(self.inverse, str) or self.inverse not in INVERSES:
            names = ", ".join(repr(name) for name in sorted(INVERSES))
            raise ValueError(f"inverse must be one of {names}, got {self.inverse!r}.")
        if self.inverse == "exact":
            check_number("damping", self.damping, at_least=0, static=True)
        else:
            check_number("damping", self.damping, above=0, static=True)
        for name in ("num_gradients", "examples_per_gradient", "block_size", "chunk_size"):
            check_number(name, getattr(self, name), at_least=1, integer=True, static=True)

    def gradients(self, objective: Objective, point: jax.Array) -> Iterator[jax.Array]:
        """Those that the Fisher matrix is made of, as rows of a few matrices."""
        return objective.gradients(
            point, self.num_gradients, self.examples_per_gradient, self.chunk_size
        )

    def invert(self, objective: Objective, point: jax.Array, active: np.ndarray) -> Inverse:
        """The inverse at a point, on the weights that are active."""
        return INVERSES[self.inverse](objective, point, active, self)


def exact(objective: Objective, point: jax.Array, active: np.ndarray, options: Options) -> Inverse:
    """Of the Hessian, by its eigenvalues."""
    indices = np.flatnonzero(active)
    check_dense(indices.size)
    hessian = objective.hessian(point, indices, options.chunk_size)
    hessian = (hessian + hessian.T) / 2
    diagonal, within = _blocks(hessian[None], options.damping, finfo(point.dtype))

    def compensate(w: np.ndarray, removed: np.ndarray) -> tuple[np.ndarray, float]:
        step, rise = within(w[indices], removed[indices])
        return _scattered(step, indices, active.size, 0.0), rise

    return Inverse(_scattered(diagonal, indices, active.size, np.inf), compensate, 0, indices.size)


def block(objective: Objective, point: jax.Array, active: np.ndarray, options: Options) -> Inverse:
    """Of the diagonal blocks of the empirical Fisher matrix."""
    size = min(options.block_size, objective.size)
    count = -(-objective.size // size)
    pad = count * size - objective.size
    keep = jnp.asarray(active, point.dtype)
    fisher, seen = jnp.zeros((count, size, size), point.dtype), 0
    for rows in options.gradients(objective, point):
        fisher = _add_blocks(fisher, rows, keep)
        seen += len(rows)
    blocks = np.asarray(fisher, np.float64) * (options.examples_per_gradient / seen)
    check_finite_curvature(blocks)
    diagonal, within = _blocks(blocks, options.damping, finfo(point.dtype))

    def compensate(w: np.ndarray, removed: np.ndarray) -> tuple[np.ndarray, float]:
        # Weights that are not active are without curvature here, and zero: they stay.
        step, rise = within(np.pad(w, (0, pad)), np.pad(removed, (0, pad)))
        return step[: objective.size], rise

    return Inverse(diagonal[: objective.size], compensate, seen, 0)


def low_rank(
    objective: Objective, point: jax.Array, active: np.ndarray, options: Options
) -> Inverse:
    r"""Of the empirical Fisher matrix of few gradients, by matrices of their number alone.

    With the gradients as rows of :math:`U`, divided by the root of their number, it is
    :math:`U^T U + \delta`; its inverse is :math:`(1 - U^T (U U^T + \delta)^{-1} U) / \delta`, and
    the step of the weights that stay is :math:`U_S^T (U_S U_S^T + \delta)^{-1} U_M w_M`.
    """
    keep = jnp.asarray(active, point.dtype)
    parts = list(options.gradients(objective, point))
    scale = (options.examples_per_gradient / sum(len(part) for part in parts)) ** 0.5
    rows = _scaled_rows(parts, keep, scale)
    eigenvalues, vectors = np.linalg.eigh(_gram(rows, keep))
    delta = damping_for(eigenvalues, options.damping, finfo(point.dtype))
    roots = vectors / np.sqrt(np.maximum(eigenvalues, 0) + delta)
    explained = _squared_columns(rows, jnp.asarray(roots.T, point.dtype))
    # The least that can be told from zero in this precision; negative ones are rounding.
    left = np.maximum(1 - explained, float(finfo(point.dtype).eps))

    def compensate(w: np.ndarray, removed: np.ndarray) -> tuple[np.ndarray, float]:
        gone = jnp.asarray(np.where(removed, w, 0), point.dtype)
        stay = jnp.asarray(active & ~removed, point.dtype)
        pull = _matmul(rows, gone)
        eigenvalues, vectors = np.linalg.eigh(_gram(rows, stay))
        right = vectors.T @ np.asarray(pull, np.float64)
        solution = vectors @ (right / (np.maximum(eigenvalues, 0) + delta))
        step = np.asarray(_matmul(jnp.asarray(solution, point.dtype), rows), np.float64)
        step = np.where(active & ~removed, step, -np.where(removed, w, 0))
        slope = np.asarray(_matmul(rows, jnp.asarray(step, point.dtype)), np.float64)
        return step, float(slope @ slope) / 2

    return Inverse(left / delta, compensate, len(rows), 0)


INVERSES = {"exact": exact, "low_rank": low_rank, "block": block}


def check_dense(size: int) -> None:
    """Refuses a dense Hessian that does not fit."""
    if size > MAX_DENSE:
        raise ValueError(
            f"params must have at most {MAX_DENSE:,} weights for inverse='exact', got {size:,}, "
            f"whose Hessian takes {8 * size**2 / 1e9:,.0f} GB, five times over; use "
            "inverse='low_rank' or 'block'."
        )


def damping_for(eigenvalues: np.ndarray, damping: float, info: Any) -> float:
    """The damping in the units of the curvature; never so small that its inverse overflows."""
    if damping == 0:
        return 0.0
    largest = float(np.max(np.abs(eigenvalues), initial=0))
    return max(float(damping) * largest, math.sqrt(info.tiny))


def _blocks(
    blocks: np.ndarray, damping: float, info: Any
) -> tuple[np.ndarray, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, float]]]:
    """Of a block-diagonal matrix, given as symmetric blocks along a first axis."""
    count, size, _ = blocks.shape
    eigenvalues, vectors = np.linalg.eigh(blocks)
    delta = damping_for(eigenvalues, damping, info)
    clipped = np.maximum(eigenvalues, 0)
    largest = np.max(clipped, initial=0)
    if damping == 0 and clipped.size and np.min(clipped) <= size * info.eps * largest:
        raise ValueError(
            "damping must be above 0 where the Hessian is not positive definite, got 0."
        )
    diagonal = np.sum(vectors**2 / (clipped + delta)[:, None, :], axis=-1)
    curvature = (vectors * clipped[:, None, :]) @ vectors.swapaxes(1, 2)

    def compensate(w: np.ndarray, removed: np.ndarray) -> tuple[np.ndarray, float]:
        gone = np.where(removed, w, 0).reshape(count, size, 1)
        stay = ~removed.reshape(count, size, 1)
        system = curvature * (stay & stay.swapaxes(1, 2))
        diagonals = np.einsum("nii->ni", system)
        diagonals += np.where(stay[..., 0], delta, 1.0)
        step = np.linalg.solve(system, stay * (curvature @ gone)) - gone
        rise = np.sum(step * (curvature @ step)) / 2
        return step.ravel(), float(rise)

    return diagonal.ravel(), compensate


def _scattered(values: np.ndarray, indices: np.ndarray, size: int, fill: float) -> np.ndarray:
    result = np.full(size, fill)
    result[indices] = values
    return result


@jax.jit
def _add_blocks(fisher: jax.Array, rows: jax.Array, keep: jax.Array) -> jax.Array:
    count, size, _ = fisher.shape
    rows = jnp.pad(rows * keep[None], ((0, 0), (0, count * size - rows.shape[1])))
    rows = rows.reshape(-1, count, size)
    return fisher + jnp.einsum("cni,cnj->nij", rows, rows, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _matmul(left: jax.Array, right: jax.Array) -> jax.Array:
    # A product in TF32 or bfloat16, which some devices default to, has errors above the damping.
    product: jax.Array = jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
    return product


@jax.jit
def _scaled_rows(parts: list[jax.Array], keep: jax.Array, scale: float) -> jax.Array:
    """The gradients as one matrix, without the weights that are not kept."""
    return jnp.concatenate(parts) * (scale * keep)[None]


@jax.jit
def _slice_gram(rows: jax.Array, keep: jax.Array) -> jax.Array:
    kept = rows * keep[None]
    gram: jax.Array = _matmul(kept, kept.T)
    return gram


@jax.jit
def _slice_squares(rows: jax.Array, left: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(_matmul(left, rows)), axis=0)


def _gram(rows: jax.Array, keep: jax.Array) -> np.ndarray:
    """The inner products of the rows over the weights that are kept, summed in float64."""
    gram = np.zeros((len(rows), len(rows)))
    for at in _slices(rows.shape[1]):
        gram += np.asarray(_slice_gram(rows[:, at], keep[at]), np.float64)
    check_finite_curvature(gram)
    return gram


def _squared_columns(rows: jax.Array, left: jax.Array) -> np.ndarray:
    """The squared norms of the columns of ``left @ rows``."""
    parts = [_slice_squares(rows[:, at], left) for at in _slices(rows.shape[1])]
    return np.concatenate([np.asarray(part, np.float64) for part in parts])


def _slices(size: int, width: int = 2**16) -> Iterator[slice]:
    """Columns in parts, so that no second matrix as large as the gradients is needed."""
    return (slice(first, first + width) for first in range(0, size, width))
