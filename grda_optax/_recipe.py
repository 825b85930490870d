"""The recipe to start from: your optimizer, the sparsity you want, and how long you train."""

from collections.abc import Hashable, Sequence

import jax
import jax.numpy as jnp
import optax

from ._checks import PyTree, check_number, is_number
from ._dual_averaging import dual_averaging
from ._groups import Groups, NofM, as_groups
from ._prox import ProximalOperator, firm
from ._target import target_sparsity

# The only place in which the defaults stand; the steps are fractions of the whole training.
RAMP_END = 0.6
FREEZE_AT = 0.75
RATIO = 3.0
LEAK = 1e-3
UPDATE_EVERY = 10


def prune_with(
    base_optimizer: optax.GradientTransformation,
    sparsity: float,
    total_steps: int,
    *,
    ramp_end: float = RAMP_END,
    freeze_at: float | None = FREEZE_AT,
    prox: str | ProximalOperator = "firm",
    ratio: optax.ScalarOrSchedule = RATIO,
    leak: optax.ScalarOrSchedule = LEAK,
    per_leaf: bool = False,
    mask: PyTree | None = None,
    groups: Groups | Sequence[Groups] | None = None,
    scale: PyTree | None = None,
    update_every: int = UPDATE_EVERY,
    axis_name: Hashable | tuple[Hashable, ...] | None = None,
    accumulator_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Your optimizer, which ends with exactly as many zeros as you ask for.

    .. math::
        v_n = v_{n-1} + u_n, \qquad w_n = \operatorname{prox}_{h_n}(v_n),

    with the updates :math:`u_n` of ``base_optimizer`` and the threshold of
    :func:`target_sparsity`: the sparsity grows along a cubic ramp, its zeros are then free to
    change for a while, and are frozen for the rest of the training. It is short for
    ``optax.chain(base_optimizer, dual_averaging(target_sparsity(...), prox="firm", ...))``.
    Nothing may come after it in a chain; clipping and the like go into ``base_optimizer``.

    Args:
        base_optimizer: proposes the updates, such as ``optax.adamw(schedule)``.
        sparsity: :math:`s`, the fraction of zeros in [0, 1) among the penalised weights.
        total_steps: :math:`N \ge 1`, the number of updates of the whole training.
        ramp_end: the fraction of the training, in [0, 1], after which the sparsity is reached.
        freeze_at: the fraction of the training, from ``ramp_end`` to 1, after which the zeros stay;
            then exactly :math:`\operatorname{round}((1 - s) d)` of the :math:`d` penalised weights
            are not zero. ``None`` never freezes, and the sparsity is within 0.0005.
        prox: as in :func:`dual_averaging`.
        ratio: :math:`a > 1`, of the operator ``"firm"``: a number, or a schedule that is called
            with :math:`n`. The other operators have none.
        leak: as in :func:`dual_averaging`.
        per_leaf: whether each leaf has this sparsity, and not the network as a whole.
        mask: which leaves are penalised, as in :func:`dual_averaging`, except that ``None`` is
            every leaf with two or more axes: kernels and embeddings, and neither biases nor the
            scales of a normalisation. Biases have two axes, too, in Flax's attention and where
            layers are stacked; then say ``"kernel$"``. ``True`` is every leaf.
        groups: what becomes zero as a whole, such as ``Blocks((4, 4))``, as in
            :func:`dual_averaging`; then ``sparsity`` is the fraction of groups that are zero, and
            of :class:`NofM`, which allows no more than :math:`1 - n/m`, that of weights.
        scale: as in :func:`dual_averaging`.
        update_every: for how many updates a threshold is held during the ramp.
        axis_name: of a mapped axis over which the params are split, as in :func:`target_sparsity`.
        accumulator_dtype: as in :func:`dual_averaging`.

    Returns:
        A gradient transformation; give its ``update`` the params.

    Raises:
        ValueError: ``base_optimizer`` is not a gradient transformation, ``sparsity`` is not in
            [0, 1), ``total_steps`` is below 1 or not an integer, ``ramp_end`` is not in [0, 1], or
            ``freeze_at`` not from there to 1; ``groups`` come with an ``axis_name``, or allow
            fewer zeros than ``sparsity``; further as in :func:`dual_averaging` and
            :func:`target_sparsity`.

    Examples:
        >>> import jax, jax.numpy as jnp, optax
        >>> from grda_optax import prune_with, sparsity_report
        >>> key, steps = jax.random.key(0), 300
        >>> tx = prune_with(optax.adamw(optax.cosine_decay_schedule(0.01, steps)), 0.95, steps)
        >>> params = {"bias": jnp.ones(20), "kernel": jax.random.normal(key, (30, 20))}
        >>> state = tx.init(params)
        >>> @jax.jit
        ... def step(params, state):
        ...     gradients = jax.tree.map(jnp.sin, params)
        ...     updates, state = tx.update(gradients, state, params)
        ...     return optax.apply_updates(params, updates), state
        >>> for _ in range(steps):
        ...     params, state = step(params, state)
        >>> print(sparsity_report(params, mask="kernel$"))
                   sparsity  nonzero  total
        bias         0.00 %       20     20  not penalised
        kernel      95.00 %       30    600
        penalised   95.00 %       30    600
        all         91.94 %       50    620
    """
    if not isinstance(base_optimizer, optax.GradientTransformation):
        raise ValueError(
            f"base_optimizer must be an optax.GradientTransformation, got {base_optimizer!r}."
        )
    check_number("total_steps", total_steps, at_least=1, integer=True, static=True)
    check_number("ramp_end", ramp_end, at_least=0, at_most=1, static=True)
    if freeze_at is not None:
        check_number("freeze_at", freeze_at, at_least=ramp_end, at_most=1, static=True)
    if callable(sparsity):
        raise ValueError(f"sparsity must be a real number, got {sparsity!r}.")
    if groups is not None:
        described = as_groups(groups)
        if axis_name is not None:
            raise ValueError(f"axis_name must be None where groups are given, got {axis_name!r}.")
        _check_reachable(sparsity, described)
    rule = target_sparsity(
        sparsity,
        end_step=round(ramp_end * total_steps),
        per_leaf=per_leaf,
        update_every=update_every,
        axis_name=axis_name,
    )
    return optax.chain(
        base_optimizer,
        dual_averaging(
            rule,
            prox=firm(ratio) if isinstance(prox, str) and prox == "firm" else prox,
            mask=_kernels if mask is None and groups is None else mask,
            groups=groups,
            # At the first update at the earliest: before that there is nothing to select from.
            freeze_step=None if freeze_at is None else max(1, round(freeze_at * total_steps)),
            scale=scale,
            leak=leak,
            accumulator_dtype=accumulator_dtype,
        ),
    )


def _kernels(params: optax.Params) -> PyTree:
    return jax.tree.map(lambda p: jnp.ndim(p) >= 2, params)


def _check_reachable(sparsity: float, groups: tuple[Groups, ...]) -> None:
    patterns = [x for x in groups if isinstance(x, NofM)]
    if len(patterns) == len(groups) and is_number(sparsity):
        most = max(1 - x.n / x.m for x in patterns)
        if sparsity > most:
            raise ValueError(
                f"sparsity must be at most the {most:g} of zeros that groups allow, got "
                f"{sparsity:g}."
            )
