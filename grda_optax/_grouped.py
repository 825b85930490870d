"""The proximal operators on groups, and the norms that they shrink, of a tree of weights."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ._checks import PyTree, check_number, is_number
from ._families import Family, Leaves, read_groups
from ._groups import Groups, as_groups
from ._prox import ProximalOperator, proximal_operator
from ._resolve import families_of, grouped
from ._trees import check_leaves, rounded_up


def group_threshold(
    params: PyTree,
    threshold: jax.typing.ArrayLike,
    groups: Groups | Sequence[Groups],
    prox: str | ProximalOperator = "soft",
) -> PyTree:
    r"""Shrinks every group of weights towards zero, and the small ones onto it, as a whole.

    With :math:`p_g` the number of weights in group :math:`g`, the operator of one number acts on
    the root of their mean square, and the group keeps its direction:

    .. math::
        w_g = \frac{\operatorname{prox}_h(r_g)}{r_g} \, v_g, \qquad
        r_g = \lVert v_g \rVert / \sqrt{p_g}.

    With ``"soft"`` that is the proximal operator of the group lasso,
    :math:`h \sum_g \sqrt{p_g} \lVert w_g \rVert`; with any other, of the penalty :math:`P_h` of one
    number that it belongs to,

    .. math::
        \operatorname{argmin}_w \sum_g \tfrac12 \lVert w_g - v_g \rVert^2
            + p_g \, P_h(\lVert w_g \rVert / \sqrt{p_g}).

    For N of every M see :class:`NofM`. Followers of groups that are zero become zero as well. At
    :math:`h = 0` everything stays as it is.

    Args:
        params: an array or a tree of them. Leaves in no group stay as they are; the others are real
            floating point.
        threshold: :math:`h \ge 0`, a scalar; infinity makes every group zero, and projects onto
            N of every M.
        groups: :class:`Tied`, :class:`Blocks` or :class:`NofM`, or a list of them that have no
            member in common.
        prox: ``"soft"``, ``"hard"``, ``"firm"``, or a function ``(array, threshold) -> array``.

    Returns:
        A tree like ``params``, of the same dtypes; every zero in its groups is ``+0.0``.

    Raises:
        ValueError: ``threshold`` is a negative number or NaN, ``prox`` is of an unknown name, or
            ``groups`` do not fit ``params``.

    Examples:
        The columns of a matrix; 5 and 1 are the lengths of two of them:

        >>> import jax.numpy as jnp
        >>> from grda_optax import Blocks, group_threshold
        >>> v = jnp.array([[3.0, 1.0], [4.0, 0.0]])
        >>> group_threshold(v, 2.5 / 2**0.5, Blocks((1,)))
        Array([[1.5, 0. ],
               [2. , 0. ]], dtype=float32)

    References:
        Yuan and Lin, *Model selection and estimation in regression with grouped variables*, Journal
        of the Royal Statistical Society B 68, 2006.
    """
    if not (is_number(threshold) and threshold == math.inf):
        check_number("threshold", threshold, at_least=0)
    operator = proximal_operator(prox)
    families, leaves, treedef = _opened(params, groups)
    leaves = [jnp.asarray(x) for x in leaves]
    magnitudes = [family.magnitudes(leaves) for family in families]
    heights = [
        rounded_up(jnp.asarray(threshold, r.dtype), family.scale)
        for family, r in zip(families, magnitudes, strict=True)
    ]
    out = read_groups(families, leaves, magnitudes, heights, operator, jnp.ones([], jnp.int32))
    return jax.tree.unflatten(treedef, out)


def group_norms(params: PyTree, groups: Groups | Sequence[Groups]) -> tuple[jax.Array, ...]:
    r"""What stands for :math:`|w|` where groups are pruned: :math:`\lVert w_g \rVert / \sqrt{p_g}`.

    Args:
        params: an array or a tree of them.
        groups: as in :func:`group_threshold`.

    Returns:
        An array for each :class:`Tied`, and for each leaf that :class:`Blocks` or :class:`NofM`
        cut; zero where a group is zero. Of :class:`NofM` they are the magnitudes of the weights,
        and infinite for those that are free.

    Raises:
        ValueError: ``groups`` do not fit ``params``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from grda_optax import Tied, group_norms
        >>> params = {"kernel": jnp.array([[1.0, 0.0], [1.0, 0.0]]), "bias": jnp.array([1.0, 0.0])}
        >>> (norms,) = group_norms(params, Tied({"kernel": -1, "bias": 0}))
        >>> print(f"{(norms == 0).mean():.0%} of the units are gone")
        50% of the units are gone
    """
    families, leaves, _ = _opened(params, groups)
    return tuple(family.magnitudes([jnp.asarray(x) for x in leaves]) for family in families)


def _opened(params: PyTree, groups: Any) -> tuple[tuple[Family, ...], Leaves, Any]:
    families = families_of(as_groups(groups), params)
    check_leaves(params, grouped(families, params))
    leaves, treedef = jax.tree.flatten(params)
    return families, leaves, treedef
