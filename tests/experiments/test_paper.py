"""The configs say what the paper did, and their docstrings what it got."""

import csv
import dataclasses
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import data, provenance, run
from experiments.analysis import paper_path
from experiments.config import Config
from experiments.configs import PRESETS
from experiments.folder import RunFolder
from experiments.log import append_row, read_rows
from experiments.optimizers import learning_rate_schedule
from experiments.step import loss_and_statistics

from .conftest import SHORT, change

PAPER = [name for name in PRESETS if name.startswith(("cifar", "imagenet"))]
RECIPES = [name for name in PAPER if name.endswith("_recipe")]
SGD = [name for name in PAPER if name not in RECIPES]


def rows(name):
    with (provenance.RESULTS / name).open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", PAPER)
def test_a_docstring_says_the_command_and_the_hours(name):
    text = PRESETS[name].__doc__
    assert f"\n    python -m experiments.run {name}" in text
    assert "hours a" in text or "As `" in text


@pytest.mark.parametrize("name", SGD)
def test_a_config_is_the_papers(name):
    config = PRESETS[name].CONFIG
    assert config.method == ("dense", "grda")
    assert (config.optimizer, config.momentum, config.weight_decay) == ("sgd", 0, 0)
    assert (config.learning_rate, config.penalise, config.augment) == (0.1, "all", "crop_flip")
    assert config.batch_size == (256 if config.model == "resnet50" else 128)
    published = [row for row in rows("paper.csv") if row["preset"] == name]
    table = re.findall(r"^\| (SGD|gRDA) .*$", PRESETS[name].__doc__, re.MULTILINE)
    assert len(table) == len(published)
    for row in published:
        mean = row["accuracy"] + (f" ± {row['accuracy_std']}" if row["accuracy_std"] else "")
        line = (row["method"], row["c"], row["mu"], row["sparsity"], mean, row["seeds"])
        assert f"| {' | '.join(line)} |" in PRESETS[name].__doc__
        assert int(row["epochs"]) <= config.epochs
    strengths = {(float(x["c"]), float(x["mu"])) for x in published if x["c"]}
    assert not published or (config.grda.c, config.grda.mu) in strengths


def test_every_published_row_has_its_config():
    assert {row["preset"] for row in rows("paper.csv")} <= set(SGD)
    # Garipov's schedule, and as many epochs, on CIFAR.
    for row in rows("paper.csv"):
        config = PRESETS[row["preset"]].CONFIG
        if config.dataset != "imagenet2012":
            assert config.epochs == int(row["epochs"])
            assert config.schedule == "plateau_linear"


def test_published_paths_end_where_the_published_runs_do():
    ends = {
        (row["preset"], row["c"], row["mu"]): row
        for row in rows("paper_paths.csv")
        if int(row["epoch"]) == PRESETS[row["preset"]].CONFIG.epochs
    }
    published = [row for row in rows("paper.csv") if row["c"] and "cifar" in row["preset"]]
    assert len(ends) == len(published) == 13
    for row in published:
        end = ends[row["preset"], row["c"], row["mu"]]
        assert float(end["sparsity"]) == pytest.approx(float(row["sparsity"]), abs=0.011)
        assert float(end["accuracy"]) == pytest.approx(float(row["accuracy"]), abs=0.011)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_modern_and_beside_its_paper(name):
    config = PRESETS[name].CONFIG
    other = PRESETS[name.removesuffix("_recipe")].CONFIG
    assert config.method == ("dense", "gmp", "recipe")
    assert config.momentum == 0.9
    assert config.weight_decay > 0
    assert config.label_smoothing == 0.1
    assert (config.schedule, config.penalise) == ("cosine", "kernels")
    assert (config.dataset, config.augment) == (other.dataset, other.augment)


def rates(steps, **fields):
    config = Config(**fields)
    schedule = learning_rate_schedule(config, steps)
    return np.array([float(schedule(step)) for step in range(steps)])


def test_plateau_linear_is_garipovs_by_epochs():
    """Theirs, epoch by epoch: 1 to alpha = 1/2, then in a line to 0.01 at 9/10."""
    found = rates(60, schedule="plateau_linear", epochs=20, learning_rate=0.1)
    for step, rate in enumerate(found):
        alpha = (step // 3 + 1) / 20
        factor = 1 if alpha <= 0.5 else max(0.01, 1 - (alpha - 0.5) / 0.4 * 0.99)
        assert rate == pytest.approx(0.1 * factor, rel=1e-5)
    assert found[29] == pytest.approx(0.1)
    assert found[-1] == pytest.approx(0.001)


def test_milestones_take_a_tenth_after_each():
    found = rates(50, schedule="milestones", milestones=(2, 4), epochs=5, learning_rate=0.5)
    np.testing.assert_allclose(found, [0.5] * 20 + [0.05] * 20 + [0.005] * 10, rtol=1e-6)


def test_a_warm_up_rises_to_the_schedule():
    fields = {"schedule": "cosine", "epochs": 10, "learning_rate": 0.4}
    plain, warm = rates(100, **fields), rates(100, warmup_epochs=2, **fields)
    np.testing.assert_allclose(warm[:20], plain[:20] * np.arange(1, 21) / 20, rtol=1e-6)
    np.testing.assert_allclose(warm[20:], plain[20:], rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.25])
def test_smoothed_labels(smoothing, make_job, tmp_path, digits):
    r"""(1 - s) times the loss of the label, and s times the mean over all classes."""
    job = make_job(tmp_path, change(SHORT, label_smoothing=smoothing))
    params, statistics = job.start()
    batch = data.batch(digits.train, 0, 0, 16)
    found, _ = loss_and_statistics(job, params, statistics, batch)
    logits, _ = job.model.apply(params, statistics, jnp.asarray(batch.inputs), False)
    losses = -jax.nn.log_softmax(logits)
    own = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
    wanted = ((1 - smoothing) * own + smoothing * losses.mean(-1)).mean()
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)


def test_augmented_batches_are_what_a_job_trains_on(make_job, tmp_path, digits):
    plain, cropped = (
        make_job(tmp_path, change(SHORT, augment=augment)) for augment in ("none", "crop_flip")
    )
    for step in (0, 12):
        a, b = plain.batch(step), cropped.batch(step)
        np.testing.assert_array_equal(a.labels, b.labels)
        assert not np.array_equal(a.inputs, b.inputs)
        np.testing.assert_array_equal(
            a.inputs, data.batch(digits.train, SHORT.seed, step, SHORT.batch_size).inputs
        )


def test_options_on_the_command_line_make_a_published_row():
    row = next(x for x in rows("paper.csv") if x["mu"] == "0.4" and x["preset"] == "cifar10_vgg16")
    config = dataclasses.replace(
        PRESETS[row["preset"]].CONFIG, grda=dataclasses.replace(SHORT.grda, c=0.0005, mu=0.4)
    )
    assert config.differences(PRESETS[row["preset"]].CONFIG) == {"grda.mu": (0.4, 0.6)}
    assert run._preset(["cifar10-vgg16", "--grda.mu", "0.4"]) == "cifar10_vgg16"


def test_a_run_stands_beside_the_published_path(tmp_path, monkeypatch, capsys):
    """Half an epoch, scored at its end, beside the first published epoch."""
    config = change(PRESETS["cifar10_vgg16"].CONFIG, dataset="generated_cifar10")
    theirs = paper_path.published(config)
    assert (theirs[0].epoch, theirs[-1].epoch) == (1, 600)
    assert theirs[-1].sparsity == 90.48
    assert paper_path.published(change(config, model="mlp")) == []

    folder = RunFolder(tmp_path / "run")
    folder.open(change(config, method=("grda",)))
    assert paper_path.main([str(folder.path)]) == 2, "without a score"
    assert "a run with an epoch behind it" in " ".join(capsys.readouterr().err.split())
    row = {"step": 195, "eval_accuracy": 0.125, "sparsity_all": 0.03125}
    append_row(folder.metrics, {"step": 194, "loss": 1.0})
    append_row(folder.metrics, row)
    assert paper_path.measured(read_rows(folder.metrics), 390) == [(0.5, 3.125, 12.5)]
    published = provenance.RESULTS / paper_path.FILE
    monkeypatch.setattr(provenance, "RESULTS", results := tmp_path / "results")
    results.mkdir()
    shutil.copy(published, results)
    assert paper_path.main([str(folder.path), "--save", "x"]) == 0
    assert (results / "paper_path_x.png").exists()
    for said in (capsys.readouterr().out, paper_path.render(results)):
        assert "made-up images" in said
        for number in ("0.50", "3.12", "12.50", "5.19", "19.18"):
            assert number in said
        assert "20.21" not in said, "the run has not come so far"


def test_runs_without_a_published_path_are_refused(tmp_path, capsys):
    folder = RunFolder(tmp_path / "run")
    folder.open(SHORT)
    assert paper_path.main([str(folder.path)]) == 2
    assert "a run of grda with c and mu that the paper has for mlp on digits" in "".join(
        capsys.readouterr().err.splitlines()
    )
    assert paper_path.main([str(tmp_path)]) == 2
    dense = RunFolder(tmp_path / "dense")
    dense.open(change(PRESETS["cifar10_vgg16"].CONFIG, method=("dense",)))
    assert paper_path.main([str(dense.path)]) == 2
    assert "must be a run of grda" in capsys.readouterr().err


def test_a_path_ends_at_its_first_published_epoch_beyond():
    points = [paper_path.Point(e, e, e) for e in (1, 2, 3, 4)]
    theirs = [paper_path.Point(e, 0, 0) for e in (1, 2.5, 10, 50)]
    found = [(here.epoch, there.epoch) for here, there in paper_path.beside(points, theirs)]
    assert found == [(1, 1), (2, 2.5), (4, 10)]


def test_the_readmes_numbers_are_the_published_ones():
    text = (provenance.RESULTS.parent / "README.md").read_text()
    section = text[text.index("## The paper's experiments") : text.index("## Looking further")]
    published = {(row["sparsity"], row["accuracy"]) for row in rows("paper.csv")}
    section = section[: section.index("| Sparsity and")]
    shown = set(re.findall(r"\b(\d\d\.\d\d), (\d\d\.\d\d)\b", section))
    assert shown <= published
    for row in rows("paper.csv"):
        if "cifar" in row["preset"] and row["c"]:
            assert (row["sparsity"], row["accuracy"]) in shown
