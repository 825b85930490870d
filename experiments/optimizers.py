"""The base optimizers and learning-rate schedules that a config can name."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

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
    return schedules[config.schedule]()


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
