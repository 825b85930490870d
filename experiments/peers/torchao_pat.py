"""LeNet-300-100 pruned by torchao's PAT, on the batches that every method here is trained on.

PAT (pruning-aware training, torchao.prototype.pat) keeps latent weights v that a PyTorch optimizer
updates, and computes with w = prox(v). Two of its operators are here:

- ``lasso``: the soft threshold h = reg_lambda * (the sum of all learning rates so far), which is
  regularized dual averaging, and gRDA's rule at mu = 1. The sparsity is what comes out.
- ``constraint``: GlobalMinSparsityConstraint, the ceil(sparsity * total) smallest latent weights of
  all kernels together, along PAT's own cubic ramp. The sparsity is what is asked for.

From ``heal_at`` on (a fraction of training; PAT calls it healing) the zeros stay, and the base
optimizer goes on with the other weights. The base optimizer is that of the recipe's preset: SGD
with momentum, coupled weight decay and a cosine schedule. Data, order of the batches and initial
weights are read from a file, which this project writes; PyTorch is no dependency of it, so this
script has an environment of its own (torch's CPU build will do) and imports nothing from here:

    python -m experiments.peers.export_data fashion_mnist.npz --seeds 0 1 2 --epochs 15
    python3.12 -m venv torchenv && torchenv/bin/pip install torch "torchao==0.18.*" numpy
    torchenv/bin/python experiments/peers/torchao_pat.py fashion_mnist.npz --method constraint

It prints one row of JSON, like those of experiments/results, or appends it to ``--save``.
"""

import argparse
import importlib.metadata
import json
import math
import os
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torchao.prototype.pat.optim import PruneOptimizer

LAYERS = ("dense1", "dense2", "head")


def arguments() -> argparse.Namespace:
    """The settings; the defaults are those of the preset fashion_mnist_recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="what experiments.peers.export_data wrote")
    parser.add_argument("--method", choices=("lasso", "constraint"), default="lasso")
    parser.add_argument("--reg-lambda", type=float, default=1e-4, help="of lasso")
    parser.add_argument("--sparsity", type=float, default=0.95, help="of constraint")
    parser.add_argument("--warmup", type=float, default=0.0, help="fraction without pruning")
    parser.add_argument("--heal-at", type=float, default=0.75, help="1: not at all (lasso only)")
    parser.add_argument("--prox-freq", type=int, default=1, help="steps between two prunings")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluate", choices=("test", "validation"), default="test")
    parser.add_argument("--save", type=Path, help="a .jsonl file to append the row to")
    args = parser.parse_args()
    for name, below in (("sparsity", 1), ("warmup", 1), ("momentum", 1), ("heal_at", 1.001)):
        if not 0 <= getattr(args, name) < below:
            parser.error(f"{name} must be from 0 to 1, got {getattr(args, name)}")
    if args.method == "constraint" and args.heal_at == 1:
        parser.error("heal_at must be below 1 for the method constraint, whose ramp ends there")
    if args.warmup >= args.heal_at:
        parser.error(f"warmup must be below heal_at, got {args.warmup} and {args.heal_at}")
    return args


def network(file: np.lib.npyio.NpzFile, seed: int) -> nn.Sequential:
    """300-100 with the initial weights of the file; Flax has inputs first, and PyTorch outputs."""
    modules: list[nn.Module] = [nn.Flatten()]
    for name in LAYERS:
        kernel = torch.from_numpy(file[f"init/{seed}/{name}/kernel"]).T.contiguous()
        layer = nn.Linear(kernel.shape[1], kernel.shape[0])
        with torch.no_grad():
            layer.weight.copy_(kernel)
            layer.bias.copy_(torch.from_numpy(file[f"init/{seed}/{name}/bias"]))
        modules += [layer, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def optimizer(args: argparse.Namespace, model: nn.Sequential, total: int) -> PruneOptimizer:
    """SGD in PAT's wrapper, which prunes the kernels."""
    linear = [module for module in model if isinstance(module, nn.Linear)]
    kernels: dict[str, Any] = {"params": [layer.weight for layer in linear]}
    kernels |= {"group_type": "ElemGrouper", "prox_freq": args.prox_freq}
    if args.method == "lasso":
        kernels |= {"prox_type": "ProxLasso", "reg_lambda": args.reg_lambda}
    else:
        kernels |= {
            "prox_type": "GlobalMinSparsityConstraint",
            "min_sparsity": args.sparsity,
            "min_sparsity_schedule": True,
        }
    base = torch.optim.SGD(
        [kernels, {"params": [layer.bias for layer in linear]}],
        lr=args.learning_rate,
        momentum=args.momentum,
        weight_decay=args.weight_decay,
    )
    heal = sys.maxsize if args.heal_at == 1 else round(args.heal_at * total)
    return PruneOptimizer(base, warmup_steps=round(args.warmup * total), healing_start_step=heal)


def state_bytes(prune: PruneOptimizer) -> int:
    """Bytes of what the optimizer keeps beside the weights."""
    return sum(
        value.numel() * value.element_size()
        for state in prune.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )


def main() -> None:
    """Trains once, and writes the row."""
    args = arguments()
    torch.set_num_threads(1)
    file = np.load(args.data, allow_pickle=False)
    size = int(file[f"{args.evaluate}/size"])
    inputs, labels = file["train/inputs"], file["train/labels"]
    scored = [inputs[size:], labels[size:]]  # held out
    if args.evaluate == "test":
        scored = [file["test/inputs"], file["test/labels"]]
    mean, std = float(file["mean"]), float(file["std"])
    order = file[f"{args.evaluate}/order/{args.seed}"]
    if args.epochs > len(order):
        sys.exit(f"epochs must be at most the {len(order)} of {args.data}, got {args.epochs}")

    def batch(x: np.ndarray, y: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = torch.from_numpy(x).to(torch.float32) / 255
        return (pixels - mean) / std, torch.from_numpy(y).long()

    per_epoch = size // args.batch_size
    total = args.epochs * per_epoch
    model = network(file, args.seed)
    prune = optimizer(args, model, total)
    loss_of = nn.CrossEntropyLoss()
    losses, began = [], time.monotonic()
    for step in range(total):
        for group in prune.param_groups:
            group["lr"] = args.learning_rate * (1 + math.cos(math.pi * step / total)) / 2
        epoch, i = divmod(step, per_epoch)
        index = order[epoch, i * args.batch_size : (i + 1) * args.batch_size]
        x, y = batch(inputs[index], labels[index])
        loss = loss_of(model(x), y)
        prune.zero_grad()
        loss.backward()
        prune.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            # Which is an answer too, and not to be asked for again.
            reason = f"the loss is not finite at step {step + 1}"
            return write(args, file, {"diverged": True, "reason": reason})
    seconds = round(time.monotonic() - began, 3)
    with torch.no_grad():
        x, y = batch(*scored)
        logits = model(x)
        accuracy = (logits.argmax(1) == y).double().mean().item()
        eval_loss = loss_of(logits, y).item()

    leaves = {}
    for name, layer in zip(LAYERS, (m for m in model if isinstance(m, nn.Linear)), strict=True):
        for kind, p in (("bias", layer.bias), ("kernel", layer.weight)):
            nnz = int(torch.count_nonzero(p))
            leaves[f"{name}/{kind}"] = {"nnz": nnz, "total": p.numel(), "penalised": p.dim() == 2}
    kernels = [leaf for leaf in leaves.values() if leaf["penalised"]]
    result = {
        "steps": total,
        "gradient_evaluations": total,
        "state_bytes": state_bytes(prune),
        "seconds": seconds,
        "train_loss": float(np.mean(losses[-50:])),
        "eval_accuracy": accuracy,
        "eval_loss": eval_loss,
        "penalised": {key: sum(leaf[key] for leaf in kernels) for key in ("nnz", "total")},
        "all": {key: sum(leaf[key] for leaf in leaves.values()) for key in ("nnz", "total")},
        "leaves": leaves,
    }
    return write(args, file, result)


def write(args: argparse.Namespace, file: Any, result: dict[str, Any]) -> None:
    """Writes a row, or prints it."""
    config = {
        **{"dataset": str(file["dataset"]), "model": "mlp", "method": [f"pat_{args.method}"]},
        **{"epochs": args.epochs, "batch_size": args.batch_size, "optimizer": "sgd"},
        **{"learning_rate": args.learning_rate, "schedule": "cosine", "momentum": args.momentum},
        **{"weight_decay": args.weight_decay, "penalise": "kernels"},
        "sparsity": args.sparsity if args.method == "constraint" else None,
        "pat": {x: getattr(args, x) for x in ("reg_lambda", "warmup", "heal_at", "prox_freq")},
        **{"seed": args.seed, "init_from": None, "evaluate": args.evaluate},
    }
    packages = ("torch", "torchao", "numpy")
    # Whoever repeats it has other folders.
    words = [Path(x).name if Path(x).is_absolute() else x for x in sys.argv[1:]]
    row = {
        "config": config,
        "command": shlex.join(["python", "experiments/peers/torchao_pat.py", *words]),
        "result": result,
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "python": platform.python_version(),
        "device": f"cpu, {len(os.sched_getaffinity(0))} cores, 1 thread",
    }
    if args.save is None:
        print(json.dumps(row))
    else:
        with args.save.open("a") as out:
            out.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
