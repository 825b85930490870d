"""Many runs that answer one question: trains those that are missing, and writes what came out.

    python -m experiments.study fashion_mnist_paper --workers 2

Every finished run is one row of results/NAME.jsonl with its config, versions and command, written
when it ends; a study that is killed goes on where it was. RESULTS.md and the figures are made from
these rows alone, with `--render-only` without training anything.
"""

import concurrent.futures
import dataclasses
import importlib.metadata
import multiprocessing
import os
import platform
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import tyro
from rich.console import Console

from experiments import data
from experiments.checkpoint import RunFolder
from experiments.config import Config, Runtime
from experiments.configs import PRESETS, folder_of
from experiments.log import Row, append_row, read_rows
from experiments.methods import METHODS
from experiments.parallel import DataParallel, use_devices
from experiments.studies import STUDIES
from experiments.train import Job

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"
PACKAGES = ("jax", "jaxlib", "optax", "flax", "numpy", "grda_optax")


def rows_of(study: str) -> list[Row]:
    """The finished runs of a study."""
    return read_rows(RESULTS / f"{study}.jsonl")


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
        trained = METHODS[method](job)
    return {
        "config": config.to_json(),
        "command": command(config, preset),
        "result": trained.result,
        **({"epochs": epochs_of(trained.rows)} if epochs else {}),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "device": f"{jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} core",
    }


def command(config: Config, preset: str) -> str:
    """The command line that repeats a run."""
    words = ["python", "-m", "experiments.run", preset]
    for name, (value, _) in config.differences(PRESETS[preset].CONFIG).items():
        words += _option(name.replace("_", "-"), value)
    return shlex.join(words)


def _option(name: str, value: Any) -> list[str]:
    """The words that set one field, as tyro reads them."""
    if isinstance(value, bool):
        group, dot, last = name.rpartition(".")
        return [f"--{group}{dot}{'' if value else 'no-'}{last}"]
    return [f"--{name}", *map(str, value if isinstance(value, list) else [value])]


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


def plan(runs: list[tuple[Config, str]], done: list[Config]) -> tuple[list[Planned], list[Planned]]:
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


def _pin(cores: Any) -> None:
    """Gives a worker a core of its own: two runs side by side beat one on two cores."""
    os.sched_setaffinity(0, {cores.get()})


def run_study(name: str, workers: int, console: Console) -> None:
    """Trains what is missing of a study, appending each row as it comes."""
    study = STUDIES[name]
    done = [Config.from_json(row["config"]) for row in rows_of(name)]
    waves = plan(study.runs(), done)
    missing = [planned for wave in waves for planned in wave]
    console.print(f"{name}: {len(done)} runs done, {len(missing)} to do.")
    if not missing:
        return
    for dataset in {planned.config.dataset for planned in missing}:
        data.load(dataset)  # prepared once, not by every worker
    context = multiprocessing.get_context("spawn")
    cores = context.Queue()
    for core in sorted(os.sched_getaffinity(0))[:workers]:
        cores.put(core)
    epochs = getattr(study, "EPOCHS", False)
    finished = 0
    with concurrent.futures.ProcessPoolExecutor(workers, context, _pin, (cores,)) as pool:
        for wave in waves:
            futures = {
                pool.submit(run_one, x.config, x.preset, x.folder, epochs=epochs): x.new
                for x in wave
            }
            for future in concurrent.futures.as_completed(futures):
                row, new = future.result(), futures[future]
                if new:
                    append_row(RESULTS / f"{name}.jsonl", row)
                finished += 1
                result = row["result"]
                zeros = 1 - result["penalised"]["nnz"] / result["penalised"]["total"]
                console.print(
                    f"{finished}/{len(missing)} {row['command']}: "
                    f"{result['eval_accuracy']:.2%}, {zeros:.2%} zeros, {result['seconds']:.0f} s",
                    soft_wrap=True,
                    highlight=False,
                )


def render() -> None:
    """Writes RESULTS.md and the figures from the rows of every study."""
    parts = [
        "# Results\n\nMade by `python -m experiments.study --render-only` from the rows beside "
        "this file, each of which holds its config, seed, versions and command."
    ]
    for name, study in STUDIES.items():
        rows = rows_of(name)
        if rows:
            parts.append(f"## {study.title}\n\n{study.render(rows, RESULTS)}")
            planned = len(study.runs())
            if len(rows) < planned:
                parts.append(f"So far {len(rows)} of {planned} runs; the same command goes on.")
    (RESULTS / "RESULTS.md").write_text("\n\n".join(parts) + "\n")


def write_readme(readme: Path) -> None:
    """Puts the summaries of the studies that have one between the marks in the README."""
    begin, end = "<!-- results -->\n", "<!-- end of results -->"
    before, rest = readme.read_text().split(begin)
    _, after = rest.split(end)
    parts = [
        study.summary(rows)
        for name, study in STUDIES.items()
        if hasattr(study, "summary") and (rows := rows_of(name))
    ]
    readme.write_text(before + begin + "\n" + "\n\n".join(parts) + "\n\n" + end + after)


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
        console.print(f"[red]error:[/red] studies are {', '.join(STUDIES)}, got {unknown[0]!r}.")
        return 2
    if not arguments.render_only:
        for name in names:
            run_study(name, arguments.workers, console)
    render()
    write_readme(README)
    return 0


if __name__ == "__main__":
    sys.exit(main())
