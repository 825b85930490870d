"""How flat are SGD's solution and gRDA's? The density of the eigenvalues of the Hessian at each.

python -m experiments.run digits
python -m experiments.analysis.spectrum runs/digits/dense runs/digits/grda
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.progress import track

from experiments.analysis import record
from experiments.analysis.curvature import Curvature
from experiments.analysis.density import Quadrature, above, density, mean_of, quadrature
from experiments.analysis.norms import LINES
from experiments.analysis.runs import Run, labels, read
from experiments.checks import check_integer
from experiments.log import Row
from experiments.plotting import COLORS, plt
from experiments.studies import tables
from experiments.studies.frontier_figures import DPI, WIDTH, finish

title = "The spectrum of the Hessian"
NAME = "spectrum"
SMOOTHING = 0.01
"""The width of an eigenvalue in the density, in units of the largest of all."""
FINEST = 0.003
"""In the same units: among smaller eigenvalues, so few products tell none from another."""


def measure(runs: Sequence[Run], settings: Row) -> Row:
    """The quadratures of each run's end."""
    series = []
    for label, run in zip(labels(runs), runs, strict=True):
        params, statistics = run.last()
        curvature = Curvature(run.job, settings["examples"])
        matvec = curvature.at(params, statistics)
        probes = track(range(settings["probes"]), f"probes, {label}", transient=True)
        found = [quadrature(matvec, params, settings["products"], seed) for seed in probes]
        series.append(
            {
                "label": label,
                "weights": sum(x.size for x in jax.tree.leaves(params)),
                "nonzero": sum(int((np.asarray(x) != 0).sum()) for x in jax.tree.leaves(params)),
                "examples": curvature.examples,
                "probes": [
                    {
                        "nodes": [float(f"{x:.6g}") for x in probe.nodes],
                        "weights": [float(f"{x:.6g}") for x in probe.weights],
                    }
                    for probe in found
                ],
            }
        )
    return {"series": series}


def quadratures(series: Row) -> list[Quadrature]:
    """As they were measured."""
    return [Quadrature(np.array(x["nodes"]), np.array(x["weights"])) for x in series["probes"]]


def ends(series: Row) -> tuple[float, float]:
    """The smallest and the largest eigenvalue that a probe has found."""
    nodes = np.concatenate([x.nodes for x in quadratures(series)])
    return float(nodes.min()), float(nodes.max())


def figure(found: Row, path: Path) -> None:
    """Left the density, right how many eigenvalues are above which."""
    every = found["result"]["series"]
    low, high = min(ends(x)[0] for x in every), max(ends(x)[1] for x in every)
    width = SMOOTHING * high
    grid = np.linspace(low - 4 * width, high + 4 * width, 1500)
    steps = np.geomspace(high * FINEST, high * 1.05, 400)
    top = 0.0
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.6), layout="constrained")
    for i, series in enumerate(every):
        style = {"color": COLORS[i % len(COLORS)], "linestyle": LINES[i % len(LINES)]}
        probes = quadratures(series)
        values = density(probes, grid, width)
        top = max(top, float(values.max()))
        left.plot(grid, values, linewidth=1.3, label=series["label"], **style)
        right.plot(steps, 100 * above(probes, steps), linewidth=1.3, **style)
    # A single eigenvalue is a bell of the height 0.4 / (width * weights).
    floor = 0.02 / (width * max(x["weights"] for x in every))
    left.set(yscale="log", xlabel=r"eigenvalue $\lambda$ of the Hessian", ylabel="density")
    left.set_ylim(floor, 5 * top)
    left.legend(frameon=False, fontsize=7.5)
    right.set(
        xscale="log",
        yscale="log",
        xlabel=r"eigenvalue $\lambda$ of the Hessian",
        ylabel=r"eigenvalues above $\lambda$ (%)",
    )
    for axes in (left, right):
        finish(axes)
    fig.savefig(path, dpi=DPI)
    plt.close(fig)


def text(found: Row) -> str:
    """The ends of each spectrum, its trace, and how much of it is steep."""
    every, settings = found["result"]["series"], found["settings"]
    cut = SMOOTHING * max(ends(x)[1] for x in every)
    lines = []
    for series in every:
        probes, (low, high) = quadratures(series), ends(series)
        lines.append(
            [
                series["label"],
                f"{low:.3f}",
                f"{high:.2f}",
                f"{series['weights'] * mean_of(probes, lambda x: x):.1f}",
                f"{100 * float(above(probes, np.array([cut]))[0]):.3f}",
                f"{series['nonzero']:,} of {series['weights']:,}",
            ]
        )
    header = ["", "smallest", "largest", "trace", f"above {cut:.2g} (%)", "nonzero weights"]
    return "\n\n".join(
        [
            tables.markdown(header, lines),
            f"{settings['probes']} random vectors with {settings['products']} products each; the "
            f"Hessian is that of {every[0]['examples']:,} training examples, over all weights, "
            f"{cut:.2g} is a hundredth of the largest eigenvalue of all.",
        ]
    )


def render(folder: Path) -> str:
    """Every record that was saved."""
    return record.pages(
        folder,
        NAME,
        figure,
        text,
        "Spectrum of the Hessian",
        "The eigenvalues of the Hessian of the training loss where SGD and gRDA end, by stochastic "
        "Lanczos quadrature over all weights, zero ones too.",
    )


@dataclasses.dataclass(frozen=True)
class Arguments(record.WithData):
    """The density of the Hessian's eigenvalues where some runs end."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs, such as SGD's and gRDA's."""
    probes: int = 3
    """Random vectors."""
    products: int = 60
    """With the Hessian, for each of them."""
    examples: int | None = 5000
    """Of the training set; None is all of it."""


def analyse(arguments: Arguments, console: Console) -> Row:
    """Measures, prints and writes."""
    for name in ("probes", "products"):
        check_integer(name, getattr(arguments, name), 1)
    runs = read(arguments.runs, arguments.data_dir)
    settings = {x: getattr(arguments, x) for x in ("probes", "products", "examples")}
    result = measure(runs, settings)
    found = record.write(NAME, runs, settings, result, figure, arguments.save, console)
    console.print(text(found), highlight=False)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Analyses from the command line."""
    return record.main(NAME, Arguments, analyse, arguments)


if __name__ == "__main__":
    sys.exit(main())
