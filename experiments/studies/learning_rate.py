"""What does gRDA need of the learning rate? Three schedules, momentum and weight decay."""

import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes

from experiments.config import Config
from experiments.configs import fashion_mnist
from experiments.log import Row
from experiments.methods.grda import Settings
from experiments.optimizers import learning_rate_schedule
from experiments.plotting import COLORS, plt
from experiments.studies import settling, sweep, tables
from experiments.studies.frontier_figures import DPI, WIDTH, finish, place
from experiments.studies.pairs import Pair

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
    """The sum of the rates over all updates, and as many times as far as momentum carries each."""
    config, steps = Config.from_json(row["config"]), row["epochs"]["step"][-1]
    rate = learning_rate_schedule(config, steps)
    return float(sum(float(rate(n)) for n in range(0, steps, 10)) * 10) / (1 - config.momentum)


def at_seeds(groups: list[list[Row]], sparsity: float) -> dict[int, float]:
    """The accuracy at a sparsity, between the strengths of each seed; seeds as they are there."""
    seeds = {row["config"]["seed"] for group in groups for row in group}
    found = {}
    for seed in sorted(seeds):
        mine = [row for group in groups for row in group if row["config"]["seed"] == seed]
        points = [(tables.sparsity(row, "all") / 100, tables.accuracy(row)) for row in mine]
        value = sweep.interpolate(points, sparsity)
        if not math.isnan(value):
            found[seed] = value
    return found


def read_at(groups: list[list[Row]], sparsity: float) -> tables.Spread:
    """That of the seeds together."""
    return tables.spread(at_seeds(groups, sparsity).values())


def render(rows: list[Row], folder: Path) -> str:
    """A line for each setting that has a row, and the figure."""
    found = tables.by_config(rows)
    lines = []
    for base in (*BASES, TWICE):
        for schedule in SCHEDULES:
            groups = [of(found, base, schedule, c) for c in base.strengths]
            dense = tables.spread(_dense(found, base, schedule).values())
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
    _draw(found, folder / FIGURE)
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
            "t is the sum of the rates, times 1 / (1 - momentum): how far updates can carry a "
            "weight. At a constant rate the threshold is c sqrt(rate) t^mu; a rate that falls adds "
            "ever less to it, and what the zeros grow by in the last fifth shows what is left.",
            f"![Accuracy against sparsity by schedule]({FIGURE})",
            tables.markdown(header, lines),
            "A rate that falls beside a constant one: the differences are paired by seed, with "
            "their 95 % interval by Student's t, at equal zeros and between the dense networks.",
            against_constant(found),
        ]
    )


def against_constant(found: dict[Config, Row]) -> str:
    """What a rate that falls gains over a constant one, with zeros and without, seed by seed."""
    plain = BASES[0]
    beside = [(base, schedule, base) for base in (*BASES, TWICE) for schedule in SCHEDULES[1:]]
    beside += [(TWICE, schedule, plain) for schedule in SCHEDULES]
    lines = []
    for base, schedule, other in beside:
        with_zeros = Pair(_scores(found, other, "constant"), _scores(found, base, schedule))
        dense = Pair(_dense(found, other, "constant"), _dense(found, base, schedule))
        if with_zeros.seeds and dense.seeds:
            lines.append(
                [
                    f"{base.label}, {schedule}",
                    f"{other.label}, constant",
                    f"{_time(found, base, schedule):.0f}",
                    f"{_time(found, other, 'constant'):.0f}",
                    tables.difference(with_zeros.gain),
                    tables.difference(dense.gain),
                ]
            )
    header = ["", "beside", "t", "t", f"at {100 * READ_AT:.0f} % zeros", "dense"]
    return tables.markdown(header, lines)


def of(found: dict[Config, Row], base: Base, schedule: str, c: float | None) -> list[Row]:
    """The rows of one setting, one a seed."""
    return [found[config] for config in planned(base, schedule, c) if config in found]


def _scores(found: dict[Config, Row], base: Base, schedule: str) -> dict[int, float]:
    return at_seeds([of(found, base, schedule, c) for c in base.strengths], READ_AT)


def _dense(found: dict[Config, Row], base: Base, schedule: str) -> dict[int, float]:
    return {row["config"]["seed"]: tables.accuracy(row) for row in of(found, base, schedule, None)}


def _time(found: dict[Config, Row], base: Base, schedule: str) -> float:
    return training_time(of(found, base, schedule, None)[0])


def _draw(found: dict[Config, Row], path: Path) -> None:
    """A panel for each base, with a curve for each schedule and the dense accuracy at its left.

    What has twice the rate is drawn pale beside what it is compared with.
    """
    fig, panels = plt.subplots(
        2, 2, figsize=(WIDTH, 4.6), sharex=True, sharey=True, layout="constrained"
    )
    for axes, base in zip(panels.ravel(), BASES, strict=True):
        for schedule, color in zip(SCHEDULES, COLORS, strict=False):
            _curve(axes, found, base, schedule, color, f"{schedule} rate")
        axes.text(0.98, 0.96, base.label, transform=axes.transAxes, ha="right", fontsize=8)
        finish(axes)
    for schedule, color in zip(SCHEDULES, COLORS, strict=False):
        _curve(panels[0, 0], found, TWICE, schedule, color, "", alpha=0.45)
    if any(of(found, TWICE, schedule, None) for schedule in SCHEDULES):
        panels[0, 0].text(
            0.98, 0.88, "pale: twice the rate", transform=panels[0, 0].transAxes, ha="right",
            fontsize=7,
        )  # fmt: skip
    ticks = (0.5, 0.8, 0.9, 0.95, 0.98)
    for axes in panels[1]:
        axes.set_xticks([LEFT, *map(place, ticks)], ["dense", *(f"{100 * t:g}" for t in ticks)])
        axes.set_xlabel("zeros (% of all weights)")
    for axes in panels[:, 0]:
        axes.set_ylabel("test accuracy (%)")
    if any(axes.containers for axes in panels.ravel()):
        handles = next(a for a in panels.ravel() if a.containers).get_legend_handles_labels()
        panels[0, 0].legend(*handles, frameon=False, fontsize=7.5)
    fig.savefig(path, dpi=DPI)
    plt.close(fig)


LEFT = 0.0
"""Where the dense network stands."""


def _curve(
    axes: Axes,
    found: dict[Config, Row],
    base: Base,
    schedule: str,
    color: str,
    label: str,
    alpha: float = 1.0,
) -> None:
    marker, line = MARKS[schedule]
    groups = [g for g in (of(found, base, schedule, c) for c in base.strengths) if g]
    dense = tables.spread(_dense(found, base, schedule).values())
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
            alpha=alpha,
            label=label or None,
        )
    if dense.n:
        axes.plot(
            LEFT, dense.mean, marker, color=color, mfc="white", ms=5, clip_on=False, alpha=alpha
        )
