"""Tables of what has been timed, from the file that `--save` wrote."""

import json
from pathlib import Path

from experiments.log import Row
from experiments.studies import tables

title = "What it costs"
FILE = "bench.json"
TITLES = {
    "update": "Update of {weights:,} weights",
    "training": "Training step of `small_cnn`, batch {batch_size}",
    "products": "Products with the Hessian, {curvature_weights:,} weights, {examples:,} examples",
    "lanczos": "Lanczos, {curvature_weights:,} weights, {examples:,} examples",
}


def render(folder: Path) -> str:
    """A table for each part that has been timed; ratios within one process, in turns."""
    path = folder / FILE
    if not path.exists():
        return ""
    saved: Row = json.loads(path.read_text())
    parts = [
        f"Made by `{saved['command']}` on {saved['device']} with jax {saved['versions']['jax']}. "
        f"Medians over {saved['config']['rounds']} rounds in one process, in turns; a ratio is the "
        "median of those within a round."
    ]
    for name, heading in TITLES.items():
        if name in saved:
            lines = [
                [what, f"{1000 * cost['seconds']:.2f}", f"{cost['ratio']:.2f}"]
                for what, cost in saved[name].items()
            ]
            first = next(iter(saved[name]))
            parts.append(heading.format(**saved["config"]))
            parts.append(tables.markdown(["", "milliseconds", f"over {first}"], lines))
    if "memory" in saved:
        parts.append(
            "Memory of fifty steps of Lanczos beyond that of the products: "
            f"{saved['memory']['basis']:.2f} times the basis (50 vectors of the network's size) "
            f"where it is kept, {saved['memory']['no_basis']:.1f} vectors where it is not."
        )
    return "\n\n".join(parts)
