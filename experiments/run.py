"""The command line: trains by one method or more, and compares them.

python -m experiments.run digits
python -m experiments.run fashion_mnist --method grda --grda.mu 0.7
"""

import dataclasses
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape

from experiments import compilation_cache, data, distributed, plan, preemption, report
from experiments.config import Config, Runtime
from experiments.configs import PRESETS, default_name
from experiments.faults import explain
from experiments.folder import RunFolder
from experiments.health import DivergedError
from experiments.methods import METHODS
from experiments.parallel import DataParallel, use_devices
from experiments.train import Job, Trained

SAME_EVERYWHERE = (
    "runs_dir",
    "name",
    "parallel",
    "devices",
    "log_every",
    "checkpoint_every",
    "keep_masks",
    "stop_after",
    "overwrite",
)
"""Of the runtime, what all processes of a run have to be told alike, beside the config."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to run, and how."""

    config: Annotated[Config, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Config)
    runtime: Annotated[Runtime, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Runtime)


def run(preset: str, config: Config, runtime: Runtime, console: Console) -> Path:
    """Runs every method of the config, then writes and prints the comparison.

    Returns:
        The folder, with one of each method in it.

    Raises:
        ValueError: a setting cannot be run.
        DataNotFoundError: the data set is neither here nor to be had.
        FileExistsError: the folder holds the run of another config.
        DivergedError: a loss was not finite.
        PreemptedError: it was asked to end.
    """
    devices = use_devices(runtime.devices)
    if not distributed.is_first():
        console = Console(quiet=True)
    everywhere = (getattr(runtime, name) for name in SAME_EVERYWHERE)
    distributed.check_same((preset, config.to_json(), *everywhere))
    # Where processes share the folder of the data, one prepares them for all.
    distributed.on_first(lambda: data.load(config.dataset, runtime.data_dir))
    dataset = data.load(config.dataset, runtime.data_dir)
    folder = runtime.runs_dir / (runtime.name or default_name(preset, config))
    jobs: dict[str, Job] = {}
    for method in config.method:
        jobs[method] = Job(
            config=dataclasses.replace(config, method=(method,)),
            runtime=runtime,
            dataset=dataset,
            parallel=DataParallel(runtime.parallel, devices),
            folder=folder / method,
            console=console,
        )
    # Before anything is trained: a folder that cannot be used is not found out an hour later.
    for job in jobs.values():
        distributed.open_folder(RunFolder(job.folder), job.config, overwrite=runtime.overwrite)

    trained: dict[str, Trained] = {}
    for name, job in jobs.items():
        trained[name] = METHODS[name](job)
        if trained[name].result is None:
            step = trained[name].rows[-1]["step"]
            console.print(f"{name} stopped after step {step} of {job.total_steps}, as asked.")
    finished = {name: x for name, x in trained.items() if x.result is not None}
    if finished and distributed.is_first():
        report.show(finished, config, console)
        report.figure(finished, config, folder / "comparison.png")
    console.print(f"Everything is in [bold]{folder}[/bold].", soft_wrap=True)
    return folder


def dry_run(config: Config, runtime: Runtime, console: Console) -> list[plan.Plan]:
    """Prints what every method of the config would take, and trains nothing.

    Raises:
        ValueError: a setting cannot be run.
    """
    devices = use_devices(runtime.devices)
    plans = []
    for method in config.method:
        alone = dataclasses.replace(config, method=(method,))
        plans.append(plan.plan(alone, runtime, devices))
    plan.show(plans, console)
    return plans


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the arguments and runs; an error is one line on stderr.

    Returns:
        The exit status: 0, 2 for what the user has to change, 3 where the run diverged, 4 where
        files cannot be read or written, 130 after ^C, and those of `preemption` and `distributed`.
        A process that has joined others ends here with it instead.
    """
    console, errors = Console(), Console(stderr=True, soft_wrap=True, highlight=False)
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    words = None
    try:
        parsed = _parse(arguments)
        if parsed.runtime.dry_run:
            dry_run(parsed.config, parsed.runtime, console)
            return 0
        compilation_cache.use(parsed.runtime.compilation_cache)
        if distributed.several(parsed.runtime):
            words = distributed.join(parsed.runtime)
        with preemption.listening():
            run(_preset(arguments), parsed.config, parsed.runtime, console)
        status = 0
    except (ValueError, FileExistsError, data.DataNotFoundError) as error:
        errors.print("[red]error:[/red]", escape(str(error)))
        status = 2
    except DivergedError as error:
        errors.print("[red]diverged:[/red]", escape(str(error)))
        status = 3
    except preemption.PreemptedError as error:
        errors.print(escape(f"{error}; the same command goes on from there."))
        status = preemption.STATUS
    except KeyboardInterrupt:
        errors.print("Interrupted; the same command goes on from the last checkpoint.")
        status = 130
    except Exception as error:
        if words is not None and distributed.is_loss(error):
            errors.print("[red]error:[/red]", escape(distributed.lost(error)))
            status = distributed.LOST
        elif isinstance(error, OSError):
            errors.print("[red]error:[/red]", escape(explain(error)))
            status = 4
        elif words is None:
            raise
        else:
            traceback.print_exc()
            status = 1
    if words is not None:
        distributed.leave(status, words)
    return status


def _parse(arguments: list[str]) -> Arguments:
    names = {
        name: (
            (module.__doc__ or "").splitlines()[0],
            Arguments(config=module.CONFIG),
        )
        for name, module in PRESETS.items()
    }
    parsed: Arguments = tyro.extras.overridable_config_cli(
        names,
        prog="python -m experiments.run",
        description="Trains a network by one method or more, and compares them. Choose a "
        "preset; `PRESET --help` shows every setting with its default.",
        args=arguments,
    )
    return parsed


def _preset(arguments: Sequence[str]) -> str:
    return next(x.replace("-", "_") for x in arguments if x.replace("-", "_") in PRESETS)


if __name__ == "__main__":
    sys.exit(main())
