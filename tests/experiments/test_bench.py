"""The benchmark runs and says what it has measured; how fast anything is, no test asks."""

import json
import math

import jax
import jax.numpy as jnp
import optax
import pytest

from experiments.bench import __main__ as bench
from experiments.bench import report, timing, updates
from grda_optax import sparsity


def test_every_block_runs_once_a_round_and_no_place_is_kept():
    calls = []
    blocks = {name: lambda name=name: calls.append(name) for name in "abc"}
    costs = timing.interleaved(blocks, rounds=4, steps=10)
    assert "".join(calls) == "abc" + "abc" + "bca" + "cab" + "abc"
    assert costs["a"].ratio == 1
    assert all(cost.seconds >= 0 and math.isfinite(cost.ratio) for cost in costs.values())


@pytest.mark.slow
def test_each_is_timed_in_the_state_that_its_name_says():
    """The ramp goes on until the last step, and what is frozen is so before the first."""
    rounds = 2
    params = jax.random.normal(jax.random.key(0), (100, 10))
    zeros = {}
    for name, tx in updates.optimizers(rounds).items():
        state, step, w = tx.init(params), jax.jit(tx.update), params
        zeros[name] = []
        for _ in range(updates.STEPS * (1 + rounds)):
            change, state = step(1e-3 * jnp.ones_like(w), state, w)
            w = optax.apply_updates(w, change)
            zeros[name].append(float(sparsity(w)))
    ramp = zeros["prune_with(sgd), in the ramp"]
    assert ramp[9] < ramp[19] < ramp[29] < 0.9
    frozen = zeros["prune_with(sgd), frozen"]
    assert frozen[3:] == pytest.approx([0.9] * 27)
    assert set(zeros["sgd, momentum"]) == {0.0}


@pytest.mark.slow
def test_tiny_from_end_to_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    target = tmp_path / "costs.json"
    words = ["--weights", "5000", "--batch-size", "4", "--rounds", "1", "--save", str(target)]
    words += ["--curvature-weights", "5000", "--examples", "8"]
    assert bench.main(words) == 0
    out = capsys.readouterr().out
    saved = json.loads(target.read_text())
    assert saved["config"] == {
        "weights": 4096,
        "batch_size": 4,
        "curvature_weights": 5000,
        "examples": 8,
        "rounds": 1,
    }
    assert saved["command"].startswith("python -m experiments.bench --weights 5000")
    assert {"jax", "optax", "grda_optax"} <= set(saved["versions"])
    for part in ("update", "training"):
        assert list(saved[part]) == list(updates.optimizers(1))
        for name, cost in saved[part].items():
            assert name in out
            assert cost["seconds"] > 0
    assert "4,096 weights" in out
    assert set(saved["products"]) == {"gradient", "product"}
    assert set(saved["memory"]) == {"basis", "no_basis"}

    (tmp_path / report.FILE).write_text(target.read_text())
    page = report.render(tmp_path)
    assert "| product |" in page
    assert "Update of 4,096 weights" in page
    assert report.render(tmp_path / "nowhere") == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rounds", "0"], "rounds must be an integer >= 1, got 0."),
        (["--save", "no/x.json"], "save must be in a folder that exists, got 'no/x.json'."),
    ],
)
def test_what_cannot_be_timed_is_named_at_once(words, message, capsys):
    assert bench.main(words) == 2
    assert message in " ".join(capsys.readouterr().out.split())
