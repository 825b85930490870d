"""Every method on the same work: accuracy against sparsity, and what it has cost."""

import collections
import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

from experiments.config import Config
from experiments.configs import fashion_mnist_cnn_recipe, fashion_mnist_recipe
from experiments.log import Row
from experiments.studies import frontier_figures, sweep, tables
from experiments.studies.contenders import CONTENDERS, EVERYONE, Changes
from experiments.studies.frontier_cells import Results
from experiments.studies.frontier_tuning import all_chosen, at_place, places_found, score, trial
from experiments.studies.rows import compact as compact
from experiments.studies.rows import results_by_config

title = "The frontier, Fashion-MNIST"
NEEDS = ("frontier", "frontier_tuning", "frontier_time", "torchao_pat")
DIVERGED = True  # the tables show them


class Network(NamedTuple):
    """A network, and the sparsities at which it is looked at, in the order of running."""

    preset: str
    base: Config
    sparsities: tuple[float, ...]


SEEDS = (0, 1, 2)
MORE_SEEDS = (3, 4)
MLP = Network(
    "fashion_mnist_recipe",
    dataclasses.replace(fashion_mnist_recipe.CONFIG, epochs=15),
    (0.95, 0.9, 0.98, 0.8, 0.99),
)
CNN = Network(
    "fashion_mnist_cnn_recipe",
    dataclasses.replace(fashion_mnist_cnn_recipe.CONFIG, epochs=10),
    (0.95, 0.9, 0.98),
)
NETWORKS = (MLP, CNN)
MORE = 6
"""So many of the best have more seeds, and GMP."""
ON_CNN = 8
"""So many of the best are run on the CNN, and these."""
ALWAYS_ON_CNN = ("gmp", "recipe", "dense", "magnitude_v2", "str", "rigl", "acdc")
READ_AT = 0.95
"""The sparsity at which costs and layers are looked at."""


def runs(
    rows: list[Row], tuning: list[Row], time: list[Row], peers: list[Row]
) -> list[tuple[Config, str]]:
    """What is known so far to be needed, in the order in which it tells most.

    A contender comes in when its tuning is complete; each stage is planned when the one before it
    is done. When all have run on the MLP it is known which are the best, and what these are run on
    besides.
    """
    del time, peers
    settings, results = all_chosen(tuning), results_by_config(rows)
    within = [name for name, x in CONTENDERS.items() if not x.beyond]
    beyond = [name for name, x in CONTENDERS.items() if x.beyond]
    planned: list[tuple[Config, str]] = []

    def done(network: Network, names: list[str], seeds: tuple[int, ...]) -> bool:
        stage = plan(network, names, seeds, settings, results)
        planned.extend(stage)
        return all(config in results for config, _ in stage)

    if not (all(done(MLP, within, (seed,)) for seed in SEEDS) and tuned(tuning)):
        return planned
    best = Results(rows, "mlp", SEEDS).ranking(MLP.sparsities)
    more = [name for name in within if name in {"gmp", *best[:MORE]}]
    on_cnn = [name for name in CONTENDERS if name in {*ALWAYS_ON_CNN, *best[:ON_CNN]}]
    stages = [
        *((MLP, more, (seed,)) for seed in MORE_SEEDS),
        (CNN, on_cnn, SEEDS[:1]),
        *((CNN, on_cnn, (seed,)) for seed in SEEDS[1:]),
        (MLP, beyond, SEEDS),
    ]
    all(done(*stage) for stage in stages)
    return planned


def tuned(tuning: list[Row]) -> bool:
    """Whether every trial has been run."""
    results = results_by_config(tuning)
    return not any(
        math.isnan(score(x, changes, results))
        for x in CONTENDERS.values()
        if x.grid
        for changes in x.trials
    )


def plan(
    network: Network,
    names: list[str],
    seeds: tuple[int, ...],
    settings: dict[str, Changes],
    results: dict[Config, Row],
) -> list[tuple[Config, str]]:
    """The runs of some contenders, seed by seed; of sweeps what is known so far."""
    able = [n for n in names if n in settings and network.base.model in CONTENDERS[n].models]
    planned = []
    for seed in seeds:
        for name in able:
            contender = CONTENDERS[name]
            base = dataclasses.replace(network.base, seed=seed)
            if contender.kind == "told":
                bases = [dataclasses.replace(base, sparsity=s) for s in network.sparsities]
                configs = [trial(contender, settings[name], x) for x in bases]
            elif contender.kind == "once":
                configs = [trial(contender, settings[name], base)]
            else:
                config = trial(contender, settings[name], base)
                places = sweep_places(network, name, config, results)
                configs = [at_place(contender, config, k) for k in places]
            planned += [(config, network.preset) for config in configs]
    return planned


def sweep_places(
    network: Network, name: str, config: Config, results: dict[Config, Row]
) -> list[float]:
    """The first seed looks for the strengths, and the others repeat those that it has found."""
    low, high = min(network.sparsities), max(network.sparsities)
    scout = dataclasses.replace(config, seed=SEEDS[0])
    found = places_found(CONTENDERS[name], scout, results)
    if config.seed == SEEDS[0]:
        return sweep.walk(found, low, high)
    return sweep.around(found, low, high) if sweep.finished(found, low, high) else []


def render(
    rows: list[Row],
    folder: Path,
    own: list[Row],
    tuning: list[Row],
    time: list[Row],
    peers: list[Row],
) -> str:
    """A table and two figures for each network, and the layers of all."""
    del own, tuning
    parts = [
        "Test accuracy of the last epoch, mean ± half the 95 % interval of the mean by Student's "
        "t; momentum 0.9 and a cosine schedule, batches of 128, the kernels are pruned. Settings "
        "are those chosen on the validation split on the MLP at 95 %, and are not tuned again for "
        "other sparsities or for the CNN. Methods that have a strength and not a sparsity are "
        "swept, and each seed is interpolated between its runs, linearly in the logarithm of the "
        "weights that are left; a dash says that no run is on the other side. Cost is in gradients "
        "of a batch and memory in the state of the optimizer, both at 95 % and relative to the "
        "dense network under momentum SGD; a product with the Hessian counts as two gradients, and "
        "passes without a gradient (AMC, greedy sensitivity) as none. Of OBS it is the "
        "compensation that counts: from 256 gradients it selects nearly by magnitude. "
        "L0 and variational dropout are on the MLP alone, since the statistics of BatchNorm would "
        "be those of noisy weights. The last column is the "
        "difference to GMP at 95 %, paired by seed. In the figures GMP, the recipe and the best of "
        "the others are in colour, with their intervals; brackets hold the last accuracy of those "
        "that lie below the axes, and open circles are the runs of a sweep.",
    ]
    for network in NETWORKS:
        reported = [row for row in peers if row["config"]["evaluate"] == "test"]
        results = Results([*rows, *reported], network.base.model)
        if not results.names():
            continue
        model = network.base.model
        parts += [
            f"**{model}**, {network.base.epochs} epochs, on {devices(results)}",
            table(results, network, time),
        ]
        sparsities = sorted(network.sparsities)
        for kind, draw in (
            ("sparsity", frontier_figures.accuracy_by_sparsity),
            ("cost", frontier_figures.accuracy_by_cost),
            ("layers", frontier_figures.layers),
        ):
            file = f"frontier_{model}_{kind}.png"
            if draw(results, sparsities, READ_AT, folder / file):
                parts.append(f"![{frontier_figures.CAPTIONS[kind]}, {model}]({file})")
    return "\n\n".join(parts)


def devices(results: Results) -> str:
    """What its runs were trained on, from the most frequent on."""
    counts = collections.Counter(
        row["device"].partition(",")[0] for name in results.names() for row in results.runs(name)
    )
    return " and ".join(device for device, _ in counts.most_common())


def table(results: Results, network: Network, time: list[Row]) -> str:
    """Every contender, the best at 95 % first; references without a sparsity at the end."""
    sparsities = sorted(network.sparsities)
    seconds = seconds_a_step(time) if network is MLP else {}

    def order(name: str) -> tuple[bool, float]:
        mean = results.score(name, READ_AT).mean
        return EVERYONE[name].kind == "once", math.inf if math.isnan(mean) else -mean

    lines = []
    for name in sorted(results.names(), key=order):
        once = EVERYONE[name].kind == "once"
        shown = [cell(results, name, s) for s in (sparsities[:1] if once else sparsities)]
        if once:
            shown = [f"{shown[0]} (no zeros)", *[""] * (len(sparsities) - 1)]
        gain = results.gain(name, "gmp", READ_AT)
        lines.append(
            [
                EVERYONE[name].label,
                *shown,
                f"{len(results.seeds(name))}",
                times(results.relative(name, "gradient_evaluations", READ_AT)),
                times(results.relative(name, "state_bytes", READ_AT)),
                *([times(seconds.get(name, math.nan))] if seconds else []),
                "" if once or name == "gmp" or not gain.n else interval(gain, "+"),
            ]
        )
    header = [
        "",
        *(f"{100 * s:.0f} %" for s in sparsities),
        "seeds",
        "cost",
        "memory",
        *(["seconds a step"] if seconds else []),
        "to GMP",
    ]
    return tables.markdown(header, lines)


def cell(results: Results, name: str, sparsity: float) -> str:
    """The mean with its interval, and how many runs have diverged."""
    score, diverged = results.score(name, sparsity), results.diverged(name, sparsity)
    told = EVERYONE[name].kind != "swept"
    note = f"{diverged} diverged" if diverged and told else ""
    if not score.n:
        return note or "-"
    if not note and score.n < len(results.seeds(name)):
        note = f"{score.n} of {len(results.seeds(name))} seeds"
    return interval(score) + (f" ({note})" if note else "")


def interval(x: tables.Spread, sign: str = "") -> str:
    """The mean and half the width of its interval, where there is one."""
    half = "" if math.isnan(x.interval) else f" ± {x.interval:.2f}"
    return f"{x.mean:{sign}.2f}{half}"


def times(factor: float) -> str:
    """A factor as it stands in a table."""
    return "-" if math.isnan(factor) else f"{factor:.2f}"


def seconds_a_step(time: list[Row]) -> dict[str, float]:
    """Relative to the dense runs that were timed beside; empty where there are none."""
    timed = Results(time, "mlp")
    means = {
        name: tables.spread(r["result"]["seconds"] / r["result"]["steps"] for r in timed.runs(name))
        for name in timed.names()
    }
    dense = means.get("dense")
    return {} if dense is None else {name: x.mean / dense.mean for name, x in means.items()}
