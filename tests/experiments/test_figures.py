"""What the analyses say of runs: numbers by hand, and each from end to end on a short run."""

import io
import json
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments import kept, report
from experiments.analysis import (
    connectivity,
    curves,
    layers,
    norms,
    projection,
    record,
    runs,
    spectrum,
)
from experiments.analysis.curvature import Curvature
from experiments.analysis.pages import PAGES
from experiments.collapse import collapsed
from experiments.config import Config, Runtime
from experiments.data import Split
from experiments.folder import RunFolder
from experiments.methods import METHODS
from experiments.methods._allocation import erdos_renyi_kernel
from experiments.parallel import DataParallel
from experiments.train import Job, Trained
from grda_optax import top_eigenpairs

from ..grda_optax.trees import assert_same_bits
from .conftest import SHORT, change, exactly

MODULES = {
    "connectivity": connectivity,
    "curves": curves,
    "layers": layers,
    "norms": norms,
    "projection": projection,
    "spectrum": spectrum,
}
SMALL = {
    "connectivity": ["--epochs", "1", "--points", "3", "--grid", "3", "--plane-examples", "200"],
    "projection": ["--k", "3", "--points", "2", "--examples", "200", "--tolerance", "0.1"],
    "spectrum": ["--probes", "1", "--products", "5", "--examples", "200"],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits, data_dir):
    """The folder with the runs of SGD and of gRDA, both with their weights along training."""
    folder = tmp_path_factory.mktemp("runs")
    for method in ("dense", "grda"):
        config = change(SHORT, method=(method,), epochs=2)
        METHODS[method](
            Job(
                config=config,
                runtime=Runtime(progress=False, keep_params=True),
                dataset=digits,
                parallel=DataParallel("mesh", jax.devices("cpu")[:1]),
                folder=folder / method,
                console=Console(file=io.StringIO()),
            )
        )
    return folder


def test_kept_weights_come_back_as_they_were(tmp_path):
    params = {"x": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}
    statistics = {"norm": {"mean": np.ones(2, np.float32)}}
    for step in (100, 20):
        kept.write(tmp_path / "params", step, params, statistics)
    (tmp_path / "params" / "step_00000030.partial").write_text("cut off")
    assert kept.steps(tmp_path / "params") == [20, 100]
    assert_same_bits(
        kept.read(tmp_path / "params", 100, (params, statistics)), (params, statistics)
    )
    assert kept.steps(tmp_path / "none") == []


@pytest.mark.slow
def test_a_run_gives_its_weights_along_training(trained):
    run = runs.Run(trained / "grda")
    assert run.steps == [0, 11, 22]
    assert_same_bits(run.at(0), run.job.model.init(jax.random.key(SHORT.seed)))
    assert_same_bits(run.at(22)[0], run.last()[0])
    assert run.epoch(22) == 2
    assert run.to_json()["command"].endswith("--keep-params")


def test_runs_that_are_no_pair_are_named(tmp_path):
    for name, fields in {"dense": {}, "grda": {}, "other": {"seed": 1}}.items():
        method = "dense" if name == "other" else name
        RunFolder(tmp_path / name).open(change(SHORT, method=(method,), **fields))
    dense, grda, other = (tmp_path / name for name in ("dense", "grda", "other"))
    with pytest.raises(ValueError, match=r"^runs must be two folders, of SGD and of gRDA, got \["):
        runs.read_pair([dense])
    with pytest.raises(ValueError, match=r"^run must be the folder of a method's run, with a conf"):
        runs.read_pair([dense, tmp_path])
    message = (
        "runs must be two from the same start with the same batches, the same in everything that "
        "these depend on, got ['seed']."
    )
    with pytest.raises(ValueError, match=exactly(message)):
        runs.read_pair([dense, other])
    with pytest.raises(ValueError, match=r"^run must be the folder of a run with --keep-params, g"):
        _ = runs.Run(dense).steps
    assert runs.read_pair([dense, grda])[1].label == "gRDA"
    assert runs.labels([runs.Run(dense), runs.Run(grda)]) == ["SGD", "gRDA"]
    assert runs.labels([runs.Run(grda)] * 2) == [f"gRDA, {tmp_path.name}"] * 2


def test_norms_of_equal_weights():
    """Of k weights of one size the ratio is the inverse root of k, whatever their size."""
    found = norms.norms({"a": np.array([3.0, 0.0, -3.0]), "b": np.array([[3.0, -3.0]])})
    assert found == {"l1": 12, "l2": 6, "nonzero": 4, "total": 5}
    assert norms.ratio(found) == 0.5
    assert math.isnan(norms.ratio(norms.norms({"a": np.zeros(2)})))


def test_the_loss_of_an_epoch_is_the_mean_over_its_updates():
    ends = {"eval_loss": 1.0, "eval_accuracy": 0.25, "sparsity_penalised": 0.5}
    rows = [
        {"step": 1, "loss": 4.0},
        {"step": 2, "loss": 2.0} | ends,
        {"step": 3, "loss": 1.0} | ends,
    ]
    points = curves.by_epoch([*rows, {"step": 4, "loss": 9.0}])
    assert [x["train_loss"] for x in points] == [3, 1]
    assert [x["step"] for x in points] == [2, 3]
    assert (points[0]["accuracy"], points[0]["zeros"]) == (25, 50)


def test_the_share_of_a_vector_inside_the_space_is_1():
    basis = {"a": jnp.eye(3)[:2], "b": jnp.zeros((2, 2))}
    inside = {"a": np.array([3.0, -4.0, 0.0]), "b": np.zeros(2)}
    aside = {"a": np.array([0.0, 0.0, 2.0]), "b": np.array([1.0, -1.0])}
    assert projection.share(basis, inside) == pytest.approx(1)
    assert projection.share(basis, aside) == 0
    both = jax.tree.map(np.add, inside, aside)
    assert projection.share(basis, both) == pytest.approx(25 / 31)
    assert math.isnan(projection.share(basis, jax.tree.map(np.zeros_like, both)))
    turned = {"a": jnp.array([[0.6, 0.8, 0.0], [0.8, -0.6, 0.0]]), "b": jnp.zeros((2, 2))}
    assert projection.overlap(turned, basis) == pytest.approx(1)


def test_moments_that_are_even():
    assert projection.evenly([1, 2, 3, 4, 5], 3) == [1, 3, 5]
    assert projection.evenly([1, 2], 5) == [1, 2]
    assert projection.evenly([7, 8], 1) == [7]


def test_the_curvature_is_the_hessian_of_the_mean_loss():
    """Of logistic regression, in batches of unequal size: X^T diag(p (1 - p)) X / n."""
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(7, 3)).astype(np.float32), rng.integers(0, 2, 7)

    def apply(params, statistics, x, train):
        assert not train
        return jnp.stack([x @ params["w"], jnp.zeros(len(x))], -1), statistics

    split = Split(inputs, labels.astype(np.int32))
    job = types.SimpleNamespace(splits=(split, split), model=types.SimpleNamespace(apply=apply))
    curvature = Curvature(job)
    ((whole, targets),) = curvature.batches
    curvature.batches = [(whole[:5], targets[:5]), (whole[5:], targets[5:])]
    w, vector = np.array([0.3, -0.2, 1.0], np.float32), np.array([1.0, 2.0, -1.0], np.float32)
    p = 1 / (1 + np.exp(-inputs @ w))
    wanted = inputs.T @ (p * (1 - p) * (inputs @ vector)) / 7
    found = curvature.at({"w": w}, {})({"w": jnp.asarray(vector)})["w"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_erk_is_what_others_have_published_of_resnet_50():
    """Evci et al.'s sparsities of its 54 layers at 80 and 90 %, to the three digits they have."""
    there = layers.published()
    sizes = [math.prod(shape) for shape in there.shapes]
    assert sum(sizes) == 25_502_912  # all but biases and BatchNorm
    for sparsity in (0.8, 0.9):
        left = erdos_renyi_kernel(round((1 - sparsity) * sum(sizes)), there.shapes)
        ours = [1 - n / size for n, size in zip(left, sizes, strict=True)]
        np.testing.assert_allclose(ours, there.sparsity[f"ERK {100 * sparsity:.0f} %"], atol=6e-4)
    for method, (low, high) in {"AMC": (0.79, 0.81), "gRDA c=0.005 mu=0.55": (0.91, 0.92)}.items():
        assert low < there.total(method) < high


def test_a_layer_without_weights_has_collapsed():
    counts = {
        "conv1/kernel": (0, 9),
        "norm1/scale": (0, 3),
        "dense1/bias": (0, 5),  # stops nothing
        "dense1/kernel": (1, 20),
        "empty/kernel": (0, 0),  # there has been nothing
    }
    leaves = {name: {"nnz": n, "total": total} for name, (n, total) in counts.items()}
    assert collapsed(leaves) == ["conv1/kernel", "norm1/scale"]


def test_a_collapse_is_reported_by_name(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    count = {"nnz": 0, "total": 4}
    result = {
        "eval_accuracy": 0.1,
        "seconds": 1.0,
        "penalised": count,
        "all": count,
        "leaves": {"head/kernel": count | {"penalised": True}},
    }
    report.show({"grda": Trained({}, {}, [], result)}, Config(), Console())
    assert "layer collapse: grda has no weight left in head/kernel." in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_from_a_run_to_a_page(name, trained, data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(record.provenance, "RESULTS", tmp_path)
    words = [str(trained / "dense"), str(trained / "grda"), *SMALL.get(name, []), "--save", "short"]
    words += [] if name == "layers" else ["--data-dir", str(data_dir)]
    assert MODULES[name].main(words) == 0, capsys.readouterr().out
    found = json.loads((tmp_path / f"{name}_short.json").read_text())
    assert found == json.loads((trained / "grda" / f"{name}.json").read_text())
    assert [Config.from_json(run["config"]).method for run in found["runs"]] == [
        ("dense",),
        ("grda",),
    ]
    assert found["command"].startswith(f"python -m experiments.analysis.{name} ")
    assert {"jax", "grda_optax"} <= set(found["versions"])
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / f"{name}_short.json").write_text(json.dumps(found))
    page = PAGES[name].render(tmp_path / "page")
    assert f"({name}_short.png)" in page
    assert "nan" not in page
    assert (tmp_path / "page" / f"{name}_short.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", [x for x in PAGES if x in MODULES and x != "layers"])
def test_without_a_record_there_is_no_page(name, tmp_path):
    assert PAGES[name].render(tmp_path) == ""


def test_names_that_are_no_files_are_refused(capsys):
    assert norms.main(["somewhere", "--save", "../x"]) == 2
    assert "save must be made of small letters" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_the_ends_of_the_curve_score_as_their_runs_did(trained, data_dir):
    """The same numbers as in the metrics, since the network has no BatchNorm."""
    run = runs.Run(trained / "dense", data_dir)
    at = connectivity.Landscape(run.job).at(run.last()[0])
    last = run.rows[-1]
    assert at.test_accuracy == pytest.approx(100 * last["eval_accuracy"], abs=1e-3)
    assert at.test_loss == pytest.approx(last["eval_loss"], rel=1e-4)


@pytest.mark.slow
def test_the_top_eigenvector_of_a_run_has_a_share_of_1_in_its_own_space(trained):
    run = runs.Run(trained / "dense")
    params, statistics = run.last()
    matvec = Curvature(run.job, examples=200).at(params, statistics)
    pairs = top_eigenpairs(matvec, params, 2, tolerance=0.05, max_products=200)
    assert (
        projection.share(pairs.vectors, matvec(jax.tree.map(lambda x: x[0], pairs.vectors))) > 0.9
    )
