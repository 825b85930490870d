"""gRDA, the optimizer of the paper: SGD before dual averaging with a growing threshold."""

from typing import Any

import jax
import optax

from ._checks import PyTree, check_flag, check_number, is_number
from ._dual_averaging import dual_averaging
from ._thresholds import power_threshold
from ._trees import check_given, wide


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
    in whose direction the loss is flat. A larger ``c`` leaves fewer, and so does a larger ``mu``
    once :math:`n \gamma > 1`; with ``c = 0`` it is ``optax.sgd``. A learning rate that falls stops
    the growth of the threshold.

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
        >>> gradient = jax.jit(jax.grad(loss))
        >>> for tx in optax.sgd(0.1), grda(0.1, c=0.1, mu=0.7):
        ...     update = jax.jit(tx.update)
        ...     w = jnp.array([0.3, 0.9, -0.4])
        ...     state = tx.init(w)
        ...     for _ in range(600):
        ...         updates, state = update(gradient(w), state, w)
        ...         w = optax.apply_updates(w, updates)
        ...     print(*(f"{x:.2f}" for x in w), f"loss {loss(w):.4f}")
        1.00 0.90 -0.40 loss 0.0000
        1.00 0.50 0.00 loss 0.0000

    References:
        Chao, Wang, Xing and Cheng, *Directional Pruning of Deep Neural Networks*, NeurIPS 2020,
        algorithm 1.
    """
    check_flag("nesterov", nesterov)
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
        return base.init(jax.tree.map(lambda p: wide(p, dtype), params))

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        check_given(params)
        updates, params = jax.tree.map(lambda x: wide(x, dtype), (updates, params))
        updates, state = base.update(updates, state, params, **extra_args)
        return updates, state

    return optax.GradientTransformationExtraArgs(init, update)
