"""The only training loop: from a config and a transformation to trained weights and a result."""

import copy
import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from experiments import (
    accumulation,
    averaging,
    data,
    guards,
    kept,
    models,
    precision,
    preemption,
    reparameterisation,
    wrapping,
)
from experiments.checkpoint import Checkpoints, RunFolder, trained_weights, write_json
from experiments.checks import check
from experiments.config import Config, Runtime
from experiments.distributed import is_first, open_folder
from experiments.health import all_finite, diverged, fetch, healthy
from experiments.interventions import Intervention, check_interventions, intervene
from experiments.log import Log, Row, Rows
from experiments.models.axis import DEVICE_AXIS
from experiments.models.widths import Width
from experiments.optimizers import base_optimizer, learning_rate_schedule
from experiments.parallel import DataParallel
from experiments.remat import Loss, rematerialised
from experiments.reparameterisation import Reparameterisation, Reparameterised
from experiments.result import summarise
from grda_optax import sparsity_report

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
        batch, examples = self.config.batch_size, self.examples
        if batch > examples:
            raise ValueError(f"batch_size must be at most the {examples} examples, got {batch}.")
        if batch % self.parallel.size:
            raise ValueError(
                f"batch_size must be a multiple of the {self.parallel.size} devices, got {batch}."
            )
        if batch % (pieces := self.parallel.size * self.config.accumulate):
            raise ValueError(
                f"batch_size must be a multiple of {pieces}, which are accumulate = "
                f"{self.config.accumulate} parts on {self.parallel.size} devices, got {batch}."
            )
        _ = self.model  # which refuses data that are not for it
        if self.config.init_from is not None:
            self.start()

    @functools.cached_property
    def splits(self) -> tuple[data.Split | data.Stream, data.Split | data.Stream]:
        """What is trained on, and what is scored."""
        return data.splits(self.dataset, self.config.evaluate)

    @property
    def examples(self) -> int:
        """How many are trained on."""
        return data.examples(self.splits[0])

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one example."""
        return data.input_shape(self.dataset.train)

    @functools.cached_property
    def model(self) -> models.Model:
        """The network as pure functions."""
        return self._build()

    def _build(self, width: Width | None = None) -> models.Model:
        return models.build(
            self.config.model,
            self.input_shape,
            self.dataset.num_classes,
            self.dataset.mean,
            self.dataset.std,
            width,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training set."""
        return self.examples // self.config.batch_size

    @functools.cached_property
    def total_steps(self) -> int:
        """Updates in the whole run."""
        return self.config.steps or self.config.epochs * self.steps_per_epoch

    @functools.cached_property
    def learning_rate(self) -> optax.Schedule:
        """The learning rate at each step, from 0."""
        return self.schedule(self.total_steps)

    def schedule(self, steps: int) -> optax.Schedule:
        """The schedule that the config names, over so many steps."""
        return learning_rate_schedule(self.config, steps)

    def with_learning_rate(self, learning_rate: optax.Schedule) -> "Job":
        """The same job with another schedule."""
        return self._with(learning_rate=learning_rate)

    def with_steps(self, total_steps: int) -> "Job":
        """The same job over so many updates, whatever the epochs of the config."""
        return self._with(total_steps=total_steps, learning_rate=self.schedule(total_steps))

    def with_width(self, width: Width) -> "Job":
        """The same job on the network with ``width`` times the units, or so many in each layer."""
        narrow = self._with(model=self._build(width))
        narrow.__dict__.pop("_start", None)
        return narrow

    def _with(self, **properties: Any) -> "Job":
        # Not `dataclasses.replace`, which would forget the properties that are read already:
        # weights to start from may lie in a folder that has been deleted since.
        job = copy.copy(self)
        job.__dict__.update(properties)
        return job

    def rows(self, step: int) -> data.Split:
        """The examples of an update (from 0) that this process reads, on the host."""
        config = self.config
        rows = self.parallel.rows(config.batch_size)
        return data.batch(
            self.splits[0], config.seed, step, config.batch_size, config.augment, rows
        )

    def batch(self, step: int) -> PyTree:
        """The examples of an update (from 0) on the devices."""
        return self.parallel.place(self.rows(step))

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
        if self.config.init_from is not None:
            new = trained_weights(self.config, like=new)
        return precision.cast(new[0], self.config.param_dtype), new[1]

    def compiled_step(
        self,
        tx: optax.GradientTransformationExtraArgs,
        weights_of: Reparameterisation | None = None,
    ) -> Callable[[PyTree, PyTree], PyTree]:
        """One update: (state, batch) to (state, metrics), in the memory of the state given."""
        step = functools.partial(_training_step, self, tx, weights_of)
        return self.parallel.wrap(step, donate=self.runtime.donate)

    def loss(
        self, params: PyTree, statistics: PyTree, batch: data.Split
    ) -> tuple[jax.Array, PyTree]:
        """The mean loss of one device's batch, and the statistics after it."""
        return _loss_and_statistics(self, params, statistics, batch)

    def train(
        self,
        tx: optax.GradientTransformationExtraArgs,
        *,
        interventions: Sequence[Intervention] = (),
        reparameterisation: Reparameterisation | None = None,
    ) -> Trained:
        """Trains with ``tx`` to the end, or goes on from the folder's latest checkpoint.

        Interventions are for what no transformation can do, since it needs data or more gradients.
        With a reparameterisation it is the raw values that ``tx`` moves.
        """
        return _train(self, tx, interventions, reparameterisation)

    def average(
        self,
        tx: optax.GradientTransformationExtraArgs,
        *,
        start: int,
        every: int = 1,
        interventions: Sequence[Intervention] = (),
    ) -> Trained:
        """Trains with ``tx``, and ends with the mean of the weights from ``start`` updates on.

        Every ``every`` updates they enter, the last time at the end. Only then the scores and the
        counts are those of the mean, with statistics of BatchNorm that are made for it.
        """
        averaged = averaging.average_weights(tx, start, every, self.total_steps)
        last = Intervention(self.total_steps, averaging.use_average)
        return self.train(averaged, interventions=[*interventions, last])


def _loss_and_statistics(
    job: Job, params: PyTree, statistics: PyTree, batch: data.Split
) -> tuple[jax.Array, PyTree]:
    logits, statistics = job.model.apply(params, statistics, jnp.asarray(batch.inputs), True)
    logits = logits.astype(jnp.float32)
    smoothing = job.config.label_smoothing
    if smoothing:
        targets = optax.smooth_labels(jax.nn.one_hot(batch.labels, logits.shape[-1]), smoothing)
        losses = optax.softmax_cross_entropy(logits, targets)
    else:
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
    loss: Loss = functools.partial(_loss_and_statistics, job)
    if job.runtime.remat:
        loss = rematerialised(loss)
    trained, opt_state = _trained(state)
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
    (value, statistics), gradients = differentiate(trained, state.statistics, batch)
    value, gradients = jax.lax.pmean((value, gradients), DEVICE_AXIS)
    if scale is not None:
        value, gradients = jax.tree.map(lambda x: x / scale, (value, gradients))
    metrics = {
        "loss": value,
        "gradient_norm": optax.tree.norm(accumulation.mean_gradient(gradients, opt_state)),
        "learning_rate": jnp.asarray(job.learning_rate(state.step), jnp.float32),
    }
    updates, opt_state = tx.update(gradients, opt_state, trained)
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
    params = optax.apply_updates(trained, updates)
    if weights_of is not None:
        opt_state = Reparameterised(params, opt_state)
        params = weights_of.weights(params, key, False)
    return State(state.step + made, params, statistics, opt_state), metrics


def _evaluation_step(
    job: Job, state: State, batch: tuple[data.Split, np.ndarray]
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


def _train(
    job: Job,
    tx: optax.GradientTransformationExtraArgs,
    interventions: Sequence[Intervention],
    weights_of: Reparameterisation | None,
) -> Trained:
    config, runtime, parallel = job.config, job.runtime, job.parallel
    scored_split = job.splits[1]
    total = job.total_steps
    stop = min(total, runtime.stop_after or total)
    check_interventions(interventions, total)
    if weights_of is not None:
        count = len(interventions)
        check(count == 0, "interventions", count, "none where there is a reparameterisation")
        for name, only in (("param_dtype", "float32"), ("loss_scale", None)):
            value = getattr(config, name)
            check(value == only, name, value, f"{only} where weights are reparameterised")
    tx = wrapping.wrap(config, tx)

    folder = RunFolder(job.folder)
    open_folder(folder, config)  # raises, and writes nothing, if it is another config's
    checkpoints = Checkpoints(folder)

    # Copied, so that a transformation which keeps the params can be donated beside them.
    params, statistics = jax.tree.map(jnp.array, job.start())
    if weights_of is None:
        opt_state = jax.jit(tx.init)(params)
    else:
        params, opt_state = reparameterisation.start(weights_of, tx, params, config.seed)
    state = State(jnp.zeros([], jnp.int32), params, statistics, opt_state)
    if (newest := checkpoints.latest()) is not None:
        state = checkpoints.restore(like=state, fall_back=runtime.fall_back)
        if (before := checkpoints.latest()) != newest:
            job.console.print(
                f"The checkpoint of step {newest} was truncated or altered, and is deleted; going "
                f"on from that of step {before}."
            )
    start = int(state.step)
    state = parallel.replicate(state)

    step_fn = job.compiled_step(tx, weights_of)
    score_fn = parallel.wrap(functools.partial(_evaluation_step, job))
    wanted = min(EVALUATION_BATCH, data.examples(scored_split))
    size = -(-wanted // parallel.size) * parallel.size
    evaluation: Iterable[Any] = ()
    if isinstance(scored_split, data.Split):  # placed once; what is streamed is read each time
        evaluation = [parallel.split(x) for x in data.evaluation_batches(scored_split, size)]

    def score() -> Row:
        """Every example of the scored split once, and the zeros."""
        # A stream gives each process its rows.
        batches = evaluation or map(parallel.place, data.evaluation_batches(scored_split, size))
        sums = [parallel.unreplicate(score_fn(state, batch)) for batch in batches]
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

    writer = (
        Log(
            folder,
            name=config.method[0],
            total=total,
            start=start,
            every=runtime.log_every,
            progress=runtime.progress,
            console=job.console,
        )
        if is_first()
        else Rows(folder, start)
    )
    with writer as log:
        seconds = log.rows[-1].get("seconds", 0.0) if log.rows else 0.0
        began = time.monotonic() - seconds
        pending: list[tuple[int, dict[str, jax.Array]]] = []
        asked = False
        for step in range(start, stop):
            # A checkpoint is of before these, so that one who goes on from it comes by them once.
            state = intervene(interventions, step, job, state)
            made = []
            for part in accumulation.parts(config, job.rows(step)):
                state, metrics = step_fn(state, parallel.place(part))
                made.append(metrics)
            pending.append((step + 1, accumulation.joined(made)))

            done = step + 1
            asked = preemption.asked(done)
            if done == total:
                state = intervene(interventions, total, job, state)
            epoch_ends = done % job.steps_per_epoch == 0 or done == total
            saves = done % runtime.checkpoint_every == 0 or done == stop or asked
            if not (epoch_ends or saves or done % runtime.log_every == 0):
                continue
            rows = fetch(pending, parallel)
            pending = []
            good = healthy(rows)
            if epoch_ends and len(good) == len(rows):
                good[-1] |= score()
                if runtime.keep_masks:
                    weights = parallel.unreplicate(state.params)
                    if is_first():
                        epoch = done // job.steps_per_epoch
                        folder.write_masks(epoch, weights, job.penalised(weights))
                if runtime.keep_params:
                    at = parallel.unreplicate((state.params, state.statistics))
                    if is_first():
                        kept.write(folder.params, done, *at)
            if good:
                good[-1]["seconds"] = round(time.monotonic() - began, 3)
            log.write(good)
            if len(good) < len(rows):
                raise diverged("the loss is not finite", rows[len(good)], checkpoints, folder)
            if saves:
                # A weight can overflow in the very update whose loss was still a number.
                if not all_finite(_trained(state)[0]):
                    raise diverged("a weight is not finite", rows[-1], checkpoints, folder)
                checkpoints.save(done, parallel.to_save(state))
            if asked:
                break
        checkpoints.close()
    if asked and done < total:
        raise preemption.PreemptedError(
            f"{config.method[0]} was asked to end (SIGTERM), and stopped after step {done} of "
            f"{total} with a checkpoint"
        )

    final = jax.tree.map(np.asarray, parallel.unreplicate(state))
    result = None
    if stop == total:
        counts = sparsity_report(parallel.unreplicate(state.params), job.penalised)
        evaluations = total + sum(x.gradient_evaluations for x in interventions)
        result = summarise(log.rows, counts, evaluations, final.opt_state)
        if is_first():
            write_json(folder.result, result)
    return Trained(final.params, final.statistics, log.rows, result)
