"""Optimal Brain Surgeon: weights go, and those that stay move to make up for it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._checks import PyTree, check_number
from ._inverses import Options
from ._nonzero import beside_zero
from ._objective import Batch, Loss, Objective
from ._prune import smallest
from ._saliency import Saliency, saliency_tree


class Surgery(NamedTuple):
    """What :func:`obs_prune` gives back.

    Attributes:
        params: a tree like the params that were given, with exact zeros.
        loss_increase: what the quadratic models of all rounds predict the loss to rise by.
        gradients: how many gradients of single examples, or of groups of them, were taken.
        products: how many products with the Hessian of the whole data.
    """

    params: PyTree
    loss_increase: float
    gradients: int
    products: int


def obs_saliency(
    loss: Loss,
    params: PyTree,
    batches: Sequence[Batch],
    *,
    inverse: str = "exact",
    damping: float = 1e-3,
    num_gradients: int = 512,
    examples_per_gradient: int = 1,
    block_size: int = 64,
    chunk_size: int = 16,
    mask: PyTree | None = None,
) -> Saliency:
    r"""Optimal Brain Surgeon: what a removal costs when the other weights make up for it.

    .. math:: s_q = \frac{w_q^2}{2 [H^{-1}]_{qq}}

    is the least rise of the quadratic model :math:`\tfrac12 \delta^T H \delta` of the loss with
    :math:`w_q + \delta_q = 0`, at a minimum, where the gradient is zero. What stands for
    :math:`H`, its damping, the cost and the memory are those of :func:`obs_prune`.

    Args:
        loss: ``loss(params, batch) -> scalar``, as in :func:`obs_prune`.
        params: :math:`w`, any tree, as there. A prunable weight that is zero is held there: its
            saliency is 0, and no other counts on it.
        batches: a list of batches, as there.
        inverse: ``"exact"``, ``"low_rank"`` or ``"block"``, as there.
        damping: relative to the largest eigenvalue, as there.
        num_gradients: for the last two, as there.
        examples_per_gradient: for the last two, as there.
        block_size: for ``"block"``, as there.
        chunk_size: how many products or gradients are computed at a time.
        mask: which leaves may be pruned, as there.

    Returns:
        A :class:`Saliency` without a standard error.

    Raises:
        ValueError: as :func:`obs_prune`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from grda_optax import obs_saliency
        >>> inputs = jnp.array([[2.0, 1.9], [0.0, 0.1]])  # two weights that can replace each other
        >>> def loss(w, inputs):
        ...     return jnp.mean((inputs @ w - inputs @ jnp.array([1.0, 3.0])) ** 2)
        >>> obs_saliency(loss, jnp.array([1.0, 3.0]), [inputs], damping=0.0).values.round(4)
        Array([0.0055, 0.045 ], dtype=float32)

    References:
        Hassibi and Stork, *Second order derivatives for network pruning: Optimal Brain Surgeon*,
        NeurIPS 1992.
    """
    options = Options(
        inverse, damping, num_gradients, examples_per_gradient, block_size, chunk_size
    )
    options.check()
    objective = Objective(loss, params, batches, mask)
    w = np.asarray(objective.point, np.float64)
    active = ~(objective.prunable & (w == 0))
    diagonal = options.invert(objective, objective.point, active).diagonal
    return Saliency(saliency_tree(objective, w**2 / (2 * diagonal)), None)


def obs_prune(
    loss: Loss,
    params: PyTree,
    batches: Sequence[Batch],
    sparsity: float,
    *,
    inverse: str = "exact",
    damping: float = 1e-3,
    rounds: int = 1,
    schedule: Callable[[float], float] | None = None,
    num_gradients: int = 512,
    examples_per_gradient: int = 1,
    block_size: int = 64,
    chunk_size: int = 16,
    mask: PyTree | None = None,
) -> Surgery:
    r"""Optimal Brain Surgeon, with one joint compensation for all weights of a round.

    In every round the curvature :math:`H` is computed at the current point, the weights :math:`M`
    with the smallest :func:`obs_saliency` go, and those that stay, :math:`S`, make up for all of
    them together. With :math:`E_M` the basis vectors of :math:`M`,

    .. math::
        \delta = -H^{-1} E_M ([H^{-1}]_{MM})^{-1} w_M, \qquad\text{which is}\qquad
        \delta_M = -w_M, \quad H_{SS}\, \delta_S = H_{SM}\, w_M,

    the least of :math:`\tfrac12 \delta^T H \delta` with :math:`w_M + \delta_M = 0`. The gradient
    is not in it: it is meant for trained networks. Leaves outside the mask move too. A prunable
    weight that is zero is held at zero; it takes no part in a later round.

    What stands for :math:`H`, after :math:`\delta I` with :math:`\delta` = ``damping`` times its
    largest absolute eigenvalue on the weights that are left is added, so that :math:`H^{-1}`
    exists:

    - ``"exact"``: the Hessian, with negative eigenvalues set to zero: what they belong to counts as
      flat. For thousands of weights. A round on :math:`d` of them takes :math:`d` products with the
      Hessian, each a pass over all batches in the time of two to three gradients, and an
      eigendecomposition, :math:`O(d^3)` in float64 on the host; memory :math:`5 d^2` numbers.
    - ``"low_rank"``: the empirical Fisher matrix :math:`\frac1m \sum_i g_i g_i^T` of :math:`m`
      gradients of single examples, by the Woodbury identity; it stands for the Hessian near the
      minimum of a negative log-likelihood. For hundreds of thousands of weights.
      A round takes :math:`m` gradients and :math:`O(m^2 d + m^3)`; memory :math:`m d` numbers, and
      twice as many while they are put together.
    - ``"block"``: its diagonal blocks of :math:`b` consecutive weights each, in the order of the
      flattened params. A round takes :math:`m` gradients and :math:`O(m b d + b^2 d)`; memory
      about :math:`5 b d` numbers in float64, whatever :math:`m` is.

    Args:
        loss: ``loss(params, batch) -> scalar``, the mean over the examples of a batch; for the
            Fisher matrix it has to take batches of any size, and is each example's own loss there.
        params: :math:`w`, any tree. Its real floating point leaves are differentiated, in float32
            or wider; others are constants of the loss.
        batches: a list of batches, each a tree with the examples along the first axis of its first
            leaf; of every leaf for the Fisher matrix. The batches' losses are averaged with weights
            proportional to their examples.
        sparsity: the fraction of zeros in [0, 1) among the weights under the mask, such as ``0.9``.
        inverse: ``"exact"``, ``"low_rank"`` or ``"block"``.
        damping: positive, such as ``1e-3``; 0 is legal for ``"exact"`` where the Hessian is
            positive definite.
        rounds: :math:`R \ge 1`; more of them follow the curvature more closely, at :math:`R` times
            the cost.
        schedule: from :math:`r / R` after round :math:`r` to the part of the way from the first to
            the last number of zeros, rising to 1 at 1. ``None`` is a straight line: every round
            removes as many.
        num_gradients: :math:`m \ge 1`, at most; spread evenly over the data.
        examples_per_gradient: how many consecutive examples of a batch each of them averages; the
            Fisher matrix is multiplied with their number, since such a mean varies less.
        block_size: :math:`b \ge 1`.
        chunk_size: :math:`\ge 1`, how many products or gradients are computed at a time.
        mask: which leaves may be pruned: a tree of bools with the structure of ``params`` or a
            prefix of it, a function from params to one, or a regular expression that is searched in
            the path of every leaf. ``None`` is every leaf.

    Returns:
        A :class:`Surgery`. Of the :math:`d` weights under the mask of its params exactly
        ``round(sparsity * d)`` are zero, or those that were already, if they are more; each is
        ``+0.0``. The dtypes are those of ``params``.

    Raises:
        ValueError: the loss is no scalar, or it or its derivatives are not finite, at the start or
            after a round; ``batches`` is no list or empty; ``inverse`` is unknown; there are too
            many weights for ``"exact"``; ``damping`` is 0 where it must not be; a number or the
            schedule is out of its range; the mask does not fit, or leaves no weight.

    Examples:
        >>> import jax.numpy as jnp
        >>> from grda_optax import obs_prune
        >>> inputs = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])  # the first two are the same
        >>> def loss(w, inputs):
        ...     return jnp.mean((inputs @ w - inputs @ jnp.array([1.0, 2.0, 4.0])) ** 2)
        >>> obs_prune(loss, jnp.array([1.0, 2.0, 4.0]), [inputs], 0.34).params.round(2)
        Array([0., 3., 4.], dtype=float32)

    References:
        Hassibi and Stork, *Second order derivatives for network pruning: Optimal Brain Surgeon*,
        NeurIPS 1992.
        Singh and Alistarh, *WoodFisher: efficient second-order approximation for neural network
        compression*, NeurIPS 2020 (the blocks of the empirical Fisher matrix).
    """
    check_number("sparsity", sparsity, at_least=0, below=1, static=True)
    options = Options(
        inverse, damping, num_gradients, examples_per_gradient, block_size, chunk_size
    )
    options.check()
    ways = _ways(rounds, schedule)
    objective = Objective(loss, params, batches, mask)
    prunable, point = objective.prunable, objective.point
    zero = prunable & (np.asarray(point) == 0)
    first, total = int(zero.sum()), int(prunable.sum())
    last = max(first, round(float(sparsity) * total))
    rise, gradients, products = 0.0, 0, 0
    for way in ways:
        wanted = first + round(way * (last - first))
        if wanted == zero.sum():
            continue
        w = np.asarray(point, np.float64)
        inverted = options.invert(objective, point, ~zero)
        scores = np.where(zero, 0, w**2 / (2 * inverted.diagonal))
        old, zero = zero, np.zeros_like(zero)
        zero[prunable] = smallest(scores[prunable], old[prunable], wanted)
        step, cost = inverted.compensate(w, zero & ~old)
        point = _moved(point, jnp.asarray(w + step, point.dtype), prunable, zero)
        rise += cost
        gradients += inverted.gradients
        products += inverted.products
    return Surgery(objective.in_dtypes(point, zero), rise, gradients, products)


@jax.jit
def _moved(
    old: jax.Array, new: jax.Array, prunable: jax.typing.ArrayLike, zero: jax.typing.ArrayLike
) -> jax.Array:
    # A weight that stays is not zero, whatever the rounding: the count is exact.
    new = jnp.where(prunable, beside_zero(new, old), new)
    return jnp.where(zero, jnp.zeros_like(new), new)


def _ways(rounds: int, schedule: Callable[[float], float] | None) -> list[float]:
    """The part of the way that is gone after each round."""
    check_number("rounds", rounds, at_least=1, integer=True, static=True)
    if schedule is not None and not callable(schedule):
        raise ValueError(f"schedule must be None or a function, got {schedule!r}.")
    times = [r / rounds for r in range(1, rounds + 1)]
    ways = times if schedule is None else [float(schedule(time)) for time in times]
    if not (ways[0] >= 0 and ways[-1] == 1 and all(np.diff(ways) >= 0)):
        numbers = ", ".join(f"{way:g}" for way in ways)
        raise ValueError(f"schedule must rise from at least 0 to 1 at 1, got {numbers}.")
    return ways
