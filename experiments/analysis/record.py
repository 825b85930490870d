"""What an analysis leaves: numbers that say where they come from, and the figure made of them."""

import dataclasses
import json
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
from rich.console import Console

from experiments import data, errors, provenance
from experiments.analysis.runs import Run
from experiments.checks import check
from experiments.folder import write_json
from experiments.log import Row

Draw = Callable[[Row, Path], None]
Arguments = TypeVar("Arguments")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Saved:
    """What every analysis takes from the command line."""

    save: str | None = None
    """Also write into experiments/results, under this name: RESULTS.md shows what is there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithData(Saved):
    """And one that reads the data of its runs."""

    data_dir: Path | None = None
    """Where TFDS keeps its data; by default where TFDS always does."""


def write(
    name: str,
    runs: Sequence[Run],
    settings: Row,
    result: Row,
    draw: Draw,
    save: str | None,
    console: Console,
) -> Row:
    """Writes the numbers and the figure of an analysis into the folder of its last run.

    Args:
        name: of the analysis.
        runs: that it has read.
        settings: beside them.
        result: the numbers.
        draw: makes the figure of what is written, and of nothing else.
        save: the name under which both also go into experiments/results, or ``None``.
        console: that is told where they are.

    Returns:
        What was written.
    """
    words = [*(str(run.path) for run in runs), *_options(settings)]
    words += [] if save is None else ["--save", save]
    record = {
        "analysis": name,
        "command": shlex.join(["python", "-m", f"experiments.analysis.{name}", *words]),
        "runs": [run.to_json() for run in runs],
        "settings": settings,
        "result": result,
        **provenance.of(),
    }
    places = [runs[-1].folder.analysis(name)]
    if save is not None:
        places.append(provenance.RESULTS / f"{name}_{save}")
    for place in places:
        write_json(place.with_suffix(".json"), record)
        draw(record, place.with_suffix(".png"))
        console.print(f"Written to [bold]{place}[/bold].json and .png.", soft_wrap=True)
    return record


def _options(settings: Row) -> list[str]:
    return [
        word
        for name, value in settings.items()
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]


def saved(folder: Path, name: str) -> dict[str, Row]:
    """The records of an analysis that were saved, by the name that they were given."""
    return {
        path.stem.removeprefix(f"{name}_"): json.loads(path.read_text())
        for path in sorted(folder.glob(f"{name}_*.json"))
    }


def heading(record: Row) -> str:
    """What the runs are of."""
    config = record["runs"][0]["config"]
    return f"{config['dataset']}, `{config['model']}`"


def pages(
    folder: Path, name: str, draw: Draw, text: Callable[[Row], str], caption: str, intro: str
) -> str:
    """The section of RESULTS.md of an analysis, with a figure for each record; or nothing."""
    parts = []
    for key, record in saved(folder, name).items():
        file = f"{name}_{key}.png"
        draw(record, folder / file)
        made = f"Made by `{record['command']}` of the runs of "
        made += " and ".join(f"`{run['command']}`" for run in record["runs"])
        made += f", on {record['device'].partition(',')[0]}."
        parts += [f"**{heading(record)}**", text(record), f"![{caption}]({file})", made]
    return "\n\n".join([intro, *parts]) if parts else ""


def main(
    name: str,
    kind: type[Arguments],
    analyse: Callable[[Arguments, Console], Any],
    arguments: Sequence[str] | None,
) -> int:
    """Runs an analysis from the command line; an error of the user's is one line, and status 2."""
    console = Console()
    parsed = tyro.cli(kind, prog=f"python -m experiments.analysis.{name}", args=arguments)
    try:
        save = getattr(parsed, "save", None)
        fits = save is None or re.fullmatch("[a-z0-9_]+", save) is not None
        check(fits, "save", save, "made of small letters, digits and underscores")
        analyse(parsed, console)
    except (ValueError, data.DataNotFoundError) as error:
        errors.tell(error)
        return 2
    except KeyboardInterrupt:
        console.print("Interrupted; nothing was written.")
        return 130
    return 0
