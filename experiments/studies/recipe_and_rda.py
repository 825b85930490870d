"""RDA's mean is above the recipe's on the BatchNorm CNN: is that the rate, or weight decay?"""

import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

from experiments.config import Config
from experiments.log import Row
from experiments.studies import sweep, tables
from experiments.studies.contenders import CONTENDERS, changed
from experiments.studies.frontier import CNN
from experiments.studies.frontier_tuning import trial
from experiments.studies.pairs import Pair
from experiments.studies.rows import compact as compact

title = "RDA and the recipe on the BatchNorm CNN, on a validation split"

SEEDS = (100, 101, 102)  # which no reported run has
SPARSITY = 0.95
STRENGTHS = (2e-4, 2.828427e-4)
"""RDA's, on both sides of the sparsity."""


class Setting(NamedTuple):
    """A method under a learning rate and a weight decay."""

    name: str
    learning_rate: float
    weight_decay: float

    def configs(self, seed: int) -> list[Config]:
        """One run; of RDA one at each strength, to be read between them."""
        contender = CONTENDERS[self.name]
        base = dataclasses.replace(CNN.base, seed=seed, sparsity=SPARSITY, evaluate="validation")
        changes = {"learning_rate": self.learning_rate, "weight_decay": self.weight_decay}
        config = trial(contender, changes, base)
        if contender.kind != "swept":
            return [config]
        return [changed(config, {contender.strength: x}) for x in STRENGTHS]

    def at(self, found: dict[Config, Row]) -> dict[int, float]:
        """The accuracy by seed, of those that are done."""
        scores = {}
        for seed in SEEDS:
            rows = [found[config] for config in self.configs(seed) if config in found]
            points = [(tables.sparsity(row) / 100, tables.accuracy(row)) for row in rows]
            value = sweep.interpolate(points, SPARSITY) if points else math.nan
            if not math.isnan(value):
                scores[seed] = value
        return scores


FRONTIERS = Setting("recipe", 0.05, 5e-4)
SETTINGS = (
    FRONTIERS,
    Setting("rda", 0.1, 0.0),  # the frontier's
    Setting("recipe", 0.1, 0.0),
    Setting("rda", 0.1, 5e-4),
    Setting("recipe", 0.1, 5e-4),
    Setting("recipe", 0.05, 0.0),
)


def runs() -> list[tuple[Config, str]]:
    """Every setting; seeds outermost."""
    return [
        (config, CNN.preset)
        for seed in SEEDS
        for setting in SETTINGS
        for config in setting.configs(seed)
    ]


def render(rows: list[Row], folder: Path) -> str:
    """A line for each setting that has run."""
    del folder
    found = tables.by_config(rows)
    reference = FRONTIERS.at(found)
    lines = []
    for setting in sorted(SETTINGS):
        pair = Pair(reference, setting.at(found))
        if pair.seeds:
            lines.append(
                [
                    CONTENDERS[setting.name].label,
                    f"{setting.learning_rate:g}",
                    f"{setting.weight_decay:g}",
                    tables.plus_minus(pair.ours),
                    "" if setting == FRONTIERS else tables.difference(pair.gain),
                    f"{len(pair.seeds)}",
                ]
            )
    header = ["", "rate", "weight decay", "validation accuracy (%)", "difference", "seeds"]
    return "\n\n".join(
        [
            f"{CNN.base.model}, {CNN.base.epochs} epochs, {100 * SPARSITY:.0f} % zeros, scored on "
            "the last sixth of the training set, which these runs do not train on. On the frontier "
            "both have the settings that were chosen on the MLP: the recipe a rate of 0.05 and "
            "weight decay, RDA 0.1 and none. RDA is read between two strengths. The difference is "
            "to the recipe as it is on the frontier, from the same seed, with its 95 % interval by "
            "Student's t.",
            tables.markdown(header, lines),
        ]
    )
