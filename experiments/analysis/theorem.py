"""The laws of directional pruning, and what is left of a network without retraining: measured.

    python -m experiments.analysis.theorem                  # what is missing of all of it
    python -m experiments.analysis.theorem fashion_mnist

Every finished (problem, method, seed) is one row of results/theorem.jsonl; a run that is stopped
goes on with what is missing. RESULTS.md is made from the rows (`theorem_report`).
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import tyro
from rich.console import Console
from rich.progress import Progress

from experiments import errors, provenance
from experiments.analysis import least_squares
from experiments.analysis.trained import Network, network
from experiments.analysis.without_retraining import METHODS, Settings, kernels
from experiments.log import Row, append_row, read_rows
from grda_optax import PruningState, sparsity_report

ROWS = provenance.RESULTS / "theorem.jsonl"
LAW_SEEDS = tuple(range(10))
SEEDS = (0, 1, 2)


@dataclasses.dataclass(frozen=True)
class Problem:
    """A network that is pruned without retraining, by which methods and how far."""

    title: str
    settings: Settings
    sparsities: tuple[float, ...]
    methods: tuple[str, ...]


PROBLEMS = {
    "digits": Problem(
        "Digits, MLP 64-40-20-10 with tanh",
        Settings(exact=True),
        (0.5, 0.8, 0.9, 0.95),
        tuple(METHODS),
    ),
    "digits_300_100": Problem(
        "Digits, MLP 64-300-100-10",
        Settings(exact=False),
        (0.5, 0.8, 0.9, 0.95),
        ("magnitude", "directional_rounds"),
    ),
    "fashion_mnist": Problem(
        "Fashion-MNIST, MLP 784-300-100-10",
        Settings(exact=False, products_a_round=40),
        (0.5, 0.8, 0.9),
        tuple(name for name in METHODS if name != "directional_fine"),
    ),
}


def settings_of(problem: str, method: str) -> Settings:
    """Those of the problem, but for the method whose name says otherwise."""
    settings = PROBLEMS[problem].settings
    return settings._replace(round_size=0.02) if method == "directional_fine" else settings


def planned(names: tuple[str, ...]) -> Iterator[Row]:
    """The configs of all rows, seeds outermost."""
    if "law" in names:
        for seed in LAW_SEEDS:
            yield {"problem": "law", "seed": seed}
    for seed in SEEDS:
        for name in PROBLEMS:
            if name in names:
                for method in PROBLEMS[name].methods:
                    yield {
                        "problem": name,
                        "method": method,
                        "seed": seed,
                        "settings": settings_of(name, method)._asdict(),
                        "sparsities": list(PROBLEMS[name].sparsities),
                    }


def law(seed: int) -> Row:
    """The laws on least squares, in float64."""
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    try:
        return least_squares.measure(seed)
    finally:
        jax.config.update("jax_enable_x64", before)


def _bar(bar: Progress, name: str, sparsity: float) -> Callable[[PruningState], None]:
    """Shows how far the rounds have come."""
    task = bar.add_task(f"{name} {sparsity:.0%}", total=None)

    def show(state: PruningState) -> None:
        bar.update(task, total=round(sparsity * state.total), completed=state.zeros)

    return show


def prune(config: Row, console: Console) -> Row:
    """One method on one network at all sparsities."""
    trained = network(config["problem"], config["seed"])
    method, settings = METHODS[config["method"]], Settings(**config["settings"])
    pruned, start = [], trained.params
    products = gradients = rounds = 0
    for sparsity in config["sparsities"]:
        given: dict[str, Any] = {}
        with Progress(console=console, transient=True) as bar:
            if METHODS[config["method"]].told:
                given["progress"] = _bar(bar, config["method"], sparsity)
            try:
                done = method.run(trained, start, sparsity, settings, **given)
            except ValueError as error:
                if "sparsity must be at most" not in str(error):
                    raise
                pruned.append({"sparsity": sparsity, "out_of_reach": str(error)})
                continue
        if method.goes_on:
            start = done.params
            products, gradients, rounds = (
                products + done.products,
                gradients + done.gradients,
                rounds + done.rounds,
            )
        else:
            products, gradients, rounds = done.products, done.gradients, done.rounds
        pruned.append(
            {"sparsity": sparsity, "products": products, "gradients": gradients, "rounds": rounds}
            | _scores(trained, done.params)
        )
    return {"dense": trained.scores(trained.params), "pruned": pruned}


def _scores(trained: Network, params: Any) -> Row:
    count = sparsity_report(params, kernels).penalised
    return trained.scores(params) | {"nnz": count.nnz, "total": count.total}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures the laws of directional pruning, and prunes trained networks without retraining."""

    problems: tyro.conf.Positional[tuple[str, ...]] = ()
    """Of `law`, `digits`, `digits_300_100` and `fashion_mnist`; all of them by default."""


def main() -> int:
    """Runs what is missing from the command line."""
    console = Console()
    arguments = tyro.cli(Arguments, prog="python -m experiments.analysis.theorem")
    every = ("law", *PROBLEMS)
    unknown = [name for name in arguments.problems if name not in every]
    if unknown:
        errors.tell(f"problems are {', '.join(every)}, got {unknown[0]!r}.")
        return 2
    done = [row["config"] for row in read_rows(ROWS)]
    for config in planned(arguments.problems or every):
        if config in done:
            continue
        result = law(config["seed"]) if config["problem"] == "law" else prune(config, console)
        command = f"python -m experiments.analysis.theorem {config['problem']}"
        append_row(ROWS, {"config": config, "command": command, "result": result} | provenance.of())
        console.print(f"{config['problem']} {config.get('method', '')} seed {config['seed']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
