"""The only training loop: from a config and a transformation to trained weights and a result."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from experiments import data, models, reparameterisation
from experiments.checkpoint import Checkpoints, RunFolder, trained_weights, write_json
from experiments.config import Config, Runtime
from experiments.log import Log, Row
from experiments.models.axis import DEVICE_AXIS
from experiments.optimizers import base_optimizer, learning_rate_schedule
from experiments.parallel import DataParallel
from experiments.reparameterisation import Reparameterisation, Reparameterised
from grda_optax import SparsityReport, sparsity_report

PyTree = Any
EVALUATION_BATCH = 1000


class State(NamedTuple):
    """All that a run needs to go on: together with the config it fixes every later number."""

    step: jax.Array
    params: PyTree
    statistics: PyTree
    opt_state: optax.OptState


class Trained(NamedTuple):
    """A network at the end of its training, or at the step where it was told to stop."""

    params: PyTree
    statistics: PyTree
    rows: list[Row]
    result: Row | None
    """The scores and counts of a finished run, ``None`` of one that was stopped."""


class DivergedError(Exception):
    """A loss or a gradient was not finite."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of one method; what a method may use stands here."""

    config: Config
    runtime: Runtime
    dataset: data.Dataset
    parallel: DataParallel
    folder: Path
    console: Console

    def __post_init__(self) -> None:
        """Refuses a batch that does not fit the data or the devices, and weights of others."""
        batch, examples = self.config.batch_size, len(self.splits[0].labels)
        if batch > examples:
            raise ValueError(f"batch_size must be at most the {examples} examples, got {batch}.")
        if batch % self.parallel.size:
            raise ValueError(
                f"batch_size must be a multiple of the {self.parallel.size} devices, got {batch}."
            )
        _ = self.model  # which refuses data that are not for it
        if self.config.init_from is not None:
            self.start()

    @functools.cached_property
    def splits(self) -> tuple[data.Split, data.Split]:
        """What is trained on, and what is scored."""
        return data.splits(self.dataset, self.config.evaluate)

    @functools.cached_property
    def model(self) -> models.Model:
        """The network as pure functions."""
        inputs = self.dataset.train.inputs
        return models.build(
            self.config.model,
            inputs.shape[1:],
            self.dataset.num_classes,
            self.dataset.mean,
            self.dataset.std,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training set."""
        return len(self.splits[0].labels) // self.config.batch_size

    @property
    def total_steps(self) -> int:
        """Updates in the whole run."""
        return self.config.epochs * self.steps_per_epoch

    @functools.cached_property
    def learning_rate(self) -> optax.Schedule:
        """The learning rate at each step, from 0."""
        return learning_rate_schedule(self.config, self.total_steps)

    def base_optimizer(self) -> optax.GradientTransformationExtraArgs:
        """The optimizer that the config names, with its schedule."""
        return base_optimizer(self.config, self.learning_rate)

    def penalised(self, params: PyTree) -> PyTree:
        """Which leaves are pruned."""
        everything = self.config.penalise == "all"
        return jax.tree.map(lambda x: everything or x.ndim >= 2, params)

    def start(self) -> tuple[PyTree, PyTree]:
        """The params and the statistics before the first step: new ones, or another run's."""
        return self._start

    @functools.cached_property  # read before --overwrite can delete the run that they are of
    def _start(self) -> tuple[PyTree, PyTree]:
        new = self.model.init(jax.random.key(self.config.seed))
        return new if self.config.init_from is None else trained_weights(self.config, like=new)

    def compiled_step(
        self,
        tx: optax.GradientTransformationExtraArgs,
        weights_of: Reparameterisation | None = None,
    ) -> Callable[[PyTree, PyTree], PyTree]:
        """One update: (state, batch) to (state, metrics), in the memory of the state given."""
        step = functools.partial(_training_step, self, tx, weights_of)
        return self.parallel.wrap(step, donate=True)

    def train(
        self,
        tx: optax.GradientTransformationExtraArgs,
        *,
        reparameterisation: Reparameterisation | None = None,
    ) -> Trained:
        """Trains with ``tx`` to the end, or goes on from the folder's latest checkpoint.

        With a ``reparameterisation`` it is the raw values that ``tx`` moves.
        """
        return _train(self, tx, reparameterisation)


def _loss_and_statistics(
    job: Job, params: PyTree, statistics: PyTree, batch: data.Split
) -> tuple[jax.Array, PyTree]:
    logits, statistics = job.model.apply(params, statistics, jnp.asarray(batch.inputs), True)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
    return losses.mean(), statistics


def _trained(state: State) -> tuple[PyTree, optax.OptState]:
    """What the optimizer moves, the params or the raw values behind them, and its state."""
    if isinstance(state.opt_state, Reparameterised):
        return state.opt_state.raw, state.opt_state.opt_state
    return state.params, state.opt_state


def _training_step(
    job: Job,
    tx: optax.GradientTransformationExtraArgs,
    weights_of: Reparameterisation | None,
    state: State,
    batch: data.Split,
) -> tuple[State, dict[str, jax.Array]]:
    """One update on one device; gradients are averaged over all of them."""
    loss = functools.partial(_loss_and_statistics, job)
    differentiate = jax.value_and_grad(loss, has_aux=True)
    if weights_of is not None:
        key = reparameterisation.noise_key(job.config.seed, state.step)
        differentiate = reparameterisation.value_and_grad(weights_of, loss, key, state.step)
    trained, opt_state = _trained(state)
    (value, statistics), gradients = differentiate(trained, state.statistics, batch)
    value, gradients = jax.lax.pmean((value, gradients), DEVICE_AXIS)
    updates, opt_state = tx.update(gradients, opt_state, trained)
    metrics = {
        "loss": value,
        "gradient_norm": optax.tree.norm(gradients),
        "learning_rate": jnp.asarray(job.learning_rate(state.step), jnp.float32),
    }
    threshold = optax.tree.get(opt_state, "threshold", None)
    if isinstance(threshold, jax.Array):  # with one a leaf there is none to show
        metrics["threshold"] = threshold
    params = optax.apply_updates(trained, updates)
    if weights_of is not None:
        opt_state = Reparameterised(params, opt_state)
        params = weights_of.weights(params, key, False)
    return State(state.step + 1, params, statistics, opt_state), metrics


def _evaluation_step(
    job: Job, state: State, batch: tuple[data.Split, np.ndarray]
) -> dict[str, jax.Array]:
    """Sums over the labels of a batch, where an example of weight 0 is only there to fill it."""
    (inputs, labels), weight = batch
    logits, _ = job.model.apply(state.params, state.statistics, jnp.asarray(inputs), False)
    weights = jnp.broadcast_to(weight.reshape(-1, *[1] * (labels.ndim - 1)), labels.shape)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    sums = {
        "correct": jnp.sum(weights * (logits.argmax(-1) == labels)),
        "loss": jnp.sum(weights * losses),
        "count": jnp.sum(weights),
    }
    return dict(jax.lax.psum(sums, DEVICE_AXIS))


def _train(
    job: Job,
    tx: optax.GradientTransformationExtraArgs,
    weights_of: Reparameterisation | None,
) -> Trained:
    config, runtime, parallel = job.config, job.runtime, job.parallel
    train_split, scored_split = job.splits
    total = job.total_steps
    stop = min(total, runtime.stop_after or total)

    folder = RunFolder(job.folder)
    folder.open(config)  # raises, and writes nothing, if it is another config's
    checkpoints = Checkpoints(folder)

    # Copied, so that a transformation which keeps the params can be donated beside them.
    params, statistics = jax.tree.map(jnp.array, job.start())
    if weights_of is None:
        opt_state = jax.jit(tx.init)(params)
    else:
        params, opt_state = reparameterisation.start(weights_of, tx, params, config.seed)
    state = State(jnp.zeros([], jnp.int32), params, statistics, opt_state)
    if checkpoints.latest() is not None:
        state = checkpoints.restore(like=state)
    start = int(state.step)
    state = parallel.replicate(state)

    step_fn = job.compiled_step(tx, weights_of)
    score_fn = parallel.wrap(functools.partial(_evaluation_step, job))
    evaluation = [
        parallel.split(batch)
        for batch in data.evaluation_batches(
            scored_split, math.lcm(parallel.size, min(EVALUATION_BATCH, len(scored_split.labels)))
        )
    ]

    def score() -> Row:
        """Every example of the scored split once, and the zeros."""
        sums = [parallel.unreplicate(score_fn(state, batch)) for batch in evaluation]
        correct, loss, count = (
            sum(float(x[name]) for x in sums) for name in ("correct", "loss", "count")
        )
        counts = sparsity_report(parallel.unreplicate(state.params), job.penalised)
        return {
            "eval_accuracy": correct / count,
            "eval_loss": loss / count,
            "sparsity_penalised": counts.penalised.sparsity,
            "sparsity_all": counts.all.sparsity,
        }

    with Log(
        folder,
        name=config.method[0],
        total=total,
        start=start,
        every=runtime.log_every,
        progress=runtime.progress,
        console=job.console,
    ) as log:
        seconds = log.rows[-1].get("seconds", 0.0) if log.rows else 0.0
        began = time.monotonic() - seconds
        pending: list[tuple[int, dict[str, jax.Array]]] = []
        for step in range(start, stop):
            batch = data.batch(train_split, config.seed, step, config.batch_size)
            state, metrics = step_fn(state, parallel.split(batch))
            pending.append((step + 1, metrics))

            done = step + 1
            epoch_ends = done % job.steps_per_epoch == 0 or done == total
            saves = done % runtime.checkpoint_every == 0 or done == stop
            if not (epoch_ends or saves or done % runtime.log_every == 0):
                continue
            rows = _fetch(pending, parallel)
            pending = []
            healthy = _healthy(rows)
            if epoch_ends and len(healthy) == len(rows):
                healthy[-1] |= score()
                if runtime.keep_masks:
                    weights = parallel.unreplicate(state.params)
                    folder.write_masks(done // job.steps_per_epoch, weights, job.penalised(weights))
            if healthy:
                healthy[-1]["seconds"] = round(time.monotonic() - began, 3)
            log.write(healthy)
            if len(healthy) < len(rows):
                raise _diverged("the loss is not finite", rows[len(healthy)], checkpoints, folder)
            if saves:
                kept = jax.tree.map(np.asarray, parallel.unreplicate(state))
                # A weight can overflow in the very update whose loss was still a number.
                if not all(np.isfinite(x).all() for x in jax.tree.leaves(_trained(kept)[0])):
                    raise _diverged("a weight is not finite", rows[-1], checkpoints, folder)
                checkpoints.save(done, kept)
        checkpoints.close()

    final = jax.tree.map(np.asarray, parallel.unreplicate(state))
    result = None
    if stop == total:
        counts = sparsity_report(final.params, job.penalised)
        result = _result(log.rows, counts)
        write_json(folder.result, result)
    return Trained(final.params, final.statistics, log.rows, result)


def _fetch(pending: list[tuple[int, dict[str, jax.Array]]], parallel: DataParallel) -> list[Row]:
    """Waits for the steps that are under way, and brings their metrics to the host."""
    fetched = jax.device_get([parallel.unreplicate(metrics) for _, metrics in pending])
    return [
        {"step": step, **{name: float(value) for name, value in metrics.items()}}
        for (step, _), metrics in zip(pending, fetched, strict=True)
    ]


def _healthy(rows: list[Row]) -> list[Row]:
    """The rows before the first whose loss or gradient is not finite."""
    for i, row in enumerate(rows):
        if not (math.isfinite(row["loss"]) and math.isfinite(row["gradient_norm"])):
            return rows[:i]
    return rows


def _diverged(what: str, row: Row, checkpoints: Checkpoints, folder: RunFolder) -> DivergedError:
    threshold = f", threshold {row['threshold']:g}" if "threshold" in row else ""
    good = checkpoints.latest()
    checkpoints.close()  # which waits until that one is written
    kept = (
        "no checkpoint was reached"
        if good is None
        else f"the last good checkpoint, of step {good}, is in {folder.checkpoints}"
    )
    return DivergedError(
        f"{what} at step {row['step']}: loss {row['loss']:g}, norm of the gradient "
        f"{row['gradient_norm']:g}, learning rate {row['learning_rate']:g}{threshold}; {kept}. "
        "Try a lower --learning-rate."
    )


def _result(rows: list[Row], counts: SparsityReport) -> Row:
    """What a finished run comes to."""
    last = rows[-1]
    return {
        "steps": last["step"],
        "seconds": last["seconds"],
        "train_loss": float(np.mean([row["loss"] for row in rows[-50:]])),
        "eval_accuracy": last["eval_accuracy"],
        "eval_loss": last["eval_loss"],
        "threshold": last.get("threshold"),
        "penalised": {"nnz": counts.penalised.nnz, "total": counts.penalised.total},
        "all": {"nnz": counts.all.nnz, "total": counts.all.total},
        "leaves": {
            name: {"nnz": count.nnz, "total": count.total, "penalised": count.penalised}
            for name, count in counts.leaves.items()
        },
    }
