"""What a run will take, from the program compiled for it, without data and without a step.

`python -m experiments.run PRESET --dry-run` prints it for each method of the config, and
`python -m experiments.analysis.compiled` writes it for the networks of the paper.
"""

import dataclasses
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.table import Table

from experiments import accumulation, data, precision, reparameterisation, wrapping
from experiments.config import Config, Runtime
from experiments.flops import forward_flops
from experiments.interventions import Intervention
from experiments.methods import METHODS
from experiments.parallel import DataParallel
from experiments.reparameterisation import Reparameterisation
from experiments.train import Job, State, Trained

PyTree = Any
_COLLECTIVE = re.compile(
    r"= (?P<result>.*?) "
    r"(?P<name>all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all)"
    r"(?P<start>-start)?\((?:.*?\bchain_id=\"(?P<chain>\d+)\")?"
)
_ARRAY = re.compile(r"(?P<type>pred|[a-z]+)(?P<bits>\d*)\[(?P<shape>[\d,]*)\]")
MEMORY = {
    "params": "params_bytes",
    "optimizer state": "optimizer_bytes",
    "batch": "batch_bytes",
    "temporaries": "temporary_bytes",
    "memory in all": "memory_bytes",
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """One method's run. Bytes and operations are of one device."""

    method: str
    device_kind: str
    """Whose compiler the numbers are from: another one fuses, and so stores, other things."""
    devices: int
    weights: int
    """Trained, in the network."""
    steps: int
    steps_per_epoch: int
    batch_per_device: int
    model_flops: int
    """Of a step: three times those of the forward pass in products, two a multiply-add."""
    compiled_flops: float
    """Of a step, as the compiler counts; library calls that it cannot look into count nothing."""
    bytes_accessed: float
    """Read and written in a step, as the compiler counts: what an accelerator copies into its fast
    memory and reads from there counts each time."""
    params_bytes: int
    optimizer_bytes: int
    batch_bytes: int
    temporary_bytes: int
    """What a step needs beside its arguments: activations, gradients."""
    memory_bytes: int
    """Arguments, results that do not take an argument's place, and temporaries."""
    collectives: dict[str, dict[str, int]]
    """By name: how many there are in the program, and the bytes that come out of them."""


class _FoundOut(Exception):  # no error: what a method was going to train with
    def __init__(self, tx: Any, weights_of: Reparameterisation | None):
        super().__init__("planned")
        self.tx, self.weights_of = tx, weights_of


class _Planned(Job):
    """A job whose training says what it would have trained with."""

    def train(
        self,
        tx: optax.GradientTransformationExtraArgs,
        *,
        interventions: Sequence[Intervention] = (),
        reparameterisation: Reparameterisation | None = None,
    ) -> Trained:
        """Trains nothing."""
        del interventions
        raise _FoundOut(tx, reparameterisation)


def plan(config: Config, runtime: Runtime, devices: list[jax.Device]) -> Plan:
    """Compiles the training step of a config with one method, ahead of time, on shapes alone.

    A method that trains several times is planned by its first training. One that computes on data
    before it trains (`snip`, `grasp`) does so on black images.

    Raises:
        ValueError: a setting cannot be run.
    """
    job = outline(config, runtime, devices)
    tx, weights_of = transformation(job)
    state, batch = abstract_arguments(job, tx, weights_of)
    step: Any = job.compiled_step(tx, weights_of)
    compiled = step.lower(*job.parallel.abstract(state, batch)).compile()
    memory = compiled.memory_analysis()
    cost = compiled.cost_analysis()
    per_device = config.batch_size // len(devices)
    return Plan(
        method=config.method[0],
        device_kind=devices[0].device_kind,
        devices=len(devices),
        weights=sum(math.prod(x.shape) for x in jax.tree.leaves(state.params)),
        steps=job.total_steps,
        steps_per_epoch=job.steps_per_epoch,
        batch_per_device=per_device,
        model_flops=3 * per_device * forward_flops(job.model, job.input_shape),
        compiled_flops=float(cost.get("flops", math.nan)),
        bytes_accessed=float(cost.get("bytes accessed", math.nan)),
        params_bytes=size_of(state.params),
        optimizer_bytes=size_of(state.opt_state),
        batch_bytes=size_of(batch) // len(devices),
        temporary_bytes=memory.temp_size_in_bytes,
        memory_bytes=memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes,
        collectives=collectives(compiled.as_text()) if len(devices) > 1 else {},
    )


def outline(config: Config, runtime: Runtime, devices: list[jax.Device]) -> Job:
    """The job of a run, to be compiled and not to be run: without data, folder or console.

    Raises:
        ValueError: a setting cannot be run.
    """
    return Job(
        config=config,
        runtime=runtime,
        dataset=data.outline(config.dataset),
        parallel=DataParallel(runtime.parallel, devices),
        folder=Path(),  # which nothing is written to
        console=Console(file=io.StringIO()),
    )


def transformation(
    job: Job,
) -> tuple[optax.GradientTransformationExtraArgs, Reparameterisation | None]:
    """What the method of a job would train with, first of all; nothing is trained."""
    fields = {field.name: getattr(job, field.name) for field in dataclasses.fields(job)}
    try:
        METHODS[job.config.method[0]](_Planned(**fields))
    except _FoundOut as found:
        return wrapping.wrap(job.config, found.tx), found.weights_of
    raise AssertionError("every method trains")


def abstract_arguments(
    job: Job,
    tx: optax.GradientTransformationExtraArgs,
    weights_of: Reparameterisation | None = None,
) -> tuple[State, data.Split]:
    """The shapes and dtypes of a training step's state, and of the batch that it takes."""
    config = job.config
    params, statistics = jax.eval_shape(job.model.init, jax.random.key(0))
    params = jax.eval_shape(lambda x: precision.cast(x, config.param_dtype), params)
    if weights_of is None:
        opt_state = jax.eval_shape(tx.init, params)
    else:
        params, opt_state = jax.eval_shape(
            lambda params: reparameterisation.start(weights_of, tx, params, 0), params
        )
    step: Any = jax.ShapeDtypeStruct((), jnp.int32)
    size = config.batch_size
    if accumulation.by_multi_steps(config):
        size //= config.accumulate
    batch: Any = [
        jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)
        for x in data.in_memory(job.dataset.train)
    ]
    return State(step, params, statistics, opt_state), data.Split(*batch)


def size_of(tree: PyTree) -> int:
    """Bytes of arrays, or of shapes."""
    return sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))


def collectives(program: str) -> dict[str, dict[str, int]]:
    """What is exchanged between devices: counted in the text of a compiled program.

    Examples:
        >>> collectives("%x = (f32[2,3], bf16[]) all-reduce(%a, %b), replica_groups={}")
        {'all-reduce': {'count': 1, 'bytes': 26}}
    """
    found: dict[str, dict[str, int]] = {}
    chains = set()
    for match in _COLLECTIVE.finditer(program):
        # A TPU's exchange behind other work is written where it begins, goes on and ends.
        chain = match["name"], match["chain"]
        if match["chain"] and chain in chains:
            continue
        chains.add(chain)
        entry = found.setdefault(match["name"], {"count": 0, "bytes": 0})
        entry["count"] += 1
        arrays = list(_ARRAY.finditer(match["result"]))
        if match["start"] and match["name"] == "all-gather" and len(arrays) > 1:
            arrays = arrays[len(arrays) // 2 :]  # behind those that it is given
        for array in arrays:
            items = math.prod(int(n) for n in array["shape"].split(",") if n)
            entry["bytes"] += items * int(array["bits"] or 8) // 8
    return found


def show(plans: Sequence[Plan], console: Console) -> None:
    """Prints plans beside each other."""
    first = plans[0]
    table = Table()
    table.add_column(f"of each of {first.devices} x {first.device_kind}")
    for x in plans:
        table.add_column(x.method, justify="right")

    def row(name: str, *values: str) -> None:
        table.add_row(name, *values)

    row("steps", *(f"{x.steps:,}" for x in plans))
    row("steps an epoch", *(f"{x.steps_per_epoch:,}" for x in plans))
    row("weights", *(f"{x.weights:,}" for x in plans))
    row("examples a step", *(f"{x.batch_per_device:,}" for x in plans))
    row("FLOPs a step, of the network", *(f"{x.model_flops:.4g}" for x in plans))
    row("FLOPs a step, compiled", *(f"{x.compiled_flops:.4g}" for x in plans))
    for name, field in MEMORY.items():
        row(name, *(f"{getattr(x, field) / 2**20:,.2f} MiB" for x in plans))
    names = sorted({name for x in plans for name in x.collectives})
    for name in names:
        entries = (x.collectives.get(name, {"count": 0, "bytes": 0}) for x in plans)
        row(name, *(f"{e['count']} of {e['bytes'] / 2**20:,.1f} MiB" for e in entries))
    console.print(table)
