"""The base optimizers and learning-rate schedules that a config can name."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import optax

from experiments.precision import in_float32

if TYPE_CHECKING:  # the config holds the settings of methods that use these
    from experiments.config import Config


def learning_rate_schedule(config: "Config", total_steps: int) -> optax.Schedule:
    """The learning rate of each step, from 0 to ``total_steps - 1``."""
    peak = config.learning_rate
    schedules: dict[str, Callable[[], optax.Schedule]] = {
        "constant": lambda: optax.constant_schedule(peak),
        "cosine": lambda: optax.cosine_decay_schedule(peak, total_steps),
        "step": lambda: optax.piecewise_constant_schedule(
            peak, {total_steps // 2: 0.1, total_steps * 3 // 4: 0.1}
        ),
    }
    schedules["plateau_linear"] = lambda: _plateau_linear(config, total_steps)
    schedules["milestones"] = lambda: _milestones(config, total_steps)
    schedule = schedules[config.schedule]()
    warmup = config.warmup_epochs * total_steps // config.epochs
    if warmup == 0:
        return schedule
    return lambda step: schedule(step) * jnp.minimum(1.0, (step + 1) / warmup)


def _plateau_linear(config: "Config", total_steps: int) -> optax.Schedule:
    r"""Of Garipov et al., *Loss surfaces, mode connectivity, and fast ensembling of DNNs*, 2018.

    With :math:`\alpha` the number of the epoch (from 1) over that of all, the rate is the highest
    up to :math:`\alpha = 0.5`, a hundredth of it from 0.9 on, and a line in between.
    """
    peak, epochs = config.learning_rate, config.epochs
    each = max(1, total_steps // epochs)

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        alpha = (jnp.asarray(step) // each + 1) / epochs
        return peak * (1 - 0.99 * jnp.clip((alpha - 0.5) / 0.4, 0, 1))

    return schedule


def _milestones(config: "Config", total_steps: int) -> optax.Schedule:
    """The highest rate, and after each of the config's milestones a tenth of what it was."""
    steps = jnp.array([epoch * total_steps // config.epochs for epoch in config.milestones])
    return lambda step: config.learning_rate * 0.1 ** jnp.sum(step >= steps)


def same_schedule(config: "Config", peak: float, total_steps: int) -> optax.Schedule:
    """A schedule of the config's shape with another peak, for what is trained beside weights."""
    return learning_rate_schedule(dataclasses.replace(config, learning_rate=peak), total_steps)


def long_run_rate(config: "Config", learning_rate: optax.Schedule) -> optax.Schedule:
    r"""How far a constant gradient of 1 moves a weight in an update, in the long run.

    With SGD's momentum :math:`\beta` that is :math:`\gamma_n / (1 - \beta)`, and
    :math:`\gamma_n` else.
    """
    gain = 1 / (1 - config.momentum) if config.optimizer == "sgd" else 1.0
    return lambda step: gain * learning_rate(step)


def base_optimizer(
    config: "Config", learning_rate: optax.Schedule
) -> optax.GradientTransformationExtraArgs:
    """The optimizer that the config names."""
    decay = config.weight_decay
    optimizers: dict[str, Callable[[], optax.GradientTransformationExtraArgs]] = {
        "sgd": lambda: optax.chain(
            optax.add_decayed_weights(decay),
            optax.sgd(learning_rate, momentum=config.momentum or None),
        ),
        "adamw": lambda: optax.adamw(learning_rate, weight_decay=decay),
        "lion": lambda: optax.lion(learning_rate, weight_decay=decay),
        # Updates of matrices are orthogonalised, the other leaves follow AdamW at the same rate.
        "muon": lambda: optax.contrib.muon(
            learning_rate, weight_decay=decay, adam_weight_decay=decay
        ),
    }
    base = optimizers[config.optimizer]()
    return base if config.param_dtype == "float32" else in_float32(base)
