"""What it takes to compile the update of many leaves, and how large the program is."""

import re
import time
from typing import Any

import jax
import optax

from experiments.bench.memory import optimizers
from experiments.bench.shown import Shown
from experiments.bench.timing import compared, plain
from experiments.bench.updates import in_place_update
from experiments.log import Row

SHAPE = (64, 64)
_OPERATION = re.compile(r"^\s*(?:ROOT )?%?[\w.-]+ = ", re.MULTILINE)
_FUSION = re.compile(r" fusion\(")


def all_optimizers() -> dict[str, optax.GradientTransformationExtraArgs]:
    """Adam, which the others are held against, first."""
    ours = optimizers()
    return {"adam": ours.pop("adam"), **ours}


def operations(program: str) -> int:
    r"""Instructions in the text of a compiled program, those inside of fusions too.

    Examples:
        >>> operations("%x = f32[] parameter(0)\n  ROOT %y = f32[] negate(%x)")
        2
    """
    return len(_OPERATION.findall(program))


def lower_update(tx: optax.GradientTransformationExtraArgs, leaves: int) -> Any:
    """The update of so many equal leaves, traced anew and ready to be compiled."""
    params = {f"kernel{i}": jax.ShapeDtypeStruct(SHAPE, "float32") for i in range(leaves)}
    state = jax.eval_shape(tx.init, params)
    step: Any = in_place_update(tx)
    return step.lower((params, state), params)


def measure(leaves: int, rounds: int) -> Row:
    """Seconds to trace and to compile, and sizes of the programs before and after the compiler."""
    every = all_optimizers()
    lower_update(every["adam"], 1).compile()  # what is loaded at the first time is nobody's
    tracing: dict[str, list[float]] = {name: [] for name in every}
    compiling: dict[str, list[float]] = {name: [] for name in every}
    programs = {}
    for _ in range(rounds):
        for name, tx in every.items():
            began = time.perf_counter()
            lowered = lower_update(tx, leaves)
            traced = time.perf_counter()
            compiled = lowered.compile()
            tracing[name].append(traced - began)
            compiling[name].append(time.perf_counter() - traced)
            if name not in programs:
                text = compiled.as_text()
                programs[name] = {
                    "lowered_operations": lowered.as_text().count(" = "),
                    "operations": operations(text),
                    "fusions": len(_FUSION.findall(text)),
                }
    return {
        "leaves": leaves,
        "programs": programs,
        "tracing": plain(compared(tracing)),
        "compiling": plain(compared(compiling)),
    }


def shown(found: Row) -> list[Shown]:
    """Times beside Adam's."""
    lines = []
    for name, program in found["programs"].items():
        costs = [found[x][name] for x in ("tracing", "compiling")]
        times = [x for c in costs for x in (f"{c['seconds']:.2f}", f"{c['ratio']:.2f}")]
        counts = [f"{program[x]:,}" for x in ("lowered_operations", "operations", "fusions")]
        lines.append([name, *times, *counts])
    header = ["", "tracing (s)", "over adam", "compiling (s)", "over adam"]
    header += ["operations traced", "operations compiled", "fusions"]
    return [Shown(f"Compilation of the update of {found['leaves']} leaves", header, lines)]
