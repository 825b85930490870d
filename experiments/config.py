"""What a run is: every setting with its default, checked when it is made."""

import dataclasses
import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any, Literal

Dataset = Literal["digits", "fashion_mnist"]
ModelName = Literal["mlp", "small_cnn"]
MethodName = Literal["dense", "grda"]


@dataclasses.dataclass(frozen=True)
class Config:
    """What the numbers of a run depend on. Two runs with equal configs give equal numbers."""

    dataset: Dataset = "digits"
    """The data set, by its TFDS name."""
    model: ModelName = "mlp"
    """The network: `mlp` (300-100) or `small_cnn` (three convolutions with BatchNorm)."""
    method: tuple[MethodName, ...] = ("dense", "grda")
    """The methods to run and to compare, from the same start and with the same batches."""
    epochs: int = 30
    """Passes over the training set."""
    batch_size: int = 128
    """Examples an update, over all devices together."""
    learning_rate: float = 0.1
    """The rate of SGD, at its highest."""
    schedule: Literal["constant", "cosine", "step"] = "constant"
    """How the rate goes on: `cosine` falls to zero, `step` to a tenth at 1/2 and at 3/4."""
    momentum: float = 0.0
    """The momentum of SGD and of gRDA, from 0 (none) to below 1."""
    weight_decay: float = 0.0
    """The weight decay of SGD and of gRDA, coupled."""
    c: float = 0.005
    """gRDA: the strength of the penalty."""
    mu: float = 0.6
    """gRDA: how fast the threshold grows, above 0 to 1."""
    penalise: Literal["kernels", "all"] = "kernels"
    """gRDA: the leaves that are thresholded: kernels (two axes or more), or all, as the paper."""
    seed: int = 0
    """Of the initial weights and of the order of the examples."""

    def __post_init__(self) -> None:
        """Refuses what cannot be run, naming the field and its value."""
        for field in dataclasses.fields(self):
            allowed = getattr(field.type, "__args__", None)
            value = getattr(self, field.name)
            if field.name == "method":
                object.__setattr__(self, "method", tuple(value))
                allowed = MethodName.__args__  # type: ignore[attr-defined]
                _check(len(value) > 0, field.name, value, "at least one method")
                _check(len(set(value)) == len(value), field.name, value, "each method once")
                for name in value:
                    _check(name in allowed, field.name, name, f"of {', '.join(allowed)}")
            elif allowed:
                _check(value in allowed, field.name, value, f"one of {', '.join(allowed)}")
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            _check(isinstance(value, int) and value >= 1, name, value, "an integer >= 1")
        _check(self.seed >= 0, "seed", self.seed, "an integer >= 0")
        _check(_finite(self.learning_rate, 0), "learning_rate", self.learning_rate, "finite, >= 0")
        _check(
            _finite(self.momentum, 0) and self.momentum < 1, "momentum", self.momentum, "in [0, 1)"
        )
        _check(_finite(self.weight_decay, 0), "weight_decay", self.weight_decay, "finite, >= 0")
        _check(_finite(self.c, 0), "c", self.c, "finite, >= 0")
        _check(_finite(self.mu, 0) and 0 < self.mu <= 1, "mu", self.mu, "in (0, 1]")

    def differences(self, other: "Config") -> dict[str, tuple[Any, Any]]:
        """The fields in which two configs differ, each with both values."""
        mine, theirs = self.to_json(), other.to_json()
        return {k: (mine[k], theirs[k]) for k in mine if mine[k] != theirs[k]}

    def fingerprint(self, base: "Config") -> str:
        """A folder name made of the fields that differ from ``base``; empty where none does."""
        text = "-".join(f"{k}={v[0]}" for k, v in self.differences(base).items())
        text = re.sub(r"[^A-Za-z0-9_.=-]+", "", text.replace("', '", "+"))
        if len(text) > 80:  # long names of folders fail on some file systems
            text = text[:71] + "-" + hashlib.sha256(text.encode()).hexdigest()[:8]
        return text

    def to_json(self) -> dict[str, Any]:
        """Plain values, as they stand in config.json."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> "Config":
        """The config that ``to_json`` wrote; fields that it lacks take their defaults."""
        unknown = sorted(set(plain) - {field.name for field in dataclasses.fields(cls)})
        _check(not unknown, "config.json", unknown, "made of known fields only")
        return cls(**plain)


@dataclasses.dataclass(frozen=True)
class Runtime:
    """How a run is carried out; nothing here changes what it computes, but for rounding."""

    runs_dir: Path = Path("runs")
    """Where the folders of the runs are."""
    data_dir: Path | None = None
    """Where TFDS keeps its data; by default where TFDS always does."""
    parallel: Literal["mesh", "pmap"] = "mesh"
    """Data-parallel by `jit` over a sharded mesh of devices, or by `pmap`."""
    devices: int | None = None
    """How many devices; on a CPU as many are made up as are asked for. By default all."""
    log_every: int = 50
    """Steps between two looks at the loss; the run goes on in the background meanwhile."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints; there is always one at the end."""
    stop_after: int | None = None
    """Stop after this step with a checkpoint; the same command without it goes on."""
    overwrite: bool = False
    """Delete what is in the run's folder and start anew."""
    progress: bool = True
    """Whether to show a progress bar."""

    def __post_init__(self) -> None:
        """Refuses what cannot be run, naming the field and its value."""
        for name in ("devices", "log_every", "checkpoint_every", "stop_after"):
            value = getattr(self, name)
            _check(value is None or value >= 1, name, value, "an integer >= 1")


def _finite(value: float, at_least: float) -> bool:
    return math.isfinite(value) and value >= at_least


def _check(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {wanted}, got {value!r}.")
