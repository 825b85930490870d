"""Two methods from the same start and with the same batches: seed by seed, and what is gained."""

from collections.abc import Callable, Iterable, Mapping

from experiments.config import Config
from experiments.log import Row
from experiments.studies import tables


class Pair:
    """A rival and a method of ours, on the seeds that both have run.

    Attributes:
        seeds: which those are.
        rival: the spread of its scores over them.
        ours: that of ours.
        gain: the spread of the differences, ours less the rival's of the same seed.
    """

    def __init__(self, rival: Mapping[int, float], ours: Mapping[int, float]):
        """Takes the scores of both by seed."""
        self.seeds = sorted(rival.keys() & ours.keys())
        self.rival = tables.spread(rival[seed] for seed in self.seeds)
        self.ours = tables.spread(ours[seed] for seed in self.seeds)
        self.gain = tables.spread(ours[seed] - rival[seed] for seed in self.seeds)

    @property
    def better(self) -> bool:
        """Whether the whole interval of the gain is above zero."""
        return self.gain.mean - self.gain.interval > 0

    @property
    def worse(self) -> bool:
        """Whether the whole interval of the gain is below zero."""
        return self.gain.mean + self.gain.interval < 0


def by_seed(
    configs: Iterable[Config],
    found: Mapping[Config, Row],
    score: Callable[[Row], float] = tables.accuracy,
) -> dict[int, float]:
    """The scores of those planned runs that are done."""
    return {config.seed: score(found[config]) for config in configs if config in found}


def table(
    labels: tuple[str, ...],
    pairs: Mapping[tuple[str, ...], Pair],
    scores: tuple[str, str] = ("magnitude (%)", "recipe (%)"),
    gain: str = "gain (95 % interval)",
    digits: int = 2,
) -> str:
    """A line for every pair that has a seed.

    Args:
        labels: the headings of the columns before the scores.
        pairs: by what stands in these columns.
        scores: the headings of the two scores.
        gain: the heading of the difference.
        digits: after the decimal point.
    """
    lines = [
        [
            *label,
            tables.plus_minus(pair.rival, digits),
            tables.plus_minus(pair.ours, digits),
            tables.difference(pair.gain, digits),
            f"{len(pair.seeds)}",
        ]
        for label, pair in pairs.items()
        if pair.seeds
    ]
    return tables.markdown([*labels, *scores, gain, "seeds"], lines)


def verdict(pairs: Iterable[Pair]) -> str:
    """How many are won and lost, in words; of one seed there is no interval."""
    counted = [pair for pair in pairs if len(pair.seeds) > 1]
    better, worse = sum(pair.better for pair in counted), sum(pair.worse for pair in counted)
    return (
        f"Of {len(counted)} cells the recipe is better in {better} and worse in {worse}, with "
        "intervals that exclude zero."
    )
