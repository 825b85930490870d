"""torchao's PAT among the others of the frontier: starts the runs of it that are missing.

    python -m experiments.peers.pat torchenv/bin/python

The interpreter is that of an environment with torch and torchao, see torchao_pat.py. Trials, seeds
and sparsities are those of every other contender, and so is the rule by which a strength is swept.
It goes on where it was stopped; the pages are then written by
`python -m experiments.frontier --render-only`.
"""

import dataclasses
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import tyro
from rich.console import Console

from experiments import errors
from experiments.log import Row, read_rows
from experiments.peers import export_data
from experiments.provenance import RESULTS
from experiments.studies import sweep, tables
from experiments.studies.contenders import PEERS, TRIALS, Changes, Contender
from experiments.studies.frontier import MLP, SEEDS
from experiments.studies.frontier_tuning import SEED, SPARSITY
from experiments.studies.rows import has_diverged

ROWS = RESULTS / "torchao_pat.jsonl"
SCRIPT = Path(__file__).parent / "torchao_pat.py"
Run = tuple[tuple[str, str | float], ...]
"""The arguments of the script that make a run what it is, by name."""


def run_of(peer: Contender, changes: Changes, seed: int, evaluate: str, amount: float) -> Run:
    """The run with some settings; the amount is a sparsity, or a strength where that is swept."""
    name = peer.strength or "sparsity"
    method = peer.method.removeprefix("pat_")
    given = {"method": method, "seed": seed, "evaluate": evaluate, name: amount, **changes}
    return tuple(sorted(given.items()))


def run_of_row(row: Row) -> Run:
    """The run that a row is of."""
    config = row["config"]
    (name,) = config["method"]
    values = {**config["pat"], **config}
    peer = PEERS[name]
    changes = {field: values[field] for field in peer.grid}
    amount = values[peer.strength or "sparsity"]
    return run_of(peer, changes, config["seed"], config["evaluate"], amount)


class Found:
    """The rows that are there, by run."""

    def __init__(self, rows: Iterable[Row]):
        """Takes the rows of every peer, tuning among them."""
        self.rows = {run_of_row(row): row for row in rows}

    def places(
        self, peer: Contender, changes: Changes, seed: int, evaluate: str
    ) -> Mapping[float, float]:
        """The sparsity at those places of a sweep that have been run."""
        farthest = round(sweep.FARTHEST / sweep.FINEST)
        lattice = [k * sweep.FINEST for k in range(-farthest, farthest + 1)]
        runs = {
            k: run_of(peer, changes, seed, evaluate, sweep.strength(peer.start, k)) for k in lattice
        }
        found = {k: self.rows[run] for k, run in runs.items() if run in self.rows}
        return {k: 1.0 if has_diverged(r) else tables.sparsity(r) / 100 for k, r in found.items()}

    def trial(self, peer: Contender, changes: Changes) -> list[Run]:
        """The runs of a trial, as far as they are known."""
        if peer.kind == "told":
            return [run_of(peer, changes, SEED, "validation", SPARSITY)]
        places = sweep.walk(self.places(peer, changes, SEED, "validation"), SPARSITY, SPARSITY)
        return [
            run_of(peer, changes, SEED, "validation", sweep.strength(peer.start, k)) for k in places
        ]

    def score(self, peer: Contender, changes: Changes) -> float:
        """The validation accuracy of a trial at the sparsity of tuning; NaN if a run is missing."""
        runs = self.trial(peer, changes)
        if any(run not in self.rows for run in runs):
            return math.nan
        rows = [row for run in runs if not has_diverged(row := self.rows[run])]
        if peer.kind == "told":
            return tables.accuracy(rows[0]) if rows else -math.inf
        points = [(tables.sparsity(row) / 100, tables.accuracy(row)) for row in rows]
        return sweep.read_at(points, SPARSITY)

    def chosen(self, peer: Contender) -> Changes | None:
        """The settings of the best trial, the first of equals; ``None`` while one is missing."""
        scores = [self.score(peer, changes) for changes in peer.trials]
        if any(map(math.isnan, scores)) or max(scores) == -math.inf:
            return None
        return peer.trials[scores.index(max(scores))]

    def reported(self, peer: Contender, changes: Changes, seed: int) -> list[Run]:
        """The runs on the test set, as far as they are known."""
        if peer.kind == "told":
            return [run_of(peer, changes, seed, "test", s) for s in MLP.sparsities]
        low, high = min(MLP.sparsities), max(MLP.sparsities)
        found = self.places(peer, changes, SEEDS[0], "test")
        places = sweep.walk(found, low, high)
        if seed != SEEDS[0]:  # repeats what the first seed has found
            places = sweep.around(found, low, high) if sweep.finished(found, low, high) else []
        return [run_of(peer, changes, seed, "test", sweep.strength(peer.start, k)) for k in places]


def missing(rows: Iterable[Row]) -> list[Run]:
    """What there is to run, as far as it is known: trials first, then what they have chosen."""
    found = Found(rows)
    planned = [
        run
        for i in range(TRIALS)
        for peer in PEERS.values()
        for run in found.trial(peer, peer.trials[i])
    ]
    settings = {name: found.chosen(peer) for name, peer in PEERS.items()}
    planned += [
        run
        for seed in SEEDS
        for name, changes in settings.items()
        if changes is not None
        for run in found.reported(PEERS[name], changes, seed)
    ]
    return [run for run in planned if run not in found.rows]


def words(run: Run) -> list[str]:
    """The arguments of the script."""
    return [word for name, value in run for word in (f"--{name.replace('_', '-')}", str(value))]


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Trains what is missing of torchao's PAT, one run after another."""

    python: tyro.conf.Positional[Path]
    """The interpreter of an environment that has torch and torchao."""


def main() -> int:
    """Starts the runs from the command line."""
    console = Console()
    python = tyro.cli(Arguments, prog="python -m experiments.peers.pat").python
    if not python.is_file():
        errors.tell(f"python must be an interpreter, got {str(python)!r}.")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "fashion_mnist.npz")
        seeds = map(str, (*SEEDS, SEED))
        if code := export_data.main([file, "--seeds", *seeds, "--epochs", str(MLP.base.epochs)]):
            return code
        while planned := missing(read_rows(ROWS)):
            run = planned[0]
            command = [str(python), str(SCRIPT), file, *words(run), "--save", str(ROWS)]
            # Of its path nothing may be seen: the script imports its own libraries alone.
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                errors.tell(done.stderr.strip().splitlines()[-1])
                return 1
            row = read_rows(ROWS)[-1]
            found = (
                f"diverged: {row['result']['reason']}"
                if has_diverged(row)
                else f"{tables.accuracy(row):.2f} %, {tables.sparsity(row):.2f} % zeros"
            )
            console.print(
                f"{' '.join(words(run))}: {found} ({len(planned) - 1} left so far)",
                soft_wrap=True,
                highlight=False,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
