"""Dual averaging, the last link of a chain: sums updates, and reads weights out of the sum."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ._checks import (
    PyTree,
    broadcast_mask,
    check_number,
    check_pattern,
    check_scale,
    check_wide_dtype,
    is_number,
)
from ._groups import Groups, as_groups
from ._nonzero import kept_step
from ._prox import ProximalOperator, proximal_operator, zero_up_to_threshold
from ._reading import Reading, Readings
from ._thresholds import ThresholdLike, threshold_dtype, threshold_rule
from ._trees import (
    check_given,
    check_leaves,
    check_like,
    dtype_of,
    in_units,
    is_masked,
    penalised,
    rounded_up,
    scales_of,
    wide,
)


class GRDAState(NamedTuple):
    r"""The state of :func:`dual_averaging`; ``optax.tree.get`` finds its fields in any chain.

    Attributes:
        count: :math:`n`, the number of updates so far; an int32 scalar.
        accumulator: :math:`v_n`, a tree like the params in float32 or wider, with
            ``optax.MaskedNode()`` in the place of every leaf that is not penalised.
        threshold: :math:`h_n`, a scalar in the widest dtype of the accumulator; or a tree of
            scalars like the accumulator, of a rule that has a threshold for each leaf. With
            ``groups`` that is a tuple in the order of :func:`group_norms`.
        rule_state: what the threshold rule keeps; ``()`` where it keeps nothing.

    Examples:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> from grda_optax import grda
        >>> tx = optax.chain(optax.clip_by_global_norm(1.0), grda(0.1))
        >>> state = tx.init({"kernel": jnp.ones((2, 2))})
        >>> optax.tree.get(state, "threshold")
        Array(0., dtype=float32)
    """

    count: jax.Array  # type: ignore[assignment]  # a tuple has a method of this name
    accumulator: optax.Params
    threshold: Any
    rule_state: Any


def dual_averaging(
    threshold: ThresholdLike,
    *,
    prox: str | ProximalOperator = "soft",
    mask: PyTree | None = None,
    groups: Groups | Sequence[Groups] | None = None,
    freeze_step: int | None = None,
    scale: PyTree | None = None,
    leak: optax.ScalarOrSchedule = 0.0,
    accumulator_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Sums the updates of the optimizer before it, and reads sparse weights out of the sum.

    With :math:`u_n` the update that the chain before proposes,

    .. math::
        v_n &= v_{n-1} + u_n, \qquad v_0 = w_0, \\
        w_n &= \operatorname{prox}_{h_n}(v_n),

    and what comes out is :math:`w_n - w_{n-1}`. It has to be the last link of the chain: anything
    that rescales the updates after it loses the exact zeros. Do not wrap it in ``optax.masked``,
    which would pass the raw updates of the other leaves on; ``mask`` is for that.

    ``optax.apply_every`` in front of it proposes zero updates between its steps, and they count as
    steps of the threshold; ``optax.MultiSteps`` around the chain leaves the state alone instead.

    Args:
        threshold: :math:`h_n \ge 0`: a rule such as :func:`target_sparsity` or
            :func:`power_threshold`, an ``optax.Schedule`` (called with :math:`n = 1` at the first
            update, so that ``h`` after ``n`` updates is ``schedule(n)``), or a number.
        prox: the proximal operator that reads :math:`v` out: ``"soft"``, ``"hard"`` or ``"firm"``,
            or a function ``(array, threshold) -> array`` such as :func:`soft_threshold`. One with
            an argument ``count``, such as :func:`firm` makes, is also given :math:`n`.
        mask: which leaves are penalised: a tree of bools with the structure of the params or a
            prefix of it, a function from params to one, or a regular expression that is searched
            in the path of every leaf (``"kernel$"`` finds ``dense/kernel``). ``None`` is every
            leaf. A ``False`` leaf follows the base optimizer untouched.
        groups: what becomes zero as a whole: :class:`Tied` for channels and heads across layers,
            :class:`Blocks` for rows, columns and tiles, :class:`NofM` for 2:4 and the like, or a
            list of them. The operator is then that of :func:`group_threshold`, and a rule that
            looks at the accumulator sees the norms of :func:`group_norms` in its place:
            :func:`target_sparsity` asks for a fraction of the *groups*, each of which counts as
            one, or of each :class:`Tied` and each leaf with ``per_leaf``. The leaves in no group
            follow the base optimizer untouched; ``mask`` and ``scale`` must be ``None``.
        freeze_step: :math:`\ge 0`; the updates after this many leave every weight that is zero
            by then at zero, and no longer shrink the others: :math:`v` becomes :math:`w`, and
            :math:`h` becomes 0. Momentum and weight decay before it cannot revive a weight, and
            one that is left never becomes zero: where it would, by rounding, it stays just beside.
            (Of ``groups`` this holds as a whole: within one that is left a weight may pass zero.)
            With :func:`target_sparsity` there are exactly as many zeros as it asks for at this
            step, unless more of the accumulator is zero. With 0 the zeros are those of the params
            at ``init``. ``None`` never freezes.
        scale: :math:`\sigma > 0` of each leaf, by which its threshold is multiplied:
            :math:`w_n = \operatorname{prox}_{\sigma h_n}(v_n)`, and a rule that looks at the
            accumulator sees :math:`v_n / \sigma`. A dict from regular expressions to numbers,
            such as ``{"embed": 0.5, "attention/.*kernel": 2}``, of which the first that is found
            in the path of a leaf counts, and 1 where none is; or a tree of numbers with the
            structure of the params or a prefix of it. ``None`` is 1 everywhere.
        leak: :math:`0 \le \lambda_n \le 1`, a number such as ``1e-3`` or an ``optax.Schedule``
            (called with :math:`n` from 1). The accumulator of a weight that is zero is multiplied
            by :math:`1 - \lambda_n` before :math:`u_n` is added, so that it forgets.
        accumulator_dtype: ``None`` takes float32 or the dtype of the params, whichever is wider.
            In bfloat16 500 steps of 1e-3 would not move a weight of 1 at all.

    Returns:
        A gradient transformation with a :class:`GRDAState`. Its ``update`` needs ``params``, keeps
        their dtypes, and ignores extra arguments. Inside ``optax.inject_hyperparams`` name
        ``threshold`` (if it is a schedule, which would be called with :math:`n - 1` there),
        ``prox`` (if it is a function), ``mask``, ``groups``, ``freeze_step``, ``scale``, ``leak``
        (if it is a schedule) and ``accumulator_dtype`` as ``static_args``.

    Raises:
        ValueError: here, for a number out of its range or not finite, a wrong type, a ``prox`` of
            an unknown name, a regular expression that is not one, or ``groups`` beside a ``mask``
            or ``scale``; at ``init``, for a ``mask`` or ``scale`` of another structure or with a
            pattern that is found in no path, ``groups`` that do not fit the params, or a penalised
            leaf that is not real floating point; at ``update``, without ``params``, or
            with params or updates of another structure or shape than at ``init``.

    Examples:
        AdamW proposes, the threshold rises in a ramp, and of two weights of which only the sum
        matters the smaller goes:

        >>> import jax, jax.numpy as jnp, optax
        >>> from grda_optax import dual_averaging
        >>> ramp = optax.linear_schedule(0.0, 0.5, transition_steps=200)
        >>> tx = optax.chain(optax.adamw(0.01), dual_averaging(ramp, freeze_step=250))
        >>> w = jnp.array([0.7, -0.2])
        >>> state = tx.init(w)
        >>> gradient, update = jax.jit(jax.grad(lambda w: (w.sum() - 0.5) ** 2)), jax.jit(tx.update)
        >>> for _ in range(500):
        ...     updates, state = update(gradient(w), state, w)
        ...     w = optax.apply_updates(w, updates)
        >>> print(*(f"{x:.3f}" for x in w))
        0.500 0.000

    References:
        Chao, Wang, Xing and Cheng, *Directional Pruning of Deep Neural Networks*, NeurIPS 2020,
        equation (gRDA). Nesterov, *Primal-dual subgradient methods for convex problems*,
        Mathematical Programming 120, 2009.
    """
    rule = threshold_rule(threshold)
    readout = proximal_operator(prox)
    if isinstance(mask, str):
        check_pattern("mask", mask)
    if freeze_step is not None:
        check_number("freeze_step", freeze_step, at_least=0, integer=True)
    if scale is not None:
        check_scale(scale)
    if not callable(leak):
        check_number("leak", leak, at_least=0, at_most=1)
    described = None if groups is None else as_groups(groups)
    if described is not None:
        for name, given in (("mask", mask), ("scale", scale)):
            if given is not None:
                raise ValueError(f"{name} must be None where groups are given, got {given!r}.")
    readings = Readings(described, readout)
    leaks = not (is_number(leak) and leak == 0)
    # Then the accumulator tells which weights are zero, and the params need not be read for it.
    tells_zeros = leaks and described is None and zero_up_to_threshold(prox)
    select = None if freeze_step is None else rule.select
    if accumulator_dtype is not None:
        check_wide_dtype("accumulator_dtype", accumulator_dtype)

    # Compiled on their own, since branches would be compiled at every update that is not.
    @jax.jit
    def update_until_freeze(rule_state: Any, h: Any, n: jax.Array, seen: PyTree) -> Any:
        return jax.lax.cond(
            n <= freeze_step,  # type: ignore[operator]
            lambda: rule.update(rule_state, h, n, seen),
            lambda: (h, rule_state),
        )

    @functools.partial(jax.jit, static_argnums=0)
    def freeze(
        inside: Reading, n: jax.Array, v: PyTree, measured: Any, heights: Any, seen: Any
    ) -> PyTree:
        def frozen() -> PyTree:
            if select is None:
                return inside.weights(v, measured, heights, n)
            return inside.settled(v, measured, heights, n, select(n, seen))

        return jax.lax.cond(n == freeze_step, frozen, lambda: v)

    def init(params: optax.Params) -> GRDAState:
        # A tree without leaves is nothing to average; `optax.tree.map_params` passes one, which
        # no mask fits.
        some = bool(jax.tree.leaves(params))
        inside = readings(params)
        if not some:
            flags = params
        else:
            flags = broadcast_mask(mask, params) if inside.flags is None else inside.flags
        check_leaves(params, flags)
        # A copy even where the dtype stays: an accumulator that *is* the params could not be
        # donated along with them.
        accumulator = jax.tree.map(
            lambda p, flag: wide(p, accumulator_dtype, copy=True) if flag else optax.MaskedNode(),
            params,
            flags,
        )
        zero = jnp.zeros([], threshold_dtype(accumulator))
        if not some:
            return GRDAState(jnp.zeros([], jnp.int32), accumulator, zero, rule.init(accumulator))
        measured = inside.magnitudes(accumulator)
        scales = scales_of(scale, params) if inside.scales is None else inside.scales
        if rule.per_leaf:
            zero = penalised(lambda v: jnp.zeros([], v.dtype), measured)
        rule_state = rule.init(in_units(measured, scales))
        return GRDAState(jnp.zeros([], jnp.int32), accumulator, zero, rule_state)

    def update(
        updates: optax.Updates,
        state: GRDAState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, GRDAState]:
        del extra_args
        check_given(params)
        check_like("params", params, state.accumulator)
        check_like("updates", updates, state.accumulator)

        n = optax.safe_increment(state.count)

        inside = readings(params)
        scales = scales_of(scale, params) if inside.scales is None else inside.scales

        def heights_of(h: Any, measured: PyTree) -> PyTree:
            """The threshold of every leaf, or family of groups."""
            heights = h if rule.per_leaf else penalised(lambda v: h, measured)
            return heights if scales is None else penalised(rounded_up, heights, scales)

        def accumulate(v: jax.Array, u: jax.Array, p: jax.Array, *height: jax.Array) -> jax.Array:
            rest = v
            if leaks:
                lost = jnp.asarray(leak(n) if callable(leak) else leak, v.dtype)
                zero = jnp.abs(v) <= height[0].astype(v.dtype) if height else jnp.asarray(p) == 0
                rest = jnp.where(zero, (1 - lost) * v, v)
            return rest + u.astype(v.dtype)

        before = []
        if tells_zeros:
            heights = heights_of(state.threshold, state.accumulator)
            if freeze_step is not None:  # the freeze has read the accumulator out, and kept h
                heights = penalised(
                    lambda h: jnp.where(n <= freeze_step, h, jnp.zeros_like(h)), heights
                )
            before = [heights]
        v = penalised(accumulate, state.accumulator, updates, params, *before)
        if freeze_step is not None:
            v = penalised(
                lambda total, frozen: jnp.where(n <= freeze_step, total, frozen),
                v,
                inside.held(v, state.accumulator),
            )
        if rule.select is not None:
            # The weights that are counted are those that are read out, to the last bit.
            v = jax.lax.optimization_barrier(v)  # type: ignore[no-untyped-call]
        measured = inside.magnitudes(v)
        seen = in_units(measured, scales)
        if select is None:
            h, rule_state = rule.update(state.rule_state, state.threshold, n, seen)
        else:
            h, rule_state = update_until_freeze(state.rule_state, state.threshold, n, seen)
        if freeze_step is not None:
            h = jax.tree.map(lambda h: jnp.where(n <= freeze_step, h, jnp.zeros_like(h)), h)
        heights = heights_of(h, measured)
        if freeze_step is not None:
            # Averaging starts anew at the frozen point, with the zeros of w in v; from there on
            # h = 0, where every proximal operator is the identity.
            v = freeze(inside, n, v, measured, heights, seen)
            heights = penalised(lambda h: jnp.where(n < freeze_step, h, jnp.zeros_like(h)), heights)
        w = inside.weights(v, measured, heights, n)

        # w_n - w_{n-1} in the dtype of the params: added to them it gives w_n back, exactly where
        # that is zero, and to the last bit where the two are within a factor of two.
        def displacement(w: jax.Array, u: jax.Array, p: jax.Array) -> jax.Array:
            if is_masked(p):  # a leaf that `optax.partition` gives to another optimizer
                return u
            if is_masked(w):
                return u.astype(dtype_of(p))
            step = (w.astype(dtype_of(p)) - p).astype(dtype_of(p))
            if freeze_step is None:
                return step
            return jnp.where((n >= freeze_step) & (w != 0), kept_step(w, jnp.asarray(p)), step)

        step = jax.tree.map(displacement, w, updates, params, is_leaf=is_masked)
        return step, GRDAState(n, v, h, rule_state)

    return optax.GradientTransformationExtraArgs(init, update)
