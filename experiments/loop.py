"""The only training loop: from a transformation to trained weights and a result."""

import functools
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import accumulation, data, kept, preemption, reparameterisation, wrapping
from experiments.checkpoint import Checkpoints
from experiments.checks import check
from experiments.distributed import is_first, open_folder
from experiments.folder import RunFolder, write_json
from experiments.health import all_finite, diverged, fetch, healthy
from experiments.interventions import Intervention, check_interventions, intervene
from experiments.log import Log, Row, Rows
from experiments.reparameterisation import Reparameterisation
from experiments.result import summarise
from experiments.step import State, evaluation_step, trained
from grda_optax import sparsity_report

if TYPE_CHECKING:
    from experiments.train import Job

PyTree = Any
EVALUATION_BATCH = 1000


class Trained(NamedTuple):
    """A network at the end of its training, or at the step where it was told to stop."""

    params: PyTree
    statistics: PyTree
    rows: list[Row]
    result: Row | None
    """The scores and counts of a finished run, ``None`` of one that was stopped."""


def run(
    job: "Job",
    tx: optax.GradientTransformationExtraArgs,
    interventions: Sequence[Intervention],
    weights_of: Reparameterisation | None,
) -> Trained:
    """``job.train``: to the end, or to where it is told to stop; from the latest checkpoint."""
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
    score_fn = parallel.wrap(functools.partial(evaluation_step, job))
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
                if not all_finite(trained(state)[0]):
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
