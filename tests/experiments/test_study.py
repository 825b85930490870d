"""Studies: the committed pages are those that the committed rows make."""

import json

import pytest
import tyro

from experiments import study
from experiments.config import Config
from experiments.configs import PRESETS
from experiments.run import Arguments
from experiments.studies import STUDIES, tables
from experiments.studies.tables import Spread


@pytest.mark.parametrize("name", STUDIES)
def test_runs_are_planned_and_done_once_each(name):
    planned = [config for config, _ in STUDIES[name].runs()]
    assert len(planned) == len(set(map(repr, planned)))
    done = [Config.from_json(row["config"]) for row in study.rows_of(name)]
    assert len(done) == len(set(map(repr, done)))
    assert set(map(repr, done)) <= set(map(repr, planned))


@pytest.mark.parametrize("name", STUDIES)
def test_every_row_says_how_to_repeat_it(name):
    for row in study.rows_of(name):
        assert {"jax", "optax", "grda_optax"} <= set(row["versions"])
        words = row["command"].split()
        assert words[:3] == ["python", "-m", "experiments.run"]
        parsed = tyro.extras.overridable_config_cli(
            {words[3]: ("", Arguments(config=PRESETS[words[3]].CONFIG))}, args=words[3:]
        )
        assert parsed.config == Config.from_json(row["config"])


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


def test_spread_by_hand():
    x = tables.spread([1.0, 2.0, 3.0, 4.0])
    assert x == Spread(2.5, pytest.approx(1.2909944), 4)
    # The quantile of Student's t with three degrees of freedom, from a printed table.
    assert x.interval == pytest.approx(3.182 * 1.2909944 / 2, rel=1e-3)
    assert tables.plus_minus(x) == "2.50 ± 1.29"
    assert tables.plus_minus(tables.spread([7.0])) == "7.00"
