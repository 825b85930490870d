"""What a network costs without the units that go: milliseconds, operations and bytes.

python -m experiments.bench.inference --save experiments/results/inference.json

At each fraction of operations that is removed, the network with the units that are left, as
`channels`, `l1_channels` and `dense_narrow` by operations end with it; and the whole network in
which they are only zero.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments import models
from experiments.bench import command, networks
from experiments.bench.shown import Shown
from experiments.bench.timing import Cost, interleaved
from experiments.checks import check, check_choice, check_integer
from experiments.log import Row
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
        command.check_save(self.save)


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


def measure(arguments: Arguments) -> Iterator[Row]:
    """The rows of every size, with its costs by batch size."""
    found = sizes(arguments.model, arguments.sparsities)
    rows = {name: size.row | {"costs": {}} for name, size in found.items()}
    for n in arguments.batch_sizes:
        inputs = networks.examples(arguments.model, n)
        blocks = {name: size.network.block(inputs, STEPS) for name, size in found.items()}
        for name, cost in interleaved(blocks, arguments.rounds, STEPS).items():
            rows[name]["costs"][str(n)] = cost._asdict()
    yield {"model": arguments.model, "rounds": arguments.rounds, "networks": rows}


def shown(saved: Row) -> Shown:
    """Every size with its times."""
    every: dict[str, Any] = saved["networks"]
    batches = list(next(iter(every.values()))["costs"])
    lines = []
    for name, row in every.items():
        costs = [Cost(**row["costs"][n]) for n in batches]
        times = [x for c in costs for x in (f"{1000 * c.seconds:.3f}", f"{c.ratio:.2f}")]
        units = "-".join(map(str, row["units"]))
        lines.append([name, units, f"{row['flops']:,}", f"{row['bytes']:,}", *times])
    header = ["network", "units", "operations", "bytes"]
    header += [x for n in batches for x in (f"ms, batch {n}", "over dense")]
    smaller = [x for name, x in every.items() if name.endswith("cut out")]
    slow = any(x["costs"][n]["ratio"] > 1 for x in smaller for n in batches)
    note = (
        "Fewer operations are not always fewer milliseconds: convolutions are compiled better for "
        "some numbers of units than for others, so look at the time of the width that you get."
    )
    title = f"Inference of `{saved['model']}`, whole and without units"
    return Shown(title, header, lines, note if slow else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Times from the command line."""
    return command.main("inference", Arguments, measure, shown, arguments)


if __name__ == "__main__":
    sys.exit(main())
