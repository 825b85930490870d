"""The command line: trains by one method or more, and compares them.

python -m experiments.run digits
python -m experiments.run fashion_mnist --method grda --grda.mu 0.7
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape

from experiments import checkpoint, data, report
from experiments.config import Config, Runtime
from experiments.configs import PRESETS, default_name
from experiments.faults import explain
from experiments.health import DivergedError
from experiments.methods import METHODS
from experiments.parallel import DataParallel, use_devices
from experiments.train import Job, Trained


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
    """
    devices = use_devices(runtime.devices)
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
        checkpoint.RunFolder(folder / method).open(jobs[method].config, overwrite=runtime.overwrite)

    trained: dict[str, Trained] = {}
    for name, job in jobs.items():
        trained[name] = METHODS[name](job)
        if trained[name].result is None:
            step = trained[name].rows[-1]["step"]
            console.print(f"{name} stopped after step {step} of {job.total_steps}, as asked.")
    finished = {name: x for name, x in trained.items() if x.result is not None}
    if finished:
        report.show(finished, config, console)
        report.figure(finished, config, folder / "comparison.png")
    console.print(f"Everything is in [bold]{folder}[/bold].", soft_wrap=True)
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the arguments and runs; an error is one line on stderr.

    Returns:
        The exit status: 0, 2 for what the user has to change, 3 where the run diverged, 4 where
        files cannot be read or written, 130 after ^C.
    """
    console, errors = Console(), Console(stderr=True, soft_wrap=True, highlight=False)
    names = {
        name: (
            (module.__doc__ or "").splitlines()[0],
            Arguments(config=module.CONFIG),
        )
        for name, module in PRESETS.items()
    }
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        parsed = tyro.extras.overridable_config_cli(
            names,
            prog="python -m experiments.run",
            description="Trains a network by one method or more, and compares them. Choose a "
            "preset; `PRESET --help` shows every setting with its default.",
            args=arguments,
        )
        run(_preset(arguments), parsed.config, parsed.runtime, console)
    except (ValueError, FileExistsError, data.DataNotFoundError) as error:
        errors.print("[red]error:[/red]", escape(str(error)))
        return 2
    except DivergedError as error:
        errors.print("[red]diverged:[/red]", escape(str(error)))
        return 3
    except OSError as error:
        errors.print("[red]error:[/red]", escape(explain(error)))
        return 4
    except KeyboardInterrupt:
        errors.print("Interrupted; the same command goes on from the last checkpoint.")
        return 130
    return 0


def _preset(arguments: Sequence[str]) -> str:
    return next(x.replace("-", "_") for x in arguments if x.replace("-", "_") in PRESETS)


if __name__ == "__main__":
    sys.exit(main())
