"""Which weights stand and fall together: channels tied across leaves, blocks, N of every M."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from ._checks import check_number, check_pattern

Axis: TypeAlias = int | tuple[int, int]
"""Where the units of a leaf lie: an axis, or ``(axis, width)`` with ``width`` entries a unit."""


@dataclasses.dataclass(frozen=True)
class Tied:
    r"""Units that several leaves share: channels, hidden units, attention heads.

    Unit :math:`g` is what lies at index :math:`g` along the named axis of every leaf. Its *members*
    are shrunk together and become zero together; its *followers* are zero where the members are,
    and are otherwise left alone: the weights of the next layer that read a unit which is no more.
    A leaf can be a member of one group and follow others along other axes.

    There are as many units as the shortest of the axes holds. A longer one holds them again and
    again, as the rows of a kernel do after ``x.reshape(len(x), -1)`` of a feature map whose last
    axis are the channels. With ``(axis, width)`` each unit has ``width`` entries in a row: a head
    of that size, also where queries, keys and values lie side by side.

    Args:
        members: from a regular expression, searched in the path of every leaf, to an axis. The
            first that is found counts.
        followers: likewise; also of leaves that must be cut along in :func:`compact`.
        scale: :math:`\sigma > 0`, by which the threshold of these groups is multiplied.

    Raises:
        ValueError: a pattern is no regular expression, an axis is no integer or pair of them,
            ``members`` is empty, or ``scale`` is out of its range; where it is used, a pattern that
            is found in no path, or leaves whose axes do not fit each other.

    Examples:
        A channel with the scale and the bias of its BatchNorm, and the next layer's inputs:

        >>> from grda_optax import Tied
        >>> Tied(
        ...     {"conv1/kernel": -1, "norm1/(scale|bias)": 0},
        ...     followers={"conv2/kernel": -2},
        ... ).followers
        {'conv2/kernel': -2}
    """

    members: Mapping[str, Axis]
    followers: Mapping[str, Axis] = dataclasses.field(default_factory=dict)
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuses what cannot be searched for."""
        for name in ("members", "followers"):
            patterns = getattr(self, name)
            if not isinstance(patterns, Mapping):
                raise ValueError(f"{name} must be a dict from patterns to axes, got {patterns!r}.")
            for pattern, axis in patterns.items():
                _check_pattern(f"a pattern of {name}", pattern)
                pair = axis if isinstance(axis, tuple) else (axis, 1)
                if len(pair) != 2 or not all(map(_is_integer, pair)) or pair[1] < 1:
                    raise ValueError(
                        f"{name} must hold an axis or (axis, width >= 1), got {axis!r} at "
                        f"{pattern!r}."
                    )
        if not self.members:
            raise ValueError("members must name at least one leaf, got {}.")
        check_number("scale", self.scale, above=0, static=True)


@dataclasses.dataclass(frozen=True)
class Blocks:
    r"""Tiles of a leaf, each of which is a group: rows, columns, filters, k x k blocks.

    Each leaf is cut by itself. ``shape`` is that of a tile along the last axes; ``None`` is a whole
    axis, and so is every axis before. Where a tile does not fit at the end of an axis, the last one
    is smaller.

    ==================  =============================================
    ``shape``           groups of a kernel ``(..., inputs, outputs)``
    ==================  =============================================
    ``(1,)``            output channels, columns
    ``(1, None)``       input channels, rows
    ``(64,)``           heads of 64 outputs
    ``(4, 4)``          blocks, of a convolution in all its positions
    ``(1, 1)``          single weights of a matrix
    ==================  =============================================

    Args:
        shape: of a tile; each entry an integer :math:`\ge 1` or ``None``.
        pattern: a regular expression that is searched in the path of every leaf; ``None`` is every
            leaf with two or more axes.
        scale: :math:`\sigma > 0`, by which the threshold of these groups is multiplied.

    Raises:
        ValueError: ``shape`` is empty or holds something else, ``pattern`` is no regular
            expression, or ``scale`` is out of its range; where it is used, a pattern that is found
            in no path, or a leaf with fewer axes than ``shape``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from grda_optax import Blocks, group_norms
        >>> kernel = jnp.array([[3.0, 3.0, 0.0], [3.0, 3.0, 1.0]])
        >>> group_norms(kernel, Blocks((2, 2)))
        (Array([[3.        , 0.70710...]], dtype=float32),)
    """

    shape: Sequence[int | None]
    pattern: str | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuses what is no tile."""
        entries = tuple(self.shape) if isinstance(self.shape, Sequence) else ()
        if not entries or not all(x is None or (_is_integer(x) and x >= 1) for x in entries):
            raise ValueError(f"shape must hold integers >= 1 or None, got {self.shape!r}.")
        _check_pattern("pattern", self.pattern)
        check_number("scale", self.scale, above=0, static=True)


@dataclasses.dataclass(frozen=True)
class NofM:
    r"""At most ``n`` nonzeros among every ``m`` weights in a row: 2:4, 1:4, and others.

    The ``n`` of largest magnitude in each block of ``m`` are free, of equal ones the first; the
    others are read out through the threshold. With the soft one this is the proximal operator of
    what is left of the l1 norm without the ``n`` largest,

    .. math::
        h \sum_b \left( \lVert w_b \rVert_1 - \sum_{i \le n} |w_b|_{(i)} \right),

    which is zero where the pattern holds; for :math:`h \to \infty` it is the projection onto the
    pattern. There are :math:`1 - n/m` zeros then, and that is the most that can be asked of
    :func:`target_sparsity`.

    Args:
        n: :math:`n \ge 1`.
        m: :math:`m > n`.
        pattern: as in :class:`Blocks`.
        axis: along which the blocks lie: the inputs of a kernel ``(inputs, outputs)`` by default,
            over which a product sums.
        scale: :math:`\sigma > 0`, by which the threshold of these weights is multiplied.

    Raises:
        ValueError: ``n`` or ``m`` is out of its range or not an integer, or another argument is;
            where it is used, a pattern that is found in no path, or a leaf whose axis is no
            multiple of ``m``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from grda_optax import NofM, group_threshold
        >>> v = jnp.array([[1.0, -4.0, 2.0, -3.0]])
        >>> group_threshold(v, 0.5, NofM(2, 4, axis=-1))
        Array([[ 0.5, -4. ,  1.5, -3. ]], dtype=float32)
        >>> group_threshold(v, float("inf"), NofM(2, 4, axis=-1))
        Array([[ 0., -4.,  0., -3.]], dtype=float32)

    References:
        Lu and Li, *Sparse recovery via partial regularization*, Mathematics of Operations Research
        43, 2018. Mishra et al., *Accelerating sparse deep neural networks*, 2021 (2:4).
    """

    n: int
    m: int
    pattern: str | None = None
    axis: int = -2
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuses what is no pattern of zeros."""
        check_number("n", self.n, at_least=1, integer=True, static=True)
        check_number("m", self.m, above=self.n, integer=True, static=True)
        check_number("axis", self.axis, integer=True, static=True)
        _check_pattern("pattern", self.pattern)
        check_number("scale", self.scale, above=0, static=True)


Groups: TypeAlias = Tied | Blocks | NofM
"""What stands and falls together."""


def as_groups(groups: Any) -> tuple[Groups, ...]:
    """One description or several, as a tuple of them."""
    several = groups if isinstance(groups, list | tuple) else (groups,)
    for x in several:
        if not isinstance(x, Tied | Blocks | NofM):
            raise ValueError(f"groups must be Tied, Blocks or NofM, or a list of them, got {x!r}.")
    if not several:
        raise ValueError(f"groups must be Tied, Blocks or NofM, or a list of them, got {groups!r}.")
    return tuple(several)


def _is_integer(x: object) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)


def _check_pattern(name: str, pattern: object) -> None:
    if pattern is None and name == "pattern":
        return
    if not isinstance(pattern, str):
        raise ValueError(f"{name} must be a regular expression, got {pattern!r}.")
    check_pattern(name, pattern)
