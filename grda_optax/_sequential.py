"""Directional pruning in rounds: a trained network in, a sparse one out, no gradient step."""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._checks import PyTree, broadcast_mask, check_number
from ._curvature import Batches, Loss, hvp, value_of
from ._flat import below, ridged
from ._move import move_to_count, penalised_size, reachable, zeros_of, zeros_wanted
from ._spectrum import lanczos_function
from ._vectors import check_vector, size_of, widened


class PruningState(NamedTuple):
    """A network between two rounds; with its params alone the pruning goes on.

    Attributes:
        params: the weights, in their own dtypes; what has been pruned is ``+0.0``.
        zeros: how many of the weights that may be pruned are zero.
        total: how many may be pruned.
        rounds: how many rounds this call has made.
        products: how many products with the curvature they took.
    """

    params: PyTree
    zeros: int
    total: int
    rounds: int
    products: int

    @property
    def sparsity(self) -> float:
        """The fraction of zeros among the weights that may be pruned."""
        return self.zeros / self.total


def sequential_directional_prune(
    loss: Loss,
    params: PyTree,
    batches: Batches,
    sparsity: float,
    *,
    mask: PyTree | None = None,
    curvature: Callable[[PyTree, PyTree], PyTree] | None = None,
    round_size: float = 0.05,
    num_iters: int = 80,
    cut: float | None = None,
    ridge: float | None = None,
    progress: Callable[[PruningState], object] | None = None,
) -> PruningState:
    r"""Prunes a trained network along its flat directions, in rounds with fresh curvature.

    In each round, with :math:`\mathrm{sg} = \operatorname{sign}(w)` on the weights that are left
    and :math:`P_0` the flat directions among them, at the point where they are now,

    .. math:: w \leftarrow w - \lambda P_0 \mathrm{sg},

    where :math:`\lambda` is as large as it takes for ``round_size`` of the weights that are left to
    arrive at zero, where they stay. No gradient is taken and nothing is trained again; the weights
    that stay take over what the others did, as far as the loss is flat.

    The cost is ``num_iters`` products with the curvature a round, each of two to three gradients
    over the data, and a basis of ``num_iters`` times the params in memory. The rounds depend on
    nothing but the params: handed over again, those of a :class:`PruningState` go on to the bit
    where they were.

    Args:
        loss: ``loss(params, batch)``, the mean over the batch's examples, as for :func:`hvp`.
        params: the trained network, at or near a minimum.
        batches: the data, as for :func:`hvp`; a few thousand examples will do.
        sparsity: in [0, 1), of the weights under ``mask``.
        mask: which leaves may be pruned, as in :func:`dual_averaging`; by default kernels, those
            with two axes or more. The others are moved along with them.
        curvature: ``curvature(params, vector)``, the matrix times a vector, by default the Hessian
            of the loss. Gauss-Newton (:func:`gauss_newton_vp`) is for a network that is not at a
            minimum.
        round_size: the fraction of the weights left that goes in a round, in (0, 1]: smaller rounds
            keep the loss lower and cost more. At 0.05 it takes 45 of them to 90 %.
        num_iters: products a round.
        cut: which directions are flat, as in :func:`flat_projection`.
        ridge: likewise, instead of it; by default 1e-4.
        progress: is called with the :class:`PruningState` after each round, to show it, or to keep
            the params for going on after a stop.

    Returns:
        The last :class:`PruningState`, with exactly ``round(sparsity * total)`` zeros (more only if
        there were more before).

    Raises:
        ValueError: a number is out of its range, the loss is not a scalar or not finite at the
            start, ``mask`` does not fit or leaves nothing, both ``cut`` and ``ridge`` are given, or
            a round finds no more weights that can be removed: the message names the ceiling.

    Examples:
        Ten inputs that carry the same signal, each at its own strength: one weight can do the work
        of all.

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from grda_optax import sequential_directional_prune
        >>> signal = jax.random.normal(jax.random.key(0), (32, 1))
        >>> data = (signal * jnp.linspace(0.5, 1.5, 10), signal[:, 0])
        >>> def loss(w, batch):
        ...     return jnp.mean((batch[0] @ w - batch[1]) ** 2)
        >>> w = jnp.full(10, 0.1)
        >>> pruned = sequential_directional_prune(loss, w, [data], 0.9, mask=True, cut=1e-3)
        >>> pruned.zeros, bool(loss(pruned.params, data) < 1e-8)
        (9, True)
    """
    rounds = directional_rounds(
        loss,
        params,
        batches,
        sparsity,
        mask=mask,
        curvature=curvature,
        round_size=round_size,
        num_iters=num_iters,
        cut=cut,
        ridge=ridge,
    )
    state = next(rounds)
    for state in rounds:
        if progress is not None:
            progress(state)
    return state


def directional_rounds(
    loss: Loss,
    params: PyTree,
    batches: Batches,
    sparsity: float,
    *,
    mask: PyTree | None,
    curvature: Callable[[PyTree, PyTree], PyTree] | None,
    round_size: float,
    num_iters: int,
    cut: float | None,
    ridge: float | None,
) -> Iterator[PruningState]:
    """The state before the first round, and after each."""
    check_vector("params", params)
    check_number("sparsity", sparsity, at_least=0, below=1, static=True)
    check_number("round_size", round_size, above=0, at_most=1, static=True)
    check_number("num_iters", num_iters, at_least=1, integer=True, static=True)
    if cut is not None and ridge is not None:
        raise ValueError(
            f"only one of cut and ridge may be given, got cut={cut!r}, ridge={ridge!r}."
        )
    if cut is not None:
        check_number("cut", cut, above=0, below=1, static=True)
    elif ridge is None:
        ridge = 1e-4
    else:
        check_number("ridge", ridge, above=0, below=1, static=True)
    function = ridged(ridge) if cut is None else below(cut)  # type: ignore[arg-type]
    if mask is None:
        mask = jax.tree.map(lambda x: jnp.ndim(x) >= 2, params)
    flags = broadcast_mask(mask, params)
    total = penalised_size(params, flags)
    if total == 0:
        raise ValueError("mask must leave at least one weight that may be pruned, got none.")
    value = float(value_of(loss, params, batches))
    if not np.isfinite(value):
        raise ValueError(f"loss must be finite at params, got {value}.")
    if curvature is None:
        curvature = functools.partial(_hessian, loss, batches)

    goal = zeros_wanted(params, flags, sparsity)
    state = PruningState(params, zeros_of(params, flags), total, 0, 0)
    yield state
    while state.zeros < goal:
        # By the count alone, so that a round is the same whether or not there was a stop before.
        step = max(1, round(round_size * (total - state.zeros)))
        aim = min(goal, state.zeros + step)
        state = _round(state, curvature, function, flags, aim, num_iters)
        yield state


def _hessian(loss: Loss, batches: Batches, params: PyTree, vector: PyTree) -> PyTree:
    return hvp(loss, params, vector, batches)


def _round(
    state: PruningState,
    curvature: Callable[[PyTree, PyTree], PyTree],
    function: Callable[[np.ndarray], np.ndarray],
    flags: PyTree,
    aim: int,
    num_iters: int,
) -> PruningState:
    """One direction, and the step along it to the next count of zeros."""
    params = state.params
    alive = jax.tree.map(
        lambda w, flag: w != 0 if flag else jnp.ones(jnp.shape(w), bool), params, flags
    )
    signs = jax.tree.map(
        lambda w, flag: jnp.sign(w) if flag else jnp.zeros_like(w), widened(params), flags
    )

    def among_the_alive(vector: PyTree) -> PyTree:
        return _masked(curvature(params, _masked(vector, alive)), alive)

    # As many as in every round, for the sake of the compiled programs: the space closes by itself.
    steps = min(num_iters, size_of(params))
    flat = lanczos_function(among_the_alive, signs, function, steps, True)
    limit = reachable(params, jax.tree.map(jnp.multiply, signs, flat.value), flags)
    if limit <= state.zeros:
        raise ValueError(
            f"sparsity must be at most {state.sparsity:.4g}, the ceiling at which no weight can be "
            "removed along flat directions any more; a larger cut or ridge takes more directions "
            "for flat."
        )
    moved, _ = move_to_count(
        params,
        _masked(flat.value, alive),
        jnp.asarray(min(aim, limit)),
        tuple(map(bool, jax.tree.leaves(flags))),
    )
    return PruningState(
        moved,
        zeros_of(moved, flags),
        state.total,
        state.rounds + 1,
        state.products + flat.products,
    )


@jax.jit
def _masked(vector: PyTree, alive: PyTree) -> PyTree:
    return jax.tree.map(lambda x, a: jnp.where(a, x, jnp.zeros_like(x)), vector, alive)
