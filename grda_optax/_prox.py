"""Proximal operators: how the accumulator is read out as weights."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from ._checks import check_arrays, check_number, is_array_like

ProximalOperator: TypeAlias = Callable[..., jax.Array]
"""``prox(v, h) -> w``: an array and a threshold in, an array of the same shape and dtype out.

One that changes during training is ``prox(v, h, *, count)``: whoever calls an operator that has an
argument of this name passes it the number of the update, from 1.
"""


def soft_threshold(x: jax.typing.ArrayLike, threshold: jax.typing.ArrayLike) -> jax.Array:
    r"""Shrinks every entry towards zero, and the small ones onto it.

    The proximal operator of :math:`h \lVert w \rVert_1`:

    .. math::
        S_h(x) = \operatorname{argmin}_w \tfrac12 \lVert w - x \rVert^2 + h \lVert w \rVert_1,
        \qquad S_h(x)_j = \operatorname{sign}(x_j) \max(|x_j| - h, 0).

    Args:
        x: any shape, real floating point.
        threshold: :math:`h \ge 0`, a scalar or an array that broadcasts to the shape of ``x``.

    Returns:
        An array of the shape and dtype of ``x``; every zero in it is ``+0.0``. A NaN stays a NaN.

    Raises:
        ValueError: ``threshold`` is a negative or not finite Python number (traced values go
            unchecked), it does not broadcast to ``x``, or ``x`` is not real floating point.

    Examples:
        >>> import jax.numpy as jnp
        >>> from grda_optax import soft_threshold
        >>> soft_threshold(jnp.array([-3.0, 0.5, 2.0]), 1.0)
        Array([-2.,  0.,  1.], dtype=float32)

    References:
        Parikh and Boyd, *Proximal Algorithms*, Foundations and Trends in Optimization, 2014,
        section 6.5.2.
    """
    x, threshold = _prepare(x, threshold)
    # The test is `<=` for the zeros, not `>` for the rest: a NaN must not come out as a zero.
    return jnp.where(jnp.abs(x) <= threshold, jnp.zeros_like(x), x - jnp.copysign(threshold, x))


def hard_threshold(x: jax.typing.ArrayLike, threshold: jax.typing.ArrayLike) -> jax.Array:
    r"""Sets the small entries to zero, and leaves the others as they are.

    The proximal operator of :math:`\lambda \lVert w \rVert_0` with
    :math:`h = \sqrt{2 \lambda}`, where :math:`\lVert w \rVert_0` counts the nonzeros:

    .. math::
        H_h(x) = \operatorname{argmin}_w
            \tfrac12 \lVert w - x \rVert^2 + \tfrac12 h^2 \lVert w \rVert_0,
        \qquad H_h(x)_j = x_j \text{ where } |x_j| > h, \text{ else } 0.

    At :math:`|x_j| = h` zero and :math:`x_j` are equally good, and it is zero.

    Args:
        x: any shape, real floating point.
        threshold: :math:`h \ge 0`, a scalar or an array that broadcasts to the shape of ``x``.

    Returns:
        An array of the shape and dtype of ``x``; every zero in it is ``+0.0``. A NaN stays a NaN.

    Raises:
        ValueError: as in :func:`soft_threshold`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from grda_optax import hard_threshold
        >>> hard_threshold(jnp.array([-3.0, 0.5, 2.0]), 1.0)
        Array([-3.,  0.,  2.], dtype=float32)

    References:
        Donoho and Johnstone, *Ideal spatial adaptation by wavelet shrinkage*, Biometrika 81, 1994.
    """
    x, threshold = _prepare(x, threshold)
    return jnp.where(jnp.abs(x) <= threshold, jnp.zeros_like(x), x)


def firm_threshold(
    x: jax.typing.ArrayLike,
    threshold: jax.typing.ArrayLike,
    ratio: jax.typing.ArrayLike = 3.0,
) -> jax.Array:
    r"""Sets the small entries to zero, and shrinks those just above, but not the large ones.

    Between soft (:math:`a \to \infty`) and hard (:math:`a \to 1`), and continuous:

    .. math::
        F_{h,a}(x)_j = \begin{cases}
            0 & |x_j| \le h, \\
            \frac{a}{a - 1} \operatorname{sign}(x_j) (|x_j| - h) & h < |x_j| < a h, \\
            x_j & |x_j| \ge a h.
        \end{cases}

    It is the proximal operator of the minimax concave penalty (MCP), whose slope falls from
    :math:`h` at zero to nothing at :math:`a h`:

    .. math::
        F_{h,a}(x) = \operatorname{argmin}_w \sum_j \tfrac12 (w_j - x_j)^2
            + \int_0^{|w_j|} \max(h - t / a, 0) \, dt.

    Args:
        x: any shape, real floating point.
        threshold: :math:`h \ge 0`, a scalar or an array that broadcasts to the shape of ``x``.
        ratio: :math:`a > 1`, a scalar such as ``3.0``; for one that changes during training see
            :func:`firm`.

    Returns:
        An array of the shape and dtype of ``x``; every zero in it is ``+0.0``. A NaN stays a NaN.

    Raises:
        ValueError: ``ratio`` is a Python number that is not finite or not above 1, or as in
            :func:`soft_threshold`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from grda_optax import firm_threshold
        >>> firm_threshold(jnp.array([-4.0, 0.5, 2.0]), 1.0)
        Array([-4. ,  0. ,  1.5], dtype=float32)

    References:
        Gao and Bruce, *WaveShrink with firm shrinkage*, Statistica Sinica 7, 1997. Zhang, *Nearly
        unbiased variable selection under minimax concave penalty*, Annals of Statistics 38, 2010.
    """
    check_number("ratio", ratio, above=1, scalar=False)
    x, threshold = _prepare(x, threshold)
    ratio = _fitting("ratio", ratio, x)
    slope = ratio / (ratio - 1)
    shrunk = slope * (x - jnp.copysign(threshold, x))
    kept = jnp.where(jnp.abs(x) < ratio * threshold, shrunk, x)
    return jnp.where(jnp.abs(x) <= threshold, jnp.zeros_like(x), kept)


def firm(ratio: optax.ScalarOrSchedule = 3.0) -> ProximalOperator:
    r"""The operator :func:`firm_threshold` with another ratio, or with one that changes.

    .. math:: w_n = F_{h_n, a_n}(v_n).

    Args:
        ratio: :math:`a_n > 1`, a number, or an ``optax.Schedule`` that is called with the number
            :math:`n` of the update, from 1. A schedule that falls towards 1 goes from nearly soft
            to nearly hard.

    Returns:
        An operator for the ``prox`` of :func:`dual_averaging`.

    Raises:
        ValueError: ``ratio`` is a Python number that is not finite or not above 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> from grda_optax import firm
        >>> prox = firm(optax.linear_schedule(3.0, 1.5, transition_steps=10))
        >>> prox(jnp.array([0.5, 2.0]), 1.0, count=0), prox(jnp.array([0.5, 2.0]), 1.0, count=10)
        (Array([0. , 1.5], dtype=float32), Array([0., 2.], dtype=float32))
    """
    if not callable(ratio):
        check_number("ratio", ratio, above=1)
        return functools.partial(firm_threshold, ratio=ratio)

    def prox(
        x: jax.typing.ArrayLike,
        threshold: jax.typing.ArrayLike,
        *,
        count: jax.typing.ArrayLike,
    ) -> jax.Array:
        return firm_threshold(x, threshold, ratio(count))

    return prox


def _prepare(
    x: jax.typing.ArrayLike, threshold: jax.typing.ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """The checks that every operator shares, and both arguments in the dtype of ``x``."""
    check_number("threshold", threshold, at_least=0, scalar=False)
    if not is_array_like(x):
        raise ValueError(f"x must be an array, got {x!r}.")
    check_arrays("x", x)
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x must be real floating point, got {x.dtype}.")
    return x, _fitting("threshold", threshold, x)


def _fitting(name: str, value: jax.typing.ArrayLike, x: jax.Array) -> jax.Array:
    """In the dtype of ``x`` and broadcast to its shape, or a ValueError."""
    value = jnp.asarray(value, dtype=x.dtype)
    try:
        fits = jnp.broadcast_shapes(x.shape, value.shape) == x.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"{name} must broadcast to the shape {x.shape} of x, got shape {value.shape}."
        )
    # Broadcast here, so that code under `jax_numpy_rank_promotion="raise"` can pass any shape.
    return jnp.broadcast_to(value, x.shape)


PROXIMAL_OPERATORS: dict[str, ProximalOperator] = {
    "firm": firm_threshold,
    "hard": hard_threshold,
    "soft": soft_threshold,
}
"""Those that can be asked for by name."""


def proximal_operator(prox: str | ProximalOperator) -> ProximalOperator:
    """The operator of that name, or the function itself, as ``(v, h, count) -> w``."""
    if not callable(prox):
        if not isinstance(prox, str) or prox not in PROXIMAL_OPERATORS:
            names = ", ".join(repr(name) for name in PROXIMAL_OPERATORS)
            raise ValueError(f"prox must be a function or one of {names}, got {prox!r}.")
        prox = PROXIMAL_OPERATORS[prox]
    operator = prox
    if _takes_count(operator):
        return lambda v, h, count: operator(v, h, count=count)
    return lambda v, h, count: operator(v, h)


def zero_up_to_threshold(prox: str | ProximalOperator) -> bool:
    """Whether the operator is known to be zero exactly where the magnitude is at most h."""
    function = prox.func if isinstance(prox, functools.partial) else prox
    return isinstance(prox, str) or function in PROXIMAL_OPERATORS.values()


def _takes_count(function: Callable[..., Any]) -> bool:
    try:
        return "count" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # some built-in functions have no signature to look at
        return False
