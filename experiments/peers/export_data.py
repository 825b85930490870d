"""Writes what a library of another framework needs to train on the very same batches.

    python -m experiments.peers.export_data fashion_mnist.npz --seeds 0 1 2 --epochs 15

The .npz holds the images and labels of both splits, the mean and deviation of the pixels, and the
number of training images that are left when the last of them are held out for validation. For each
seed and each way to evaluate there is the order of the images, one permutation an epoch: step
``i`` of an epoch takes ``order[epoch, i * batch_size : (i + 1) * batch_size]``. The initial weights
of the network are those that every method here starts from.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from rich.console import Console

from experiments import data, errors, models
from experiments.checks import check, check_integer
from experiments.config import Dataset, ModelName


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Writes data, batch orders and initial weights for experiments/peers."""

    path: tyro.conf.Positional[Path]
    """The .npz file to write."""
    dataset: Dataset = "fashion_mnist"
    """Any data set of images."""
    model: ModelName = "mlp"
    """The network whose initial weights are written."""
    seeds: tuple[int, ...] = (0,)
    """The seeds of the runs."""
    epochs: int = 15
    """How many permutations a seed."""
    data_dir: Path | None = None
    """Where TFDS keeps its data."""

    def validate(self) -> None:
        """Refuses what cannot be written, naming the argument and its value."""
        check(self.path.suffix == ".npz", "path", str(self.path), "a file named *.npz")
        check(len(self.seeds) > 0, "seeds", self.seeds, "at least one seed")
        for seed in self.seeds:
            check_integer("seeds", seed, 0)
        check_integer("epochs", self.epochs, 1)


def export(dataset: data.Dataset, model: str, seeds: Sequence[int], epochs: int) -> dict[str, Any]:
    """The arrays of the file, by name."""
    train, test = data.in_memory(dataset.train), data.in_memory(dataset.test)
    arrays: dict[str, Any] = {
        "train/inputs": train.inputs,
        "train/labels": train.labels,
        "test/inputs": test.inputs,
        "test/labels": test.labels,
        "mean": np.array(dataset.mean),
        "std": np.array(dataset.std),
        "classes": np.array(dataset.num_classes),
    }
    network = models.build(model, train.inputs.shape[1:], dataset.num_classes)
    for evaluate in ("test", "validation"):
        size = data.examples(data.splits(dataset, evaluate)[0])
        arrays[f"{evaluate}/size"] = np.array(size)
        for seed in seeds:
            orders = [data.epoch_order(seed, epoch, size) for epoch in range(epochs)]
            arrays[f"{evaluate}/order/{seed}"] = np.stack(orders).astype(np.int32)
    for seed in seeds:
        params, _ = network.init(jax.random.key(seed))
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            arrays[f"init/{seed}/{name}"] = np.asarray(leaf)
    return arrays


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the file from the command line; an error of the user's is one line, and status 2."""
    console = Console()
    parsed = tyro.cli(Arguments, prog="python -m experiments.peers.export_data", args=arguments)
    try:
        parsed.validate()
        dataset = data.load(parsed.dataset, parsed.data_dir)
        arrays = export(dataset, parsed.model, parsed.seeds, parsed.epochs)
        arrays["dataset"] = np.array(parsed.dataset)
    except (ValueError, data.DataNotFoundError) as error:
        errors.tell(error)
        return 2
    np.savez(parsed.path, **arrays)
    console.print(f"Written to [bold]{parsed.path}[/bold].", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
