"""Which programs `analysis.tpu` compiles, and how a row of its file names one of them."""

import dataclasses
from typing import Any, Literal

from experiments.parallel import Mode

CNN, WIDE, RESNET = "fashion_mnist_cnn", "cifar10_wrn_28_10", "imagenet_resnet50"
PRESETS = (CNN, WIDE, RESNET)
Optimizer = Literal["grda", "momentum", "adam"]
OPTIMIZERS: tuple[Optimizer, ...] = ("grda", "momentum", "adam")
DTYPES: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
BATCH_EACH = 32
SMALL, LARGE = "v5e:4x4", "v5e:16x16"
OTHERS = ("v4:2x2x2", "v6e:4x4")  # a chip of v4 shows as two devices


@dataclasses.dataclass(frozen=True)
class Case:
    """One program: a whole training step, or the optimizer's update of every weight alone."""

    what: Literal["step", "update"]
    preset: str
    topology: str = SMALL
    optimizer: Optimizer = "grda"
    """The paper's gRDA under the preset's c and mu, SGD with momentum 0.9, or Adam."""
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    parallel: Mode = "mesh"

    def is_of(self, row: dict[str, Any]) -> bool:
        """Whether a row of the file holds this program's numbers."""
        return all(row.get(key) == value for key, value in dataclasses.asdict(self).items())


UPDATES = tuple(
    Case("update", preset, optimizer=optimizer, param_dtype=dtype)
    for preset in PRESETS
    for dtype in DTYPES
    for optimizer in OPTIMIZERS
)
# In the order in which they are compiled: each network first, then one choice after the other.
STEPS = (
    Case("step", CNN),
    Case("step", CNN, optimizer="momentum"),
    Case("step", CNN, optimizer="adam"),
    Case("step", CNN, param_dtype="bfloat16"),
    Case("step", CNN, topology=LARGE),
    *(Case("step", CNN, topology=name) for name in OTHERS),
    Case("step", CNN, parallel="pmap"),
    Case("step", CNN, topology=LARGE, parallel="fsdp"),
    Case("step", RESNET),
    Case("step", WIDE),
    Case("step", RESNET, topology=LARGE, param_dtype="bfloat16"),
    Case("step", RESNET, optimizer="momentum"),
    Case("step", WIDE, topology=LARGE),
    Case("step", WIDE, optimizer="momentum"),
    Case("step", RESNET, topology=LARGE),
    Case("step", RESNET, optimizer="adam"),
    Case("step", WIDE, param_dtype="bfloat16"),
    Case("step", WIDE, optimizer="adam"),
    *(Case("step", RESNET, topology=name) for name in OTHERS),
    Case("step", RESNET, parallel="pmap"),
    Case("step", RESNET, topology=LARGE, parallel="fsdp"),
    Case("step", RESNET, param_dtype="bfloat16"),
    *(Case("step", WIDE, topology=name) for name in OTHERS),
    Case("step", WIDE, parallel="pmap"),
    Case("step", WIDE, parallel="fsdp"),  # 256 chips divide none of its widths
)
CASES = (*UPDATES, *STEPS)
