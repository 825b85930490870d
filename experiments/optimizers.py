"""The base optimizers and learning-rate schedules that a config can name."""

from collections.abc import Callable

import optax

from experiments.config import Config


def learning_rate_schedule(config: Config, total_steps: int) -> optax.Schedule:
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


def base_optimizer(
    config: Config, learning_rate: optax.Schedule
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
    }
    return optimizers[config.optimizer]()
