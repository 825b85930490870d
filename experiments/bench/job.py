"""The wall time of a run of the command line, from its start to its table, and where it goes."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.bench.shown import Shown
from experiments.log import Row

PHASES = {
    "import": "start and imports",
    "data": "data",
    "compile": "tracing and compilation",
    "train": "training",
    "evaluate": "evaluation",
    "checkpoints": "checkpoints",
    "log": "log",
    "report": "table and figure",
    "rest": "rest",
    "end": "end of the process",
}
VARIANTS = ("no cache", "empty cache", "cache of the run before")
_GIVEN = ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS")


def clocked(words: Sequence[str], folder: Path) -> dict[str, float]:
    """The seconds of one run by phase, and in all.

    Raises:
        RuntimeError: it failed.
    """
    out = folder / "seconds.json"
    environment = {k: v for k, v in os.environ.items() if k not in _GIVEN}
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "experiments.bench.job_clock", str(began), str(out), *words],
        env=environment,
        capture_output=True,
        text=True,
    )
    total = time.time() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} has failed:\n{done.stdout[-2000:]}{done.stderr}")
    seconds: dict[str, float] = json.loads(out.read_text())
    return {**seconds, "end": total - sum(seconds.values()), "total": total}


def measure(words: Sequence[str], rounds: int) -> Row:
    """Medians over rounds, in turns: without a cache, with an empty one and with a full one.

    Args:
        words: of the command line, a preset and what is to be changed of it.
        rounds: how often.
    """
    found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = [*words, "--overwrite", "--runs-dir", str(folder), "--data-dir", str(folder / "d")]
        # Prepares the data, and reads from the disk what all of them import.
        clocked([*base, "--steps", "1", "--compilation-cache", "None"], folder)
        for i in range(rounds):
            cache = str(folder / f"cache{i}")
            for variant, where in zip(VARIANTS, ("None", cache, cache), strict=True):
                found[variant].append(clocked([*base, "--compilation-cache", where], folder))
    return {
        "words": list(words),
        "seconds": {
            variant: {key: statistics.median(x.get(key, 0.0) for x in rows) for key in rows[0]}
            for variant, rows in found.items()
        },
    }


def shown(found: Row) -> list[Shown]:
    """Seconds by phase."""
    seconds = found["seconds"]
    lines = [
        [label, *(f"{x.get(key, 0.0):.2f}" for x in seconds.values())]
        for key, label in {**PHASES, "total": "in all"}.items()
    ]
    title = f"`python -m experiments.run {' '.join(found['words'])}`, in seconds"
    note = (
        "From the start of the process to its end, as it is the first time (an empty cache of "
        "compiled programs) and from then on. Medians, phase by phase."
    )
    return [Shown(title, ["", *seconds], lines, note)]
