"""When does gRDA's sparsity settle? The paper's optimizer under three schedules of the rate."""

import dataclasses
from pathlib import Path

import numpy as np

from experiments.config import Config
from experiments.configs import fashion_mnist
from experiments.log import Row
from experiments.methods.grda import Settings
from experiments.plotting import COLORS, plt
from experiments.studies import tables

title = "When the sparsity of gRDA settles, Fashion-MNIST"

EPOCHS = True
SEEDS = (0, 1, 2)
SCHEDULES = ("constant", "step", "cosine")
MU = (0.55, 0.7)
NEAR = 0.005
"""The sparsity has settled where it stays this close to its end."""
FIGURE = "settling.png"


def planned(mu: float, schedule: str) -> list[Config]:
    """The runs of one line, one a seed."""
    base = dataclasses.replace(
        fashion_mnist.CONFIG,
        method=("grda",),
        schedule=schedule,  # type: ignore[arg-type]
        grda=Settings(c=0.005, mu=mu),
    )
    return [dataclasses.replace(base, seed=seed) for seed in SEEDS]


def runs() -> list[tuple[Config, str]]:
    """Each schedule with two values of mu."""
    return [
        (config, "fashion_mnist")
        for mu in MU
        for schedule in SCHEDULES
        for config in planned(mu, schedule)
    ]


def settled(row: Row) -> float:
    """The fraction of training after which the sparsity stays near its end.

    Scored once an epoch; a run that settles only in its last epoch has not: 1.
    """
    path = np.array(row["epochs"]["sparsity"])
    steps = np.array(row["epochs"]["step"])
    away = np.flatnonzero(np.abs(path - path[-1]) > NEAR)
    first = 0 if not len(away) else int(away[-1]) + 1
    return float(steps[first] / steps[-1])


def growth(row: Row) -> float:
    """By how many points the sparsity grows in the last fifth of training."""
    path, steps = row["epochs"]["sparsity"], np.array(row["epochs"]["step"])
    return 100 * float(path[-1] - np.interp(0.8 * steps[-1], steps, path))


def render(rows: list[Row], folder: Path) -> str:
    """A table of those settings that have all seeds, and the figure."""
    found = tables.by_config(rows)
    lines, groups = [], {}
    for mu in MU:
        for schedule in SCHEDULES:
            group = [found[config] for config in planned(mu, schedule) if config in found]
            if len(group) < len(SEEDS):
                continue
            groups[mu, schedule] = group
            lines.append(
                [
                    schedule,
                    f"{mu}",
                    tables.plus_minus(tables.spread(tables.sparsity(row, "all") for row in group)),
                    tables.plus_minus(tables.spread(map(growth, group))),
                    tables.plus_minus(tables.spread(map(settled, group))),
                    tables.plus_minus(tables.spread(map(tables.accuracy, group))),
                ]
            )
    _draw(groups, folder / FIGURE)
    header = [
        "rate",
        "mu",
        "zeros (%)",
        "growth in the last fifth (points)",
        "settled after (of training)",
        "test accuracy (%)",
    ]
    return "\n\n".join(
        [
            f"`mlp`, {fashion_mnist.CONFIG.epochs} epochs of plain SGD, at a rate of 0.1 at its "
            "highest and with c = 0.005; every leaf is thresholded, and the zeros are counted over "
            f"all weights, after every epoch. Settled is a sparsity that stays within "
            f"{100 * NEAR} points of its end; of the last epoch alone that says nothing, and is "
            f"shown as 1. Mean ± standard deviation of {len(SEEDS)} seeds.",
            tables.markdown(header, lines),
            f"![Sparsity along training]({FIGURE})",
        ]
    )


def _draw(groups: dict[tuple[float, str], list[Row]], path: Path) -> None:
    fig, panels = plt.subplots(1, len(MU), figsize=(11, 4), layout="constrained")
    for axes, mu in zip(panels, MU, strict=True):
        for schedule, color in zip(SCHEDULES, COLORS, strict=False):
            for i, row in enumerate(groups.get((mu, schedule), [])):
                axes.plot(
                    row["epochs"]["step"],
                    [100 * x for x in row["epochs"]["sparsity"]],
                    color=color,
                    alpha=0.7,
                    label=schedule if i == 0 else None,
                )
        axes.set(title=f"mu = {mu}", xlabel="step", ylabel="zeros (% of all weights)")
        if axes.lines:
            axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    fig.savefig(path, dpi=130)
    plt.close(fig)
