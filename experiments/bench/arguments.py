"""What `python -m experiments.bench` is told."""

import dataclasses
from pathlib import Path
from typing import Any, Literal, get_args

from experiments import models
from experiments.checks import check, check_choice, check_integer

Part = Literal[
    "update",
    "training",
    "curvature",
    "sizes",
    "peers",
    "large",
    "memory",
    "compilation",
    "devices",
    "job",
]
WITHOUT_TORCH: tuple[Any, ...] = tuple(x for x in get_args(Part) if x != "peers")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What pruning costs beside SGD with momentum; all of a part is measured in turns."""

    parts: tuple[Part, ...] = WITHOUT_TORCH
    """What is measured: the `update` alone, with the recipe's (`sizes`: by weights and leaves,
    beside optax's and a copy; `peers`: beside PyTorch's), the `training` step of a CNN and that of
    a `large` network, `memory`, `compilation`, the exchange between `devices`, a whole `job`, and
    `curvature`, products with the Hessian."""
    weights: int = 25_000_000
    """Of the parts update and memory: how many float32 weights."""
    batch_size: int = 128
    """Of training and memory: examples in a training step of the small CNN."""
    curvature_weights: int = 1_000_000
    """Of curvature: of the MLP whose Hessian is multiplied with vectors."""
    examples: int = 2048
    """Of curvature: that its loss is over."""
    sizes: tuple[int, ...] = (100_000, 1_000_000, 25_000_000, 100_000_000)
    """Of sizes and peers: how many weights; those over 25,000,000 are left out beside PyTorch."""
    leaves: tuple[int, ...] = (8, 500)
    """Of sizes and peers: in how many arrays."""
    torch: Path | None = None
    """Of peers: the Python of an environment with torch and torchao."""
    network: str = "resnet50"
    """Of large and memory: the network, for photographs of 1,000 classes."""
    image_size: int = 64
    """Of large: the side of its images."""
    network_batch: int = 8
    """Of large, memory and devices: examples a step, on one device."""
    compiled_leaves: int = 500
    """Of compilation: how many arrays the update is compiled for."""
    devices: int = 8
    """Of devices: up to so many are made up, by powers of two."""
    job: tuple[str, ...] = ("digits",)
    """Of job: the words after `python -m experiments.run`."""
    rounds: int = 15
    """How often each is timed; the medians are shown. Lanczos, the large network and jobs a
    third as often, compilations a fifth."""
    save: Path | None = None
    """A JSON file to write to, with versions, device and command; what it has of other parts
    stays."""

    def validate(self) -> None:
        """Refuses what cannot be measured, naming the argument and its value."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int):
                check_integer(field.name, value, 1)
        for name in ("sizes", "leaves"):
            check(len(getattr(self, name)) > 0, name, getattr(self, name), "at least one number")
            for n in getattr(self, name):
                check_integer(name, n, 1)
        check(len(self.job) > 0, "job", self.job, "a preset and what is to be changed of it")
        most, least = max(self.leaves), min(self.sizes)
        check(most <= least, "leaves", most, f"at most the {least} weights of sizes")
        if {"large", "memory"} & set(self.parts):
            check_choice("network", self.network, tuple(models.MODELS))
        if "peers" in self.parts:
            wanted = "a Python with torch and torchao where parts has peers"
            check(self.torch is not None, "torch", self.torch, wanted)
        if self.save is not None:
            check(self.save.parent.is_dir(), "save", str(self.save), "in a folder that exists")
