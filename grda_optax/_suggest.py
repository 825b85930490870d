"""A first value for the strength of the paper's threshold."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ._checks import PyTree, broadcast_mask, check_arrays, check_number


def suggest_c(
    params: optax.Params,
    learning_rate: optax.ScalarOrSchedule,
    mu: float,
    steps: int,
    sparsity: float,
    mask: PyTree | None = None,
) -> float:
    r"""The strength ``c`` at which the paper's threshold ends at a quantile of the weights.

    .. math::
        c = \frac{q_s(|w_0|)}{\sum_{n=1}^{N} \gamma_n^{1/2+\mu} (n^\mu - (n-1)^\mu)}

    with the :math:`s`-quantile of the penalised weights at the start. Where the loss is flat the
    accumulator does not move, so a weight goes when the threshold passes :math:`|w_0|`; this takes
    every direction for flat. It is too large where weights shrink towards zero on their own, and
    too small where they grow: steep directions, momentum (the updates sum to
    :math:`1 / (1 - \beta)` times as much) and adaptive optimizers. With plain SGD, on two MLPs
    from scratch, it ended 9 points short of the sparsity on average and 14 at most (the study
    ``suggest_c_error`` in ``experiments/results/RESULTS.md``). For a sparsity that is met whatever
    the optimizer does see :func:`target_sparsity`.

    Args:
        params: :math:`w_0`, at initialisation or pretrained, brought to the host.
        learning_rate: :math:`\gamma_n \ge 0`, the number or ``optax.Schedule`` that :func:`grda` or
            :func:`power_threshold` is given.
        mu: :math:`0 < \mu \le 1`, the growth.
        steps: :math:`N \ge 1`, the number of updates.
        sparsity: :math:`s` in [0, 1), such as ``0.9``.
        mask: which leaves are penalised, as in :func:`dual_averaging`.

    Returns:
        A Python float, :math:`c \ge 0`; the sum is exact in float64.

    Raises:
        ValueError: a number is out of its range, the rate is zero at every step or negative at one,
            the mask does not fit, or no weight is penalised.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from grda_optax import grda, suggest_c
        >>> w = jax.random.normal(jax.random.key(0), (1000,))
        >>> c = suggest_c(w, learning_rate=0.1, mu=0.6, steps=100, sparsity=0.9)
        >>> print(f"{c:.3f} {c * 0.1**0.5 * (100 * 0.1) ** 0.6:.3f}")
        1.268 1.596
    """
    if not callable(learning_rate):
        check_number("learning_rate", learning_rate, at_least=0, static=True)
    check_number("mu", mu, above=0, at_most=1, static=True)
    check_number("steps", steps, at_least=1, integer=True, static=True)
    check_number("sparsity", sparsity, at_least=0, below=1, static=True)
    check_arrays("params", params)
    flags = jax.tree.leaves(broadcast_mask(mask, params))
    leaves = [x for x, flag in zip(jax.tree.leaves(params), flags, strict=True) if flag]
    sizes = [np.abs(np.asarray(x)).astype(np.float64).ravel() for x in leaves]
    magnitudes = np.concatenate([*sizes, np.zeros(0)])
    if not magnitudes.size:
        raise ValueError("params must have weights that are penalised, got none.")
    rank = magnitudes.size - round((1 - float(sparsity)) * magnitudes.size)
    if rank == 0:
        return 0.0
    quantile = np.partition(magnitudes, rank - 1)[rank - 1]

    rates = np.full(steps, 1.0)
    if callable(learning_rate):
        rates = np.asarray(jax.vmap(learning_rate)(jnp.arange(steps)), np.float64) * rates
    else:
        rates = float(learning_rate) * rates
    if (rates < 0).any() or not (rates > 0).any():
        raise ValueError(
            "learning_rate must be positive at one step and negative at none, got values from "
            f"{rates.min():g} to {rates.max():g}."
        )
    n = np.arange(1, steps + 1, dtype=np.float64)
    reach = np.sum(rates ** (0.5 + mu) * (n**mu - (n - 1) ** mu))
    return float(quantile / reach)
