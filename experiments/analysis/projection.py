r"""Where gRDA leaves SGD's path: in directions in which the loss is flat?

    python -m experiments.run digits --keep-params
    python -m experiments.analysis.projection runs/digits/dense runs/digits/grda

At moments of two runs from one start with the same batches: the share of
:math:`\Delta = w_\mathrm{gRDA} - w_\mathrm{SGD}` that lies in the space of the top ten
eigenvectors :math:`u_i` of the Hessian at :math:`w_\mathrm{SGD}`,

.. math:: |P \Delta|^2 / |\Delta|^2 = \sum_{i \le 10} (u_i^\top \Delta)^2 / |\Delta|^2,

beside that of the way that SGD has come from the start, and beside 10 / d of a random direction.
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
from rich.progress import track

from experiments.analysis import record
from experiments.analysis.curvature import Curvature
from experiments.analysis.runs import Run, read_pair
from experiments.checks import check, check_integer
from experiments.log import Row
from experiments.plotting import COLORS, plt
from experiments.studies import tables
from experiments.studies.frontier_figures import DPI, WIDTH, finish
from grda_optax import top_eigenpairs

title = "Where gRDA leaves SGD's path"
NAME = "projection"
PyTree = Any


def share(vectors: PyTree, difference: PyTree) -> float:
    """How much of a vector's squared length lies in a space; NaN of the zero vector.

    Args:
        vectors: an orthonormal basis of the space, along the leading axis of each leaf.
        difference: a tree like one of them.
    """
    pairs = list(zip(jax.tree.leaves(vectors), jax.tree.leaves(difference), strict=True))
    along = sum(
        np.asarray(u, np.float64).reshape(len(u), -1) @ np.asarray(x, np.float64).ravel()
        for u, x in pairs
    )
    length = sum(float(np.square(np.asarray(x, np.float64)).sum()) for _, x in pairs)
    return float(np.square(along).sum() / length) if length else float("nan")


def evenly(steps: Sequence[int], count: int) -> list[int]:
    """So many of the steps at most, as even as they come, with the first and the last."""
    places = np.linspace(0, len(steps) - 1, min(count, len(steps))).round().astype(int)
    return [steps[i] for i in np.unique(places)]


def measure(sgd: Run, grda: Run, settings: Row) -> Row:
    """The shares at moments that both runs have kept, the start left out: there is no way yet."""
    both = [step for step in sgd.steps if step in set(grda.steps) and step > 0]
    check(len(both) > 0, "runs", [str(sgd.path), str(grda.path)], "two that kept common moments")
    curvature = Curvature(sgd.job, settings["examples"])
    start, points, previous = sgd.at(0)[0], [], None
    total = sum(x.size for x in jax.tree.leaves(start))
    for step in track(evenly(both, settings["points"]), "Hessians", transient=True):
        (at, statistics), (other, _) = sgd.at(step), grda.at(step)
        pairs = top_eigenpairs(
            curvature.at(at, statistics),
            at,
            settings["k"],
            tolerance=settings["tolerance"],
            max_products=400,
        )
        apart, way = (jax.tree.map(np.subtract, a, b) for a, b in ((other, at), (at, start)))
        points.append(
            {
                "step": step,
                "epoch": sgd.epoch(step),
                "share": share(pairs.vectors, apart),
                "share_of_way": share(pairs.vectors, way),
                "distance": float(np.sqrt(sum(np.square(x).sum() for x in jax.tree.leaves(apart)))),
                "eigenvalues": [round(float(x), 6) for x in pairs.values],
                "residual": float(np.max(pairs.residuals)),
                "turned": None if previous is None else 1 - overlap(previous, pairs.vectors),
            }
        )
        previous = pairs.vectors
    return {"weights": total, "examples": curvature.examples, "points": points}


def overlap(a: PyTree, b: PyTree) -> float:
    """How much of one space lies in another of the same dimension: 1 if they are the same."""
    rows = [
        share(b, jax.tree.map(lambda x, i=i: x[i], a)) for i in range(len(jax.tree.leaves(a)[0]))
    ]
    return float(np.mean(rows))


def figure(found: Row, path: Path) -> None:
    """Left the shares, right the eigenvalues that the space belongs to."""
    points, k = found["result"]["points"], found["settings"]["k"]
    epochs = [x["epoch"] for x in points]
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.6), layout="constrained")
    for name, color, marker, line, label in (
        ("share_of_way", COLORS[0], "s", "-", r"$w_\mathrm{SGD} - w_0$"),
        ("share", COLORS[1], "o", "--", r"$w_\mathrm{gRDA} - w_\mathrm{SGD}$"),
    ):
        values = [100 * x[name] for x in points]
        left.plot(epochs, values, color=color, marker=marker, ms=3.5, linestyle=line, label=label)
    chance = 100 * k / found["result"]["weights"]
    left.axhline(chance, color="0.45", linestyle=":", linewidth=1.2, label="a random direction")
    left.set(yscale="log", xlabel="epoch", ylabel=f"share in the top {k} eigenvectors (%)")
    shares = [100 * x[name] for x in points for name in ("share", "share_of_way")]
    left.set_ylim(top=20 * max(chance, *shares))  # with room for the legend
    left.legend(frameon=False, fontsize=7.5)
    for i in range(k):
        values = [x["eigenvalues"][i] for x in points]
        right.plot(epochs, values, color=COLORS[0], alpha=1 - 0.75 * i / k, linewidth=1.1)
    right.set(xlabel="epoch", ylabel=f"top {k} eigenvalues at " + r"$w_\mathrm{SGD}$")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.set_xlim(left=0)
        finish(axes)
    fig.savefig(path, dpi=DPI)
    plt.close(fig)


def text(found: Row) -> str:
    """The shares at a few moments."""
    points = found["result"]["points"]
    lines = [
        [
            f"{x['epoch']:g}",
            f"{100 * x['share']:.4f}",
            f"{100 * x['share'] ** 0.5:.2f}",
            f"{100 * x['share_of_way']:.2f}",
            f"{x['distance']:.2f}",
            f"{x['eigenvalues'][0]:.2f}",
        ]
        for x in (points[i] for i in evenly(range(len(points)), 5))
    ]
    header = [
        "epoch",
        "share (% of the squared length)",
        "of the length (%)",
        "share of SGD's way (%)",
        "distance",
        "top eigenvalue",
    ]
    k, weights = found["settings"]["k"], found["result"]["weights"]
    return "\n\n".join(
        [
            tables.markdown(header, lines),
            f"A random direction has a share of {100 * k / weights:.4f} %; the Hessian is that of "
            f"{found['result']['examples']:,} training examples.",
        ]
    )


def render(folder: Path) -> str:
    """Every record that was saved."""
    return record.pages(
        folder,
        NAME,
        figure,
        text,
        "Share in the top eigenvectors",
        "The difference between gRDA and SGD, from the same start and with the same batches: how "
        "much of it lies in the space of the top ten eigenvectors of the Hessian at SGD's weights, "
        "where the loss is steepest.",
    )


@dataclasses.dataclass(frozen=True)
class Arguments(record.WithData):
    """Which share of the way from SGD to gRDA is steep, along training."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The folder of SGD's run, then that of gRDA, both trained with --keep-params."""
    k: int = 10
    """How many eigenvectors."""
    points: int = 8
    """At how many moments, at most."""
    examples: int | None = 5000
    """Of the training set, for the Hessian; None is all of it."""
    tolerance: float = 1e-3
    """Of the eigenpairs, in units of the largest eigenvalue."""


def analyse(arguments: Arguments, console: Console) -> Row:
    """Measures, prints and writes."""
    for name in ("k", "points"):
        check_integer(name, getattr(arguments, name), 1)
    runs = read_pair(arguments.runs, arguments.data_dir)
    settings = {x: getattr(arguments, x) for x in ("k", "points", "examples", "tolerance")}
    result = measure(*runs, settings)
    found = record.write(NAME, runs, settings, result, figure, arguments.save, console)
    console.print(text(found), highlight=False)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Analyses from the command line."""
    return record.main(NAME, Arguments, analyse, arguments)


if __name__ == "__main__":
    sys.exit(main())
