"""From how many zeros on is a sparse product faster than the dense one? By shape and by form.

python -m experiments.bench.sparse_execution --save sparse_execution.json

A batch is multiplied by the kernels of the networks here, each as a matrix (inputs, outputs), with
zeros at random places: dense; as a BCOO of JAX; as a CSR of scipy, through a callback to the host;
and, with whole blocks of zeros, by the dense blocks that are left.
"""

import dataclasses
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import models
from experiments.bench import command
from experiments.bench.networks import INPUTS
from experiments.bench.shown import Shown
from experiments.bench.timing import Cost, interleaved
from experiments.checks import check, check_integer
from experiments.log import Row
from grda_optax import to_bcoo, to_csr

SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)
STEPS = 10
NETWORKS = {name: INPUTS[name] for name in ("mlp", "small_cnn", "char_transformer")}
"""Whose kernels are multiplied, what they read, and how many logits they have."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Dense and sparse products, in one process, in turns."""

    networks: tuple[str, ...] = tuple(NETWORKS)
    """The networks whose kernels are multiplied."""
    rows: tuple[int, ...] = (1, 128)
    """How many examples are multiplied at once."""
    sparsities: tuple[float, ...] = SPARSITIES
    """The fractions of zeros."""
    block: int = 16
    """The side of the blocks."""
    rounds: int = 15
    """How often each is timed, over 10 products; the medians are shown."""
    save: Path | None = None
    """A JSON file to write the times to, with versions, device and command."""

    def validate(self) -> None:
        """Refuses what cannot be timed, naming the argument and its value."""
        for name in self.networks:
            check(name in NETWORKS, "networks", name, f"of {', '.join(NETWORKS)}")
        for n in self.rows:
            check_integer("rows", n, 1)
        for sparsity in self.sparsities:
            check(0 <= sparsity < 1, "sparsities", sparsity, "from 0 to below 1")
        check_integer("block", self.block, 1)
        check_integer("rounds", self.rounds, 1)
        command.check_save(self.save)


def shapes(networks: Sequence[str]) -> dict[tuple[int, int], str]:
    """The kernels of the networks as matrices, each shape once, with the first that has it."""
    found: dict[tuple[int, int], str] = {}
    for name in networks:
        params, _ = jax.eval_shape(models.build(name, *NETWORKS[name]).init, jax.random.key(0))
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            layer = jax.tree_util.keystr(path, simple=True, separator="/")
            if layer.endswith("kernel"):  # not an embedding, which multiplies nothing
                shape = math.prod(leaf.shape[:-1]), leaf.shape[-1]
                found.setdefault(shape, f"{name} {layer}")
    return found


def with_zeros(shape: tuple[int, int], sparsity: float, block: int = 1) -> np.ndarray:
    """Normal weights, of which so many are zero at random places, by whole blocks."""
    rng = np.random.default_rng(0)
    grid = tuple(math.ceil(n / block) for n in shape)
    size = math.prod(grid)
    left = np.zeros(size, bool)
    left[rng.permutation(size)[: max(1, round((1 - sparsity) * size))]] = True
    mask = np.kron(left.reshape(grid), np.ones((block, block), bool))[: shape[0], : shape[1]]
    return np.where(mask, rng.standard_normal(shape, np.float32), np.float32(0))


Product = Callable[[jax.Array], jax.Array]


def by_bcoo(weight: np.ndarray) -> Product:
    """JAX's own sparse product."""
    sparse = to_bcoo(weight)
    return jax.jit(lambda x: x @ sparse)


def by_csr(weight: np.ndarray) -> Product:
    """Scipy's product on the host, from within a compiled program."""
    sparse = to_csr(weight.T)

    def host(x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray((sparse @ np.asarray(x).T).T)

    def product(x: jax.Array) -> jax.Array:
        shape = jax.ShapeDtypeStruct((x.shape[0], weight.shape[1]), x.dtype)
        y: jax.Array = jax.pure_callback(host, shape, x)
        return y

    return jax.jit(product)


def by_blocks(weight: np.ndarray, block: int) -> Product:
    """Dense products of the blocks that are not zero, summed by their columns."""
    grid = [math.ceil(n / block) for n in weight.shape]
    more = [(0, g * block - n) for g, n in zip(grid, weight.shape, strict=True)]
    tiles = np.pad(weight, more).reshape(grid[0], block, grid[1], block).swapaxes(1, 2)
    places = np.argwhere(tiles.any((2, 3)))
    places = places[np.argsort(places[:, 1], kind="stable")]
    left = jnp.asarray(tiles[tuple(places.T)])
    inputs, outputs = places.T

    def product(x: jax.Array) -> jax.Array:
        padded = jnp.pad(x, ((0, 0), more[0])).reshape(len(x), grid[0], block)
        parts = jnp.einsum("knb,kbc->knc", padded[:, inputs].swapaxes(0, 1), left)
        sums = jax.ops.segment_sum(parts, outputs, grid[1], indices_are_sorted=True)
        return sums.swapaxes(0, 1).reshape(len(x), -1)[:, : weight.shape[1]]

    return jax.jit(product)


def products(shape: tuple[int, int], sparsity: float, block: int) -> dict[str, Product]:
    """The dense product, which the others are held against, and the sparse ones."""
    scattered, blocks = with_zeros(shape, sparsity), with_zeros(shape, sparsity, block)
    dense = jnp.asarray(scattered)
    return {
        "dense": jax.jit(lambda x: x @ dense),
        "bcoo": by_bcoo(scattered),
        "csr": by_csr(scattered),
        "blocks": by_blocks(blocks, block),
    }


def measure(arguments: Arguments) -> Iterator[Row]:
    """A row for every shape, number of examples and sparsity."""
    rows = []
    for shape, layer in shapes(arguments.networks).items():
        for examples in arguments.rows:
            x = jnp.asarray(np.random.default_rng(1).standard_normal((examples, shape[0]), "f4"))
            for sparsity in arguments.sparsities:
                timed = products(shape, sparsity, arguments.block)
                blocks = {name: _block(product, x) for name, product in timed.items()}
                costs = interleaved(blocks, arguments.rounds, STEPS)
                rows.append(
                    {
                        "layer": layer,
                        "shape": list(shape),
                        "rows": examples,
                        "sparsity": sparsity,
                        "costs": {name: cost._asdict() for name, cost in costs.items()},
                    }
                )
    yield {"block": arguments.block, "rounds": arguments.rounds, "products": rows}


def _block(product: Product, x: jax.Array) -> Callable[[], None]:
    def block() -> None:
        for _ in range(STEPS):
            jax.block_until_ready(product(x))

    return block


def break_even(rows: Sequence[dict[str, Any]], form: str) -> float | None:
    """The least sparsity from which on the form is faster than the dense product, if there is one.

    Args:
        rows: of one shape and one number of examples.
        form: a name among the costs.
    """
    found = None
    for row in sorted(rows, key=lambda row: -row["sparsity"]):
        if Cost(**row["costs"][form]).ratio >= 1:
            break
        found = float(row["sparsity"])
    return found


def by_product(rows: Sequence[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """The rows of each kernel and number of examples."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["layer"], *row["shape"], row["rows"]), []).append(row)
    return groups


def shown(saved: Row) -> Shown:
    """The break-even points of every shape."""
    forms = [name for name in saved["products"][0]["costs"] if name != "dense"]
    lines = []
    for (layer, inputs, outputs, examples), rows in by_product(saved["products"]).items():
        dense = np.median([row["costs"]["dense"]["seconds"] for row in rows])
        points = [break_even(rows, form) for form in forms]
        found = ["never" if point is None else f"{100 * point:g}" for point in points]
        lines.append([layer, f"{inputs} by {outputs}", str(examples), f"{1e6 * dense:.1f}", *found])
    header = ["kernel", "shape", "examples", "dense (µs)", *(f"{form} (%)" for form in forms)]
    return Shown("Zeros from which on it is faster than the dense product", header, lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Times from the command line."""
    return command.main("sparse_execution", Arguments, measure, shown, arguments, "scipy")


if __name__ == "__main__":
    sys.exit(main())
