"""What a network costs without the units that go: milliseconds, operations and bytes.

python -m experiments.bench.inference --save experiments/results/inference.json

At each fraction of operations that is removed, the network with the units that are left, as
`channels`, `l1_channels` and `dense_narrow` by operations end with it; and the whole network in
which they are only zero.
"""

import dataclasses
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from rich.console import Console
from rich.table import Table

from experiments import errors, models, provenance
from experiments.bench import networks
from experiments.bench.timing import Cost, interleaved
from experiments.checks import check, check_choice, check_integer
from experiments.folder import write_json
from experiments.methods._channels import unit_masks
from experiments.methods._width import closest_width
from experiments.models import channels

STEPS = 10


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Inference of one network at several sizes, in one process, in turns."""

    model: str = "small_cnn"
    """The network."""
    sparsities: tuple[float, ...] = (0.5, 0.7, 0.9)
    """The fractions of operations that are removed."""
    batch_sizes: tuple[int, ...] = (1, 128)
    """How many examples are read at once."""
    rounds: int = 15
    """How often each is timed, over 10 batches; the medians are shown."""
    save: Path | None = None
    """A JSON file to write the times to, with versions, device and command."""

    def validate(self) -> None:
        """Refuses what cannot be timed, naming the argument and its value."""
        check_choice("model", self.model, tuple(channels.TIES))
        for sparsity in self.sparsities:
            check(0 < sparsity < 1, "sparsities", sparsity, "above 0 and below 1")
        for n in self.batch_sizes:
            check_integer("batch_sizes", n, 1)
        check_integer("rounds", self.rounds, 1)
        if self.save is not None:
            check(self.save.parent.is_dir(), "save", str(self.save), "in a folder that exists")


@dataclasses.dataclass(frozen=True)
class Size:
    """A network as it is timed."""

    network: networks.Network
    row: dict[str, Any]


def sizes(model: str, sparsities: Sequence[float]) -> dict[str, Size]:
    """The whole network, with zeros in it and without them, by name."""
    full = networks.build(model)
    params, statistics = jax.jit(full.init)(jax.random.key(0))
    found = {"dense": _size(full, params, statistics, model, 0.0)}
    layers = channels.ties(model)
    for sparsity in sparsities:
        width = width_at(model, sparsity)
        narrow = networks.build(model, width)
        units = channels.width_of(model, jax.eval_shape(narrow.init, jax.random.key(0))[0])
        left = [
            jnp.arange(n) < kept
            for n, kept in zip(channels.width_of(model, params), units, strict=True)
        ]
        keep = unit_masks(params, layers, left)
        zeros = jax.tree.map(lambda x, k: jnp.where(k, x, jnp.zeros_like(x)), params, keep)
        small = channels.compacted(model, zeros, statistics)
        found[f"{100 * sparsity:g} %, zeros"] = _size(full, zeros, statistics, model, sparsity)
        found[f"{100 * sparsity:g} %, cut out"] = _size(
            networks.build(model, small.width),
            small.params,
            small.statistics,
            model,
            sparsity,
        )
    return found


def width_at(model: str, sparsity: float) -> float:
    """The width at which nearest to this fraction of the operations is gone."""

    def flops(width: float) -> int:
        return networks.size(model, width)["flops"]

    return closest_width(flops, (1 - sparsity) * flops(1.0))


def _size(network: models.Model, params: Any, statistics: Any, model: str, sparsity: float) -> Size:
    units = channels.width_of(model, params)
    row = {
        "sparsity": sparsity,
        "units": list(units),
        **networks.size(model, units, params, statistics),
    }
    return Size(networks.compiled(network, params, statistics), row)


def measure(arguments: Arguments) -> dict[str, Any]:
    """The rows of every size, with its costs by batch size."""
    found = sizes(arguments.model, arguments.sparsities)
    rows = {name: size.row | {"costs": {}} for name, size in found.items()}
    for n in arguments.batch_sizes:
        inputs = networks.examples(arguments.model, n)
        blocks = {name: size.network.block(inputs, STEPS) for name, size in found.items()}
        for name, cost in interleaved(blocks, arguments.rounds, STEPS).items():
            rows[name]["costs"][str(n)] = cost._asdict()
    return rows


def table(rows: dict[str, Any]) -> Table:
    """Every size with its times."""
    batches = list(next(iter(rows.values()))["costs"])
    shown = Table(title="inference")
    for name in ("network", "units", "operations", "bytes"):
        shown.add_column(name, justify="left" if name == "network" else "right")
    for n in batches:
        shown.add_column(f"ms, batch {n}", justify="right")
        shown.add_column("over dense", justify="right")
    for name, row in rows.items():
        costs = [Cost(**row["costs"][n]) for n in batches]
        times = [x for c in costs for x in (f"{1000 * c.seconds:.3f}", f"{c.ratio:.2f}")]
        units = "-".join(map(str, row["units"]))
        shown.add_row(name, units, f"{row['flops']:,}", f"{row['bytes']:,}", *times)
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Times from the command line; an error of the user's is one line, and exit status 2."""
    console = Console()
    words = list(sys.argv[1:] if arguments is None else arguments)
    prog = "python -m experiments.bench.inference"
    try:
        parsed = tyro.cli(Arguments, prog=prog, args=words)
        parsed.validate()
    except ValueError as error:
        errors.tell(error)
        return 2
    load = os.getloadavg()[0]  # before, since what is timed here adds to it
    rows = measure(parsed)
    console.print(table(rows))
    if parsed.save is not None:
        saved = {
            "command": shlex.join([*prog.split(), *words]),
            "model": parsed.model,
            "rounds": parsed.rounds,
            "networks": rows,
            **provenance.of(),
            "load": round(load, 2),
        }
        write_json(parsed.save, saved)
    return 0


if __name__ == "__main__":
    sys.exit(main())
