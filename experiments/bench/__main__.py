"""The command line: measures the parts that are asked for, and prints what they cost.

python -m experiments.bench --parts sizes memory --save costs.json
"""

import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Sequence

import tyro
from rich.console import Console

from experiments import errors, provenance
from experiments.bench import sections
from experiments.bench.arguments import Arguments
from experiments.bench.parts import PARTS
from experiments.log import Row


def run(arguments: Arguments, command: str, console: Console) -> dict[str, Row]:
    """Measures part by part; prints each, and returns it as it is saved."""
    found: dict[str, Row] = {}
    for part in (name for name in PARTS if name in arguments.parts):
        load = os.getloadavg()[0]  # before, since what is measured here adds to it
        data = PARTS[part].measure(arguments)
        told = dataclasses.asdict(arguments)
        config = json.loads(json.dumps({name: told[name] for name in PARTS[part].settings}))
        found[part] = {
            "data": data,
            "config": config,
            "command": command,
            **provenance.of(),
            "load": round(load, 2),
        }
        for table in PARTS[part].shown(data, config):
            table.print(console)
        if arguments.save is not None:  # at once: the next part can take long, and fail
            sections.merge(arguments.save, {part: found[part]})
    if found:
        last = next(reversed(found.values()))
        console.print(f"{last['device']}; load {last['load']:.1f}.", highlight=False)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures from the command line; an error of the user's is one line, and exit status 2."""
    console = Console()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        parsed = tyro.cli(Arguments, prog="python -m experiments.bench", args=words)
        parsed.validate()
        run(parsed, shlex.join(["python", "-m", "experiments.bench", *words]), console)
    except ValueError as error:
        errors.tell(error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
