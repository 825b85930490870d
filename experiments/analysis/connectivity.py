"""Is there a path of low loss between SGD's solution and gRDA's?

    python -m experiments.run digits
    python -m experiments.analysis.connectivity runs/digits/dense runs/digits/grda

A quadratic Bezier curve between both, its bend trained (`bezier`), beside the straight line: loss
and accuracy along them, with BatchNorm's statistics made anew at every point; and the plane through
both and the bend. In the middle of such a curve the accuracy is often above that of the ends. Two
networks say what of that is the curve's: the mean of both ends (SWA of the two), and SGD's solution
trained on for as long as the bend was, by the same optimizer.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.progress import Progress

from experiments.analysis import bezier, record
from experiments.analysis.connectivity_report import NAME, figure, text
from experiments.analysis.landscape import Landscape, Scores
from experiments.analysis.runs import Run, read_pair
from experiments.checks import check_integer
from experiments.log import Row

PyTree = Any
MARGIN = 0.3
"""How far the plane goes beyond its three points, in units of what they span that way."""


def measure(sgd: Run, grda: Run, settings: Row, console: Console) -> Row:
    """Trains the bend, and scores the curve, the line, the plane and the two for comparison."""
    job = sgd.job
    (first, _), (last, _) = sgd.last(), grda.last()
    training = bezier.Training(settings["epochs"], settings["learning_rate"], settings["momentum"])
    steps = training.epochs * job.steps_per_epoch
    points, grid = settings["points"], settings["grid"]
    with Progress(console=console, transient=True) as bar:

        def train(what: str, start: PyTree, held: PyTree, place: bezier.Place) -> PyTree:
            task = bar.add_task(what, total=steps)
            return bezier.train(
                job, start, held, place, training, lambda n: bar.update(task, completed=n)
            )

        middle = bezier.straight(first, last, 0.5)
        bend = train("the bend", middle, (first, last), bezier.on_the_curve)
        longer = train("SGD, trained on", first, (), bezier.itself)

        whole = Landscape(job, settings["examples"])
        task = bar.add_task("curve and line", total=2 * points)
        curve: list[Row] = []
        line: list[Row] = []
        for t in np.linspace(0, 1, points):
            places = (bezier.point(first, bend, last, t), bezier.straight(first, last, t))
            for found, params in zip((curve, line), places, strict=True):
                found.append({"t": float(t)} | _plain(whole.at(params)))
                bar.advance(task)
        result = {
            "curve": curve,
            "line": line,
            "mean_of_both": _plain(whole.at(middle)),
            "curve_middle": _plain(whole.at(bezier.point(first, bend, last, 0.5))),
            "trained_on": _plain(whole.at(longer)),
            "nonzero": [_nonzero(params) for params in (first, last)],
            "weights": sum(x.size for x in jax.tree.leaves(first)),
        }
        if grid:
            some = Landscape(job, settings["plane_examples"])
            task = bar.add_task("the plane", total=grid**2)
            plane = bezier.Plane(first, last, bend)
            result["plane"] = scan(plane, some, grid, lambda: bar.advance(task))
    return result


def scan(plane: bezier.Plane, landscape: Landscape, grid: int, advance: Any) -> Row:
    """The training loss and the test error on a grid around the three points of a plane."""
    corners = np.array([[0.0, 0.0], [plane.length, 0.0], plane.third])
    low, high = corners.min(0), corners.max(0)
    span = high - low
    room = MARGIN * np.maximum(span, 0.25 * span.max())
    xs, ys = (np.linspace(low[i] - room[i], high[i] + room[i], grid) for i in (0, 1))
    losses, errors = np.empty((grid, grid)), np.empty((grid, grid))
    for i, y in enumerate(ys):
        for j, x in enumerate(xs):
            scores = landscape.at(plane.at(x, y))
            losses[i, j], errors[i, j] = scores.train_loss, 100 - scores.test_accuracy
            advance()
    return {
        "x": xs.round(4).tolist(),
        "y": ys.round(4).tolist(),
        "train_loss": losses.round(5).tolist(),
        "test_error": errors.round(3).tolist(),
        "sgd": [0.0, 0.0],
        "grda": [plane.length, 0.0],
        "bend": plane.third,
    }


def _plain(scores: Scores) -> Row:
    return {name: round(value, 5) for name, value in scores._asdict().items()}


def _nonzero(params: PyTree) -> int:
    return sum(int((np.asarray(x) != 0).sum()) for x in jax.tree.leaves(params))


@dataclasses.dataclass(frozen=True)
class Arguments(record.WithData):
    """Whether a path of low loss leads from SGD's solution to gRDA's."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The folder of SGD's run, then that of gRDA."""
    epochs: int = bezier.Training.epochs
    """Of the training of the bend."""
    learning_rate: float = bezier.Training.learning_rate
    """Of that, at its highest."""
    momentum: float = bezier.Training.momentum
    """Of that."""
    points: int = 31
    """On the curve and on the line, both ends with them."""
    examples: int | None = None
    """Of the training set, on which the curve is scored; by default all."""
    grid: int = 21
    """Points along each side of the plane; 0 leaves it out."""
    plane_examples: int | None = 5000
    """Of the training set, on which the plane is scored; None is all of it."""


def analyse(arguments: Arguments, console: Console) -> Row:
    """Measures, prints and writes."""
    check_integer("points", arguments.points, 2)
    check_integer("grid", arguments.grid, 0)
    runs = read_pair(arguments.runs, arguments.data_dir)
    others = ("runs", "save", "data_dir")
    fields = [x.name for x in dataclasses.fields(arguments) if x.name not in others]
    settings = {name: getattr(arguments, name) for name in fields}
    result = measure(*runs, settings, console)
    found = record.write(NAME, runs, settings, result, figure, arguments.save, console)
    console.print(text(found), highlight=False)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Analyses from the command line."""
    return record.main(NAME, Arguments, analyse, arguments)


if __name__ == "__main__":
    sys.exit(main())
