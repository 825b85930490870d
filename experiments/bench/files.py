"""How large a file of a network with zeros is: as it is here, packed in general, and by indices.

python -m experiments.bench.files --save experiments/results/files.json
"""

import dataclasses
import gzip
import io
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench import command
from experiments.bench.shown import Shown
from experiments.checks import check, check_integer
from experiments.log import Row
from grda_optax import save_sparse, to_bcoo

COLUMNS = 1000
FORMS = {
    "dense": "npy, all weights",
    "gzip": "that, gzipped",
    "coo": "COO, two int32 a weight",
    "sparse": "`save_sparse`",
    "deflate": "deflated",
    "bfloat16": "bfloat16",
}
"""What is written, and what its column is called."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """One kernel of normally distributed weights, with zeros at random places."""

    weights: int = 1_000_000
    """How many, a multiple of 1000."""
    sparsities: tuple[float, ...] = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
    """The fractions of zeros."""
    save: Path | None = None
    """A JSON file to write to, with versions and command."""

    def validate(self) -> None:
        """Refuses what cannot be written, naming the argument and its value."""
        check_integer("weights", self.weights, COLUMNS)
        fits = self.weights % COLUMNS == 0
        check(fits, "weights", self.weights, f"a multiple of {COLUMNS}")
        for sparsity in self.sparsities:
            check(0 <= sparsity < 1, "sparsities", sparsity, "in [0, 1)")
        command.check_save(self.save)


def kernel(weights: int, sparsity: float) -> np.ndarray[Any, Any]:
    """Float32 weights of which so many are zero, to the weight."""
    rng = np.random.default_rng(0)
    flat = rng.standard_normal(weights, np.float32)
    flat[rng.permutation(weights)[: round(sparsity * weights)]] = 0
    return flat.reshape(-1, COLUMNS)


def npy(array: Any) -> bytes:
    """As numpy's own file, which is a short header before the bytes."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def measure(weights: int, sparsity: float) -> Row:
    """Bytes of each form."""
    array = kernel(weights, sparsity)
    dense = npy(array)
    coo = to_bcoo(array)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.safetensors"
        return {
            "sparsity": sparsity,
            "nonzero": int(np.count_nonzero(array)),
            "dense": len(dense),
            "gzip": len(gzip.compress(dense, 9, mtime=0)),
            "coo": len(npy(coo.indices)) + len(npy(coo.data)),
            "sparse": save_sparse(path, {"kernel": array}),
            "deflate": save_sparse(path, {"kernel": array}, deflate=True),
            "bfloat16": save_sparse(path, {"kernel": array}, values_dtype="bfloat16"),
        }


def every_file(arguments: Arguments) -> Iterator[Row]:
    """All fractions of zeros."""
    weights = arguments.weights
    yield {"weights": weights, "files": [measure(weights, x) for x in arguments.sparsities]}


def shown(saved: Row) -> Shown:
    """A line for every fraction of zeros, in parts of the dense file."""
    lines = []
    for row in saved["files"]:
        parts = [f"{row[x] / row['dense']:.4f}" for x in FORMS if x != "dense"]
        lines.append([f"{100 * row['sparsity']:g}", f"{row['dense']:,}", *parts])
    header = ["zeros (%)", f"{FORMS['dense']} (bytes)", *list(FORMS.values())[1:]]
    note = (
        f"All but the second column are parts of that. {saved['weights']:,} float32 weights; "
        "*deflated* is `save_sparse(..., deflate=True)`, which compresses the places of the "
        'zeros, *bfloat16* is `values_dtype="bfloat16"`, which rounds the weights.'
    )
    return Shown("Bytes in a file", header, lines, note)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures from the command line."""
    return command.main("files", Arguments, every_file, shown, arguments)


if __name__ == "__main__":
    sys.exit(main())
