"""How sparse a tree is, and where: counts, reports and masks."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._checks import PyTree, broadcast_mask, check_arrays, path_name, structure


class Count(NamedTuple):
    """How many weights are not zero, of how many; integers, so that nothing is rounded.

    Attributes:
        nnz: the number of weights that are not zero. A NaN is not zero.
        total: the number of weights.
        nan: the number of NaN among the ``nnz``.
        penalised: whether all of them are penalised.
    """

    nnz: int
    total: int
    nan: int
    penalised: bool

    @property
    def sparsity(self) -> float:
        """The fraction of zeros, 0 to 1; NaN when there is nothing to count."""
        return (self.total - self.nnz) / self.total if self.total else math.nan

    @property
    def density(self) -> float:
        """The fraction that is not zero."""
        return 1 - self.sparsity


class SparsityReport(NamedTuple):
    """The counts of a tree, under two denominators that are never mixed up.

    Attributes:
        leaves: one :class:`Count` for each leaf, by its path (``dense/kernel``).
        penalised: those leaves together that the threshold acts on.
        all: every leaf together.
    """

    leaves: dict[str, Count]
    penalised: Count
    all: Count

    def __str__(self) -> str:
        """A table to print: the leaves in the order of the tree, then both totals."""
        rows = [("", "sparsity", "nonzero", "total", "")]
        named = [*self.leaves.items(), ("penalised", self.penalised), ("all", self.all)]
        for name, count in named:
            remark = "" if count.penalised or count is self.all else "not penalised"
            nan = f"{count.nan:,} NaN" if count.nan else ""
            percent = f"{100 * count.sparsity:.2f} %"
            remark = " ".join(x for x in (remark, nan) if x)
            rows.append((name, percent, f"{count.nnz:,}", f"{count.total:,}", remark))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        return "\n".join(
            "  ".join(
                [
                    row[0].ljust(widths[0]),
                    *(cell.rjust(width) for cell, width in zip(row[1:4], widths[1:], strict=True)),
                    row[4],
                ]
            ).rstrip()
            for row in rows
        )


def sparsity(params: PyTree, mask: PyTree | None = None) -> jax.Array:
    r"""The fraction of weights that are exactly zero.

    .. math:: 1 - \lVert w \rVert_0 / d

    over the leaves under ``mask``. It can be jitted and used inside a training step;
    :func:`sparsity_report` gives integers, layer by layer, on the host.

    Args:
        params: any tree of arrays. A NaN is not zero.
        mask: which leaves are counted: a tree of bools with the structure of ``params`` or a prefix
            of it, a function from params to one, or a regular expression that is searched in the
            path of every leaf, such as ``"kernel$"``. ``None`` is every leaf.

    Returns:
        A float32 scalar from 0 to 1; NaN when there is nothing to count.

    Raises:
        ValueError: ``mask`` has another structure, holds anything but bools, or is a pattern that
            is found in no path.

    Examples:
        >>> import jax.numpy as jnp
        >>> from grda_optax import sparsity
        >>> params = {"kernel": jnp.array([[0.0, 2.0], [0.0, 0.0]]), "bias": jnp.ones(2)}
        >>> sparsity(params)
        Array(0.5, dtype=float32)
        >>> sparsity(params, mask="kernel$")
        Array(0.75, dtype=float32)
    """
    check_arrays("params", params)
    flags = jax.tree.leaves(broadcast_mask(mask, params))
    leaves = [x for x, flag in zip(jax.tree.leaves(params), flags, strict=True) if flag]
    total = sum(int(np.size(x)) for x in leaves)
    # Each leaf is counted in integers; the sum of the counts may pass 2^31, so it is a float.
    zeros = sum(
        (jnp.sum(jnp.asarray(x) == 0).astype(jnp.float32) for x in leaves),
        start=jnp.zeros([], jnp.float32),
    )
    return zeros / total if total else jnp.full([], jnp.nan, jnp.float32)


def sparsity_report(params: PyTree, mask: PyTree | None = None) -> SparsityReport:
    """Counts the nonzero weights layer by layer, over the penalised leaves and over all.

    Args:
        params: any tree of arrays; the counts are brought to the host, so it is not for use inside
            ``jax.jit``.
        mask: which leaves are penalised, the ``mask`` that the optimizer was given: as in
            :func:`sparsity`. ``None`` is every leaf, as it is for :func:`grda` and
            :func:`dual_averaging`; :func:`prune_with` takes those with two axes or more.

    Returns:
        A :class:`SparsityReport`, which prints as a table.

    Raises:
        ValueError: ``mask`` has another structure, holds anything but bools, or is a pattern that
            is found in no path.

    Examples:
        >>> import jax.numpy as jnp
        >>> from grda_optax import sparsity_report
        >>> params = {"bias": jnp.ones(2), "kernel": jnp.array([[0.0, 2.0], [0.0, 0.0]])}
        >>> report = sparsity_report(params, mask="kernel$")
        >>> report.penalised.nnz, report.penalised.total, report.all.sparsity
        (1, 4, 0.5)
        >>> print(report)
                   sparsity  nonzero  total
        bias         0.00 %        2      2  not penalised
        kernel      75.00 %        1      4
        penalised   75.00 %        1      4
        all         50.00 %        3      6
    """
    check_arrays("params", params)
    flags = jax.tree.leaves(broadcast_mask(mask, params))
    leaves = {}
    with_paths = jax.tree_util.tree_leaves_with_path(params)
    # All are under way before the first is waited for.
    counts = [_nonzero_and_nan(leaf) for _, leaf in with_paths]
    for (path, leaf), (nnz, nan), flag in zip(with_paths, counts, flags, strict=True):
        leaves[path_name(path)] = Count(
            nnz=int(nnz), total=int(np.size(leaf)), nan=int(nan), penalised=flag
        )
    penalised = [count for count in leaves.values() if count.penalised]
    return SparsityReport(leaves, _sum(penalised), _sum(list(leaves.values())))


@jax.jit  # one program for each shape, and not four
def _nonzero_and_nan(leaf: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.count_nonzero(leaf), jnp.sum(jnp.isnan(leaf))


def _sum(counts: list[Count]) -> Count:
    return Count(
        nnz=sum(count.nnz for count in counts),
        total=sum(count.total for count in counts),
        nan=sum(count.nan for count in counts),
        penalised=all(count.penalised for count in counts),
    )


def nonzero_mask(params: PyTree) -> PyTree:
    """Where the weights are not zero: the topology of a sparse network.

    Args:
        params: any tree of arrays. A NaN is not zero.

    Returns:
        A tree like ``params`` of boolean arrays.

    Examples:
        >>> import jax.numpy as jnp
        >>> from grda_optax import nonzero_mask
        >>> nonzero_mask({"kernel": jnp.array([0.0, -2.0, 1e-30])})
        {'kernel': Array([False,  True,  True], dtype=bool)}
    """
    check_arrays("params", params)
    return jax.tree.map(lambda x: jnp.asarray(x) != 0, params)


def mask_overlap(a: PyTree, b: PyTree) -> jax.Array:
    r"""How much two masks agree, as intersection over union.

    .. math:: |A \cap B| / |A \cup B|.

    Of the :func:`nonzero_mask` at two moments of training, 1 says that the topology stood still.

    Args:
        a: a tree of boolean arrays.
        b: a tree of the same structure and shapes.

    Returns:
        A float32 scalar from 0 to 1; two empty masks are equal, and give 1.

    Raises:
        ValueError: the trees differ in structure or shapes, or hold anything but booleans.

    Examples:
        >>> import jax.numpy as jnp
        >>> from grda_optax import mask_overlap, nonzero_mask
        >>> before, after = jnp.array([1.0, 2.0, 0.0]), jnp.array([3.0, 0.0, 0.0])
        >>> mask_overlap(nonzero_mask(before), nonzero_mask(after))
        Array(0.5, dtype=float32)
    """
    if structure(a) != structure(b):
        raise ValueError(f"a and b must have one structure, got {structure(a)} and {structure(b)}.")
    both = either = jnp.zeros([], jnp.float32)
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True
    ):
        x, y = jnp.asarray(x), jnp.asarray(y)
        if x.dtype != jnp.bool_ or y.dtype != jnp.bool_ or x.shape != y.shape:
            raise ValueError(
                f"a and b must be boolean arrays of one shape, got {x.dtype}{list(x.shape)} and "
                f"{y.dtype}{list(y.shape)} at {path_name(path)}."
            )
        both += jnp.sum(x & y).astype(jnp.float32)
        either += jnp.sum(x | y).astype(jnp.float32)
    return jnp.where(either == 0, 1.0, both / jnp.maximum(either, 1))
