"""How many zeros go where: over the network as a whole, or layer by layer; in exact integers."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import jax

from experiments import models

if TYPE_CHECKING:
    from experiments.train import Job

Allocation = Literal["global", "uniform", "erk"]
LayerAllocation = Literal["uniform", "erk"]
Shape = tuple[int, ...]


class Group(NamedTuple):
    """Leaves in which weights compete for the same zeros."""

    leaves: tuple[int, ...]
    """Their places among the leaves of the params."""
    size: int
    """How many weights they hold."""
    sparsity: float
    """The fraction of zeros in the end."""

    @property
    def zeros(self) -> int:
        """How many zeros in the end."""
        return round(self.sparsity * self.size)


def penalised_shapes(job: "Job") -> dict[int, Shape]:
    """The shape of every leaf that is pruned, by its place among the leaves of the params."""
    params, _ = job.start()
    leaves, flags = jax.tree.leaves(params), jax.tree.leaves(job.penalised(params))
    return {i: x.shape for i, (x, f) in enumerate(zip(leaves, flags, strict=True)) if f}


def allocate(job: "Job", allocation: Allocation) -> list[Group]:
    """The groups of a job; together they have exactly ``round(sparsity * total)`` zeros.

    Args:
        job: whose config names the sparsity.
        allocation: ``global`` is one group; ``uniform`` gives every leaf the same sparsity, but
            that a first convolution stays dense (Evci et al., section 3); ``erk`` is
            :func:`erdos_renyi_kernel`.
    """
    shapes = penalised_shapes(job)
    sizes = [math.prod(shape) for shape in shapes.values()]
    sparsity, total = job.config.sparsity, sum(sizes)
    if allocation == "global":
        return [Group(tuple(shapes), total, sparsity)]
    zeros = round(sparsity * total)
    if allocation == "uniform":
        limits = list(sizes)
        if (first := first_convolution(job, shapes)) is not None and zeros <= total - sizes[first]:
            limits[first] = 0
        counts = apportion(zeros, [zeros * size / sum(limits) for size in limits], limits)
    else:
        kept = erdos_renyi_kernel(total - zeros, list(shapes.values()))
        counts = [size - count for size, count in zip(sizes, kept, strict=True)]
    return by_leaf(shapes, counts)


def first_convolution(job: "Job", shapes: dict[int, Shape]) -> int | None:
    """The place among the shapes of the layer that reads the image, if it is a convolution.

    It is a small part of a network; of an MLP that layer is nearly all.
    """
    first = next(iter(models.ENDS[job.config.model]))
    paths = jax.tree_util.tree_leaves_with_path(job.start()[0])
    for place, (i, shape) in enumerate(shapes.items()):
        name = jax.tree_util.keystr(paths[i][0], simple=True, separator="/")
        if name.startswith(f"{first}/") and len(shape) > 2:
            return place
    return None


def by_leaf(shapes: dict[int, Shape], zeros: Sequence[int]) -> list[Group]:
    """A group for every leaf, with so many zeros."""
    return [
        Group((i,), math.prod(shape), count / max(1, math.prod(shape)))
        for (i, shape), count in zip(shapes.items(), zeros, strict=True)
    ]


def apportion(total: int, shares: Sequence[float], limits: Sequence[int]) -> list[int]:
    """Integers beside the shares that sum to ``total``: the largest remainders are rounded up.

    Args:
        total: what the shares sum to, but for rounding; at most the sum of the limits.
        shares: at least 0.
        limits: no integer is above its limit.
    """
    counts = [min(math.floor(x), limit) for x, limit in zip(shares, limits, strict=True)]
    order = sorted(range(len(counts)), key=lambda i: counts[i] - shares[i])
    while sum(counts) < total:
        for i in order:
            if sum(counts) < total and counts[i] < limits[i]:
                counts[i] += 1
    return counts


def erdos_renyi_kernel(kept: int, shapes: Sequence[Shape]) -> list[int]:
    r"""How many weights each leaf keeps when density falls with size.

    A kernel of shape :math:`(k_1, \dots, n_{in}, n_{out})` has the density

    .. math:: \epsilon (k_1 + \dots + n_{in} + n_{out}) / (k_1 \cdots n_{in} n_{out}),

    with one :math:`\epsilon` for all, such that ``kept`` are left; where it would pass 1 the leaf
    is dense, and the others share what is left. Evci, Gale, Menick, Castro and Elsen, *Rigging the
    lottery*, ICML 2020, section 3 (1).

    Args:
        kept: how many weights are left over all leaves.
        shapes: of the leaves.
    """
    sizes = [math.prod(shape) for shape in shapes]
    dense: set[int] = set()
    while True:
        others = [i for i in range(len(shapes)) if i not in dense]
        left = kept - sum(sizes[i] for i in dense)
        epsilon = left / max(1, sum(sum(shapes[i]) for i in others))
        full = {i for i in others if epsilon * sum(shapes[i]) > sizes[i]}
        if not full:
            break
        dense |= full
    shares = [
        float(size) if i in dense else epsilon * sum(shape)
        for i, (size, shape) in enumerate(zip(sizes, shapes, strict=True))
    ]
    return apportion(kept, shares, sizes)
