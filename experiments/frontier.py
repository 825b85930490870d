"""The frontier: tunes every method, runs each at every sparsity, and writes tables and figures.

    python -m experiments.frontier --workers 2
    python -m experiments.frontier --time                  # alone on a quiet machine, once

It goes on where it was stopped. The studies are `frontier_tuning` and `frontier`; who takes part,
and what is tried for each, stands in `studies/contenders.py`.
"""

import dataclasses
import sys

import tyro
from rich.console import Console

from experiments import errors, study
from experiments.checks import check_integer
from experiments.log import Row, append_row
from experiments.studies.contenders import CONTENDERS
from experiments.studies.frontier import MLP, READ_AT, SEEDS
from experiments.studies.frontier_cells import Results
from experiments.studies.rows import compact, config_of

STUDIES = ("frontier_tuning", "frontier")
TIME = "frontier_time"


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Trains what is missing of the frontier, and writes its tables and figures."""

    workers: int = 1
    """Runs side by side, each on a core of its own."""
    render_only: bool = False
    """Train nothing; write the pages from the rows that are there."""
    time: bool = False
    """Instead repeat a finished run of every method, one after another, for its seconds alone."""


def run(workers: int, console: Console) -> None:
    """Runs the studies to their end, one after the other."""
    for name in STUDIES:
        study.run_study(name, workers, console)


def timed(rows: list[Row]) -> list[Row]:
    """Which runs are repeated for their seconds: one of each contender, the dense one first."""
    results = Results(rows, MLP.base.model, SEEDS[:1])
    names = sorted(results.names(), key=lambda name: name != "dense")
    names = [name for name in names if CONTENDERS[name].kind != "once" or name == "dense"]
    return [row for name in names for row in results.nearest(name, READ_AT)[:1]]


def time(console: Console) -> None:
    """Appends a row for each run that has not been timed, in this process alone."""
    done = {config_of(row) for row in study.rows_of(TIME)}
    for row in timed(study.rows_of("frontier")):
        config = config_of(row)
        if config not in done:
            again = compact(study.run_one(config, MLP.preset))
            append_row(study.RESULTS / f"{TIME}.jsonl", again)
            console.print(f"{again['command']}: {study.in_short(again['result'])}", soft_wrap=True)


def main() -> int:
    """Runs the frontier from the command line."""
    console = Console()
    arguments = tyro.cli(Arguments, prog="python -m experiments.frontier")
    try:
        check_integer("workers", arguments.workers, 1)
    except ValueError as error:
        errors.tell(error)
        return 2
    if arguments.time:
        time(console)
    elif not arguments.render_only:
        run(arguments.workers, console)
    study.render()
    study.write_readme(study.README)
    return 0


if __name__ == "__main__":
    sys.exit(main())
