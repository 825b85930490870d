"""Means, spreads and intervals over seeds, and tables in Markdown."""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from experiments.config import Config
from experiments.log import Row


class Spread(NamedTuple):
    """The mean of some runs and their standard deviation (NaN of a single one)."""

    mean: float
    std: float
    n: int

    @property
    def interval(self) -> float:
        """Half the width of the 95 % confidence interval of the mean, by Student's t."""
        if self.n < 2:
            return math.nan
        return float(stats.t.ppf(0.975, self.n - 1)) * self.std / math.sqrt(self.n)


def spread(values: Iterable[float]) -> Spread:
    """Mean and sample standard deviation; NaN of nothing."""
    array = np.array(list(values), np.float64)
    if not len(array):
        return Spread(math.nan, math.nan, 0)
    std = float(array.std(ddof=1)) if len(array) > 1 else math.nan
    return Spread(float(array.mean()), std, len(array))


def group(rows: Iterable[Row], key: Callable[[Row], Hashable]) -> dict[Hashable, list[Row]]:
    """The rows by key, both in the order in which they first come, each group by seed."""
    groups: dict[Hashable, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return {k: sorted(v, key=lambda row: int(row["config"]["seed"])) for k, v in groups.items()}


def by_config(rows: Iterable[Row]) -> dict[Config, Row]:
    """The rows by what was run, so that a study finds its planned runs among them."""
    return {Config.from_json(row["config"]): row for row in rows}


def accuracy(row: Row) -> float:
    """In per cent."""
    return 100 * float(row["result"]["eval_accuracy"])


def loss(row: Row) -> float:
    """Of what is scored, in nats."""
    return float(row["result"]["eval_loss"])


def sparsity(row: Row, of: str = "penalised") -> float:
    """Zeros in per cent, of the penalised weights or of all."""
    count = row["result"][of]
    return 100 * (1 - float(count["nnz"]) / float(count["total"]))


def plus_minus(x: Spread, digits: int = 2) -> str:
    """Mean and standard deviation as they stand in a table."""
    return f"{x.mean:.{digits}f}" + ("" if math.isnan(x.std) else f" ± {x.std:.{digits}f}")


def difference(x: Spread, digits: int = 2) -> str:
    """Mean with its sign and half the width of its 95 % interval, which a single one has not."""
    interval = "" if math.isnan(x.interval) else f" ± {x.interval:.{digits}f}"
    return f"{x.mean:+.{digits}f}{interval}"


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table, the first column to the left and the others to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *lines])
