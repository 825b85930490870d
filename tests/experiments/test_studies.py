"""What the studies make of rows: on made-up ones, of which some are missing."""

import dataclasses
import io
import json
import types
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro
from rich.console import Console

from experiments import study
from experiments.config import Config
from experiments.configs import PRESETS, folder_of
from experiments.log import append_row, read_rows
from experiments.methods import grda, recipe
from experiments.run import Arguments
from experiments.studies import (
    STUDIES,
    asked_and_got,
    pairs,
    recipe_controls,
    recipe_pretrained,
    recipe_small,
    recipe_transformer,
    settling,
    suggest_c_error,
    tables,
)

from .conftest import SHORT, change, exactly

TOTAL = 10_000


def fake(config, *, accuracy=0.9, loss=0.5, sparsity=None):
    """A row as a run of this config could leave it, of a network with two leaves."""
    sparsity = config.sparsity if sparsity is None else sparsity
    count = {"nnz": round((1 - sparsity) * TOTAL), "total": TOTAL}
    return {
        "config": config.to_json(),
        "command": "",
        "result": {
            "eval_accuracy": accuracy,
            "eval_loss": loss,
            "seconds": 1.0,
            "penalised": count,
            "all": count,
            "leaves": {
                "kernel": count | {"penalised": True},
                "bias": {"nnz": 7, "total": 7, "penalised": False},
            },
        },
        "epochs": {
            "step": [10, 20, 30, 40, 50],
            "sparsity": [0.2, 0.5, 0.6, 0.898, 0.9],
            "accuracy": [0.5, 0.6, 0.7, 0.8, 0.9],
        },
    }


def lines_of(text):
    """The lines of all tables in it, cell by cell."""
    rows = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in rows]


# Those whose plan follows from rows are in test_frontier.py.
@pytest.mark.parametrize("name", [x for x in STUDIES if not hasattr(STUDIES[x], "NEEDS")])
@pytest.mark.parametrize("kept", [0, 1, 7, None])
def test_every_study_renders_whatever_is_there(name, kept, tmp_path):
    module = STUDIES[name]
    rows = [fake(config) for config, _ in module.runs()][:kept]
    text = module.render(rows, tmp_path)
    assert text
    for part in text.split("\n\n"):
        if part.startswith("!["):
            assert (tmp_path / part.split("(")[1].rstrip(")")).stat().st_size > 5_000
    if kept is None:
        assert "nan" not in text
        assert len(lines_of(text)) > 1


def test_a_pair_by_hand():
    pair = pairs.Pair({0: 1.0, 1: 2.0, 2: 3.0, 7: 99.0}, {0: 1.5, 1: 2.5, 2: 4.5, 8: -99.0})
    assert pair.seeds == [0, 1, 2]
    assert (pair.rival.mean, pair.ours.mean) == (2.0, pytest.approx(17 / 6))
    # Differences 0.5, 0.5 and 1.5: deviation 0.5774; t of two degrees of freedom is 4.303.
    assert pair.gain.mean == pytest.approx(5 / 6)
    assert pair.gain.interval == pytest.approx(4.303 * 0.57735 / 3**0.5, rel=1e-3)
    assert not pair.better
    assert not pair.worse
    assert pairs.Pair({0: 1.0, 1: 2.0}, {0: 2.0, 1: 3.01}).better
    assert pairs.Pair({0: 2.0, 1: 3.01}, {0: 1.0, 1: 2.0}).worse


def test_a_table_of_pairs():
    cells = {
        ("a", "90"): pairs.Pair({0: 1.0, 1: 2.0}, {0: 2.0, 1: 3.0}),
        ("b", "90"): pairs.Pair({0: 1.0}, {1: 2.0}),
        ("c", "90"): pairs.Pair({0: 2.0}, {0: 1.0}),
    }
    first, second, third = lines_of(pairs.table(("network", "zeros (%)"), cells))
    assert first[:2] == ["network", "zeros (%)"]
    assert second == ["a", "90", "1.50 ± 0.71", "2.50 ± 0.71", "+1.00 ± 0.00", "2"]
    assert third == ["c", "90", "2.00", "1.00", "-1.00", "1"]
    assert pairs.verdict(cells.values()).startswith(
        "Of 1 cells the recipe is better in 1 and worse in 0"
    )


def test_asked_and_got_by_hand(tmp_path):
    setting, case = next(iter(asked_and_got.CASES.items()))
    configs = {name: asked_and_got.planned(setting, name) for name in case.optimizers}
    rows = [fake(config) for mine in configs.values() for config in mine]
    # One of SGD's runs has four nonzero weights too many, and one of Lion's is missing.
    rows[2] = fake(configs["SGD"][2], sparsity=configs["SGD"][2].sparsity - 4e-4)
    rows = [row for row in rows if row["config"] != configs["Lion"][0].to_json()]
    header, line = lines_of(asked_and_got.render(rows, tmp_path))
    cells = dict(zip(header, line, strict=True))
    assert cells["SGD"] == "0.0400"
    assert cells["AdamW"] == "0.0000"
    assert cells["Lion"] == ""
    assert "In 23 of 24 runs" in asked_and_got.render(rows, tmp_path)


def test_by_leaf_the_worst_one_counts():
    config = dataclasses.replace(asked_and_got.MLP, sparsity=0.9)
    row = fake(config)
    row["result"]["leaves"]["other"] = {"nnz": 12, "total": 100, "penalised": True}
    assert asked_and_got.missed(row) == pytest.approx(0)
    assert asked_and_got.exact(row)
    row["config"]["recipe"]["per_leaf"] = True
    assert asked_and_got.missed(row) == pytest.approx(2)
    assert not asked_and_got.exact(row)


def test_settling_by_hand(tmp_path):
    row = fake(SHORT)
    assert settling.settled(row) == pytest.approx(0.8)
    assert settling.growth(row) == pytest.approx(0.2)
    row["epochs"]["sparsity"] = [0.9] * 5
    assert settling.settled(row) == pytest.approx(0.2)
    row["epochs"]["sparsity"] = [0.1, 0.2, 0.3, 0.4, 0.5]
    assert settling.settled(row) == 1
    rows = [fake(config) for config, _ in settling.runs()]
    assert len(lines_of(settling.render(rows, tmp_path))) == 1 + 6
    assert len(lines_of(settling.render(rows[1:], tmp_path))) == 1 + 5


@pytest.mark.parametrize("module", [recipe_small, recipe_pretrained])
def test_only_whole_pairs_enter(module, tmp_path):
    rows = [
        fake(config, accuracy={"gmp": 0.90, "recipe": 0.91}.get(config.method[0], 0.92))
        for config, _ in module.runs()
    ]
    whole = lines_of(module.render(rows, tmp_path))
    assert all(line[4] == "+1.00 ± 0.00" for line in whole[1:])
    alone = next(row for row in rows if row["config"]["method"] == ["recipe"])
    fewer = lines_of(module.render([row for row in rows if row is not alone], tmp_path))
    assert [int(x[-1]) - int(y[-1]) for x, y in zip(whole[1:], fewer[1:], strict=True)] == [
        1,
        *[0] * (len(whole) - 2),
    ]
    dense = [row for row in rows if row["config"]["method"] == ["dense"]]
    assert "92.00" in module.render(dense, tmp_path)
    assert len(lines_of(module.render(dense, tmp_path))) == 1


def test_the_transformer_is_compared_by_its_loss(tmp_path):
    losses = {"gmp": 1.25, "recipe": 1.0, "dense": 0.75}
    rows = [fake(config, loss=losses[config.method[0]]) for config, _ in recipe_transformer.runs()]
    text = recipe_transformer.render(rows, tmp_path)
    _, line = lines_of(text)
    assert line[1:] == ["80", "1.2500 ± 0.0000", "1.0000 ± 0.0000", "-0.2500 ± 0.0000", "2"]
    assert "Dense: 0.7500 ± 0.0000 nats." in text


def test_controls_are_held_against_the_firm_threshold(tmp_path):
    rows = []
    for config, _ in recipe_controls.runs():
        soft = config.recipe.prox == "soft"
        rows.append(fake(config, accuracy=0.88 if soft else 0.90))
    text = recipe_controls.render(rows, tmp_path)
    soft = [line for line in lines_of(text) if line[0] == "soft"]
    assert [line[2:] for line in soft] == [["-2.00 ± 0.00", "5"]] * 2 + [["-2.00 ± 0.00", "4"]]
    assert all(line[2] == "" for line in lines_of(text) if line[0] == recipe_controls.FIRM)


def test_the_error_of_suggest_c_by_hand(tmp_path):
    rows = [fake(config, sparsity=config.sparsity - 0.1) for config, _ in suggest_c_error.runs()]
    text = suggest_c_error.render(rows, tmp_path)
    assert lines_of(text)[1][2:4] == ["50", "40.0 ± 0.0"]
    assert "Over 24 runs it is off by 10.0 points on average, and by 10.0 at most." in text
    assert len(lines_of(suggest_c_error.render(rows[1:], tmp_path))) == len(lines_of(text)) - 1


def other(hint, value):
    """A value of this type that is not ``value``, within what most settings allow."""
    if typing.get_origin(hint) is typing.Literal:
        return next(x for x in typing.get_args(hint) if x != value)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (inner,) = (x for x in typing.get_args(hint) if x is not type(None))
        return None if value is not None else other(inner, value)
    if hint is bool:
        return not value
    if hint is int:
        return (value or 0) + 3
    assert hint is float
    return 0.9 * value if value else 0.7


FIELDS = [
    field.name for field in dataclasses.fields(Config) if dataclasses.is_dataclass(field.type)
]


def parse(words):
    name = words[3]
    return tyro.extras.overridable_config_cli(
        {name: ("", Arguments(config=PRESETS[name].CONFIG))}, args=words[3:]
    ).config


@pytest.mark.parametrize("name", FIELDS)
def test_a_command_says_every_setting_of_every_method(name):
    """None, booleans, negative numbers and names alike, as the command line reads them."""
    default = getattr(Config(), name)
    hints = typing.get_type_hints(type(default))
    changed = {
        field.name: other(hints[field.name], getattr(default, field.name))
        for field in dataclasses.fields(default)
    }
    if "ratio" in changed:  # which alone has to be above 1
        changed["ratio"] = 1.7
    preset = PRESETS["digits"].CONFIG
    config = dataclasses.replace(preset, **{name: dataclasses.replace(default, **changed)})
    assert len(config.differences(Config())) >= len(changed)
    assert parse(study.command(config, "digits").split()) == config


def test_a_command_says_the_rest_too():
    config = dataclasses.replace(
        PRESETS["digits"].CONFIG,
        method=("gmp", "recipe"),
        model="lenet5",
        steps=300,
        optimizer="muon",
        schedule="cosine",
        init_from="runs/digits-a=1/dense",
        evaluate="validation",
    )
    words = study.command(config, "digits").split()
    assert parse(words) == config
    spaced = study.command(dataclasses.replace(config, init_from="my runs/dense"), "digits")
    assert "--init-from 'my runs/dense'" in spaced


def test_a_killed_run_costs_its_own_row_alone(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_row(path, {"a": 1})
    append_row(path, {"a": 2})
    path.write_bytes(path.read_bytes()[:-4])  # cut off within the second row
    assert read_rows(path) == [{"a": 1}]
    append_row(path, {"a": 3})
    assert read_rows(path) == [{"a": 1}, {"a": 3}]
    append_row(path, {"a": 4})
    assert [json.loads(line) for line in path.read_text().splitlines()[2:]] == [{"a": 3}, {"a": 4}]
    assert read_rows(tmp_path / "none.jsonl") == []


def test_what_others_start_from_is_trained_first_and_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dense = change(SHORT, method=("dense",))
    folder = folder_of(dense, "digits")
    pruned = change(SHORT, method=("recipe",), init_from=str(folder))
    alone = change(SHORT, method=("gmp",))
    runs = [(pruned, "digits"), (dense, "digits"), (alone, "digits")]
    kept = study.Planned(dense, "digits", folder, True)
    second = [study.Planned(pruned, "digits", None, True)]
    assert study.plan(runs, []) == ([kept, study.Planned(alone, "digits", None, True)], second)
    # Its row is there but the folder is not, for instance on another machine: trained once more.
    assert study.plan(runs, [dense, alone]) == ([kept._replace(new=False)], second)
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{}")
    assert study.plan(runs, [dense, alone]) == ([], second)
    assert study.plan(runs, [dense, alone, pruned]) == ([], [])


@pytest.mark.slow
def test_a_study_of_runs_that_start_from_others(digits, data_dir, tmp_path, monkeypatch):
    """In processes of their own; the second finds the first where its command would leave it."""
    dense = change(SHORT, method=("dense",), steps=5)
    pruned = change(SHORT, method=("recipe",), steps=5, init_from=str(folder_of(dense, "digits")))
    made_up = types.SimpleNamespace(
        EPOCHS=True, runs=lambda: [(pruned, "digits"), (dense, "digits")]
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    monkeypatch.setattr(study.data, "load", lambda name: digits)
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    monkeypatch.setitem(study.STUDIES, "made_up", made_up)
    console = Console(file=io.StringIO())
    study.run_study("made_up", 1, console)
    first, second = study.rows_of("made_up")
    assert [Config.from_json(row["config"]) for row in (first, second)] == [dense, pruned]
    assert first["result"]["steps"] == second["result"]["steps"] == 5
    assert second["epochs"]["step"] == [5]
    assert second["epochs"]["sparsity"] == [pytest.approx(0.9, abs=1e-6)]
    accuracy = second["result"]["eval_accuracy"]
    assert second["epochs"]["accuracy"] == [pytest.approx(accuracy, abs=1e-6)]
    assert parse(second["command"].split()) == pruned
    study.run_study("made_up", 1, console)
    assert "made_up: 2 runs done, 0 to do." in console.file.getvalue()


def test_every_source_of_a_study_is_one_of_its_runs():
    for name in STUDIES:
        runs = study.planned(name)
        written = {str(folder_of(config, preset)): config for config, preset in runs}
        for config, _ in runs:
            if config.init_from is not None:
                source = written[config.init_from]
                assert source.init_from is None
                assert (source.model, source.evaluate) == (config.model, config.evaluate)
                assert source.seed == config.seed


def test_the_steep_operator_by_hand():
    v = jnp.array([-4.0, -1.0, 0.5, 2.0])
    np.testing.assert_array_equal(recipe.steep_threshold(v, 1.0), [-4.5, 0.0, 0.0, 1.5])
    np.testing.assert_array_equal(recipe.steep_threshold(v, 0.0), v)


def test_the_suggested_strength_ends_at_the_quantile_of_the_first_weights(
    train, make_job, tmp_path
):
    settings = grda.Settings(c=None, mu=0.7)
    config = change(SHORT, steps=4, sparsity=0.8, grda=settings)
    trained = train(tmp_path / "run", config)
    first, _ = make_job(tmp_path / "unused", config).start()
    kernels = [np.abs(x).ravel() for x in jax.tree.leaves(first) if x.ndim > 1]
    quantile = np.sort(np.concatenate(kernels))[round(0.8 * 50_200) - 1]
    assert trained.result["threshold"] == pytest.approx(float(quantile), rel=1e-5)


def test_a_run_has_as_many_steps_as_it_is_told(make_job, tmp_path):
    assert make_job(tmp_path, change(SHORT, epochs=3)).total_steps == 33
    job = make_job(tmp_path, change(SHORT, epochs=3, steps=300, schedule="cosine"))
    assert job.total_steps == 300
    assert float(job.learning_rate(299)) > 0
    assert float(job.learning_rate(300)) == pytest.approx(0)
    with pytest.raises(ValueError, match=exactly("steps must be an integer >= 1, got 0.")):
        change(SHORT, steps=0)


def test_rows_are_found_by_config():
    row = fake(change(SHORT, seed=3))
    assert tables.by_config([row]) == {change(SHORT, seed=3): row}
