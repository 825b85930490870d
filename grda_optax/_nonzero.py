"""Weights that are kept, and that rounding must not make zero all the same."""

import jax
import jax.numpy as jnp

from ._trees import finfo


def _smallest(dtype: jax.typing.DTypeLike) -> float:
    """The smallest positive number that no device takes for zero, as it may a subnormal one."""
    return max(float(finfo(dtype).smallest_subnormal), float(finfo(jnp.float32).tiny))


# Both under `jit`, so that leaves of one shape and dtype are traced once.
@jax.jit
def beside_zero(x: jax.Array, like: jax.Array) -> jax.Array:
    """``x``, or where it is zero the smallest number with the sign of ``like``."""
    smallest = jnp.asarray(_smallest(x.dtype), x.dtype)
    return jnp.where(jnp.abs(x) < smallest, jnp.where(like < 0, -smallest, smallest), x)


@jax.jit
def kept_step(w: jax.Array, p: jax.Array) -> jax.Array:
    """The step from ``p`` to ``w``, which is not zero, after which the param is not zero either.

    A ``w`` far smaller than ``p`` is lost in the rounding of ``w - p``. The params then go nearly
    all the way, or stay where they are if even that is too small, and follow later.
    """
    info, smallest = finfo(p.dtype), _smallest(p.dtype)
    # Under jit the sum may be computed with more digits than it is stored with; it is the stored
    # one that must not cancel.
    target = beside_zero(jax.lax.reduce_precision(w.astype(p.dtype), info.nexp, info.nmant), w)
    step = jax.lax.reduce_precision(target - p, info.nexp, info.nmant)
    fits = jnp.abs(p) * info.eps >= 2 * smallest
    nearly = jnp.where(fits, -p * (1 - info.eps), jnp.zeros_like(p))
    lost = jnp.abs(p + step) < jnp.asarray(smallest, p.dtype)
    return jnp.where(lost, nearly, step)
