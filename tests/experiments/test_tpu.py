"""Programs for TPUs: which ones, what stands in their rows, and the pages made of them."""

import dataclasses
import io
import json
from itertools import product

import jax
import pytest
from rich.console import Console

from experiments import provenance
from experiments.analysis import pages, tpu, tpu_cases, tpu_report
from experiments.analysis.tpu_cases import CASES, CNN, RESNET, Case
from experiments.configs import PRESETS

WEIGHTS = 143_114
needs_libtpu = pytest.mark.skipif(
    not tpu.available(), reason='libtpu is not installed: python -m pip install -e ".[tpu]"'
)


def row_of(case, **values):
    """A row with made-up numbers."""
    common = {
        "device_kind": "TPU v5 lite",
        "devices": 16,
        "weights": 10,
        "bytes_accessed": 2.04e9,
        "collectives": {},
        "versions": {"libtpu": "1.2.3"},
    }
    update = {"least_stored_bytes": 2_000_000_000, "least_bytes": 1_000_000_000}
    step = {
        "params_bytes": 2**20,
        "optimizer_bytes": 2**21,
        "memory_bytes": 300 * 2**20,
        "compiled_flops": 1.5e9,
        "collectives": {"all-reduce": {"count": 7, "bytes": 2**19}},
    }
    numbers = common | (update if case.what == "update" else step) | values
    return {**dataclasses.asdict(case), **numbers}


def test_every_program_is_another_one_of_a_preset():
    assert len(set(CASES)) == len(CASES)
    for case in CASES:
        assert case.preset in PRESETS
        row = {**json.loads(json.dumps(dataclasses.asdict(case))), "devices": 16}
        assert [x for x in CASES if x.is_of(row)] == [case]


@pytest.mark.parametrize("optimizer", ["grda", "momentum", "adam"])
def test_an_optimizer_is_all_that_its_config_differs_in(optimizer):
    config = tpu.config_of(Case("step", CNN, optimizer=optimizer), 16)
    changed = config.differences(PRESETS[CNN].CONFIG)
    settings = {key: value for key, (value, _) in changed.items()}
    assert settings.pop("batch_size") == 32 * 16
    assert (
        settings
        == {
            "grda": {"method": ["grda"]},
            "momentum": {"method": ["dense"], "momentum": 0.9},
            "adam": {"method": ["dense"], "optimizer": "adamw"},
        }[optimizer]
    )


@pytest.mark.parametrize(
    ("optimizer", "dtype", "bytes_a_weight"),
    [
        # The gradient is read; weight and accumulator (or both moments) are read and written.
        ("grda", "bfloat16", 4 + 2 * (2 + 4)),
        ("adam", "float32", 4 + 2 * (4 + 8)),
    ],
)
def test_the_least_that_an_update_can_access(optimizer, dtype, bytes_a_weight, devices):
    case = Case("update", "fashion_mnist", optimizer=optimizer, param_dtype=dtype)
    row = tpu.measure(case, devices[:2])
    assert case.is_of(row)
    weights = 784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10
    assert row["weights"] == weights
    assert 0 <= row["least_bytes"] - bytes_a_weight * weights < 100, "a few scalars"
    assert row["bytes_accessed"] >= 0.99 * row["least_bytes"]
    assert row["collectives"] == {}, "an update needs no other device"


def test_programs_that_have_a_row_are_not_compiled_again(tmp_path, monkeypatch):
    compiled = []

    def measure(case, devices):
        assert devices == [case.topology]
        compiled.append(case)
        if case == CASES[1]:
            raise jax.errors.JaxRuntimeError("too large")
        return row_of(case, seconds=1.0)

    monkeypatch.setattr(tpu, "measure", measure)
    monkeypatch.setattr(tpu, "devices_of", lambda topology: [topology])
    path, text = tmp_path / "tpu.json", io.StringIO()
    assert tpu.compile_all(path, CASES[2:3], Console(file=text)) == 0
    assert tpu.compile_all(path, CASES[:3], Console(file=text)) == 1
    assert "too large" in text.getvalue()
    assert compiled == [CASES[2], CASES[0], CASES[1]]
    rows = json.loads(path.read_text())["rows"]
    assert [case for row in rows for case in CASES if case.is_of(row)] == [CASES[0], CASES[2]]


def test_without_the_compiler_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tpu, "available", lambda: False)
    assert tpu.main(tmp_path) == 2
    assert 'python -m pip install -e ".[tpu]"' in capsys.readouterr().out
    assert not any(tmp_path.iterdir())
    with pytest.raises(ModuleNotFoundError, match="libtpu is not installed"):
        tpu.devices_of("v5e:4x4")


def test_the_page_shows_the_rows_that_there_are(tmp_path):
    assert tpu_report in pages.PAGES.values()
    assert tpu_report.render(tmp_path) == ""
    update = row_of(Case("update", RESNET, param_dtype="bfloat16"))
    step = row_of(Case("step", CNN, topology="v5e:16x16", optimizer="momentum"))
    for rows in [update], [step], [update, step]:
        (tmp_path / tpu_report.FILE).write_text(json.dumps({"rows": rows}))
        lines = tpu_report.render(tmp_path).splitlines()
        assert "libtpu 1.2.3" in lines[0]
        shown = [line for line in lines if line.startswith(("| ResNet", "| CNN"))]
        expected = {
            "update": "| ResNet-50, bfloat16 | gRDA | 1945.5 | 1907.3 | 2.00 | 953.7 | 104.00 "
            "| no |",
            "step": "| CNN, float32 | 16 x v5 lite (v5e:16x16) | mesh | momentum SGD | 1.00 | 2.00 "
            "| 300.0 | 1.5 | 2.04 | 7 all-reduce of 0.50 MiB |",
        }
        assert shown == [expected[row["what"]] for row in rows]


def test_the_page_compares_steps_that_differ_in_the_optimizer_alone(tmp_path):
    rows = [
        row_of(Case("step", CNN)),
        row_of(Case("step", CNN, optimizer="momentum"), memory_bytes=600 * 2**20),
        row_of(Case("step", CNN, optimizer="adam", topology="v5e:16x16")),
    ]
    (tmp_path / tpu_report.FILE).write_text(json.dumps({"rows": rows}))
    text = tpu_report.render(tmp_path)
    assert "bytes accessed: CNN beside momentum SGD: -50.00 %, +0.00 %.\n" in text
    assert "CNN beside Adam" not in text


def test_the_page_says_what_splitting_takes(tmp_path):
    whole = Case("step", RESNET, topology=tpu_cases.LARGE)
    split = dataclasses.replace(whole, parallel="fsdp")
    rows = [row_of(whole), row_of(split, memory_bytes=375 * 2**20)]
    (tmp_path / tpu_report.FILE).write_text(json.dumps({"rows": rows}))
    said = "Beside `mesh`, of memory and of bytes accessed: ResNet-50: +25.0 %, +0.0 %."
    assert said in tpu_report.render(tmp_path)
    (tmp_path / tpu_report.FILE).write_text(json.dumps({"rows": rows[:1]}))
    assert "Where they are split" not in tpu_report.render(tmp_path)


def test_what_was_compiled_says_that_an_update_costs_as_little_as_it_can():
    rows = json.loads((provenance.RESULTS / tpu_report.FILE).read_text())["rows"]
    assert all(sum(case.is_of(row) for case in CASES) == 1 for row in rows)
    updates = [x for x in rows if x["what"] == "update" and x["optimizer"] == "grda"]
    assert {(x["preset"], x["param_dtype"]) for x in updates} == set(
        product(tpu_cases.PRESETS, tpu_cases.DTYPES)
    )
    for row in updates:
        assert row["collectives"] == {}
        # Two per cent, beside a few scalars for each array of a small network.
        most = 1.02 * row["least_stored_bytes"] + (100_000 if row["preset"] == CNN else 0)
        assert row["least_stored_bytes"] <= row["bytes_accessed"] <= most


@pytest.mark.slow
@needs_libtpu
def test_a_training_step_compiles_for_a_pod():
    row = tpu.measure(Case("step", CNN), tpu.devices_of("v5e:4x4"))
    assert (row["devices"], row["device_kind"]) == (16, "TPU v5 lite")
    assert row["batch_per_device"] == 32
    assert row["params_bytes"] == 4 * WEIGHTS
    assert 0 <= row["optimizer_bytes"] - row["params_bytes"] < 100, "one accumulator"
    assert row["params_bytes"] + row["optimizer_bytes"] < row["memory_bytes"] < 2**30
    assert row["collectives"].keys() == {"all-reduce"}
    exchanged = row["collectives"]["all-reduce"]["bytes"]
    assert row["params_bytes"] < exchanged < 1.02 * row["params_bytes"], "the mean gradient"


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_update_on_a_tpu_accesses_hardly_more_than_it_must(dtype):
    case = Case("update", RESNET, param_dtype=dtype)
    row = tpu.measure(case, tpu.devices_of(case.topology))
    assert row["collectives"] == {}
    assert 1 <= row["bytes_accessed"] / row["least_stored_bytes"] < 1.01
    assert 1 <= row["bytes_accessed"] / row["least_bytes"] < 1.02
