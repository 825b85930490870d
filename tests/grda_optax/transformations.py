"""Every transformation that the library exports, in the settings that people use.

Each entry makes one from a learning rate, which is a number or a schedule. The thresholds are small
enough for the optimum of a well posed problem to be reached, and large enough to be seen.
"""

import functools

import jax
import jax.numpy as jnp
import optax

from grda_optax import (
    Blocks,
    GRDAState,
    ThresholdRule,
    dual_averaging,
    firm,
    grda,
    power_threshold,
    prune_with,
    target_sparsity,
)


def matrices(params):
    """A mask: biases and scalars are left alone."""
    return jax.tree.map(lambda x: jnp.ndim(x) >= 2, params)


def vectors(params):
    """A mask: of the contract's problem the leaves of which few weights are zero at the optimum."""
    return jax.tree.map(lambda x: jnp.ndim(x) == 1, params)


def averaged_norm():
    """A rule of one's own with a state: a small part of a moving average of the norm."""

    def init(accumulator):
        return {"average": optax.tree.norm(accumulator).astype(jnp.float32)}

    def update(rule_state, threshold, count, accumulator):
        norm = optax.tree.norm(accumulator).astype(jnp.float32)
        average = 0.9 * rule_state["average"] + 0.1 * norm
        return (1e-6 * average).astype(threshold.dtype), {"average": average}

    return ThresholdRule(init, update)


RAMP = optax.linear_schedule(0.0, 1e-3, transition_steps=50)

TRANSFORMATIONS = {
    "grda": lambda rate: grda(rate, c=1e-3, mu=0.6),
    "grda_full": lambda rate: grda(
        rate, c=1e-3, mu=0.6, momentum=0.9, nesterov=True, weight_decay=1e-6
    ),
    "grda_masked": lambda rate: grda(rate, c=1e-3, mu=0.6, momentum=0.5, mask=matrices),
    "sgd_number": lambda rate: optax.chain(optax.sgd(rate), dual_averaging(1e-3)),
    "sgd_schedule": lambda rate: optax.chain(optax.sgd(rate), dual_averaging(RAMP)),
    "sgd_own_rule": lambda rate: optax.chain(optax.sgd(rate), dual_averaging(averaged_norm())),
    "adamw_power": lambda rate: optax.chain(
        optax.adamw(rate, weight_decay=1e-6), dual_averaging(power_threshold(rate, c=1e-3))
    ),
    "lion_power": lambda rate: optax.chain(
        optax.lion(rate, weight_decay=1e-6), dual_averaging(power_threshold(rate, c=1e-3))
    ),
    "clipped": lambda rate: optax.chain(optax.clip_by_global_norm(3.0), grda(rate, c=1e-3)),
    "frozen": lambda rate: optax.chain(
        optax.sgd(rate, momentum=0.5), dual_averaging(RAMP, freeze_step=3)
    ),
    "frozen_masked": lambda rate: optax.chain(
        optax.sgd(rate), dual_averaging(RAMP, mask=matrices, freeze_step=2)
    ),
    "firm_scaled_leaky": lambda rate: optax.chain(
        optax.sgd(rate),
        dual_averaging(
            RAMP,
            prox=firm(optax.linear_schedule(4.0, 2.0, 50)),
            scale={"kernel|matrix": 0.5, "": 1.5},
            leak=1e-3,
        ),
    ),
    "groups": lambda rate: optax.chain(
        optax.sgd(rate),
        dual_averaging(RAMP, prox="firm", groups=Blocks((1, None)), leak=1e-3, freeze_step=40),
    ),
    # Of the contract's problem one weight in 21 is zero at the optimum, and of its params two.
    "target": lambda rate: optax.chain(
        optax.sgd(rate), dual_averaging(target_sparsity(0.04, update_every=2), prox="hard")
    ),
    "target_per_leaf": lambda rate: optax.chain(
        optax.sgd(rate), dual_averaging(target_sparsity(0.2, per_leaf=True), mask=vectors)
    ),
    "prune_with": lambda rate: prune_with(
        optax.sgd(rate), 0.04, 30_000, ramp_end=0.0, mask=True, leak=1e-3
    ),
}

RATE = 0.05


@functools.cache
def transformation(name, rate=RATE):
    return TRANSFORMATIONS[name](rate)


def is_ours(node):
    return isinstance(node, GRDAState)


def our_state(state):
    """The one GRDAState in the state of a chain."""
    (found,) = (x for x in jax.tree.leaves(state, is_leaf=is_ours) if is_ours(x))
    return found
