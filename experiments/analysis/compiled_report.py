"""The section of RESULTS.md on the programs that `analysis.compiled` has compiled."""

import json
from pathlib import Path

from experiments.studies import tables

title = "The paper's networks on many devices, compiled ahead of time"
FILE = "compiled.json"


def render(folder: Path) -> str:
    """The table, or nothing where there is none yet."""
    path = folder / FILE
    if not path.exists():
        return ""
    rows = json.loads(path.read_text())["rows"]
    lines = []
    for row in rows:
        exchanged = row["collectives"]
        lines.append(
            [
                f"`{row['preset']}`",
                f"{row['devices']}",
                f"{row['batch_per_device']}",
                *(f"{row[x + '_bytes'] / 2**20:.0f}" for x in ("params", "optimizer", "memory")),
                f"{row['model_flops'] / 1e9:.0f}",
                ", ".join(
                    f"{x['count']} {name} of {x['bytes'] / 2**20:.1f} MiB"
                    for name, x in exchanged.items()
                ),
            ]
        )
    header = ["preset", "devices", "batch each", "params (MiB)", "optimizer (MiB)"]
    return "\n\n".join(
        [
            "Training steps of `grda` that were compiled for made-up devices and not run "
            "(`python -m experiments.analysis.compiled`), everything per device. The memory is "
            "that of the CPU's compiler, which keeps more temporaries than an accelerator's; the "
            "exchange is the mean of the gradients and BatchNorm's statistics. gRDA keeps one "
            "number a weight, as much as momentum.",
            tables.markdown([*header, "memory (MiB)", "GFLOPs a step", "exchanged a step"], lines),
        ]
    )
