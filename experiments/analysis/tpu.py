"""The training steps of the paper's networks, compiled for TPUs, on a machine that has none.

    python -m pip install -e ".[experiments,tpu]"
    python -m experiments.analysis.tpu

The compiler of `libtpu` makes the program that the chips would run, for topologies of up to 256 of
them; no data are needed, and nothing is run. Each program is a row of results/tpu.json, from which
RESULTS.md has its tables. Programs that are there already are not compiled again, so that the same
command goes on where it was stopped.
"""

import dataclasses
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.experimental import topologies
from rich.console import Console

from experiments import plan, provenance
from experiments.analysis.tpu_cases import BATCH_EACH, CASES, Case
from experiments.analysis.tpu_report import FILE
from experiments.config import Config, Runtime
from experiments.configs import PRESETS
from experiments.folder import write_json

PyTree = Any
# Of a machine without TPUs, which libtpu would otherwise ask the network for.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # there is no chip that two processes could want
}
# By default arrays are copied to the fast memory ahead of their use, and every copy counts as bytes
# accessed. Without that the count is what goes to and from the chip's main memory.
FROM_MAIN_MEMORY = {"xla_msa_enable": "false"}


def available() -> bool:
    """Whether the compiler is installed."""
    return importlib.util.find_spec("libtpu") is not None


def devices_of(topology: str) -> list[jax.Device]:
    """Devices to compile for, and for nothing else, such as those of `v5e:4x4`.

    Raises:
        ModuleNotFoundError: the extra `tpu` is not installed.
    """
    if not available():
        raise ModuleNotFoundError('libtpu is not installed: python -m pip install -e ".[tpu]"')
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)


def config_of(case: Case, devices: int) -> Config:
    """The preset's config with the case's optimizer, and a batch for so many devices."""
    chosen: dict[str, dict[str, Any]] = {
        "grda": {"method": ("grda",)},
        "momentum": {"method": ("dense",), "optimizer": "sgd", "momentum": 0.9},
        "adam": {"method": ("dense",), "optimizer": "adamw", "weight_decay": 0.0},
    }
    config: Config = dataclasses.replace(
        PRESETS[case.preset].CONFIG,
        batch_size=BATCH_EACH * devices,
        param_dtype=case.param_dtype,
        **chosen[case.optimizer],
    )
    return config


def measure(case: Case, devices: list[jax.Device]) -> dict[str, Any]:
    """Compiles one program for the devices: the row of the file."""
    began = time.monotonic()
    config, runtime = config_of(case, len(devices)), Runtime(parallel=case.parallel)
    if case.what == "step":
        found = dataclasses.asdict(plan.plan(config, runtime, devices))
        del found["method"], found["steps"], found["steps_per_epoch"]
    else:
        found = measure_update(config, runtime, devices)
    return {
        **dataclasses.asdict(case),
        **found,
        "seconds": round(time.monotonic() - began, 1),
        **provenance.of(*(["libtpu"] if available() else [])),
    }


def measure_update(config: Config, runtime: Runtime, devices: list[jax.Device]) -> dict[str, Any]:
    """The update of every weight alone, from float32 gradients, in the memory that it is given.

    The least possible is to read every argument once and to write every result once. A chip stores
    arrays in tiles, so that small ones take more than their numbers do; both counts are given.
    """
    job = plan.outline(config, runtime, devices)
    tx, _ = plan.transformation(job)
    state, _ = plan.abstract_arguments(job, tx)
    moved = state.params, state.opt_state
    gradients = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), state.params)

    def update(moved: PyTree, gradients: PyTree) -> PyTree:
        params, opt_state = moved
        updates, opt_state = tx.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    arguments, _ = job.parallel.abstract((moved, gradients), ())
    on_tpu = devices[0].platform == "tpu"
    compiled: Any = (
        jax.jit(update, donate_argnums=0)
        .lower(*arguments)
        .compile(compiler_options=FROM_MAIN_MEMORY if on_tpu else None)
    )
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    return {
        "device_kind": devices[0].device_kind,
        "devices": len(devices),
        "weights": sum(x.size for x in jax.tree.leaves(gradients)),
        "bytes_accessed": float(cost["bytes accessed"]),
        "least_stored_bytes": memory.argument_size_in_bytes + memory.output_size_in_bytes,
        "least_bytes": 2 * plan.size_of(moved) + plan.size_of(gradients),
        "temporary_bytes": memory.temp_size_in_bytes,
        "collectives": plan.collectives(compiled.as_text()),
    }


def compile_all(path: Path, cases: tuple[Case, ...], console: Console) -> int:
    """Compiles what the file does not hold yet, row by row; gives how many could not be."""
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    failed = 0
    for case in cases:
        if any(case.is_of(row) for row in rows):
            continue
        name = ", ".join(str(x) for x in dataclasses.astuple(case))
        try:
            row = measure(case, devices_of(case.topology))
        except jax.errors.JaxRuntimeError as error:  # such as a program that the memory is short of
            failed += 1
            console.print(f"{name}: {error}", markup=False)
            continue
        rows.append(row)
        rows.sort(key=_place)
        write_json(path, {"rows": rows})
        console.print(f"{name}: {row['seconds']} s", markup=False)
    return failed


def _place(row: dict[str, Any]) -> int:
    return next((i for i, case in enumerate(CASES) if case.is_of(row)), len(CASES))


def main(folder: Path = provenance.RESULTS) -> int:
    """Compiles every program that has no row yet, the smallest first."""
    console = Console()
    if not available():
        console.print('libtpu is not installed: python -m pip install -e ".[tpu]"', markup=False)
        return 2
    jax.config.update("jax_platforms", "cpu")  # the weights' shapes come from there
    return 1 if compile_all(folder / FILE, CASES, console) else 0


if __name__ == "__main__":
    sys.exit(main())
