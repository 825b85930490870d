"""Threshold rules: how the threshold grows with training time."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from ._checks import check_number


class ThresholdRule(NamedTuple):
    r"""How the threshold :math:`h_n` follows from what has happened so far.

    A pair of pure functions, as a gradient transformation is one. :func:`power_threshold` and
    :func:`target_sparsity` return one; any ``optax.Schedule`` and any number is taken for one by
    :func:`dual_averaging`.

    Attributes:
        init: ``init(accumulator) -> rule_state``, called once. The accumulator is a tree like
            the params with ``optax.MaskedNode()`` in the place of every leaf that is not
            penalised.
        update: ``update(rule_state, threshold, count, accumulator) -> (threshold, rule_state)``,
            called once an update with :math:`h_{n-1}`, the number :math:`n \ge 1` of this update
            and the accumulator :math:`v_n`, in units of the ``scale`` if there is one. The
            threshold is a scalar in the dtype of the one that came in, or a tree of them.
        select: ``None``, or ``select(count, accumulator) -> flags``, for a rule that says which
            weights are zero for good from the ``freeze_step`` on: a tree of boolean arrays like the
            accumulator, ``True`` at those. It is called under ``jax.jit``, and runs at this one
            update. With ``None`` they are those that the threshold has set to zero by then. A rule
            that selects is no longer updated after the freeze.
        per_leaf: whether the threshold is a tree of scalars like the accumulator, each in the
            dtype of its leaf, and not one scalar for all.

    Examples:
        A rule of one's own, a quarter of the accumulator's norm:

        >>> import jax.numpy as jnp
        >>> import optax
        >>> from grda_optax import ThresholdRule, dual_averaging
        >>> def update(rule_state, threshold, count, accumulator):
        ...     return 0.25 * optax.tree.norm(accumulator), rule_state
        >>> tx = dual_averaging(ThresholdRule(lambda accumulator: (), update))
        >>> params = jnp.array([3.0, 0.5, 4.0])
        >>> updates, state = tx.update(jnp.zeros(3), tx.init(params), params)
        >>> optax.apply_updates(params, updates)
        Array([1.7437..., 0.       , 2.7437...], dtype=float32)
    """

    init: Callable[[optax.Params], Any]
    update: Callable[[Any, Any, jax.Array, optax.Params], tuple[Any, Any]]
    select: Callable[[jax.Array, optax.Params], Any] | None = None
    per_leaf: bool = False


ThresholdLike: TypeAlias = ThresholdRule | optax.Schedule | jax.typing.ArrayLike
"""What can stand where a threshold rule is asked for."""


def power_threshold(
    learning_rate: optax.ScalarOrSchedule,
    c: jax.typing.ArrayLike = 0.005,
    mu: jax.typing.ArrayLike = 0.51,
) -> ThresholdRule:
    r"""The threshold of the paper: a power of training time.

    With a constant learning rate :math:`\gamma` it is :math:`h_n = c \gamma^{1/2} (n \gamma)^\mu`.
    With a schedule it accumulates what each update adds,

    .. math:: h_n = h_{n-1} + c \, \gamma_n^{1/2 + \mu} \left( n^\mu - (n-1)^\mu \right),
        \qquad h_0 = 0, \quad n = 1, 2, \ldots

    so it stands still while the rate is zero, and falls never.

    Args:
        learning_rate: :math:`\gamma_n \ge 0`, a number such as ``0.1`` or an ``optax.Schedule``,
            the same that the base optimizer takes. Update :math:`n` uses the schedule at
            :math:`n - 1`, as ``optax.scale_by_learning_rate`` does.
        c: :math:`c \ge 0`, the strength; the paper takes 0.0001 to 0.01. Zero never prunes.
        mu: :math:`0 < \mu \le 1`, the growth; the paper takes 0.4 to 0.8, above 1/2 in its theory.
            With 1 it is the linear growth of regularized dual averaging (RDA).

    Returns:
        A threshold rule for :func:`dual_averaging`. It keeps one scalar, the rounding error of
        the sum so far.

    Raises:
        ValueError: ``learning_rate`` or ``c`` is negative or not finite, or ``mu`` is not in
            (0, 1]. Only Python and numpy numbers are checked.

    Examples:
        Momentum, then the paper's threshold:

        >>> import jax.numpy as jnp
        >>> import optax
        >>> from grda_optax import dual_averaging, power_threshold
        >>> tx = optax.chain(
        ...     optax.sgd(0.1, momentum=0.9), dual_averaging(power_threshold(0.1, c=0.5, mu=0.6))
        ... )
        >>> params = jnp.array([1.0, 0.01])
        >>> state = tx.init(params)
        >>> updates, state = tx.update(jnp.zeros(2), state, params)
        >>> optax.apply_updates(params, updates)
        Array([0.9602..., 0.       ], dtype=float32)
        >>> print(f"{0.5 * 0.1**0.5 * 0.1**0.6:.4f} {optax.tree.get(state, 'threshold'):.4f}")
        0.0397 0.0397

    References:
        Chao, Wang, Xing and Cheng, *Directional Pruning of Deep Neural Networks*, NeurIPS 2020,
        algorithm 1. Xiao, *Dual Averaging Methods for Regularized Stochastic Learning and Online
        Optimization*, JMLR 11, 2010 (mu = 1).
    """
    if not callable(learning_rate):
        check_number("learning_rate", learning_rate, at_least=0)
    check_number("c", c, at_least=0)
    check_number("mu", mu, above=0, at_most=1)

    def init(accumulator: optax.Params) -> jax.Array:
        return jnp.zeros([], threshold_dtype(accumulator))

    def update(
        excess: jax.Array, threshold: jax.Array, count: jax.Array, accumulator: optax.Params
    ) -> tuple[jax.Array, jax.Array]:
        del accumulator
        dtype = threshold.dtype
        rate = learning_rate(count - 1) if callable(learning_rate) else learning_rate
        gamma, strength, growth = (jnp.asarray(x, dtype=dtype) for x in (rate, c, mu))
        n = count.astype(dtype)
        # The plain difference loses digits in each term, but its sum telescopes, rounding and all.
        # A form by expm1 and log1p is exact in each term and drifts by 4 % over 5 million.
        increment = strength * gamma ** (0.5 + growth) * (n**growth - (n - 1) ** growth)
        # The sum is compensated (Kahan's): what rounding added too much is taken off the next
        # increment. A plain sum in float32 is off by 0.5 % after 700,000 updates, this by 3e-7.
        wanted = increment - excess
        total = jnp.maximum(threshold + wanted, threshold)
        return total, (total - threshold) - wanted

    return ThresholdRule(init, update)


def threshold_dtype(accumulator: optax.Params) -> Any:
    """The widest dtype of the accumulator, at least float32."""
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(accumulator)]
    return functools.reduce(jnp.promote_types, dtypes, jnp.dtype(jnp.float32))


def threshold_rule(threshold: ThresholdLike) -> ThresholdRule:
    """The rule itself, or the one that a schedule or a number stands for."""
    if isinstance(threshold, ThresholdRule):
        return threshold
    if isinstance(threshold, tuple | list | dict | str) or threshold is None:
        raise ValueError(
            f"threshold must be a ThresholdRule, an optax.Schedule or a number, got {threshold!r}."
        )
    if not callable(threshold):
        check_number("threshold", threshold, at_least=0)
    schedule = threshold if callable(threshold) else lambda count: threshold

    def update(
        rule_state: Any, previous: jax.Array, count: jax.Array, accumulator: optax.Params
    ) -> tuple[jax.Array, Any]:
        del accumulator
        return jnp.asarray(schedule(count), dtype=previous.dtype), rule_state

    return ThresholdRule(lambda accumulator: (), update)
