"""The training steps of the paper's networks, compiled ahead of time for many devices.

    python -m experiments.analysis.compiled

No data, no step and no accelerator is needed: the devices are made up on a CPU, and everything that
the compiler gets is a shape. Writes results/compiled.json, from which RESULTS.md has its table.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from experiments import plan, provenance
from experiments.analysis.compiled_report import FILE
from experiments.config import Config, Runtime
from experiments.configs import PRESETS
from experiments.folder import write_json
from experiments.parallel import use_devices

DEVICES = 256
PROGRAMS = (
    # preset, devices, batch: the paper's, and one that gives 256 devices as much to do each.
    ("cifar10_vgg16", 8, 128),
    ("imagenet_resnet50", 8, 256),
    ("imagenet_resnet50", 256, 8192),
)


def measure(preset: str, devices: int, batch_size: int, parallel: Any) -> dict[str, Any]:
    """One row of the file: the plan of `grda` under a preset's config."""
    config: Config = dataclasses.replace(
        PRESETS[preset].CONFIG, method=("grda",), batch_size=batch_size
    )
    found = plan.plan(config, Runtime(parallel=parallel), jax.devices()[:devices])
    return {"preset": preset, "batch_size": batch_size, **dataclasses.asdict(found)}


def main(folder: Path = provenance.RESULTS) -> int:
    """Compiles each program, and writes what the compiler says of it."""
    console = Console()
    use_devices(DEVICES)
    rows = []
    for preset, devices, batch_size in PROGRAMS:
        rows.append(measure(preset, devices, batch_size, "mesh"))
        console.print(f"{preset} on {devices}: {json.dumps(rows[-1]['collectives'])}")
    write_json(folder / FILE, {"rows": rows, **provenance.of()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
