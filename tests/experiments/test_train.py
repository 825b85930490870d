"""The training loop: it resumes to the bit, counts all it should, and stops when it must."""

import json
import math
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import data
from experiments.checkpoint import Checkpoints
from experiments.config import Config
from experiments.folder import RunFolder
from experiments.health import DivergedError
from experiments.methods.grda import Settings
from grda_optax import grda, sparsity_report

from ..grda_optax.trees import assert_same_bits
from .conftest import SHORT, change


def read_metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_clock(rows):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.mark.parametrize(
    ("model", "mode"),
    [pytest.param("small_cnn", "mesh", marks=pytest.mark.slow), ("mlp", "pmap")],
)
def test_resuming_changes_no_bit(train, tmp_path, model, mode):
    """Stopped inside an epoch, at its end, and one step before the last."""
    config = change(SHORT, model=model)
    runtime = {"devices": 2, "parallel": mode}
    whole = train(tmp_path / "whole", config, **runtime)
    for stop in (4, 22, 32):
        stopped = train(tmp_path / "parts", config, stop_after=stop, **runtime)
        assert stopped.result is None
        assert stopped.rows[-1]["step"] == stop
    resumed = train(tmp_path / "parts", config, **runtime)
    assert_same_bits(resumed.params, whole.params)
    assert_same_bits(resumed.statistics, whole.statistics)
    rows = read_metrics(tmp_path / "parts")
    assert [row["step"] for row in rows] == list(range(1, 34))
    # Epochs are scored at the same steps, and every row is the same.
    assert without_clock(rows) == without_clock(read_metrics(tmp_path / "whole"))


def test_a_run_repeats_to_the_bit_and_the_seed_changes_it(train, tmp_path):
    first, second = (train(tmp_path / name) for name in "ab")
    assert_same_bits(first.params, second.params)
    other = train(tmp_path / "c", change(SHORT, seed=1))
    assert not np.array_equal(other.params["head"]["kernel"], first.params["head"]["kernel"])


def test_rows_after_the_checkpoint_are_dropped(train, tmp_path):
    """A run that was killed had written rows which its checkpoint does not know of."""
    whole = train(tmp_path / "whole")
    train(tmp_path / "run", stop_after=10)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 11, "loss": 9.0}\n{"step": 12, "lo')
    resumed = train(tmp_path / "run")
    assert without_clock(resumed.rows) == without_clock(whole.rows)


def test_another_config_is_refused_with_the_difference(train, tmp_path):
    train(tmp_path / "run", stop_after=1)
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    with pytest.raises(FileExistsError) as error:
        train(tmp_path / "run", change(SHORT, learning_rate=0.2, grda=Settings(mu=0.7)))
    message = str(error.value)
    assert "holds the run of another config" in message
    assert "learning_rate: 0.05 there, 0.2 asked for" in message
    assert "grda.mu: 0.6 there, 0.7 asked for" in message
    assert "--overwrite" in message
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before


def test_a_folder_of_something_else_is_refused_and_kept(train, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(FileExistsError, match=r"is not empty and holds no config\.json"):
        train(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(FileExistsError):
        RunFolder(tmp_path).open(SHORT, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "x"


def test_a_folder_of_a_run_that_was_killed_as_it_began_is_taken(tmp_path):
    (tmp_path / "config.partial").write_text("{")
    RunFolder(tmp_path).open(SHORT)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_an_unreadable_config_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(FileExistsError, match=r"config\.json cannot be read"):
        RunFolder(tmp_path).open(SHORT)


@pytest.mark.parametrize("model", ["mlp", pytest.param("small_cnn", marks=pytest.mark.slow)])
def test_scores_are_those_of_the_final_weights(train, make_job, tmp_path, model):
    """Counted here example by example, in one batch of another size."""
    config = change(SHORT, model=model, epochs=1)
    trained = train(tmp_path / "run", config)
    job = make_job(tmp_path / "unused", config)
    images, labels = job.dataset.test
    logits, _ = job.model.apply(trained.params, trained.statistics, images, False)
    accuracy = float(np.mean(np.argmax(logits, -1) == labels))
    assert trained.result["eval_accuracy"] == pytest.approx(accuracy, abs=1e-6)
    log_p = jax.nn.log_softmax(logits)[np.arange(len(labels)), labels]
    assert trained.result["eval_loss"] == pytest.approx(-float(log_p.mean()), rel=1e-4)
    report = sparsity_report(trained.params, job.penalised)
    assert trained.result["penalised"] == {
        "nnz": report.penalised.nnz,
        "total": report.penalised.total,
    }
    assert trained.result["all"]["total"] == report.all.total > report.penalised.total
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == trained.result


def test_the_checkpoint_holds_the_final_weights(train, tmp_path):
    trained = train(tmp_path / "run")
    checkpoints = Checkpoints(RunFolder(tmp_path / "run"))
    assert checkpoints.latest() == 33
    params, _ = checkpoints.weights()
    checkpoints.close()
    assert_same_bits(jax.tree.map(np.asarray, params), trained.params)


def test_a_truncated_checkpoint_is_named_and_the_one_before_it_goes_on(train, tmp_path):
    whole = train(tmp_path / "whole")
    train(tmp_path / "run", stop_after=20, checkpoint_every=10)
    newest = tmp_path / "run" / "checkpoints" / "20"
    for path in newest.rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"the checkpoint {newest} cannot be read"):
        train(tmp_path / "run")
    shutil.rmtree(newest)
    assert_same_bits(train(tmp_path / "run").params, whole.params)


def test_methods_start_alike_and_see_the_same_batches(train, tmp_path):
    dense = train(tmp_path / "dense", change(SHORT, method=("dense",)))
    free = train(tmp_path / "free", change(SHORT, grda=Settings(c=0.0)))
    assert dense.rows[0]["loss"] == free.rows[0]["loss"]
    np.testing.assert_allclose(
        [row["loss"] for row in dense.rows], [row["loss"] for row in free.rows], rtol=1e-3
    )
    assert dense.result["penalised"]["nnz"] == dense.result["penalised"]["total"]
    assert dense.result["threshold"] is None


def test_the_threshold_in_the_log_is_the_papers(train, tmp_path):
    rows = train(tmp_path / "run").rows
    assert [row["step"] for row in rows] == list(range(1, 34))
    for n in (1, 10, 33):
        wanted = 0.005 * 0.05**0.5 * (n * 0.05) ** 0.6
        assert rows[n - 1]["threshold"] == pytest.approx(wanted, rel=1e-5)
        assert rows[n - 1]["learning_rate"] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        ("constant", lambda n: 0.05),
        ("cosine", lambda n: 0.025 * (1 + math.cos(math.pi * n / 33))),
        ("step", lambda n: 0.05 * (1 if n < 16 else 0.1 if n < 24 else 0.01)),
    ],
)
def test_schedules(make_job, tmp_path, schedule, wanted):
    job = make_job(tmp_path, change(SHORT, schedule=schedule))
    assert job.total_steps == 33
    for n in (0, 5, 20, 32):
        assert float(job.learning_rate(n)) == pytest.approx(wanted(n), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lion", "muon"])
def test_base_optimizers_learn(train, tmp_path, optimizer):
    rate = {"sgd": 0.05, "adamw": 2e-3, "lion": 5e-4, "muon": 0.02}[optimizer]
    config = change(
        SHORT, method=("dense",), optimizer=optimizer, learning_rate=rate, weight_decay=1e-4
    )
    assert train(tmp_path / "run", config).result["eval_accuracy"] > 0.85


@pytest.mark.parametrize(
    ("checkpoint_every", "what", "step", "good"),
    [(1, "a weight is not finite", 18, 17), (5, "the loss is not finite", 19, 15)],
)
def test_what_is_not_finite_stops_the_run(make_job, tmp_path, checkpoint_every, what, step, good):
    """Update 18 throws the weights out of range; the loss, taken before it, is still a number."""
    job = make_job(tmp_path / "run", checkpoint_every=checkpoint_every, log_every=4)
    with pytest.raises(DivergedError) as error:
        job.train(grda(lambda n: jnp.where(n < 17, 0.05, jnp.inf)))
    message = str(error.value)
    assert f"{what} at step {step}: loss" in message
    assert re.search("learning rate (0.05|inf), threshold (inf|nan); ", message)
    assert f"the last good checkpoint, of step {good}, is in" in message
    rows = read_metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == list(range(1, 19))
    assert all(math.isfinite(row["loss"]) for row in rows)
    checkpoints = Checkpoints(RunFolder(tmp_path / "run"))
    assert checkpoints.latest() == good
    params, _ = checkpoints.weights()
    checkpoints.close()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
    assert not (tmp_path / "run" / "result.json").exists()


def test_too_sparse_is_said_aloud(make_job, tmp_path):
    from experiments.methods import METHODS

    job = make_job(tmp_path / "run", change(SHORT, grda=Settings(c=10.0)))
    METHODS["grda"](job)
    assert "the threshold outruns learning" in job.console.file.getvalue()


def test_validation_never_touches_the_test_set(train, tmp_path, digits):
    """With other test images the numbers stay the same."""
    config = change(SHORT, evaluate="validation")
    blank = digits._replace(test=data.Split(np.zeros_like(digits.test.inputs), digits.test.labels))
    runs = [train(tmp_path / str(i), config, dataset=x) for i, x in enumerate((digits, blank))]
    assert runs[0].result["eval_accuracy"] == runs[1].result["eval_accuracy"] > 0.8


def test_config_is_kept_beside_the_run(train, tmp_path):
    train(tmp_path / "run", stop_after=1)
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert Config.from_json(kept) == SHORT
