"""What does gRDA need of the learning rate? Three schedules, momentum and weight decay."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from experiments.config import Config
from experiments.configs import fashion_mnist
from experiments.log import Row
from experiments.methods.grda import Settings
from experiments.optimizers import learning_rate_schedule
from experiments.plotting import COLORS, plt
from experiments.studies import settling, sweep, tables
from experiments.studies.frontier_figures import DPI, WIDTH, finish, place

title = "gRDA under a constant, a dropping and a cosine rate, Fashion-MNIST"

EPOCHS = True
SEEDS = (0, 1, 2)
SCHEDULES = ("constant", "step", "cosine")
MU = 0.6
STRENGTHS = (0.005, 0.01, 0.02)
READ_AT = 0.97
"""Between the strengths of every line."""
FIGURE = "learning_rate.png"


class Base(NamedTuple):
    """What is beneath the threshold."""

    label: str
    momentum: float
    weight_decay: float
    learning_rate: float
    """At its highest: the paper's, or the usual one with momentum."""

    @property
    def strengths(self) -> tuple[float, ...]:
        """Momentum moves weights 1 / (1 - momentum) times as far, of which the rule knows nothing.

        So c is as many times larger.
        """
        return tuple(round(c / (1 - self.momentum), 6) for c in STRENGTHS)


BASES = (
    Base("plain", 0.0, 0.0, 0.1),
    Base("weight decay", 0.0, 5e-4, 0.1),
    Base("momentum", 0.9, 0.0, 0.05),
    Base("momentum, weight decay", 0.9, 5e-4, 0.05),
)
# A rate that falls has as much training time as the constant one at half the rate.
TWICE = Base("plain, twice the rate", 0.0, 0.0, 0.2)
MARKS = {"constant": ("o", "-"), "step": ("s", "--"), "cosine": ("^", "-.")}


def planned(base: Base, schedule: str, c: float | None) -> list[Config]:
    """The runs of one setting, one a seed; without c, the dense ones."""
    config = dataclasses.replace(
        fashion_mnist.CONFIG,
        method=("dense",) if c is None else ("grda",),
        schedule=schedule,  # type: ignore[arg-type]
        learning_rate=base.learning_rate,
        momentum=base.momentum,
        weight_decay=base.weight_decay,
    )
    if c is not None:
        config = dataclasses.replace(config, grda=Settings(c=c, mu=MU))
    return [dataclasses.replace(config, seed=seed) for seed in SEEDS]


def runs() -> list[tuple[Config, str]]:
    """Every base under every schedule, dense and with three strengths; seeds outermost."""
    return [
        (planned(base, schedule, c)[i], "fashion_mnist")
        for i in range(len(SEEDS))
        for base in (*BASES, TWICE)
        for schedule in SCHEDULES
        for c in (None, *base.strengths)
    ]


def training_time(row: Row) -> float:
    """The sum of the rates over all updates: what the threshold grows with."""
    config, steps = Config.from_json(row["config"]), row["epochs"]["step"][-1]
    rate = learning_rate_schedule(config, steps)
    return float(sum(float(rate(n)) for n in range(0, steps, 10)) * 10)


def read_at(groups: list[list[Row]], sparsity: float) -> tables.Spread:
    """The accuracy at a sparsity, between the strengths of each seed; seeds as they are there."""
    seeds = {row["config"]["seed"] for group in groups for row in group}
    values = []
    for seed in seeds:
        mine = [row for group in groups for row in group if row["config"]["seed"] == seed]
        points = [(tables.sparsity(row, "all") / 100, tables.accuracy(row)) for row in mine]
        values.append(sweep.interpolate(points, sparsity))
    return tables.spread(x for x in values if not math.isnan(x))


def render(rows: list[Row], folder: Path) -> str:
    """A line for each setting that has a row, and the figure."""
    found = tables.by_config(rows)

    def of(base: Base, schedule: str, c: float | None) -> list[Row]:
        return [found[config] for config in planned(base, schedule, c) if config in found]

    lines = []
    for base in (*BASES, TWICE):
        for schedule in SCHEDULES:
            groups = [of(base, schedule, c) for c in base.strengths]
            dense = tables.spread(map(tables.accuracy, of(base, schedule, None)))
            at = read_at(groups, READ_AT)
            for c, group in zip(base.strengths, groups, strict=True):
                if not group:
                    continue
                lines.append(
                    [
                        base.label,
                        schedule,
                        f"{c:g}",
                        tables.plus_minus(
                            tables.spread(tables.sparsity(row, "all") for row in group), 1
                        ),
                        tables.plus_minus(tables.spread(map(settling.growth, group)), 2),
                        tables.plus_minus(tables.spread(map(tables.accuracy, group))),
                        tables.plus_minus(dense) if dense.n else "-",
                        tables.plus_minus(at) if at.n else "-",
                        f"{len(group)}",
                    ]
                )
    _draw(of, folder / FIGURE)
    header = [
        "beneath the threshold",
        "rate",
        "c",
        "zeros (%)",
        "growth in the last fifth (points)",
        "test accuracy (%)",
        "dense (%)",
        f"at {100 * READ_AT:.0f} % zeros",
        "seeds",
    ]
    return "\n\n".join(
        [
            f"`mlp`, {fashion_mnist.CONFIG.epochs} epochs, mu = {MU}; every leaf is thresholded. "
            f"The rate is {BASES[0].learning_rate} at its highest, {BASES[-1].learning_rate} with "
            f"momentum, and {TWICE.learning_rate} in the last lines; `step` takes it to a tenth at "
            "1/2 and at 3/4. With momentum c is larger by 1 / (1 - momentum). Mean ± standard "
            "deviation over seeds; the last but one column is read between the strengths.",
            why(rows, lambda base, schedule: [of(base, schedule, c) for c in base.strengths]),
            f"![Accuracy against sparsity by schedule]({FIGURE})",
            tables.markdown(header, lines),
        ]
    )


def why(rows: list[Row], groups: Callable[[Base, str], list[list[Row]]]) -> str:
    """What the threshold grows with, and what comes out where that is equal."""
    plain = BASES[0]
    times: dict[tuple[str, str], float] = {}
    for row in rows:
        config = row["config"]
        for base in (plain, TWICE):
            if (config["momentum"], config["learning_rate"]) == (0.0, base.learning_rate):
                times.setdefault((base.label, config["schedule"]), training_time(row))
    parts = [
        "The threshold grows with the training time t, the sum of the rates, and a rate that falls "
        "to zero ends that growth. The column of growth says how far each run is from its end."
    ]
    if times:
        told = []
        for (label, schedule), t in times.items():
            base = plain if label == plain.label else TWICE
            at = read_at(groups(base, schedule), READ_AT)
            score = f", {tables.plus_minus(at)} %" if at.n else ""
            told.append(f"{label}, {schedule}: {t:.0f}{score}")
        parts.append(f"t, and the accuracy at {100 * READ_AT:.0f} % zeros: {'; '.join(told)}.")
    return " ".join(parts)


def _draw(of, path: Path) -> None:  # type: ignore[no-untyped-def]
    """A panel for each base, with a curve for each schedule and the dense accuracy at its left."""
    fig, panels = plt.subplots(
        2, 2, figsize=(WIDTH, 4.6), sharex=True, sharey=True, layout="constrained"
    )
    left = 0.0
    for axes, base in zip(panels.ravel(), BASES, strict=True):
        for schedule, color in zip(SCHEDULES, COLORS, strict=False):
            marker, line = MARKS[schedule]
            groups = [g for g in (of(base, schedule, c) for c in base.strengths) if g]
            dense = tables.spread(map(tables.accuracy, of(base, schedule, None)))
            if groups:
                zeros = [tables.spread(tables.sparsity(x, "all") for x in g).mean for g in groups]
                scores = [tables.spread(map(tables.accuracy, g)) for g in groups]
                axes.errorbar(
                    [place(min(z, 99.99) / 100) for z in zeros],
                    [x.mean for x in scores],
                    yerr=[0 if math.isnan(x.std) else x.std for x in scores],
                    color=color,
                    marker=marker,
                    linestyle=line,
                    ms=4,
                    lw=1.3,
                    capsize=2,
                    label=f"{schedule} rate",
                )
            if dense.n:
                axes.plot(left, dense.mean, marker, color=color, mfc="white", ms=5, clip_on=False)
        axes.text(0.98, 0.96, base.label, transform=axes.transAxes, ha="right", fontsize=8)
        finish(axes)
    ticks = (0.5, 0.8, 0.9, 0.95, 0.98)
    for axes in panels[1]:
        axes.set_xticks([left, *map(place, ticks)], ["dense", *(f"{100 * t:g}" for t in ticks)])
        axes.set_xlabel("zeros (% of all weights)")
    for axes in panels[:, 0]:
        axes.set_ylabel("test accuracy (%)")
    if any(axes.containers for axes in panels.ravel()):
        handles = next(a for a in panels.ravel() if a.containers).get_legend_handles_labels()
        panels[0, 0].legend(*handles, frameon=False, fontsize=7.5)
    fig.savefig(path, dpi=DPI)
    plt.close(fig)
