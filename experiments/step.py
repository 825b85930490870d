"""One update of a run, in two halves, and one batch of its evaluation, as pure functions."""

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import accumulation, data, guards, precision, reparameterisation
from experiments.models.axis import DEVICE_AXIS
from experiments.remat import Loss, rematerialised
from experiments.reparameterisation import Reparameterisation, Reparameterised

if TYPE_CHECKING:
    from experiments.train import Job

PyTree = Any


class State(NamedTuple):
    """All that a run needs to go on: together with the config it fixes every later number."""

    step: jax.Array
    params: PyTree
    statistics: PyTree
    opt_state: optax.OptState


def loss_and_statistics(
    job: "Job", params: PyTree, statistics: PyTree, batch: data.Split
) -> tuple[jax.Array, PyTree]:
    """The mean loss of one device's batch, and the statistics after it."""
    logits, statistics = job.model.apply(params, statistics, jnp.asarray(batch.inputs), True)
    logits = logits.astype(jnp.float32)
    smoothing = job.config.label_smoothing
    if smoothing:
        targets = optax.smooth_labels(jax.nn.one_hot(batch.labels, logits.shape[-1]), smoothing)
        losses = optax.softmax_cross_entropy(logits, targets)
    else:
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
    return losses.mean(), statistics


def trained(state: State) -> tuple[PyTree, optax.OptState]:
    """What the optimizer moves, the params or the raw values behind them, and its state."""
    if isinstance(state.opt_state, Reparameterised):
        return state.opt_state.raw, state.opt_state.opt_state
    return state.params, state.opt_state


class LossAndGradients(NamedTuple):
    """What a batch says about the weights: means over all devices, with the loss scale in them."""

    loss: jax.Array
    statistics: PyTree
    gradients: PyTree


def loss_and_gradients(
    job: "Job", weights_of: Reparameterisation | None, state: State, batch: data.Split
) -> LossAndGradients:
    """The loss and the gradients of one device's batch, averaged over all of them."""
    loss: Loss = functools.partial(loss_and_statistics, job)
    if job.runtime.remat:
        loss = rematerialised(loss)
    moved, opt_state = trained(state)
    scale = guards.loss_scale(opt_state)
    if scale is not None:
        loss = guards.scaled(loss, scale)
    differentiate = jax.value_and_grad(loss, has_aux=True)
    if weights_of is not None:
        key = reparameterisation.noise_key(job.config.seed, state.step)
        differentiate = reparameterisation.value_and_grad(weights_of, loss, key, state.step)
    if job.config.param_dtype != "float32":
        differentiate = precision.gradients_in_float32(differentiate)
    differentiate = accumulation.in_microbatches(job.config, batch, differentiate)
    (value, statistics), gradients = differentiate(moved, state.statistics, batch)
    value, gradients = jax.lax.pmean((value, gradients), DEVICE_AXIS)
    return LossAndGradients(value, statistics, gradients)


def apply_gradients(
    job: "Job",
    tx: optax.GradientTransformationExtraArgs,
    weights_of: Reparameterisation | None,
    state: State,
    found: LossAndGradients,
) -> tuple[State, dict[str, jax.Array]]:
    """The state after an update with what was found, the same on every device."""
    value, statistics, gradients = found
    moved, opt_state = trained(state)
    scale = guards.loss_scale(opt_state)
    if scale is not None:
        value, gradients = jax.tree.map(lambda x: x / scale, (value, gradients))
    metrics = {
        "loss": value,
        "gradient_norm": optax.tree.norm(accumulation.mean_gradient(gradients, opt_state)),
        "learning_rate": jnp.asarray(job.learning_rate(state.step), jnp.float32),
    }
    updates, opt_state = tx.update(gradients, opt_state, moved)
    made = accumulation.updates_made(opt_state)
    skipped = guards.skipped(job.config, opt_state)
    if skipped is not None:  # what was not finite may have come into the statistics, too
        metrics["skipped"] = skipped
        statistics = jax.tree.map(
            lambda old, new: jnp.where(skipped, old, new), state.statistics, statistics
        )
    if scale is not None:
        metrics["loss_scale"] = scale
    threshold = optax.tree.get(opt_state, "threshold", None)
    if isinstance(threshold, jax.Array):  # with one a leaf there is none to show
        metrics["threshold"] = threshold
    params = optax.apply_updates(moved, updates)
    if weights_of is not None:
        opt_state = Reparameterised(params, opt_state)
        key = reparameterisation.noise_key(job.config.seed, state.step)
        params = weights_of.weights(params, key, False)
    return State(state.step + made, params, statistics, opt_state), metrics


def evaluation_step(
    job: "Job", state: State, batch: tuple[data.Split, np.ndarray]
) -> dict[str, jax.Array]:
    """Sums over the labels of a batch, where an example of weight 0 is only there to fill it."""
    (inputs, labels), weight = batch
    logits, _ = job.model.apply(state.params, state.statistics, jnp.asarray(inputs), False)
    weights = jnp.broadcast_to(weight.reshape(-1, *[1] * (labels.ndim - 1)), labels.shape)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
    sums = {
        "correct": jnp.sum(weights * (logits.argmax(-1) == labels)),
        "loss": jnp.sum(weights * losses),
        "count": jnp.sum(weights),
    }
    return dict(jax.lax.psum(sums, DEVICE_AXIS))
