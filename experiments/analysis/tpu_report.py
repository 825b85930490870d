"""The section of RESULTS.md on the programs that `analysis.tpu` has compiled."""

import json
from pathlib import Path
from typing import Any

from experiments.analysis.tpu_cases import BATCH_EACH, CNN, PRESETS, RESNET, WIDE
from experiments.studies import tables

title = "TPU: the training steps compiled for chips that were not there"
FILE = "tpu.json"
NAMES = {CNN: "CNN", WIDE: "WRN-28-10", RESNET: "ResNet-50"}
OPTIMIZERS = {"grda": "gRDA", "momentum": "momentum SGD", "adam": "Adam"}
Row = dict[str, Any]


def render(folder: Path) -> str:
    """What there is of the tables, or nothing where no program has been compiled."""
    path = folder / FILE
    if not path.exists():
        return ""
    rows = json.loads(path.read_text())["rows"]
    rows.sort(key=lambda row: PRESETS.index(row["preset"]))
    updates = [row for row in rows if row["what"] == "update"]
    steps = [row for row in rows if row["what"] == "step"]
    versions = sorted({row["versions"].get("libtpu", "of unknown version") for row in rows})
    introduction = (
        f"Programs that the compiler for TPUs (libtpu {', '.join(versions)}) has made on a CPU "
        "(`python -m experiments.analysis.tpu`), and that were not run. Everything is per device: "
        "a chip, but of v4 one of the two cores of a chip."
    )
    parts = [introduction]
    if updates:
        parts += [_about_updates(updates), _updates(updates)]
    if steps:
        parts += [_about_steps(steps), _steps(steps)]
    return "\n\n".join(parts)


def _above(row: Row, least: str) -> float:
    return 100 * (float(row["bytes_accessed"]) / float(row[least]) - 1)


def _mib(count: float) -> str:
    """To four digits or better, since the weights of a small network are less than one."""
    mib = count / 2**20
    return f"{mib:.2f}" if mib < 100 else f"{mib:.1f}"


def _about_updates(rows: list[Row]) -> str:
    ours = [row for row in rows if row["optimizer"] == "grda"]
    excess = "; ".join(
        f"{NAMES[x['preset']]}, {x['param_dtype']}: {_above(x, 'least_stored_bytes'):.2f} %"
        for x in ours
    )
    found = f" What gRDA accesses above the least: {excess}." if ours else ""
    return (
        "The update alone, of every weight from float32 gradients; accumulators and momentum are "
        "float32 beside bfloat16 weights, too. Least is each argument read once and each result "
        "written once: as the chip stores them, in tiles that small arrays do not fill, and by "
        "their numbers alone. To count what goes to and from the main memory only, these programs "
        "are compiled without copies to the fast memory ahead of use (`xla_msa_enable=false`)."
        f"{found} These are the scalars of the threshold, of which each reading and writing counts "
        "512 bytes: a few for each array, whatever its size."
    )


def _updates(rows: list[Row]) -> str:
    lines = [
        [
            f"{NAMES[row['preset']]}, {row['param_dtype']}",
            OPTIMIZERS[row["optimizer"]],
            *(_mib(row[x]) for x in ("bytes_accessed", "least_stored_bytes")),
            f"{_above(row, 'least_stored_bytes'):.2f}",
            _mib(row["least_bytes"]),
            f"{_above(row, 'least_bytes'):.2f}",
            _exchanged(row),
        ]
        for row in rows
    ]
    header = ["update of", "optimizer", "accessed (MiB)", "least, as stored (MiB)", "above (%)"]
    header += ["least, by numbers (MiB)", "above (%)", "exchanged"]
    return tables.markdown(header, lines)


def _about_steps(rows: list[Row]) -> str:
    return (
        f"Whole training steps, of {BATCH_EACH} examples a device: the batch is split, and weights "
        "and optimizer are on every device (`mesh`, or `pmap`), or are split, too (`fsdp`). The "
        "memory is that of arguments, results and temporaries; operations and bytes are as the "
        "compiler counts them, with every copy between main and fast memory. What is exchanged is "
        "the mean of the gradients, in float32, and BatchNorm's statistics."
        + _beside(rows)
        + _split(rows)
    )


def _split(rows: list[Row]) -> str:
    """What splitting params and state takes, beside having them everywhere."""
    found = []
    for split in rows:
        alone = ("preset", "topology", "optimizer", "param_dtype")
        for whole in rows:
            alike = all(split[x] == whole[x] for x in alone)
            if alike and (split["parallel"], whole["parallel"]) == ("fsdp", "mesh"):
                more = [
                    f"{100 * (split[x] / whole[x] - 1):+.1f} %"
                    for x in ("memory_bytes", "bytes_accessed")
                ]
                found.append(f"{NAMES[split['preset']]}: {', '.join(more)}")
    if not found:
        return ""
    return (
        " Where they are split, the columns of params and state are those of all devices together, "
        "and the params are put together once a step, in bfloat16 where the chip multiplies in it. "
        "That saves memory as far as params and state are large beside what a step keeps of its "
        "examples. Beside `mesh`, of memory and of bytes accessed: " + "; ".join(found) + "."
    )


def _beside(rows: list[Row]) -> str:
    """What gRDA's steps take more than those that differ in the optimizer alone."""
    found = []
    for theirs in rows:
        alone = ("preset", "topology", "param_dtype", "parallel")
        for ours in rows:
            alike = all(ours[x] == theirs[x] for x in alone)
            if alike and ours["optimizer"] == "grda" != theirs["optimizer"]:
                more = [
                    f"{100 * (ours[x] / theirs[x] - 1):+.2f} %"
                    for x in ("memory_bytes", "bytes_accessed")
                ]
                name = f"{NAMES[ours['preset']]} beside {OPTIMIZERS[theirs['optimizer']]}"
                found.append(f"{name}: {more[0]}, {more[1]}")
    if not found:
        return ""
    return f" What gRDA takes more, of memory and of bytes accessed: {'; '.join(found)}."


def _steps(rows: list[Row]) -> str:
    lines = [
        [
            f"{NAMES[row['preset']]}, {row['param_dtype']}",
            f"{row['devices']} x {row['device_kind'].removeprefix('TPU ')} ({row['topology']})",
            row["parallel"],
            OPTIMIZERS[row["optimizer"]],
            *(_mib(row[x + "_bytes"]) for x in ("params", "optimizer", "memory")),
            f"{row['compiled_flops'] / 1e9:.4g}",
            f"{row['bytes_accessed'] / 1e9:.4g}",
            _exchanged(row),
        ]
        for row in rows
    ]
    header = ["step of", "devices", "parallel", "optimizer", "params (MiB)", "its state (MiB)"]
    header += ["memory (MiB)", "GFLOPs", "accessed (GB)", "exchanged"]
    return tables.markdown(header, lines)


def _exchanged(row: Row) -> str:
    found = row["collectives"].items()
    return ", ".join(f"{x['count']} {name} of {_mib(x['bytes'])} MiB" for name, x in found) or "no"
