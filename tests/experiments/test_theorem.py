"""The laws hold as they are measured, every way of pruning counts right, and rows become a page."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments.analysis import least_squares, theorem, theorem_report
from experiments.analysis.trained import Network
from experiments.analysis.without_retraining import METHODS, Settings, rounds_between
from experiments.log import read_rows

QUIET = Console(quiet=True)


def test_the_laws():
    result = theorem.law(0)
    for point in result["scores"]["rows"][2:]:
        assert point["from_paper"] / point["law"] == pytest.approx(1, abs=0.05)
    assert result["scores"]["rows"][-1]["from_time"] < 1e-5
    valley = result["valley"]
    assert valley["overlap_of_nonzeros"] >= 0.97
    assert valley["distance"] <= 0.006
    assert valley["l1_valley"] < valley["l1_at_minimum"]
    assert result["invariant"]["moved_in_flat"] <= 1e-11 < result["invariant"]["moved"]
    assert not jax.config.read("jax_enable_x64")


def test_the_problems_are_what_they_say():
    p = least_squares.problem(3, crossings=True)
    np.testing.assert_allclose(p.basis.T @ p.basis, np.eye(40), atol=1e-5)
    np.testing.assert_allclose(p.flat(p.curvature(p.start)), np.zeros(100), atol=1e-4)
    np.testing.assert_allclose(p.curvature(p.minimum() - p.target), np.zeros(100), atol=1e-4)


def test_rounds():
    assert rounds_between(0, 0.5, 0.05) == 14
    assert rounds_between(0.5, 0.75, 0.5) == 1
    assert rounds_between(0.0, 0.75, 0.5) == 2


def linear_network(seed=0):
    """Forty inputs of which twelve are independent: most weights can go without loss."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(12, 40))
    inputs = jnp.asarray(rng.normal(size=(64, 12)) @ mix / 4, jnp.float32)
    params = {
        "dense": {
            "kernel": jnp.asarray(rng.normal(size=(40, 3)), jnp.float32),
            "bias": jnp.zeros(3),
        }
    }

    def forward(params, batch):
        return batch[0] @ params["dense"]["kernel"] + params["dense"]["bias"][None]

    labels = forward(params, (inputs, None)).argmax(-1)
    return Network(params, forward, (inputs, labels), (inputs, labels))


@pytest.mark.slow
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_meets_the_sparsity(name, exact, monkeypatch):
    monkeypatch.setattr(theorem, "network", lambda problem, seed: linear_network(seed))
    settings = Settings(exact, products_a_round=40, gradients=32, samples=10, round_size=0.2)
    config = {
        "problem": "linear",
        "method": name,
        "seed": 0,
        "settings": settings._asdict(),
        "sparsities": [0.3, 0.5],
    }
    result = theorem.prune(config, QUIET)
    assert result["dense"]["test_accuracy"] == 100
    for point in result["pruned"]:
        if "out_of_reach" in point:
            assert name == "directional"
            continue
        assert point["nnz"] == 120 - round(120 * point["sparsity"])
        assert point["total"] == 120
        if name != "magnitude":
            assert point["products"] + point["gradients"] > 0
    rounds = [point["rounds"] for point in result["pruned"] if "rounds" in point]
    assert rounds == ([2, 4] if METHODS[name].goes_on else [1] * len(rounds))
    json.dumps(result)


def row(problem, method, seed, accuracies):
    pruned = [
        {"sparsity": s, "out_of_reach": "sparsity must be at most 0.6"}
        if a is None
        else {
            "sparsity": s,
            "products": 1234,
            "gradients": 0,
            "rounds": 7,
            "train_loss": 0.25,
            "test_accuracy": a,
            "nnz": 1,
            "total": 2,
        }
        for s, a in zip((0.5, 0.9), accuracies, strict=True)
    ]
    config = {"problem": problem, "method": method, "seed": seed, "sparsities": [0.5, 0.9]}
    dense = {"train_loss": 0.01, "test_accuracy": 98.0}
    return {"config": config, "result": {"dense": dense, "pruned": pruned}}


@pytest.fixture
def rows_file(tmp_path, monkeypatch):
    path = tmp_path / "theorem.jsonl"
    for module in (theorem, theorem_report):
        monkeypatch.setattr(module, "ROWS", path)
    return path


@pytest.mark.slow
def test_a_page_is_made_from_rows(rows_file, tmp_path):
    """With a method that stops short of a sparsity, and one that has a single seed."""
    rows = [
        row(problem, method, seed, accuracies)
        for problem in ("digits", "fashion_mnist")
        for method, seed, accuracies in (
            ("magnitude", 0, (90.0, 50.0)),
            ("magnitude", 1, (92.0, 52.0)),
            ("directional", 0, (95.0, None)),
        )
    ]
    rows += [{"config": {"problem": "law", "seed": s}, "result": theorem.law(s)} for s in (0, 1)]
    rows_file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    page = theorem_report.render(tmp_path)
    assert "| magnitude | 91.0 ± 1.4 | 51.0 ± 1.4 | 1,234 | 0 | 7 | 2 |" in page
    assert "| directional, one shot | 95.0 | out of reach | - | - | - | 1 |" in page
    assert "| directional, one shot | 0.250 | out of reach |" in page
    assert "### The laws, on least squares" in page
    for name in ("theorem_law.png", "theorem_pruned.png"):
        assert name in page
        assert (tmp_path / name).stat().st_size > 10_000


def test_without_rows_there_is_no_page(rows_file, tmp_path):
    assert theorem_report.render(tmp_path) == ""


def test_what_is_done_is_not_done_again(rows_file, monkeypatch):
    seen = []
    monkeypatch.setattr(theorem, "law", lambda seed: seen.append(seed) or {"seed": seed})
    monkeypatch.setattr("sys.argv", ["theorem", "law"])
    assert theorem.main() == 0
    assert theorem.main() == 0
    assert seen == list(theorem.LAW_SEEDS)
    rows = read_rows(rows_file)
    assert len(rows) == len(seen)
    assert {"config", "command", "result", "versions", "device"} <= set(rows[0])


def test_a_problem_that_is_not_there(rows_file, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["theorem", "imagenet"])
    assert theorem.main() == 2
    assert "problems are law, digits" in capsys.readouterr().err
    assert not rows_file.exists()
