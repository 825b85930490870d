"""Many runs that answer one question: trains those that are missing, and writes what came out.

    python -m experiments.study fashion_mnist_paper --workers 2

Every finished run is one row of results/NAME.jsonl with its config, versions and command, written
when it ends; a study that is killed goes on where it was. RESULTS.md and the figures are made from
these rows alone, with `--render-only` without training anything.
"""

import concurrent.futures
import contextlib
import dataclasses
import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Collection
from concurrent.futures import FIRST_COMPLETED
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import tyro
from rich.console import Console

from experiments import data, errors, provenance
from experiments.analysis.pages import PAGES
from experiments.bench import gains
from experiments.checks import check_integer
from experiments.config import Config, Runtime
from experiments.configs import command as command
from experiments.configs import folder_of as folder_of
from experiments.folder import RunFolder
from experiments.health import DivergedError
from experiments.log import Row, append_row, read_rows
from experiments.methods import METHODS
from experiments.parallel import DataParallel, use_devices
from experiments.studies import STUDIES
from experiments.studies.rows import config_of
from experiments.train import Job

RESULTS = provenance.RESULTS
README = Path(__file__).parent.parent / "README.md"


def rows_of(study: str) -> list[Row]:
    """The finished runs of a study."""
    return read_rows(RESULTS / f"{study}.jsonl")


def shown_rows(name: str) -> list[Row]:
    """The rows that its pages are made of: with those that diverged only if it can show them."""
    rows = rows_of(name)
    if getattr(STUDIES[name], "DIVERGED", False):
        return rows
    return [row for row in rows if "diverged" not in row["result"]]


def inputs(study: ModuleType) -> list[list[Row]]:
    """The rows that a study's plan and its pages follow from, those of `NEEDS`."""
    return [rows_of(name) for name in getattr(study, "NEEDS", ())]


def planned(name: str) -> list[tuple[Config, str]]:
    """The runs of a study, as far as they are known."""
    runs: list[tuple[Config, str]] = STUDIES[name].runs(*inputs(STUDIES[name]))
    return runs


def run_one(
    config: Config, preset: str, folder: Path | None = None, *, epochs: bool = False
) -> Row:
    """Trains one config and returns its row.

    Args:
        config: with one method.
        preset: that its command line starts from.
        folder: of the run, which stays; by default none is left.
        epochs: whether the row says how the run got there, epoch by epoch.
    """
    with tempfile.TemporaryDirectory() as temporary:
        job = Job(
            config=config,
            runtime=Runtime(progress=False, log_every=200, checkpoint_every=10**9),
            dataset=data.load(config.dataset),
            parallel=DataParallel("mesh", use_devices(1)),
            folder=folder or Path(temporary) / "run",
            console=Console(quiet=True),
        )
        (method,) = config.method
        rows: list[Row] = []
        try:
            _, _, rows, result = METHODS[method](job)
        except DivergedError as error:  # which is an answer too, and not to be asked for again
            result = {"diverged": True, "reason": str(error).partition(";")[0]}
        except ValueError as error:  # so is that the method cannot go that far
            if not str(error).startswith("sparsity must be at most"):
                raise
            result = {"diverged": True, "reason": str(error)}
    return {
        "config": config.to_json(),
        "command": command(config, preset),
        "result": result,
        **({"epochs": epochs_of(rows)} if epochs else {}),
        **provenance.of(),
    }


def epochs_of(rows: list[Row]) -> dict[str, list[float]]:
    """Where the sparsity and the accuracy were after each epoch, from the rows of a run."""
    scored = [row for row in rows if "eval_accuracy" in row]
    return {
        "step": [row["step"] for row in scored],
        "sparsity": [round(row["sparsity_penalised"], 6) for row in scored],
        "accuracy": [round(row["eval_accuracy"], 6) for row in scored],
    }


class Planned(NamedTuple):
    """A run that is to be trained."""

    config: Config
    preset: str
    folder: Path | None
    """Where it stays, for those that start from it."""
    new: bool
    """Whether its row is missing."""


def plan(
    runs: list[tuple[Config, str]], done: Collection[Config]
) -> tuple[list[Planned], list[Planned]]:
    """What there is to train first, and then what starts from it.

    A run that others start from is trained again where its row is there and its folder is not.
    """
    missing = [(config, preset) for config, preset in runs if config not in done]
    wanted = {config.init_from for config, _ in missing} - {None}
    first, second = [], []
    for config, preset in runs:
        folder = folder_of(config, preset)
        source, new = str(folder) in wanted, config not in done
        if config.init_from is not None:
            second += [Planned(config, preset, None, new)] if new else []
        elif new or (source and not RunFolder(folder).result.exists()):
            first.append(Planned(config, preset, folder if source else None, new))
    return first, second


def _begin(cores: Any) -> None:
    """Gives a worker a core of its own: two runs side by side beat one on two cores.

    ^C ends it: Python would hand the interrupt to the command as its run's result, and begin the
    next run.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(os, "sched_setaffinity"):  # not on macOS
        os.sched_setaffinity(0, {cores.get()})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Else a worker would train on where the command is killed, and nobody would take its row."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def ready(first: list[Planned], second: list[Planned], begun: set[Config]) -> list[Planned]:
    """What can begin now: not what starts from a run that is still to be trained."""
    to_come = {str(run.folder) for run in first if run.folder is not None}
    return [
        run
        for run in (*first, *second)
        if run.config not in begun and run.config.init_from not in to_come
    ]


def run_study(name: str, workers: int, console: Console) -> None:
    """Trains what is missing of a study, appending each row as it comes.

    Where the plan follows from the study's own rows it is made anew with each of them. A run that
    fails stops no other; the first error is raised at the end.

    Raises:
        ValueError: runs were not begun, since those that they start from diverged.
    """
    study = STUDIES[name]
    grows = name in getattr(study, "NEEDS", ())
    epochs = getattr(study, "EPOCHS", False)
    done = {Config.from_json(row["config"]) for row in rows_of(name)}
    runs = planned(name)
    first, second = plan(runs, done)
    console.print(f"{name}: {len(done)} runs done, {len(first) + len(second)} to do.")
    if not first + second:
        return
    for dataset in {run.config.dataset for run in first + second}:
        data.load(dataset)  # prepared once, not by every worker
    begun: set[Config] = set()
    ended: set[Config] = set()
    failed: list[BaseException] = []
    futures: dict[concurrent.futures.Future[Row], Planned] = {}
    pool = _pool(workers)
    with contextlib.ExitStack() as stack:
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        while True:
            to_do = ready(first, second, begun)
            for run in to_do[: 2 * workers - len(futures)]:  # each worker has a next one at hand
                begun.add(run.config)
                future = pool.submit(run_one, run.config, run.preset, run.folder, epochs=epochs)
                futures[future] = run
            if not futures:
                break
            total = len(ended) + sum(run.config not in ended for run in first + second)
            finished = concurrent.futures.wait(futures, return_when=FIRST_COMPLETED).done
            for future in [x for x in futures if x in finished]:  # as they were begun
                run = futures.pop(future)
                ended.add(run.config)
                place = f"{len(ended)}/{total}"
                if error := future.exception():
                    console.print(f"{place} failed: {error}", soft_wrap=True)
                    failed.append(error)
                    continue
                row = getattr(study, "compact", dict)(future.result())
                if run.new:
                    append_row(RESULTS / f"{name}.jsonl", row)
                    done.add(run.config)
                told = f"{place} {row['command']}: {in_short(row['result'])}"
                console.print(told, soft_wrap=True, highlight=False)
            runs = planned(name) if grows else runs
            first, second = plan(runs, done)
    if failed:
        raise failed[0]
    if left := sum(run.config not in begun for run in second):
        raise ValueError(
            f"{left} runs of {name} were not begun, since the runs that they start from diverged."
        )


def _pool(workers: int) -> concurrent.futures.Executor:
    """Processes, each on a core of its own."""
    context = multiprocessing.get_context("spawn")
    cores = context.Queue()
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        available = sorted(os.sched_getaffinity(0))
        for core in itertools.islice(itertools.cycle(available), workers):
            cores.put(core)
    return concurrent.futures.ProcessPoolExecutor(workers, context, _begin, (cores,))


def in_short(result: Row) -> str:
    """A result in a line."""
    if "diverged" in result:
        return f"diverged: {result['reason']}"
    zeros = 1 - result["penalised"]["nnz"] / result["penalised"]["total"]
    return f"{result['eval_accuracy']:.2%}, {zeros:.2%} zeros, {result['seconds']:.0f} s"


def render() -> None:
    """Writes RESULTS.md and the figures from the rows of every study."""
    parts = [
        "# Results\n\nMade by `python -m experiments.study --render-only` from the rows beside "
        "this file, each of which holds its config, seed, versions and command."
    ]
    for name, study in STUDIES.items():
        rows, shown = rows_of(name), shown_rows(name)
        if shown:
            page = study.render(shown, RESULTS, *inputs(study))
            parts.append(f"## {study.title}\n\n{page}")
            runs, done = planned(name), {config_of(row) for row in rows}
            missing = sum(config not in done for config, _ in runs)
            if missing:
                known = " that are known so far to be needed" if inputs(study) else ""
                parts.append(
                    f"So far {len(runs) - missing} of {len(runs)} runs{known}; the same command "
                    "goes on."
                )
            if len(shown) < len(rows):
                parts.append(f"{len(rows) - len(shown)} runs diverged, and are left out.")
    pages = [(page.title, page.render(RESULTS)) for page in PAGES.values()]
    parts += [f"## {title}\n\n{text}" for title, text in pages if text]
    (RESULTS / "RESULTS.md").write_text("\n\n".join(parts) + "\n")


def write_readme(readme: Path) -> None:
    """Puts what was measured in short between the marks in the README."""
    parts = [
        study.summary(rows)
        for name, study in STUDIES.items()
        if hasattr(study, "summary") and (rows := shown_rows(name))
    ]
    text = readme.read_text()
    for mark, found in (("gains", gains.summary(RESULTS)), ("results", "\n\n".join(parts))):
        begin, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->"
        before, rest = text.split(begin)
        _, after = rest.split(end)
        text = f"{before}{begin}\n{found}\n\n{end}{after}"
    readme.write_text(text)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Trains the runs of a study that are missing, and writes its tables and figures."""

    studies: tyro.conf.Positional[tuple[str, ...]] = ()
    """Which studies; all of them by default."""
    workers: int = 1
    """Runs side by side, each on a core of its own."""
    render_only: bool = False
    """Train nothing; write RESULTS.md and the figures from the rows that are there."""


def main() -> int:
    """Runs studies from the command line."""
    console = Console()
    arguments = tyro.cli(Arguments, prog="python -m experiments.study")
    names = arguments.studies or tuple(STUDIES)
    unknown = [name for name in names if name not in STUDIES]
    if unknown:
        errors.tell(f"studies are {', '.join(STUDIES)}, got {unknown[0]!r}.")
        return 2
    try:
        check_integer("workers", arguments.workers, 1)
    except ValueError as error:
        errors.tell(error)
        return 2
    if not arguments.render_only:
        for name in names:
            run_study(name, arguments.workers, console)
    render()
    write_readme(README)
    return 0


if __name__ == "__main__":
    sys.exit(main())
