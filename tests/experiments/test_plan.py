"""A dry run: what the compiled program says, without data, and without writing anything."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments import plan, run
from experiments.analysis import compiled, compiled_report
from experiments.config import Config, Runtime
from experiments.configs import PRESETS
from experiments.parallel import DataParallel

from .conftest import change


@pytest.fixture(scope="module")
def planned(devices):
    return plan.plan(change(batch_size=64), Runtime(), devices[:2])


def test_a_plan_is_what_the_run_will_be(planned):
    assert (planned.steps, planned.steps_per_epoch) == (3 * 22, 22)
    assert planned.devices == 2
    assert planned.batch_per_device == 32
    weights = 64 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10
    assert planned.weights == weights
    assert planned.params_bytes == 4 * weights
    # A momentum for each, an accumulator for each in a kernel, and a few numbers.
    assert 0 <= planned.optimizer_bytes - 4 * (weights + weights - 410) < 100
    assert planned.batch_bytes == 32 * (64 + 4)
    products = 64 * 300 + 300 * 100 + 100 * 10
    assert planned.model_flops == 3 * 2 * 32 * products
    # The gradient with respect to the images is not needed.
    least = planned.model_flops - 2 * 32 * 64 * 300
    assert least <= planned.compiled_flops <= 1.5 * least
    assert planned.memory_bytes >= planned.params_bytes + planned.optimizer_bytes


def test_the_gradient_and_the_loss_are_all_that_devices_exchange(planned):
    assert planned.collectives.keys() == {"all-reduce"}
    assert planned.collectives["all-reduce"]["bytes"] == planned.params_bytes + 4


@pytest.mark.slow
def test_split_weights_are_gathered_once_and_examples_stay_where_they_are(devices):
    """Else a large batch would be exchanged, of which only the gradient and statistics need be."""
    few, many = (
        plan.plan(change(model="small_cnn", batch_size=size), Runtime(parallel="fsdp"), devices)
        for size in (64, 256)
    )
    assert few.collectives == many.collectives
    assert few.collectives.keys() == {"all-gather", "all-reduce"}
    for found in few.collectives.values():  # and the loss, and what BatchNorm keeps or sums
        assert few.params_bytes <= found["bytes"] <= 1.01 * few.params_bytes
    whole = plan.plan(change(model="small_cnn", batch_size=64), Runtime(), devices)
    assert few.memory_bytes < whole.memory_bytes


@pytest.mark.parametrize("mode", ["mesh", "pmap"])
def test_abstract_arguments_are_those_of_a_run(mode, devices):
    parallel = DataParallel(mode, devices[:4])
    state, batch = {"w": np.ones((2, 3), np.float32)}, np.zeros((8, 5), np.uint8)
    abstract = parallel.abstract(state, batch)
    real = parallel.replicate(state), parallel.split(batch)
    for a, b in zip(jax.tree.leaves(abstract), jax.tree.leaves(real), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        if mode == "mesh":
            assert a.sharding == b.sharding


def test_collectives_are_read_from_a_program():
    text = """
      ROOT %a.1 = (f32[2,3]{1,0}, bf16[]) all-reduce(f32[2,3]{1,0} %x, bf16[] %y), to_apply=%add
      %b = (f32[2]{0}, f32[8]{0}) all-gather-start(f32[2]{0} %a), dimensions={0}
      %c = f32[2]{0} add(f32[2]{0} %all-reduce, f32[2]{0} %x)
      %d = f32[] all-reduce(f32[] %z)
    """
    assert plan.collectives(text) == {
        "all-reduce": {"count": 2, "bytes": 4 * 6 + 2 + 4},
        "all-gather": {"count": 1, "bytes": 32},
    }


def test_an_exchange_behind_other_work_is_counted_once():
    """On a TPU it stands in each of the computations that it begins in, goes on in and ends in."""
    text = """
      %a.1 = bf16[8] all-gather(%x), channel_id=1, frontend_attributes={chain_id="0"}
      %a.2 = bf16[8] all-gather(%y), channel_id=1, frontend_attributes={chain_id="0"}
      %a.3 = bf16[4] all-gather(%z), channel_id=1, frontend_attributes={chain_id="10"}
      %a.4 = bf16[2] all-gather(%z), channel_id=1, frontend_attributes={is_spmd="true"}
      %a.5 = bf16[2] all-gather(%z), channel_id=1
      %a.6 = f32[] all-reduce(%z), channel_id=1, frontend_attributes={chain_id="0"}
    """
    assert plan.collectives(text) == {
        "all-gather": {"count": 4, "bytes": 2 * (8 + 4 + 2 + 2)},
        "all-reduce": {"count": 1, "bytes": 4},
    }


def test_the_command_prints_it_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["digits", "--dry-run", "--epochs", "2", "--method", "dense", "--devices", "8"]
    assert run.main(arguments) == 0
    printed = capsys.readouterr().out
    for text in ("of each of 8 x cpu", "steps", "88", "optimizer state", "memory in all"):
        assert text in printed
    assert not any(tmp_path.iterdir())


def test_a_dry_run_refuses_what_a_run_would(capsys):
    assert run.main(["digits", "--dry-run", "--batch-size", "5000"]) == 2
    assert "batch_size must be at most the 1437 examples, got 5000." in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("method", ["snip", "l0", "lottery", "channels"])
def test_methods_of_every_kind_can_be_planned(method, devices):
    config = Config(method=(method,), model="mlp")
    found = plan.plan(config, Runtime(), devices[:1])
    assert found.method == method
    assert found.collectives == {}, "of one device there is nothing to exchange"


@pytest.mark.slow
def test_vgg16_is_planned_from_its_compiled_program(devices):
    config = dataclasses.replace(PRESETS["cifar10_vgg16"].CONFIG, method=("grda",))
    found = plan.plan(config, Runtime(), devices[:1])
    assert (found.steps, found.weights) == (600 * 390, 15_245_130)
    assert found.optimizer_bytes < 1.001 * found.params_bytes, "one accumulator"
    assert 0.5 < found.compiled_flops / found.model_flops <= 1


def test_the_page_shows_what_was_compiled(tmp_path, planned):
    assert compiled_report.render(tmp_path) == ""
    row = {"preset": "digits", "batch_size": 64, **dataclasses.asdict(planned)}
    (tmp_path / compiled_report.FILE).write_text(json.dumps({"rows": [row]}))
    lines = compiled_report.render(tmp_path).splitlines()
    assert lines[-1].startswith("| `digits` | 2 | 32 | 0 | 0 |")
    count = planned.collectives["all-reduce"]["count"]  # compilers join them, or not
    assert lines[-1].endswith(f"| {count} all-reduce of 0.2 MiB |")


def test_what_is_compiled_for_many_devices_fits_them():
    for preset, devices, batch_size in compiled.PROGRAMS:
        assert preset in PRESETS
        assert batch_size % devices == 0
        assert devices <= compiled.DEVICES


def test_plans_stand_beside_each_other(planned):
    console = Console(record=True, width=120)
    plan.show([planned, dataclasses.replace(planned, method="other", collectives={})], console)
    text = console.export_text()
    assert "grda" in text
    assert "other" in text
    assert "0 of 0.0 MiB" in text
