"""Studies: the committed pages are those that the committed rows make."""

import concurrent.futures
import dataclasses
import io
import json
import threading
import types
from pathlib import Path

import pytest
import tyro
from rich.console import Console

from experiments import frontier, study
from experiments.config import Config
from experiments.configs import PRESETS
from experiments.health import DivergedError
from experiments.run import Arguments
from experiments.studies import STUDIES, tables
from experiments.studies.tables import Spread


@pytest.mark.parametrize("name", STUDIES)
def test_runs_are_planned_and_done_once_each(name):
    planned = [config for config, _ in study.planned(name)]
    assert len(planned) == len(set(map(repr, planned)))
    done = [Config.from_json(row["config"]) for row in study.rows_of(name)]
    assert len(done) == len(set(map(repr, done)))
    if not hasattr(STUDIES[name], "NEEDS"):  # such a plan follows from rows, and may change course
        assert set(map(repr, done)) <= set(map(repr, planned))


@pytest.mark.parametrize("name", STUDIES)
def test_every_row_says_how_to_repeat_it(name):
    rows = study.rows_of(name)
    for row in rows[:: 1 + len(rows) // 20]:
        assert {"jax", "optax", "grda_optax"} <= set(row["versions"])
        words = row["command"].split()
        assert words[:3] == ["python", "-m", "experiments.run"]
        parsed = tyro.extras.overridable_config_cli(
            {words[3]: ("", Arguments(config=PRESETS[words[3]].CONFIG))}, args=words[3:]
        )
        assert parsed.config == Config.from_json(row["config"])


@pytest.mark.slow  # it draws every figure again
def test_results_are_made_from_the_rows(tmp_path, monkeypatch):
    """RESULTS.md has no figure in it that somebody typed."""
    for path in study.RESULTS.glob("*.json*"):
        (tmp_path / path.name).write_text(path.read_text())
    committed = (study.RESULTS / "RESULTS.md").read_text()
    readme = tmp_path / "README.md"
    readme.write_text(study.README.read_text())
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    study.render()
    assert (tmp_path / "RESULTS.md").read_text() == committed
    study.write_readme(readme)
    assert readme.read_text() == study.README.read_text()
    for picture in study.Path(study.__file__).parent.joinpath("results").glob("*.png"):
        assert (tmp_path / picture.name).stat().st_size > 10_000


def test_a_run_of_a_study_is_a_row(digits, monkeypatch):
    monkeypatch.setattr(study.data, "load", lambda name: digits)
    config = Config(epochs=1, method=("grda",), batch_size=64)
    row = study.run_one(config, "digits")
    assert Config.from_json(row["config"]) == config
    assert row["result"]["steps"] == 22
    assert json.loads(json.dumps(row)) == row
    assert "--batch-size 64" in row["command"]


def test_a_run_that_diverges_is_a_row_too(digits, monkeypatch):
    def explode(job):
        raise DivergedError("the loss is not finite at step 3: loss nan; try a lower rate.")

    monkeypatch.setattr(study.data, "load", lambda name: digits)
    monkeypatch.setitem(study.METHODS, "dense", explode)
    row = study.run_one(Config(method=("dense",)), "digits")
    assert row["result"] == {
        "diverged": True,
        "reason": "the loss is not finite at step 3: loss nan",
    }
    assert study.in_short(row["result"]).startswith("diverged: the loss is not finite")


def test_only_studies_that_can_show_them_are_given_diverged_rows(monkeypatch):
    rows = [{"result": {"diverged": True}}, {"result": {"eval_accuracy": 0.9}}]
    monkeypatch.setattr(study, "rows_of", lambda name: rows)
    assert study.shown_rows("fashion_mnist_paper") == rows[1:]
    assert study.shown_rows("frontier") == rows


class Inline(concurrent.futures.Executor):
    """Runs what is submitted at once, here."""

    def __init__(self, *_):
        pass

    def submit(self, function, *args, **kwargs):
        future = concurrent.futures.Future()
        try:
            future.set_result(function(*args, **kwargs))
        except ValueError as error:
            future.set_exception(error)
        return future


def test_a_failure_stops_no_other_run_and_what_follows_is_planned(tmp_path, monkeypatch):
    """A study whose plan follows from its rows: after the first run there is a second."""
    first, second, wrong = (Config(seed=seed, method=("dense",)) for seed in range(3))

    class Growing:
        NEEDS = ("growing",)

        @staticmethod
        def runs(rows):
            return [(x, "digits") for x in ([wrong, first, second] if rows else [wrong, first])]

        @staticmethod
        def compact(row):
            return {"config": row["config"], "command": "", "result": row["result"]}

    def run_one(config, *_, **__):
        if config == wrong:
            raise ValueError("sparsity must be lower.")
        result = {"diverged": True, "reason": "so"}
        return {"config": config.to_json(), "result": result, "device": "none"}

    monkeypatch.setitem(study.STUDIES, "growing", Growing)
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    monkeypatch.setattr(study, "run_one", run_one)
    monkeypatch.setattr(study.concurrent.futures, "ProcessPoolExecutor", Inline)
    console = Console(file=io.StringIO(), width=200)
    for _ in range(2):  # what has failed is tried again
        with pytest.raises(ValueError, match="sparsity must be lower"):
            study.run_study("growing", 1, console)
        rows = study.rows_of("growing")
        assert [Config.from_json(row["config"]) for row in rows] == [first, second]
        assert all(set(row) == {"config", "command", "result"} for row in rows)
    told = console.file.getvalue()
    assert "growing: 0 runs done, 2 to do." in told
    assert "growing: 2 runs done, 1 to do." in told
    assert "1/2 failed: sparsity must be lower." in told
    assert "3/3 : diverged: so" in told


def test_no_worker_waits_for_the_run_of_another(tmp_path, monkeypatch):
    """While one run takes long, a chain of others, each planned after the one before, goes on."""
    long, *chain = (Config(seed=seed, method=("dense",)) for seed in range(5))
    chain_ended = threading.Event()

    class Growing:
        NEEDS = ("growing",)

        @staticmethod
        def runs(rows):
            found = [Config.from_json(row["config"]) for row in rows]
            until = sum(config in found for config in chain) + 1
            return [(config, "digits") for config in (long, *chain[:until])]

    def run_one(config, *_, **__):
        if config == long:
            assert chain_ended.wait(60)
        elif config == chain[-1]:
            chain_ended.set()
        result = {"diverged": True, "reason": "so"}
        return {"config": config.to_json(), "command": "", "result": result}

    monkeypatch.setitem(study.STUDIES, "growing", Growing)
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    monkeypatch.setattr(study, "run_one", run_one)
    monkeypatch.setattr(study, "_pool", concurrent.futures.ThreadPoolExecutor)
    study.run_study("growing", 2, Console(file=io.StringIO()))
    assert sorted(row["config"]["seed"] for row in study.rows_of("growing")) == list(range(5))


def test_what_cannot_begin_is_said(tmp_path, monkeypatch):
    """A run that diverged leaves no folder, and what starts from it cannot."""
    source = Config(method=("dense",))
    after = dataclasses.replace(
        source, method=("recipe",), init_from=str(study.folder_of(source, "digits"))
    )
    made_up = types.SimpleNamespace(runs=lambda: [(source, "digits"), (after, "digits")])

    def run_one(config, *_, **__):
        result = {"diverged": True, "reason": "so"}
        return {"config": config.to_json(), "command": "", "result": result}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(study.STUDIES, "made_up", made_up)
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    monkeypatch.setattr(study, "run_one", run_one)
    monkeypatch.setattr(study, "_pool", concurrent.futures.ThreadPoolExecutor)
    console = Console(file=io.StringIO())
    with pytest.raises(ValueError, match="1 runs of made_up were not begun"):
        study.run_study("made_up", 1, console)
    assert [row["config"]["seed"] for row in study.rows_of("made_up")] == [source.seed]
    assert "1/2 : diverged: so" in console.file.getvalue()


def test_what_starts_from_a_run_to_come_waits_for_it():
    source, other, after = (Config(seed=seed, method=("dense",)) for seed in range(3))
    folder = Path("runs/source")
    after = dataclasses.replace(after, init_from=str(folder))
    first = [
        study.Planned(source, "digits", folder, True),
        study.Planned(other, "digits", None, True),
    ]
    second = [study.Planned(after, "digits", None, True)]
    assert study.ready(first, second, set()) == first
    assert study.ready(first, second, {source}) == first[1:]
    assert study.ready(first[1:], second, {source}) == [first[1], *second]


def test_spread_by_hand():
    x = tables.spread([1.0, 2.0, 3.0, 4.0])
    assert x == Spread(2.5, pytest.approx(1.2909944), 4)
    # The quantile of Student's t with three degrees of freedom, from a printed table.
    assert x.interval == pytest.approx(3.182 * 1.2909944 / 2, rel=1e-3)
    assert tables.plus_minus(x) == "2.50 ± 1.29"
    assert tables.plus_minus(tables.spread([7.0])) == "7.00"


@pytest.mark.parametrize("command", [study, frontier])
def test_too_few_workers_are_refused_at_once(command, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["command", "--workers", "0"])
    assert command.main() == 2
    assert "workers must be an integer >= 1, got 0." in capsys.readouterr().err
