"""Updates by PyTorch's optimizers and by torchao's PAT, timed for another process that asks.

The other process (`python -m experiments.bench --parts peers --torch PYTHON`) has its own updates
timed in between, so that what disturbs one disturbs all. It writes a line of JSON and reads one:

    {"weights": 1000000, "leaves": 8}    makes the weights    ["SGD, momentum", ...]
    {"run": "Adam", "steps": 10, "threads": 2}                {"seconds": 0.0123}

PyTorch is no dependency of this project. This script has an environment of its own (torch's CPU
build will do) and imports nothing from here:

    python3.12 -m venv torchenv && torchenv/bin/pip install torch "torchao==0.18.*" numpy

Every optimizer has weights of its own with gradients that stay. ``fused`` are PyTorch's one-kernel
updates, the plain ones its loop over tensors. PAT is its lasso around SGD with momentum, at each
step, with a latent copy of every weight.
"""

import importlib.metadata
import json
import platform
import sys
import time
from typing import Any

import torch
from torchao.prototype.pat.optim import PruneOptimizer

PACKAGES = ("torch", "torchao")


def tensors(weights: int, leaves: int) -> list[torch.nn.Parameter]:
    """So many equal weight matrices, each with a gradient."""
    each = max(1, weights // leaves)
    columns = min(256, 2 ** ((each.bit_length() - 1) // 2))
    shape = (each // columns, columns)
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(leaves):
        p = torch.nn.Parameter(0.05 * torch.randn(shape, generator=generator))
        p.grad = 1e-3 * torch.randn(shape, generator=generator)
        made.append(p)
    return made


def pat(params: list[torch.nn.Parameter]) -> PruneOptimizer:
    """The soft threshold at every step, around SGD with momentum."""
    group: dict[str, Any] = {"params": params, "group_type": "ElemGrouper", "prox_freq": 1}
    group |= {"prox_type": "ProxLasso", "reg_lambda": 1e-6}
    return PruneOptimizer(torch.optim.SGD([group], lr=0.1, momentum=0.9))


OPTIMIZERS = {
    "SGD, momentum": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
    "SGD, momentum, fused": lambda params: torch.optim.SGD(
        params, lr=0.1, momentum=0.9, fused=True
    ),
    "Adam": lambda params: torch.optim.Adam(params, lr=1e-3),
    "Adam, fused": lambda params: torch.optim.Adam(params, lr=1e-3, fused=True),
    "PAT": pat,
}


def main() -> None:
    """Says what it is, and answers until nothing is asked any more."""
    print(
        json.dumps(
            {
                "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
                "python": platform.python_version(),
                "threads": torch.get_num_threads(),
            }
        ),
        flush=True,
    )
    optimizers: dict[str, Any] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if "run" in asked:
            torch.set_num_threads(asked["threads"])
            step = optimizers[asked["run"]].step
            began = time.perf_counter()
            for _ in range(asked["steps"]):
                step()
            answer: Any = {"seconds": time.perf_counter() - began}
        else:
            optimizers.clear()  # before new ones are made, for want of memory
            for name, make in OPTIMIZERS.items():
                optimizers[name] = make(tensors(asked["weights"], asked["leaves"]))
            answer = list(optimizers)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
