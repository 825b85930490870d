"""The benchmark runs and says what it has measured; how fast anything is, no test asks."""

import ast
import json
import math
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

import experiments
from experiments import provenance
from experiments.bench import __main__ as bench
from experiments.bench import (
    compiling,
    job,
    job_clock,
    memory,
    peers,
    report,
    sections,
    sizes,
    timing,
    updates,
)
from experiments.bench import devices as scaling
from grda_optax import sparsity

from .conftest import exactly


def test_every_block_runs_once_a_round_and_no_place_is_kept():
    calls = []
    blocks = {name: lambda name=name: calls.append(name) for name in "abc"}
    costs = timing.interleaved(blocks, rounds=4, steps=10)
    assert "".join(calls) == "abc" + "abc" + "bca" + "cab" + "abc"
    assert costs["a"].ratio == 1
    assert all(cost.seconds >= 0 and math.isfinite(cost.ratio) for cost in costs.values())


def test_a_block_that_knows_its_seconds_is_believed():
    costs = timing.interleaved({"a": lambda: 2.0, "b": lambda: 3.0}, rounds=2, steps=10)
    assert costs["a"] == (0.2, 1)
    assert costs["b"] == pytest.approx((0.3, 1.5))


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


@pytest.mark.parametrize("weights", [200, 5000, 1_000_000])
def test_kernels_are_of_the_size_that_is_asked_for_up_to_a_row(weights):
    params = updates.kernels(weights, 8)
    columns = next(iter(params.values())).shape[1]
    assert weights - 8 * columns < updates.count(params) <= weights
    assert len({x.shape for x in params.values()}) == 1
    assert len(params) == 8


def test_bytes_that_an_update_has_to_move():
    """Weights and state twice, gradients once, of four bytes each; Adam's state is two arrays."""
    params = {"kernel": jnp.zeros((100, 100))}
    moved = {
        name: sizes.bytes_moved(params, tx.init(params)) / 10_000
        for name, tx in sizes.optimizers().items()
    }
    expected = {"sgd": 12, "sgd, momentum": 20, "grda": 20, "adam": 28}
    assert moved == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("total", [8_000, 2 * sizes.PARALLEL_BYTES])
def test_a_copy_reads_and_writes_all_that_it_is_told(total, monkeypatch):
    made = []
    monkeypatch.setattr(sizes.np, "zeros", lambda *a: made.append(sizes.np.empty(*a)) or made[-1])
    copy = sizes.copying(total)
    made[0].fill(0)
    copy()
    assert made[0].all()
    assert 2 * made[0].nbytes == total


def test_the_share_of_the_copys_bandwidth():
    costs = {"adam": {"seconds": 2.0, "ratio": 1.0}, "copy": {"seconds": 1.0, "ratio": 1.0}}
    row = {"bytes": {"adam": 28, "copy": 20}, "costs": costs}
    assert sizes.share(row, "adam") == pytest.approx(0.7)


def test_each_phase_has_its_own_time_and_all_have_that_passed():
    times = iter([0, 1, 3, 6, 10, 15, 15, 20])
    clock = job_clock.Clock(lambda: next(times))
    with clock.phase("train"):  # from 1
        with clock.phase("evaluate"):  # from 3 to 6
            pass
        # Compiled from 8 to 9, and that within a compilation from 7 to 10 ...
        clock.take("compile", 3)  # ... which ends at 10
        assert clock.seconds["compile"] == 3
    assert clock.seconds == {"rest": 1, "train": 2 + 9 - 3, "evaluate": 3, "compile": 3}
    assert sum(clock.end().values()) == 15


def test_a_compilation_within_another_counts_once():
    times = iter([0, 9, 10, 12])
    clock = job_clock.Clock(lambda: next(times))
    clock.take("compile", 1)  # from 8 to 9
    clock.take("compile", 4)  # from 6 to 10
    assert clock.seconds == {"rest": -4, "compile": 4}
    assert clock.end() == {"rest": 8, "compile": 4}


def positive(x):
    """Every number in it is one, and over zero."""
    if isinstance(x, dict | list):
        assert len(x) > 0
        for value in x.values() if isinstance(x, dict) else x:
            positive(value)
    elif isinstance(x, int | float):
        assert math.isfinite(x)
        assert x > 0


def rendered(tmp_path, saved):
    (tmp_path / "bench.json").write_text(Path(saved).read_text())
    return report.render(tmp_path)


@pytest.mark.slow
def test_updates_and_training_and_products(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    target = tmp_path / "costs.json"
    words = ["--weights", "5000", "--batch-size", "4", "--rounds", "1", "--save", str(target)]
    words += ["--curvature-weights", "5000", "--examples", "8"]
    words += ["--parts", "update", "training", "curvature"]
    assert bench.main(words) == 0
    out = capsys.readouterr().out
    saved = json.loads(target.read_text())["parts"]
    assert saved["training"]["config"] == {"batch_size": 4, "rounds": 1}
    for part in saved.values():
        assert part["command"].startswith("python -m experiments.bench --weights 5000")
        assert {"jax", "optax", "grda_optax"} <= set(part["versions"])
    for part in ("update", "training"):
        costs = saved[part]["data"][part]
        assert list(costs) == list(updates.optimizers(1))
        positive(costs)
        assert all(name in out for name in costs)
    assert "4,992 weights" in out
    found = saved["curvature"]["data"]
    assert set(found["products"]) == {"gradient", "product"}
    assert set(found["memory"]) == {"basis", "no_basis"}
    page = rendered(tmp_path, target)
    assert "| product |" in page
    assert "Update of 4,992 weights" in page
    assert "Memory of fifty steps of Lanczos" in page


@pytest.mark.slow
def test_sizes_and_compilation(tmp_path):
    target = tmp_path / "costs.json"
    words = ["--parts", "sizes", "compilation", "--rounds", "1", "--save", str(target)]
    words += ["--sizes", "2000", "10000", "--leaves", "2", "5", "--compiled-leaves", "3"]
    assert bench.main(words) == 0
    saved = json.loads(target.read_text())["parts"]
    rows = saved["sizes"]["data"]["rows"]
    assert [row["leaves"] for row in rows] == [2, 2, 5, 5]
    positive(rows)
    positive(saved["compilation"]["data"]["tracing"])
    positive(saved["compilation"]["data"]["programs"])
    page = rendered(tmp_path, target)
    assert "The update alone, in milliseconds" in page
    assert "Compilation of the update of 3 leaves" in page


@pytest.mark.slow
def test_a_larger_network(tmp_path):
    target = tmp_path / "costs.json"
    words = ["--parts", "large", "--network", "lenet5", "--image-size", "32", "--rounds", "1"]
    assert bench.main([*words, "--network-batch", "2", "--save", str(target)]) == 0
    costs = json.loads(target.read_text())["parts"]["large"]["data"]["training"]
    assert {"sgd, momentum", "grda", "adam"} <= set(costs)
    positive(costs)
    assert "Training step of `lenet5`, batch 2, 32 by 32 images" in rendered(tmp_path, target)


@pytest.mark.slow
def test_memory_of_an_update_is_that_of_its_arrays():
    """And of a training step gRDA's is momentum's: neither needs a temporary more."""
    found = memory.measure(80_000, {"fashion_mnist_cnn": 2})
    of_update, of_training = found.values()
    for name, slots in {"sgd, momentum": 1, "grda": 1, "prune_with(sgd)": 1, "adam": 2}.items():
        row = of_update[name]
        if name != "prune_with(sgd)":
            assert row["state_bytes_per_weight"] == pytest.approx(4 * slots, abs=0.01)
        assert row["peak_bytes"] >= 4 * 80_000 * (2 + slots)
    assert of_training["grda"]["state_bytes_per_weight"] == pytest.approx(4, abs=0.01)
    lines = memory.shown(found)[0].markdown().splitlines()
    assert len([line for line in lines if "| grda |" in line]) == 2


@pytest.mark.slow
def test_what_devices_exchange_is_no_more_than_with_momentum_sgd(monkeypatch, devices):
    monkeypatch.setattr(scaling, "METHODS", ("dense", "grda"))
    monkeypatch.setattr(scaling, "MODES", ("fsdp",))
    found = scaling.compile_all(2, 2)
    alone = {(row["method"], row["devices"]): row["collectives"] for row in found["updates"]}
    assert alone["grda", 2] == alone["sgd, momentum", 2] == {}
    assert 0 < sum(x["bytes"] for x in alone["prune_with(sgd)", 2].values()) < 10_000
    exchanged = {(row["method"], row["devices"]): row["collectives"] for row in found["training"]}
    assert exchanged["dense", 1] == exchanged["grda", 1] == {}
    assert exchanged["dense", 2] == exchanged["grda", 2] != {}
    first, second = (table.markdown() for table in scaling.shown(found))
    assert "| dense, fsdp | 2 |" in first
    assert "| grda | 2 |" in second


def test_devices_are_made_up_in_another_process(monkeypatch):
    """Whose last line is what it has found."""

    def answers(words, **_):
        assert words[1:] == ["-m", "experiments.bench.devices", "4", "3"]
        return subprocess.CompletedProcess(words, 0, 'a warning\n{"training": []}\n')

    monkeypatch.setattr(scaling.subprocess, "run", answers)
    assert scaling.measure(4, 3) == {"training": []}


@pytest.mark.slow
def test_the_wall_time_of_a_job_is_that_of_its_phases(tmp_path, data_dir, digits):
    words = ["digits", "--steps", "3", "--method", "dense", "--runs-dir", str(tmp_path)]
    words += ["--data-dir", str(data_dir), "--compilation-cache", "None"]
    seconds = job.clocked(words, tmp_path)
    assert set(seconds) == {*job.PHASES, "total"}
    phases = {name: x for name, x in seconds.items() if name != "total"}
    assert sum(phases.values()) == pytest.approx(seconds["total"])
    positive({x: seconds[x] for x in ("import", "data", "compile", "train", "evaluate", "report")})


def test_a_job_is_run_without_a_cache_with_an_empty_one_and_with_a_full_one(monkeypatch):
    asked = []

    def clocked(words, folder):
        asked.append(words[words.index("--compilation-cache") + 1])
        return {"train": float(len(asked)), "total": 10.0}

    monkeypatch.setattr(job, "clocked", clocked)
    found = job.measure(["digits"], 3)
    prepared, rounds = asked[0], [asked[i : i + 3] for i in (1, 4, 7)]
    assert prepared == "None"
    for nothing, empty, full in rounds:
        assert nothing == "None"
        assert empty == full
    assert len({empty for _, empty, _ in rounds}) == 3, "each round has an empty one"
    assert found["seconds"]["no cache"] == {"train": 5.0, "total": 10.0}, "the median of 2, 5, 8"
    lines = job.shown(found)[0].markdown().splitlines()
    assert "| training | 5.00 | 6.00 | 7.00 |" in lines


def test_a_job_that_fails_says_why(tmp_path, monkeypatch):
    def fails(*_, **__):
        return job.subprocess.CompletedProcess([], 2, "out", "no such preset")

    monkeypatch.setattr(job.subprocess, "run", fails)
    with pytest.raises(RuntimeError, match=r"^nothing has failed:\noutno such preset$"):
        job.clocked(["nothing"], tmp_path)


FAKE_TORCH = """
import json, sys
print(json.dumps({"versions": {"torch": "2", "torchao": "0"}, "threads": 2}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    answer = ["SGD", "PAT"]
    if "run" in asked:
        answer = {"seconds": 0.5 * asked["steps"] / asked["threads"]}
    print(json.dumps(answer), flush=True)
"""


@pytest.mark.slow
def test_peers_are_timed_by_their_own_clock(tmp_path):
    """By a script that says what it took, as the true one does in another environment."""
    script = tmp_path / "torch.py"
    script.write_text(FAKE_TORCH)
    with peers.Torch(Path(sys.executable), script) as torch:
        rows = peers.measure(torch, [1000], [1, 3], 1)
        found = {"torch": torch.origin, "rows": rows}
    assert [row["costs"]["torch PAT, on 1 thread"]["seconds"] for row in rows] == [0.5, 0.5]
    assert [row["costs"]["torch PAT, on all threads"]["seconds"] for row in rows] == [0.25, 0.25]
    positive(rows)
    cells = [0.5 / row["costs"]["grda"]["seconds"] / 2 for row in rows]
    assert [peers.best(row["costs"])["torch PAT"] for row in rows] == pytest.approx(cells)
    assert "torch 2 and torchao 0" in peers.shown(found)[0].markdown()


def test_a_python_without_torch_is_named(tmp_path):
    script = tmp_path / "torch.py"
    script.write_text("raise SystemExit('No module named torch')")
    python = Path(sys.executable)
    wanted = f"torch must be a Python with torch and torchao, '{python}' has ended: "
    with pytest.raises(ValueError, match=exactly(wanted + "No module named torch")):
        peers.Torch(python, script)
    nowhere = tmp_path / "python"
    with pytest.raises(ValueError, match=f"^torch must be a Python, got '{nowhere}': "):
        peers.Torch(nowhere)


def test_the_peers_script_needs_nothing_of_this_project():
    path = Path(experiments.__file__).parent / "peers" / "torch_updates.py"
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"torch", "torchao"}


@pytest.mark.parametrize("text", ["%a = f32[] b()", "  ROOT %a.1 = f32[2]{0} add(%x, %y)"])
def test_operations_are_lines_that_define_something(text):
    assert compiling.operations(f"HloModule jit_step\n\nENTRY %main {{\n{text}\n}}\n") == 1


COST = {"seconds": 0.001, "ratio": 1.0}
EARLIER = {
    "config": {"weights": 40, "batch_size": 2, "curvature_weights": 9, "examples": 3, "rounds": 1},
    "command": "python -m experiments.bench --rounds 1",
    "update": {"sgd, momentum": COST, "grda": COST},
    "products": {"gradient": COST, "product": COST},
    "lanczos": {"50 products": COST},
    "memory": {"basis": 1.25, "no_basis": 1.5},
    "versions": {"jax": "0.1"},
    "device": "cpu, 1 core",
    "load": 0.0,
}


def test_files_of_earlier_releases_are_read(tmp_path):
    (tmp_path / "bench.json").write_text(json.dumps(EARLIER))
    page = report.render(tmp_path)
    assert "Update of 40 weights" in page
    assert "| grda | 1.00 | 1.00 |" in page
    assert "1.25 times the basis" in page
    assert "Training step" not in page
    assert page.count(f"Made by `{EARLIER['command']}`") == 1
    assert report.render(tmp_path / "nowhere") == ""


def test_every_machine_has_its_tables(tmp_path):
    for name, device in (("bench", "cpu, 1 core"), ("bench_gpu", "a GPU")):
        (tmp_path / f"{name}.json").write_text(json.dumps(EARLIER | {"device": device}))
    page = report.render(tmp_path)
    assert page.index("on cpu, 1 core with") < page.index("on a GPU with")
    assert page.count("Update of 40 weights") == 2


def test_a_part_that_is_measured_again_takes_its_own_place_alone(tmp_path):
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(EARLIER))
    new = {"data": {"weights": 50, "update": EARLIER["update"]}, **EARLIER, "command": "again"}
    sections.merge(path, {"update": new})
    found = sections.read(path)
    assert set(found) == {"update", "curvature"}
    assert found["update"]["command"] == "again"
    assert found["curvature"]["command"] == EARLIER["command"]
    assert "Update of 50 weights" in report.render(tmp_path)


def test_the_committed_file_is_rendered():
    page = report.render(provenance.RESULTS)
    assert "| grda |" in page
    assert "Made by `python -m experiments.bench" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rounds", "0"], "rounds must be an integer >= 1, got 0."),
        (["--sizes", "0"], "sizes must be an integer >= 1, got 0."),
        (["--leaves", "-1"], "leaves must be an integer >= 1, got -1."),
        (
            ["--sizes", "4", "--leaves", "5"],
            "leaves must be at most the 4 weights of sizes, got 5.",
        ),
        (
            ["--parts", "peers"],
            "torch must be a Python with torch and torchao where parts has peers, got None.",
        ),
        (
            ["--parts", "large", "--network", "x"],
            "network must be one of mlp, small_cnn,",
        ),
        (["--save", "no/x.json"], "save must be in a folder that exists, got 'no/x.json'."),
    ],
)
def test_what_cannot_be_measured_is_named_at_once(words, message, capsys):
    assert bench.main(words) == 2
    assert message in " ".join(capsys.readouterr().err.split())
