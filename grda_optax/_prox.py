"""Proximal operators: how the accumulator is read out as weights."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from ._checks import check_number

ProximalOperator: TypeAlias = Callable[[jax.Array, jax.Array], jax.Array]
"""``prox(v, h) -> w``: an array and a threshold in, an array of the same shape and dtype out."""


def soft_threshold(x: jax.typing.ArrayLike, threshold: jax.typing.ArrayLike) -> jax.Array:
    r"""Shrinks every entry towards zero, and the small ones onto it.

    The proximal operator of :math:`h \lVert x \rVert_1`:

    .. math:: S_h(x)_j = \operatorname{sign}(x_j) \max(|x_j| - h, 0).

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


def _prepare(
    x: jax.typing.ArrayLike, threshold: jax.typing.ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """The checks that every operator shares, and both arguments in the dtype of ``x``."""
    check_number("threshold", threshold, at_least=0)
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x must be real floating point, got {x.dtype}.")
    threshold = jnp.asarray(threshold, dtype=x.dtype)
    try:
        fits = jnp.broadcast_shapes(x.shape, threshold.shape) == x.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"threshold must broadcast to the shape {x.shape} of x, got shape {threshold.shape}."
        )
    # Broadcast here, so that code under `jax_numpy_rank_promotion="raise"` can pass any shape.
    return x, jnp.broadcast_to(threshold, x.shape)


PROXIMAL_OPERATORS: dict[str, ProximalOperator] = {"soft": soft_threshold}
"""Those that can be asked for by name."""


def proximal_operator(prox: str | ProximalOperator) -> ProximalOperator:
    """The operator of that name, or the function itself."""
    if callable(prox):
        return prox
    if not isinstance(prox, str) or prox not in PROXIMAL_OPERATORS:
        names = ", ".join(repr(name) for name in sorted(PROXIMAL_OPERATORS))
        raise ValueError(f"prox must be a function or one of {names}, got {prox!r}.")
    return PROXIMAL_OPERATORS[prox]
