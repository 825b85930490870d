"""gRDA: generalized regularized dual averaging, as the last link of any optax chain."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ._checks import (
    PyTree,
    broadcast_mask,
    check_number,
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
        threshold: :math:`h_n`, a scalar in the widest dtype of the accumulator.
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
    threshold: jax.Array
    rule_state: Any


def dual_averaging(
    threshold: ThresholdLike,
    *,
    prox: str | ProximalOperator = "soft",
    mask: PyTree | None = None,
    freeze_step: int | None = None,
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
        threshold: :math:`h_n \ge 0`: a rule such as :func:`power_threshold`, an ``optax.Schedule``
            (called with :math:`n = 1` at the first update, so that ``h`` after ``n`` updates is
            ``schedule(n)``), or a number.
        prox: the proximal operator that reads :math:`v` out, ``"soft"`` or a function
            ``(array, threshold) -> array`` such as :func:`soft_threshold`.
        mask: which leaves are penalised: a tree of bools with the structure of the params or a
            prefix of it, or a function from params to one. ``None`` is every leaf. A ``False``
            leaf follows the base optimizer untouched.
        freeze_step: :math:`\ge 0`; the updates after this many leave every weight that is zero
            by then at zero, and no longer shrink the others: :math:`v` becomes :math:`w`, and
            :math:`h` becomes 0. Momentum and weight decay before it cannot revive a weight.
            With 0 the zeros are those of the params at ``init``. ``None`` never freezes.
        accumulator_dtype: ``None`` takes float32 or the dtype of the params, whichever is wider.
            In bfloat16 500 steps of 1e-3 would not move a weight of 1 at all.

    Returns:
        A gradient transformation with a :class:`GRDAState`. Its ``update`` needs ``params``, keeps
        their dtypes, and ignores extra arguments. Inside ``optax.inject_hyperparams`` name
        ``threshold`` (if it is a schedule, which would be called with :math:`n - 1` there),
        ``prox`` (if it is a function), ``mask``, ``freeze_step`` and ``accumulator_dtype`` as
        ``static_args``.

    Raises:
        ValueError: here, for a negative or not finite number, a wrong type or a ``prox`` of an
            unknown name; at ``init``, for a mask of another structure, or a penalised leaf that is
            not real floating point; at ``update``, without ``params``, or with params or updates of
            another structure or shape than at ``init``.

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
    if freeze_step is not None:
        check_number("freeze_step", freeze_step, at_least=0, integer=True)
    if accumulator_dtype is not None:
        check_wide_dtype("accumulator_dtype", accumulator_dtype)

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
        return GRDAState(jnp.zeros([], jnp.int32), accumulator, zero, rule.init(accumulator))

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

        def accumulate(v: jax.Array, u: jax.Array) -> jax.Array:
            u = u.astype(v.dtype)
            if freeze_step is not None:
                u = jnp.where((v != 0) | (n <= freeze_step), u, jnp.zeros_like(u))
            return v + u

        v = _penalised(accumulate, state.accumulator, updates)
        h, rule_state = rule.update(state.rule_state, state.threshold, n, v)
        if freeze_step is not None:
            h = jnp.where(n <= freeze_step, h, jnp.zeros_like(h))
        w = _penalised(lambda v: readout(v, h), v)
        if freeze_step is not None:
            # Averaging starts anew at the frozen point, with the zeros of w in v; from there on
            # h = 0, where every proximal operator is the identity.
            v = _penalised(lambda v, w: jnp.where(n == freeze_step, w, v), v, w)

        # w_n - w_{n-1} in the dtype of the params: added to them it gives w_n back, exactly where
        # that is zero, and to the last bit where the two are within a factor of two.
        def displacement(w: jax.Array, u: jax.Array, p: jax.Array) -> jax.Array:
            if _is_masked(p):  # a leaf that `optax.partition` gives to another optimizer
                return u
            return (u if _is_masked(w) else w.astype(_dtype(p)) - p).astype(_dtype(p))

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
