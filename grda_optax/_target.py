"""Ask for a sparsity and get it: the threshold that is a quantile of the accumulator."""

from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ._checks import check_axis_name, check_number, is_number
from ._counting import count_dtype, group_sizes
from ._quantile import quantile, select_smallest
from ._thresholds import ThresholdRule

SLACK = 1e-4
"""The fraction of weights that may be zero beyond what was asked for: it saves the last passes."""


def target_sparsity(
    sparsity: optax.ScalarOrSchedule,
    *,
    begin_step: int = 0,
    end_step: int | None = None,
    exponent: jax.typing.ArrayLike = 3.0,
    per_leaf: bool = False,
    update_every: int = 10,
    axis_name: Hashable | tuple[Hashable, ...] | None = None,
) -> ThresholdRule:
    r"""The threshold that leaves as many zeros as one asks for.

    It is a quantile of the accumulator's magnitude: at least :math:`k_n` of the :math:`d` penalised
    weights do not exceed it, and at most :math:`d / 10^4` more, but for ties:

    .. math::
        k_n \le |\{ j : |v_{n,j}| \le h_n \}| \le k_n + 10^{-4} d, \qquad
        k_n = d - \operatorname{round}((1 - s_n) d),

    along a ramp to the sparsity :math:`s`, which is steep at first (:math:`p = 3` is the cubic
    one) and level at its end,

    .. math::
        s_n = s \left( 1 - \left( 1 - \frac{n - n_0}{n_1 - n_0} \right)^p \right),
        \qquad n_0 \le n \le n_1.

    While the asked sparsity moves, the threshold follows every ``update_every`` updates and is held
    in between; where it stands still, after the ramp, the threshold follows every update, since the
    accumulator goes on moving. It is found by counting, in two or three passes over the weights,
    without a sort. Weights that are zero already count, so it is 0 when there are enough of them.

    With ``freeze_step`` in :func:`dual_averaging` the weights that are zero from then on are
    exactly :math:`k_n`: ties are broken by position.

    Args:
        sparsity: :math:`s`, the fraction of zeros in [0, 1), such as ``0.9``; or an
            ``optax.Schedule`` from :math:`n` to :math:`s_n`, which is followed as it is.
        begin_step: :math:`n_0 \ge 0`, the update after which the ramp begins.
        end_step: :math:`n_1 \ge n_0`, the update at which it arrives; ``None`` is without a ramp,
            at ``begin_step``.
        exponent: :math:`p > 0`; 1 is a straight line.
        per_leaf: whether every penalised leaf gets this sparsity, with a threshold of its own, and
            not the network as a whole.
        update_every: :math:`\ge 1`, how many updates a threshold is held for during the ramp.
        axis_name: of the axis of ``jax.shard_map`` or ``jax.pmap``, or a tuple of them, over which
            the *params themselves* are split. Leave it ``None`` where every device has all of them,
            and under ``jax.jit``, whatever the sharding.

    Returns:
        A threshold rule for :func:`dual_averaging`, without a state. The counts are exact up to
        2^31 weights in a group, and rounded beyond.

    Raises:
        ValueError: ``sparsity`` is not in [0, 1), a step is negative or not an integer,
            ``end_step`` is before ``begin_step``, ``exponent`` is not positive, ``update_every``
            is below 1, ``per_leaf`` is not a bool, or a schedule comes with the steps of a ramp.

    Examples:
        >>> import jax, jax.numpy as jnp, optax
        >>> from grda_optax import dual_averaging, sparsity, target_sparsity
        >>> tx = optax.chain(optax.adam(0.01), dual_averaging(target_sparsity(0.9, end_step=50)))
        >>> w = jax.random.normal(jax.random.key(0), (200, 50))
        >>> state = tx.init(w)
        >>> for n in range(1, 61):
        ...     updates, state = jax.jit(tx.update)(jnp.cos(w), state, w)
        ...     w = optax.apply_updates(w, updates)
        ...     if n in (10, 20, 50, 60):
        ...         print(f"after {n} updates: {sparsity(w):.4f}")
        after 10 updates: 0.4392
        after 20 updates: 0.7057
        after 50 updates: 0.9000
        after 60 updates: 0.9000

    References:
        Zhu and Gupta, *To prune, or not to prune: exploring the efficacy of pruning for model
        compression*, ICLR workshop 2018 (the cubic ramp).
    """
    check_number("begin_step", begin_step, at_least=0, integer=True, static=True)
    if end_step is not None:
        check_number("end_step", end_step, at_least=begin_step, integer=True, static=True)
    check_number("exponent", exponent, above=0)
    check_number("update_every", update_every, at_least=1, integer=True)
    if not isinstance(per_leaf, bool):
        raise ValueError(f"per_leaf must be a bool, got {per_leaf!r}.")
    if callable(sparsity):
        for name, step, default in (("begin_step", begin_step, 0), ("end_step", end_step, None)):
            if step != default:
                raise ValueError(
                    f"{name} must be {default} when sparsity is a schedule, got {step!r}."
                )
    else:
        check_number("sparsity", sparsity, at_least=0, below=1)
    check_axis_name(axis_name)
    begin_step = int(begin_step)
    last = begin_step if end_step is None else int(end_step)

    def asked(n: jax.Array) -> jax.Array:
        if callable(sparsity):
            return jnp.asarray(sparsity(n), jnp.float32)
        left = 1 - jnp.clip((n - begin_step) / max(last - begin_step, 1), 0, 1)
        part = jnp.where(n >= last, 1.0, 1 - left**exponent)
        return jnp.asarray(sparsity * part, jnp.float32)

    def zeros(n: jax.Array, sizes: list[int]) -> jax.Array:
        """How many of so many weights, in integers where the ramp has ended."""
        dtype = count_dtype(sizes)
        total = np.array(sizes, np.float32)
        moving = total - jnp.round((1 - asked(n)) * total)
        counts = jnp.clip(moving, 0, total).astype(dtype)
        if is_number(sparsity):
            final = [size - round((1 - float(sparsity)) * size) for size in sizes]
            counts = jnp.where(n >= last, jnp.array(final, dtype), counts)
        return counts

    def grouped(accumulator: optax.Params) -> list[list[jax.Array]]:
        leaves = jax.tree.leaves(accumulator)
        return [[leaf] for leaf in leaves] if per_leaf else [leaves]

    def update(
        rule_state: Any, threshold: Any, count: jax.Array, accumulator: optax.Params
    ) -> tuple[Any, Any]:
        groups = grouped(accumulator)
        if not any(groups):
            return threshold, rule_state

        def find() -> Any:
            heights = quantile(
                groups,
                zeros(count, group_sizes(groups, axis_name)),
                slack=SLACK,
                guess=_stacked(threshold),
                axis_name=axis_name,
            )
            return _unstacked(heights, threshold)

        standing = asked(count + 1) == asked(count)
        due = (count == 1) | (count % update_every == 0) | standing
        return jax.lax.cond(due, find, lambda: threshold), rule_state

    def select(count: jax.Array, accumulator: optax.Params) -> Any:
        groups = grouped(accumulator)
        if not any(groups):
            return accumulator
        flags = select_smallest(
            groups, zeros(count, group_sizes(groups, axis_name)), axis_name=axis_name
        )
        leaves = [flag for group in flags for flag in group]
        return jax.tree.unflatten(jax.tree.structure(accumulator), leaves)

    # Compiled on its own, since branches would be compiled at every update that is not.
    return ThresholdRule(lambda accumulator: (), jax.jit(update), select, per_leaf)


def _stacked(tree: Any) -> jax.Array:
    """The scalars of a tree as one vector, in the widest of their dtypes."""
    leaves = jax.tree.leaves(tree)
    dtype = jnp.result_type(*leaves)
    return jnp.stack([leaf.astype(dtype) for leaf in leaves])


def _unstacked(vector: jax.Array, tree: Any) -> Any:
    """The entries of a vector in the place and the dtype of the scalars of a tree."""
    leaves, treedef = jax.tree.flatten(tree)
    parts = [vector[i].astype(leaf.dtype) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(treedef, parts)
