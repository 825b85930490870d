"""Which settings for each contender of the frontier? Equally many trials, chosen on validation."""

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments.config import Config
from experiments.configs import fashion_mnist_recipe
from experiments.log import Row
from experiments.studies import recipe_tuning, sweep, tables
from experiments.studies.contenders import (
    CONTENDERS,
    TRIALS,
    Changes,
    Contender,
    changed,
    in_words,
    value_of,
)
from experiments.studies.rows import compact as compact
from experiments.studies.rows import has_diverged, results_by_config

title = "The frontier: settings, chosen on a validation split"
NEEDS = ("frontier_tuning",)
DIVERGED = True  # a trial that diverges is one

PRESET = "fashion_mnist_recipe"
SEED = 100  # which no reported run has
SPARSITY = 0.95
BASE = dataclasses.replace(
    fashion_mnist_recipe.CONFIG, epochs=15, evaluate="validation", seed=SEED, sparsity=SPARSITY
)


def trial(contender: Contender, changes: Changes, base: Config = BASE) -> Config:
    """The config of some settings; the strength, where there is one, is the sweep's start."""
    own: dict[str, Any] = {"method": (contender.method,)}
    if contender.kind == "once":
        own["sparsity"] = 0.0
    if contender.kind == "swept":
        own[contender.strength] = sweep.strength(contender.start, 0)
    return changed(base, {**own, **contender.fixed, **changes})


def at_place(contender: Contender, config: Config, k: float) -> Config:
    """The config with the strength at a place of the sweep."""
    return changed(config, {contender.strength: sweep.strength(contender.start, k)})


def places_found(
    contender: Contender, config: Config, results: dict[Config, Row]
) -> dict[float, float]:
    """The sparsity at the places of a sweep that have been run; 1 of what has diverged."""
    found = {}
    for other, row in results.items():
        if (other.method, other.seed, other.model) != (config.method, config.seed, config.model):
            continue  # before what takes longer
        strength = value_of(other, contender.strength)
        if changed(config, {contender.strength: strength}) == other:
            k = sweep.place(contender.start, strength)
            found[k] = 1.0 if has_diverged(row) else tables.sparsity(row) / 100
    return found


def runs(rows: list[Row]) -> list[tuple[Config, str]]:
    """The first trial of all, then the second of all; of a sweep what comes next."""
    results = results_by_config(rows)
    planned = []
    for i in range(TRIALS):
        for contender in CONTENDERS.values():
            if not contender.grid:
                continue
            config = trial(contender, contender.trials[i])
            if contender.kind != "swept":
                planned.append((config, PRESET))
                continue
            found = places_found(contender, config, results)
            places = sweep.walk(found, SPARSITY, SPARSITY)
            planned += [(at_place(contender, config, k), PRESET) for k in places]
    return planned


def score(contender: Contender, changes: Changes, results: dict[Config, Row]) -> float:
    """The validation accuracy of a trial in per cent, at the sparsity of tuning.

    NaN while it is not finished, minus infinity if it has diverged or never comes to the sparsity.
    """
    config = trial(contender, changes)
    if contender.kind != "swept":
        row = results.get(config)
        if row is None:
            return math.nan
        return -math.inf if has_diverged(row) else tables.accuracy(row)
    found = places_found(contender, config, results)
    if not sweep.finished(found, SPARSITY, SPARSITY):
        return math.nan
    done = (results[at_place(contender, config, k)] for k in found)
    points = [
        (tables.sparsity(row) / 100, tables.accuracy(row)) for row in done if not has_diverged(row)
    ]
    return sweep.read_at(points, SPARSITY)


def chosen(name: str, results: dict[Config, Row]) -> Changes | None:
    """The settings of a contender: those of the best trial, the first of equals.

    ``None`` while a trial is missing, or if none has come to an end.
    """
    contender = CONTENDERS[name]
    source, names = contender.takes
    if source:
        taken = chosen(source, results)
        if taken is None:
            return None
        renamed = {names.get(field, field): value for field, value in taken.items()}
        return {field: value for field, value in renamed.items() if field}
    scores = [score(contender, changes, results) for changes in contender.trials]
    if any(map(math.isnan, scores)) or max(scores) == -math.inf:
        return None
    return contender.trials[scores.index(max(scores))]


def all_chosen(rows: Iterable[Row]) -> dict[str, Changes]:
    """The settings of every contender whose tuning is complete."""
    results = results_by_config(rows)
    found = {name: chosen(name, results) for name in CONTENDERS}
    return {name: changes for name, changes in found.items() if changes is not None}


def earlier(name: str) -> int:
    """The trials that the recipe and its rival have had in the study of their own."""
    return sum(trial.startswith(name) for trial in recipe_tuning.trials()[PRESET])


def render(rows: list[Row], folder: Path, own: list[Row]) -> str:
    """What was tried, and what came of it."""
    del folder, own
    results = results_by_config(rows)
    lines = []
    for name, contender in CONTENDERS.items():
        best = chosen(name, results)
        if contender.takes[0]:
            source = CONTENDERS[contender.takes[0]].label
            lines.append([contender.label, f"those of {source}", "", ""])
        for i, changes in enumerate(contender.trials if contender.grid else []):
            value = score(contender, changes, results)
            shown = "diverged, or never as sparse" if value == -math.inf else f"{value:.2f}"
            lines.append(
                [
                    contender.label if i == 0 else "",
                    in_words(changes),
                    "" if math.isnan(value) else shown,
                    "chosen" if changes == best else "",
                ]
            )
    swept = [x.label for x in CONTENDERS.values() if x.kind == "swept"]
    return "\n\n".join(
        [
            f"{BASE.model}, {BASE.epochs} epochs, momentum {BASE.momentum} and a cosine schedule, "
            f"{100 * SPARSITY:.0f} % of the kernels' weights zero; {TRIALS} trials for every "
            "method, scored on the last sixth of the training set, which they do not train on, "
            "with a seed that no reported run has. A trial of a method that has a strength and not "
            f"a sparsity ({', '.join(swept)}) is a sweep of it, by factors of {sweep.FACTOR:g}, "
            f"read off at {100 * SPARSITY:.0f} %. GMP and the recipe have been tuned once more on "
            f"this split, network and sparsity, by {earlier('magnitude')} and {earlier('recipe')} "
            "trials: the ramp, the freeze and the readout of the recipe are from there.",
            tables.markdown(["", "settings", "validation accuracy (%)", ""], lines),
        ]
    )
