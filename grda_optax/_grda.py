"""gRDA: generalized regularized dual averaging, as the last link of any optax chain."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ._checks import (
    PyTree,
    broadcast_mask,
    broadcast_scale,
    check_number,
    check_pattern,
    check_scale,
    check_wide_dtype,
    is_number,
    path_name,
    structure,
)
from ._prox import ProximalOperator, proximal_operator
from ._thresholds import ThresholdLike, power_threshold, threshold_dtype, threshold_rule


class GRDAState(NamedTuple):
    r"""The state of :func:`dual_averaging`; ``optax.tree.get`` finds its fields in any chain.

    Attributes:
        count: :math:`n`, the number of updates so far; an int32 scalar.
        accumulator: :math:`v_n`, a tree like the params in float32 or wider, with
            ``optax.MaskedNode()`` in the place of every leaf that is not penalised.
        threshold: :math:`h_n`, a scalar in the widest dtype of the accumulator; or a tree of
            scalars like the accumulator, of a rule that has a threshold for each leaf.
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
        freeze_step: :math:`\ge 0`; the updates after this many leave every weight that is zero
            by then at zero, and no longer shrink the others: :math:`v` becomes :math:`w`, and
            :math:`h` becomes 0. Momentum and weight decay before it cannot revive a weight, and
            one that is left never becomes zero: where it would, by rounding, it stays just beside.
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
        ``prox`` (if it is a function), ``mask``, ``freeze_step``, ``scale``, ``leak`` (if it is a
        schedule) and ``accumulator_dtype`` as ``static_args``.

    Raises:
        ValueError: here, for a number out of its range or not finite, a wrong type, a ``prox`` of
            an unknown name, or a regular expression that is not one; at ``init``, for a ``mask`` or
            ``scale`` of another structure or with a pattern that is found in no path, or a
            penalised leaf that is not real floating point; at ``update``, without ``params``, or
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
        >>> for _ in range(500):
        ...     gradient = jax.grad(lambda w: (w.sum() - 0.5) ** 2)(w)
        ...     updates, state = tx.update(gradient, state, w)
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
    leaks = not (is_number(leak) and leak == 0)
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

    @jax.jit
    def freeze(n: jax.Array, v: PyTree, heights: PyTree, seen: PyTree) -> PyTree:
        def frozen() -> PyTree:
            w = _penalised(lambda v, h: readout(v, h, n), v, heights)
            if select is None:
                return w
            kept = _penalised(lambda w, v: jnp.where(v == 0, w, _beside_zero(w, v)), w, v)
            zeros = select(n, seen)
            return _penalised(lambda w, zero: jnp.where(zero, jnp.zeros_like(w), w), kept, zeros)

        return jax.lax.cond(n == freeze_step, frozen, lambda: v)

    def init(params: optax.Params) -> GRDAState:
        # A tree without leaves is nothing to average; `optax.tree.map_params` passes one, which
        # no mask fits.
        penalised = broadcast_mask(mask, params) if jax.tree.leaves(params) else params
        _check_leaves(params, penalised)
        # A copy even where the dtype stays: an accumulator that *is* the params could not be
        # donated along with them.
        accumulator = jax.tree.map(
            lambda p, flag: _wide(p, accumulator_dtype, copy=True) if flag else optax.MaskedNode(),
            params,
            penalised,
        )
        zero = jnp.zeros([], threshold_dtype(accumulator))
        if not jax.tree.leaves(params):
            return GRDAState(jnp.zeros([], jnp.int32), accumulator, zero, rule.init(accumulator))
        if rule.per_leaf:
            zero = _penalised(lambda v: jnp.zeros([], v.dtype), accumulator)
        rule_state = rule.init(_in_units(accumulator, _scales(scale, params)))
        return GRDAState(jnp.zeros([], jnp.int32), accumulator, zero, rule_state)

    def update(
        updates: optax.Updates,
        state: GRDAState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, GRDAState]:
        del extra_args
        _check_given(params)
        _check_like("params", params, state.accumulator)
        _check_like("updates", updates, state.accumulator)

        n = optax.safe_increment(state.count)

        def accumulate(v: jax.Array, u: jax.Array, p: jax.Array) -> jax.Array:
            rest = v
            if leaks:
                lost = jnp.asarray(leak(n) if callable(leak) else leak, v.dtype)
                rest = jnp.where(jnp.asarray(p) == 0, (1 - lost) * v, v)
            total = rest + u.astype(v.dtype)
            if freeze_step is None:
                return total
            frozen = jnp.where(v == 0, jnp.zeros_like(v), _beside_zero(total, v))
            return jnp.where(n <= freeze_step, total, frozen)

        v = _penalised(accumulate, state.accumulator, updates, params)
        if rule.select is not None:
            # The weights that are counted are those that are read out, to the last bit.
            v = jax.lax.optimization_barrier(v)  # type: ignore[no-untyped-call]
        scales = _scales(scale, params)
        seen = _in_units(v, scales)
        if select is None:
            h, rule_state = rule.update(state.rule_state, state.threshold, n, seen)
        else:
            h, rule_state = update_until_freeze(state.rule_state, state.threshold, n, seen)
        if freeze_step is not None:
            h = jax.tree.map(lambda h: jnp.where(n <= freeze_step, h, jnp.zeros_like(h)), h)
        heights = h if rule.per_leaf else _penalised(lambda v: h, v)
        if scales is not None:
            heights = _penalised(_rounded_up, heights, scales)
        if freeze_step is not None:
            # Averaging starts anew at the frozen point, with the zeros of w in v; from there on
            # h = 0, where every proximal operator is the identity.
            v = freeze(n, v, heights, seen)
            heights = _penalised(
                lambda h: jnp.where(n < freeze_step, h, jnp.zeros_like(h)), heights
            )
        w = _penalised(lambda v, h: readout(v, h, n), v, heights)

        # w_n - w_{n-1} in the dtype of the params: added to them it gives w_n back, exactly where
        # that is zero, and to the last bit where the two are within a factor of two.
        def displacement(w: jax.Array, u: jax.Array, p: jax.Array) -> jax.Array:
            if _is_masked(p):  # a leaf that `optax.partition` gives to another optimizer
                return u
            if _is_masked(w):
                return u.astype(_dtype(p))
            step = (w.astype(_dtype(p)) - p).astype(_dtype(p))
            if freeze_step is None:
                return step
            return jnp.where((n >= freeze_step) & (w != 0), _kept_step(w, jnp.asarray(p)), step)

        step = jax.tree.map(displacement, w, updates, params, is_leaf=_is_masked)
        return step, GRDAState(n, v, h, rule_state)

    return optax.GradientTransformationExtraArgs(init, update)


def grda(
    learning_rate: optax.ScalarOrSchedule,
    c: jax.typing.ArrayLike = 0.005,
    mu: jax.typing.ArrayLike = 0.51,
    *,
    momentum: jax.typing.ArrayLike | None = None,
    nesterov: bool = False,
    weight_decay: jax.typing.ArrayLike = 0.0,
    mask: PyTree | None = None,
    accumulator_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""The optimizer of the paper: SGD whose weights are read out through a growing threshold.

    .. math::
        v_n &= v_{n-1} - \gamma_n g_n, \qquad v_0 = w_0, \\
        h_n &= h_{n-1} + c \, \gamma_n^{1/2 + \mu} \left( n^\mu - (n-1)^\mu \right), \\
        w_n &= \operatorname{sign}(v_n) \max(|v_n| - h_n, 0).

    It trains once, from scratch or from a trained network, and ends with exact zeros: the weights
    in whose direction the loss is flat. Larger ``c`` and ``mu`` leave fewer; with ``c = 0`` it is
    ``optax.sgd``. A learning rate that falls stops the growth of the threshold.

    Momentum and weight decay, which the paper does without, act on the gradient before it is
    summed: :math:`g_n` becomes :math:`g_n + \lambda w_{n-1}` (coupled, as
    ``optax.add_decayed_weights`` in front of the momentum), then the trace
    :math:`m_n = \beta m_{n-1} + g_n`. The threshold does not know of them, so ``c`` has to grow
    with :math:`1 / (1 - \beta)` for the same sparsity.

    Args:
        learning_rate: :math:`\gamma_n \ge 0`, a number such as ``0.1`` or an ``optax.Schedule``.
        c: :math:`c \ge 0`, the strength of the penalty.
        mu: :math:`0 < \mu \le 1`, how fast the threshold grows in training time.
        momentum: :math:`0 \le \beta < 1`, such as ``0.9``; ``None`` is none.
        nesterov: whether the momentum is Nesterov's.
        weight_decay: :math:`\lambda \ge 0`, such as ``5e-4``, on every leaf.
        mask: which leaves are penalised, as in :func:`dual_averaging`; the paper's choice, every
            leaf, is the default. The others follow SGD.
        accumulator_dtype: of the accumulator and the momentum; ``None`` takes float32 or the dtype
            of the params, whichever is wider.

    Returns:
        A gradient transformation; give its ``update`` the params. Inside
        ``optax.inject_hyperparams`` name ``mask`` and ``accumulator_dtype`` as ``static_args``.

    Raises:
        ValueError: a number is out of its range or not finite, or ``nesterov`` is asked for without
            ``momentum``; further at ``init`` and ``update``, as in :func:`dual_averaging`.

    Examples:
        Least squares in which only the sum of the last two weights matters: the loss is flat in
        their difference. SGD keeps all three weights; gRDA spares the one that it can, and the
        others come out where the loss wants them, not shrunk:

        >>> import jax, jax.numpy as jnp, optax
        >>> from grda_optax import grda
        >>> def loss(w):
        ...     return jnp.sum((w[0] - 1.0) ** 2 + (w[1] + w[2] - 0.5) ** 2)
        >>> for tx in optax.sgd(0.1), grda(0.1, c=0.1, mu=0.7):
        ...     w = jnp.array([0.3, 0.9, -0.4])
        ...     state = tx.init(w)
        ...     for _ in range(600):
        ...         updates, state = tx.update(jax.grad(loss)(w), state, w)
        ...         w = optax.apply_updates(w, updates)
        ...     print(*(f"{x:.2f}" for x in w), f"loss {loss(w):.4f}")
        1.00 0.90 -0.40 loss 0.0000
        1.00 0.50 0.00 loss 0.0000

    References:
        Chao, Wang, Xing and Cheng, *Directional Pruning of Deep Neural Networks*, NeurIPS 2020,
        algorithm 1.
    """
    threshold = power_threshold(learning_rate, c, mu)
    if momentum is not None:
        check_number("momentum", momentum, at_least=0, below=1)
    elif nesterov:
        raise ValueError("momentum must be given when nesterov is True, got None.")
    check_number("weight_decay", weight_decay, at_least=0)
    decayed = not (is_number(weight_decay) and weight_decay == 0)
    sgd = optax.chain(
        optax.add_decayed_weights(weight_decay) if decayed else optax.identity(),
        optax.identity() if momentum is None else optax.trace(momentum, nesterov),
        optax.scale_by_learning_rate(learning_rate),
    )
    return optax.chain(
        _in_wide_dtype(sgd, accumulator_dtype),
        dual_averaging(threshold, mask=mask, accumulator_dtype=accumulator_dtype),
    )


def _in_wide_dtype(
    base: optax.GradientTransformationExtraArgs, dtype: jax.typing.DTypeLike | None
) -> optax.GradientTransformationExtraArgs:
    """``base`` on params and gradients in the accumulator's dtype, so that its momentum is too."""

    def init(params: optax.Params) -> optax.OptState:
        return base.init(jax.tree.map(lambda p: _wide(p, dtype), params))

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        _check_given(params)
        updates, params = jax.tree.map(lambda x: _wide(x, dtype), (updates, params))
        updates, state = base.update(updates, state, params, **extra_args)
        return updates, state

    return optax.GradientTransformationExtraArgs(init, update)


def _dtype(x: jax.typing.ArrayLike) -> np.dtype[Any]:
    return jnp.result_type(x)


def _wide(
    x: jax.typing.ArrayLike, dtype: jax.typing.DTypeLike | None, copy: bool = False
) -> jax.Array:
    """``x`` in ``dtype``, or in float32 or wider; integers and the like stay as they are."""
    own = _dtype(x)
    if not jnp.issubdtype(own, jnp.inexact):
        return jnp.asarray(x)
    if dtype is None or not jnp.issubdtype(own, jnp.floating):
        dtype = jnp.promote_types(own, jnp.float32)
    return jnp.array(x, dtype=dtype, copy=copy)


def _is_masked(x: object) -> bool:
    return isinstance(x, optax.MaskedNode)


def _penalised(function: Any, tree: PyTree, *rest: PyTree) -> PyTree:
    """Maps ``function`` over the leaves of ``tree`` and leaves what is masked there alone."""
    return jax.tree.map(
        lambda x, *xs: x if _is_masked(x) else function(x, *xs), tree, *rest, is_leaf=_is_masked
    )


def _scales(scale: PyTree | None, params: optax.Params) -> PyTree | None:
    """A number for every leaf of the params."""
    if scale is None:
        return None
    return jax.tree.unflatten(jax.tree.structure(params), broadcast_scale(scale, params))


def _in_units(accumulator: PyTree, scales: PyTree | None) -> PyTree:
    """The accumulator as a threshold rule sees it."""
    if scales is None:
        return accumulator
    return _penalised(lambda v, scale: v if scale == 1 else v / scale, accumulator, scales)


def _rounded_up(threshold: jax.Array, scale: float) -> jax.Array:
    """Their product, by a few units in the last place too large.

    A threshold is often the magnitude of one weight in units of the scale. Multiplied by the scale
    again it may be rounded to just below that weight, which has to be zero.
    """
    if scale == 1:
        return threshold
    return jnp.multiply(threshold, scale * (1 + 4 * float(_info(threshold.dtype).eps)))


def _info(dtype: jax.typing.DTypeLike) -> Any:
    return jnp.finfo(dtype)  # type: ignore[no-untyped-call]


def _smallest(dtype: jax.typing.DTypeLike) -> float:
    """The smallest positive number that no device takes for zero, as it may a subnormal one."""
    return max(float(_info(dtype).smallest_subnormal), float(_info(jnp.float32).tiny))


def _beside_zero(x: jax.Array, like: jax.Array) -> jax.Array:
    """``x``, or where it is zero the smallest number with the sign of ``like``."""
    smallest = jnp.asarray(_smallest(x.dtype), x.dtype)
    return jnp.where(jnp.abs(x) < smallest, jnp.where(like < 0, -smallest, smallest), x)


def _kept_step(w: jax.Array, p: jax.Array) -> jax.Array:
    """The step from ``p`` to ``w``, which is not zero, after which the param is not zero either.

    A ``w`` far smaller than ``p`` is lost in the rounding of ``w - p``. The params then go nearly
    all the way, or stay where they are if even that is too small, and follow later.
    """
    info, smallest = _info(p.dtype), _smallest(p.dtype)
    # Under jit the sum may be computed with more digits than it is stored with; it is the stored
    # one that must not cancel.
    target = _beside_zero(jax.lax.reduce_precision(w.astype(p.dtype), info.nexp, info.nmant), w)
    step = jax.lax.reduce_precision(target - p, info.nexp, info.nmant)
    fits = jnp.abs(p) * info.eps >= 2 * smallest
    nearly = jnp.where(fits, -p * (1 - info.eps), jnp.zeros_like(p))
    lost = jnp.abs(p + step) < jnp.asarray(smallest, p.dtype)
    return jnp.where(lost, nearly, step)


def _check_given(params: optax.Params | None) -> None:
    if params is None:
        raise ValueError("params must be given: call update(updates, state, params).")


def _check_leaves(params: optax.Params, penalised: PyTree) -> None:
    """Only what is real and floating can be shrunk to zero."""
    flags = jax.tree.leaves(penalised)
    for (path, leaf), flag in zip(jax.tree_util.tree_leaves_with_path(params), flags, strict=True):
        if flag and not jnp.issubdtype(_dtype(leaf), jnp.floating):
            raise ValueError(
                f"params that are penalised must be real floating point, got {_dtype(leaf)} at "
                f"{path_name(path)}; a mask that is False there leaves it out."
            )


def _check_like(name: str, tree: PyTree, accumulator: PyTree) -> None:
    """The tree has the structure and the shapes that ``init`` saw."""
    seen, expected = structure(tree, _is_masked), structure(accumulator, _is_masked)
    if seen != expected:
        raise ValueError(
            f"{name} must have the structure of the params at init, {expected}, got {seen}."
        )
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_masked)
    for (path, leaf), v in zip(
        leaves, jax.tree.leaves(accumulator, is_leaf=_is_masked), strict=True
    ):
        if not _is_masked(v) and jnp.shape(leaf) != v.shape:
            raise ValueError(
                f"{name} must have the shapes of the params at init, {v.shape} at "
                f"{path_name(path)}, got {jnp.shape(leaf)}."
            )
