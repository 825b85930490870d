"""Rows of a frontier that nobody has run: results by a formula, for the plan and for the pages."""

import math
import random

from experiments.studies import frontier, frontier_tuning
from experiments.studies.contenders import CONTENDERS, contender_of, value_of
from experiments.studies.rows import results_by_config

LEAVES = {
    "mlp": {"dense1/kernel": 235_200, "dense2/kernel": 30_000, "head/kernel": 1_000},
    "small_cnn": {
        "conv1/kernel": 288,
        "conv2/kernel": 18_432,
        "conv3/kernel": 73_728,
        "dense/kernel": 49_152,
        "head/kernel": 960,
    },
}
COSTS = {"lottery": 14.3, "directional": 2.7, "obs": 1.02, "obd": 1.45, "grasp": 1.001}
# Of these every run diverges, and none of those at 99 % comes to an end.
HOPELESS, WEAK = "rda", "snip"


def row_of(config):
    """A row with a result that follows from its config."""
    name = contender_of(config)
    place = list(CONTENDERS).index(name)
    contender = CONTENDERS[name]
    noise = random.Random(repr(config)).gauss(0, 0.08)
    if contender.kind == "told":
        sparsity = config.sparsity
    elif contender.kind == "once":
        sparsity = 0.0
    else:
        strength = value_of(config, contender.strength)
        sparsity = 1 - 0.3 / (1 + 3 * strength / contender.start)
    row = {
        "config": config.to_json(),
        "command": "python -m experiments.run",
        "result": {},
        "device": "a chip, 1 core",
    }
    if name == HOPELESS or (name == WEAK and sparsity == 0.99):
        return row | {"result": {"diverged": True, "reason": "the loss is not finite"}}
    total = sum(LEAVES[config.model].values())
    loss = (0.12 + 0.03 * place) * math.log(1 / (1 - sparsity)) ** 1.6
    top = 89.9 if config.model == "mlp" else 92.0
    density = 1 - sparsity if contender.method != "dense_narrow" else 1.0
    exponents = [0.8 + 0.25 * ((place + i) % 3) for i in range(5)]
    return row | {
        "result": {
            "steps": 7020,
            "seconds": 20.0 + place,
            "gradient_evaluations": round(7020 * COSTS.get(name, 1)),
            "state_bytes": 1_000_000 * (1 + place % 3),
            "eval_accuracy": (top - loss + noise + 0.1 * config.learning_rate) / 100,
            "penalised": {"nnz": round(density * total), "total": total},
            "leaves": {
                leaf: {
                    "nnz": round(size * min(1, density ** exponents[i])),
                    "total": size,
                    "penalised": True,
                }
                for i, (leaf, size) in enumerate(LEAVES[config.model].items())
            },
        }
    }


def complete(plan, *others):
    """The rows of a study whose plan follows from its own rows, and how often it has grown."""
    rows, waves = [], 0
    while True:
        done = results_by_config(rows)
        missing = [config for config, _ in plan(rows, *others) if config not in done]
        if not missing:
            return rows, waves
        rows += [row_of(config) for config in missing]
        waves += 1


def tuning_rows():
    return complete(frontier_tuning.runs)


def frontier_rows(tuning):
    return complete(frontier.runs, tuning, [], [])
