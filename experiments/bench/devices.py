"""Weak scaling on made-up devices: what each holds, and what they exchange, in compiled programs.

A process of its own makes the devices up, so that those of what is timed here stay as they are:

    python -m experiments.bench.devices 8 32
"""

import dataclasses
import json
import subprocess
import sys
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from experiments import plan
from experiments.bench.memory import optimizers, peak
from experiments.bench.shown import Shown
from experiments.bench.updates import LEAVES, in_place_update
from experiments.config import Config, Runtime
from experiments.log import Row
from experiments.models.axis import DEVICE_AXIS
from experiments.parallel import split_largest, use_devices

METHODS: tuple[Literal["dense"], Literal["grda"], Literal["recipe"]] = ("dense", "grda", "recipe")
MODES: tuple[Literal["mesh"], Literal["fsdp"]] = ("mesh", "fsdp")
UPDATED = 2**20
"""Weights a device in the update alone."""


def counts(most: int) -> list[int]:
    """The powers of two up to ``most``.

    Examples:
        >>> counts(8)
        [1, 2, 4, 8]
    """
    return [2**i for i in range(most.bit_length()) if 2**i <= most]


def training(devices: int, batch_each: int) -> list[Row]:
    """The training step of the small CNN, as many examples on each device."""
    rows = []
    for mode in MODES:
        for method in METHODS:
            config = Config(
                dataset="fashion_mnist",
                model="small_cnn",
                method=(method,),
                batch_size=batch_each * devices,
                momentum=0.9 if method == "dense" else 0.0,
            )
            runtime = Runtime(parallel=mode)
            found = plan.plan(config, runtime, jax.devices()[:devices])
            rows.append({"mode": mode, **dataclasses.asdict(found)})
    return rows


def updates(devices: int) -> list[Row]:
    """The update alone of weights that are split over the devices, as many on each."""
    mesh = Mesh(jax.devices()[:devices], (DEVICE_AXIS,), axis_types=(AxisType.Auto,))
    leaf = (UPDATED * devices // (LEAVES * 256), 256)

    def split(x: Any) -> jax.ShapeDtypeStruct:
        spec = split_largest(x.shape, devices) if x.ndim else PartitionSpec()
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

    plain = {f"kernel{i}": jax.ShapeDtypeStruct(leaf, jnp.float32) for i in range(LEAVES)}
    params = jax.tree.map(split, plain)
    rows = []
    for name, tx in optimizers().items():
        state = jax.tree.map(split, jax.eval_shape(tx.init, plain))
        step: Any = in_place_update(tx)
        compiled = step.lower((params, state), params).compile()
        rows.append(
            {
                "method": name,
                "devices": devices,
                "collectives": plan.collectives(compiled.as_text()),
                "bytes_accessed": float(compiled.cost_analysis().get("bytes accessed", 0)),
                "memory_bytes": peak(compiled),
            }
        )
    return rows


def measure(most: int, batch_each: int) -> Row:
    """Both, for 1, 2, 4 ... devices, in a process that has them."""
    words = [sys.executable, "-m", "experiments.bench.devices", str(most), str(batch_each)]
    out = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    found: Row = json.loads(out.stdout.splitlines()[-1])
    return found


def _exchanged(row: Row) -> list[str]:
    collectives = row["collectives"]
    count = sum(x["count"] for x in collectives.values())
    size = sum(x["bytes"] for x in collectives.values())
    names = ", ".join(f"{x['count']} {name}" for name, x in collectives.items())
    return [names or "none" if count else "none", f"{size / 2**20:.3f}"]


def shown(found: Row) -> list[Shown]:
    """Each device's memory, its reads and writes, and the exchange."""
    header = ["devices", "memory (MiB)", "read and written (MiB)", "exchange", "exchanged (MiB)"]

    def cells(row: Row) -> list[str]:
        sizes = [f"{row[x] / 2**20:.1f}" for x in ("memory_bytes", "bytes_accessed")]
        return [f"{row['devices']}", *sizes, *_exchanged(row)]

    of_training = [
        [f"{row['method']}, {row['mode']}", *cells(row)]
        for row in sorted(found["training"], key=lambda x: (x["mode"] != "mesh", x["method"]))
    ]
    of_updates = [
        [row["method"], *cells(row)] for row in sorted(found["updates"], key=lambda x: x["method"])
    ]
    note = (
        f"Everything a device and a step, {found['batch_each']} examples each, from programs "
        "compiled for made-up devices. `mesh` copies weights and state, `fsdp` splits them."
    )
    alone = (
        f"{UPDATED:,} weights a device, split with their state and gradients. gRDA exchanges "
        "nothing; the recipe exchanges counts, of which its threshold is made."
    )
    return [
        Shown("Weak scaling: training step of `small_cnn`", ["", *header], of_training, note),
        Shown("Weak scaling: the update alone", ["", *header], of_updates, alone),
    ]


def compile_all(most: int, batch_each: int) -> Row:
    """Both, for 1, 2, 4 ... devices of this process."""
    use_devices(most)
    return {
        "batch_each": batch_each,
        "training": [row for n in counts(most) for row in training(n, batch_each)],
        "updates": [row for n in counts(most) for row in updates(n)],
    }


if __name__ == "__main__":
    print(json.dumps(compile_all(int(sys.argv[1]), int(sys.argv[2]))))
