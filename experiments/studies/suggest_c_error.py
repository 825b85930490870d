"""How far is the sparsity from the one asked for where `suggest_c` picks the strength?"""

import dataclasses
from pathlib import Path

from experiments.config import Config
from experiments.configs import digits, fashion_mnist
from experiments.log import Row
from experiments.methods.grda import Settings
from experiments.studies import tables

title = "How good a first value `suggest_c` is"

NETWORKS = {"digits": (digits.PLAIN, (0, 1, 2)), "fashion_mnist": (fashion_mnist.CONFIG, (0,))}
MU = (0.55, 0.7)
ASKED = (0.5, 0.8, 0.9)


def planned(preset: str, mu: float, sparsity: float) -> list[Config]:
    """One run a seed."""
    base, seeds = NETWORKS[preset]
    base = dataclasses.replace(
        base, method=("grda",), sparsity=sparsity, grda=Settings(c=None, mu=mu)
    )
    return [dataclasses.replace(base, seed=seed) for seed in seeds]


def runs() -> list[tuple[Config, str]]:
    """The paper's optimizer at a constant rate, with the strength that is suggested."""
    return [
        (config, preset)
        for preset in NETWORKS
        for mu in MU
        for sparsity in ASKED
        for config in planned(preset, mu, sparsity)
    ]


def render(rows: list[Row], folder: Path) -> str:
    """Asked and got, where all seeds are there."""
    del folder
    found = tables.by_config(rows)
    lines, errors = [], []
    for preset, (base, seeds) in NETWORKS.items():
        for mu in MU:
            for sparsity in ASKED:
                mine = planned(preset, mu, sparsity)
                group = [found[config] for config in mine if config in found]
                if len(group) < len(seeds):
                    continue
                got = [tables.sparsity(row) for row in group]
                errors += [abs(x - 100 * sparsity) for x in got]
                lines.append(
                    [
                        f"{preset}, {base.model}",
                        f"{mu}",
                        f"{100 * sparsity:.0f}",
                        tables.plus_minus(tables.spread(got), 1),
                        tables.plus_minus(tables.spread(map(tables.accuracy, group)), 1),
                        f"{len(group)}",
                    ]
                )
    header = ["", "mu", "asked (%)", "zeros (%)", "test accuracy (%)", "seeds"]
    score = tables.spread(errors)
    return "\n\n".join(
        [
            "Plain SGD at a constant rate of 0.1, from scratch; `suggest_c` sees the first "
            "weights, the rate and the number of updates, and nothing of the data. Zeros among the "
            "penalised weights, mean ± standard deviation.",
            tables.markdown(header, lines),
            f"Over {score.n} runs it is off by {score.mean:.1f} points on average, and by "
            f"{max(errors, default=0.0):.1f} at most.",
        ]
    )
