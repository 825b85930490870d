"""The rows of the frontier by contender, network and seed; and what they say at a sparsity."""

import math
from collections.abc import Iterable, Sequence

from experiments.log import Row
from experiments.studies import sweep, tables
from experiments.studies.contenders import CONTENDERS, EVERYONE, PEERS, contender_of
from experiments.studies.rows import config_of, has_diverged
from experiments.studies.tables import Spread


class Results:
    """The runs of every contender on one network."""

    def __init__(self, rows: Iterable[Row], model: str, seeds: Sequence[int] | None = None):
        """Takes the rows of a network, and of some seeds alone where these are given."""
        self._rows: dict[str, dict[int, list[Row]]] = {name: {} for name in EVERYONE}
        for row in rows:
            if row["config"]["model"] != model:
                continue
            (method,) = row["config"]["method"]
            name = method if method in PEERS else contender_of(config_of(row))
            seed = int(row["config"]["seed"])
            if seeds is None or seed in seeds:
                self._rows[name].setdefault(seed, []).append(row)

    def names(self) -> list[str]:
        """Those of which there is any run."""
        return [name for name, by_seed in self._rows.items() if by_seed]

    def seeds(self, name: str) -> list[int]:
        """The seeds of which there is any run."""
        return sorted(self._rows[name])

    def runs(self, name: str) -> list[Row]:
        """The runs that came to an end."""
        return [row for rows in self._rows[name].values() for row in rows if not has_diverged(row)]

    def diverged(self, name: str, sparsity: float) -> int:
        """How many runs at a sparsity did not; of a contender without one, how many at all."""
        told = EVERYONE[name].kind == "told"
        return sum(
            has_diverged(row) and (not told or row["config"]["sparsity"] == sparsity)
            for rows in self._rows[name].values()
            for row in rows
        )

    def at(self, name: str, sparsity: float) -> dict[int, float]:
        """The accuracy in per cent at a sparsity, by seed: what was run, or interpolated."""
        kind = EVERYONE[name].kind
        found = {}
        for seed, rows in sorted(self._rows[name].items()):
            ended = [row for row in rows if not has_diverged(row)]
            if kind == "swept":
                points = [(tables.sparsity(row) / 100, tables.accuracy(row)) for row in ended]
                value = sweep.interpolate(points, sparsity, sweep.WIDEST)
            else:
                wanted = 0.0 if kind == "once" else sparsity
                values = [
                    tables.accuracy(row)
                    for row in ended
                    if row["config"]["sparsity"] == wanted and as_told(name, row)
                ]
                value = values[0] if values else math.nan
            if not math.isnan(value):
                found[seed] = value
        return found

    def score(self, name: str, sparsity: float) -> Spread:
        """Mean and spread over seeds."""
        return tables.spread(self.at(name, sparsity).values())

    def gain(self, name: str, over: str, sparsity: float) -> Spread:
        """The difference between two, seed by seed where both have run."""
        mine, other = self.at(name, sparsity), self.at(over, sparsity)
        return tables.spread(mine[seed] - other[seed] for seed in mine if seed in other)

    def nearest(self, name: str, sparsity: float) -> list[Row]:
        """The runs at a sparsity; of a swept contender each seed's nearest, if not far off."""
        kind = EVERYONE[name].kind
        ended = self.runs(name)
        if kind == "once":
            return ended
        if kind == "told":
            return [row for row in ended if row["config"]["sparsity"] == sparsity]
        chosen = []
        for seed in self.seeds(name):
            mine = [row for row in ended if row["config"]["seed"] == seed]
            near = [row for row in mine if abs(tables.sparsity(row) / 100 - sparsity) < 0.03]
            if near:
                off = [abs(tables.sparsity(row) / 100 - sparsity) for row in near]
                chosen.append(near[off.index(min(off))])
        return chosen

    def relative(self, name: str, quantity: str, sparsity: float) -> float:
        """What runs at a sparsity take, relative to the dense network; NaN where that is open."""
        mine = tables.spread(row["result"][quantity] for row in self.nearest(name, sparsity))
        dense = tables.spread(row["result"][quantity] for row in self.runs("dense"))
        return mine.mean / dense.mean

    def ranking(self, sparsities: Sequence[float]) -> list[str]:
        """Contenders within the budget by their mean over sparsities, the best first.

        One that misses a sparsity has no rank.
        """
        means = {
            name: tables.spread(self.score(name, s).mean for s in sparsities).mean
            for name, x in CONTENDERS.items()  # which more seeds are run of, and no peer's
            if x.kind != "once" and not x.beyond
        }
        ranked = [name for name, mean in means.items() if not math.isnan(mean)]
        return sorted(ranked, key=lambda name: -means[name])


def as_told(name: str, row: Row) -> bool:
    """Whether a run that was told a sparsity has it; a narrow network has fewer weights instead."""
    told = EVERYONE[name].kind == "told" and EVERYONE[name].method != "dense_narrow"
    return not told or abs(tables.sparsity(row) / 100 - row["config"]["sparsity"]) < 1e-3
