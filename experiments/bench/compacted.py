"""Every network here with half of its units, cut out: the same outputs, and what they cost.

python -m experiments.bench.compacted --save experiments/results/compacted.json

Which units are zero is drawn at random, layer by layer, since neither sizes nor times depend on it;
the outputs of the smaller network are held against those of the whole one with the zeros.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import command, networks
from experiments.bench.networks import INPUTS, Network
from experiments.bench.shown import Shown
from experiments.bench.timing import interleaved, plain
from experiments.checks import check, check_finite, check_integer
from experiments.log import Row
from experiments.methods._channels import unit_masks
from experiments.models import channels

PyTree = Any
NETWORKS = tuple(name for name in INPUTS if not name.startswith("small_cnn_"))
OPERATIONS = 10**9  # in a block, so that small networks are timed over more than their start
STEPS = 10  # and no more than so many times


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Inference of every network, whole and without some of its units, in turns."""

    networks: tuple[str, ...] = NETWORKS
    """Which of them."""
    removed: float = 0.5
    """The fraction of units that go, from every layer alike."""
    batch_sizes: tuple[int, ...] = (1, 8)
    """How many examples are read at once."""
    width: float = 1.0
    """So many times the units in every layer from the start; 0.1 for a quick look."""
    rounds: int = 15
    """How often each is timed; the medians are shown."""
    save: Path | None = None
    """A JSON file to write to, with versions, device and command."""

    def validate(self) -> None:
        """Refuses what cannot be timed, naming the argument and its value."""
        for name in self.networks:
            check(name in INPUTS, "networks", name, f"of {', '.join(INPUTS)}")
        check(0 < self.removed < 1, "removed", self.removed, "above 0 and below 1")
        for n in self.batch_sizes:
            check_integer("batch_sizes", n, 1)
        check_finite("width", self.width)
        check(self.width > 0, "width", self.width, "above 0")
        check_integer("rounds", self.rounds, 1)
        command.check_save(self.save)


def without(name: str, params: PyTree, removed: float) -> PyTree:
    """The params with that fraction of every layer's units zero, drawn at random; one is left."""
    rng = np.random.default_rng(0)
    left = []
    for count in channels.width_of(name, params):
        flags = np.arange(count) < max(1, round((1 - removed) * count))
        left.append(jnp.asarray(rng.permutation(flags)))

    @jax.jit
    def zeros(params: PyTree, left: list[jax.Array]) -> PyTree:
        masks = unit_masks(params, channels.ties(name), left)
        return jax.tree.map(lambda x, m: jnp.where(m, x, jnp.zeros_like(x)), params, masks)

    return zeros(params, left)


def measure(name: str, arguments: Arguments) -> Row:
    """The units, weights, operations and times before and after, and how far the outputs differ."""
    model = networks.build(name, arguments.width)
    params, statistics = networks.random(model, 1 - arguments.removed)
    zeros = without(name, params, arguments.removed)
    small = channels.compacted(name, zeros, statistics)
    narrow = networks.build(name, small.width)
    found = {
        "before": networks.compiled(model, zeros, statistics),
        "after": networks.compiled(narrow, small.params, small.statistics),
    }
    row: Row = {x: _size(name, network) for x, network in found.items()}
    row["costs"], apart = {}, []
    for n in arguments.batch_sizes:
        inputs = networks.examples(name, n)
        before, after = (np.asarray(network(inputs)) for network in found.values())
        apart.append(np.abs(after - before).max() / np.abs(before).max())
        steps = min(STEPS, max(1, OPERATIONS // (n * row["before"]["flops"])))
        blocks = {x: network.block(inputs, steps) for x, network in found.items()}
        row["costs"][str(n)] = plain(interleaved(blocks, arguments.rounds, steps))
    row["difference"] = float(np.max(apart))
    return row


def every_network(arguments: Arguments) -> Iterator[Row]:
    """One after the other."""
    rows: dict[str, Row] = {}
    settings = {x: getattr(arguments, x) for x in ("removed", "width", "rounds")}
    for name in arguments.networks:
        rows[name] = measure(name, arguments)
        yield settings | {"networks": rows}


def _size(name: str, network: Network) -> Row:
    units = channels.width_of(name, network.params)
    weights = sum(x.size for x in jax.tree.leaves(network.params))
    size = networks.size(name, units, network.params, network.statistics)
    return {"units": list(units), "weights": weights, **size}


def shown(saved: Row) -> Shown:
    """A line for every network, before and after."""
    rows = saved["networks"]
    batches = list(next(iter(rows.values()))["costs"])
    lines = []
    for name, row in rows.items():
        before, after = row["before"], row["after"]
        line = [f"{name}, {'-'.join(map(str, INPUTS[name][0]))}"]
        for x in ("weights", "bytes", "flops"):
            line.append(_both(before[x] / 1e6, after[x] / 1e6))
        for n in batches:
            first, second = (row["costs"][n][x] for x in ("before", "after"))
            line += [
                _both(1000 * first["seconds"], 1000 * second["seconds"]),
                f"{second['ratio']:.2f}",
            ]
        lines.append([*line, f"{row['difference']:.0e}"])
    header = ["network", "million weights", "MB", "million operations"]
    header += [x for n in batches for x in (f"ms, batch {n}", "after over before")]
    note = (
        "MB are of weights and statistics in float32; the operations are those of one example. "
        "The last column is how far the outputs differ, over the largest of them."
    )
    title = f"{100 * saved['removed']:g} % of every layer's units cut out"
    return Shown(title, [*header, "difference"], lines, note)


def _both(before: float, after: float) -> str:
    return " → ".join(f"{x:,.0f}" if x >= 100 else f"{x:.3g}" for x in (before, after))


def main(arguments: Sequence[str] | None = None) -> int:
    """Times from the command line."""
    return command.main("compacted", Arguments, every_network, shown, arguments)


if __name__ == "__main__":
    sys.exit(main())
