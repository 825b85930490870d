"""What a run is: every setting with its default, checked when it is made."""

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal, get_args

from experiments import compilation_cache
from experiments.accumulation import check_accumulation
from experiments.augment import Augment
from experiments.checks import check, check_choice, check_finite, check_integer, check_types
from experiments.methods.acdc import Settings as ACDCSettings
from experiments.methods.amc import Settings as AMCSettings
from experiments.methods.dense_narrow import Settings as DenseNarrowSettings
from experiments.methods.directional import Settings as DirectionalSettings
from experiments.methods.dpf import Settings as DPFSettings
from experiments.methods.gmp import Settings as GMPSettings
from experiments.methods.grasp import Settings as GraSPSettings
from experiments.methods.grda import Settings as GRDASettings
from experiments.methods.l0 import Settings as L0Settings
from experiments.methods.l1_channels import Settings as L1ChannelsSettings
from experiments.methods.l1_subgradient import Settings as L1SubgradientSettings
from experiments.methods.lc import Settings as LCSettings
from experiments.methods.lottery import Settings as LotterySettings
from experiments.methods.magnitude_v2 import Settings as MagnitudeV2Settings
from experiments.methods.obd import Settings as OBDSettings
from experiments.methods.obs import Settings as OBSSettings
from experiments.methods.one_shot import Settings as OneShotSettings
from experiments.methods.proximal_sgd import Settings as ProximalSGDSettings
from experiments.methods.random_pruning import Settings as RandomPruningSettings
from experiments.methods.rda import Settings as RDASettings
from experiments.methods.recipe import Settings as RecipeSettings
from experiments.methods.rigl import Settings as RigLSettings
from experiments.methods.sensitivity import Settings as SensitivitySettings
from experiments.methods.set import Settings as SETSettings
from experiments.methods.snip import Settings as SNIPSettings
from experiments.methods.soft_threshold_reparameterisation import Settings as STRSettings
from experiments.methods.swa import Settings as SWASettings
from experiments.methods.variational_dropout import Settings as VariationalDropoutSettings

Dataset = Literal[
    "digits",
    "fashion_mnist",
    "cifar10",
    "cifar100",
    "imagenet2012",
    "generated_cifar10",
    "generated_cifar100",
    "generated_imagenet2012",
    "python_text",
]
ModelName = Literal[
    "mlp",
    "small_cnn",
    "small_cnn_quarter",
    "small_cnn_sixteenth",
    "lenet5",
    "vgg16",
    "vgg16_bn",
    "wrn_28_10",
    "resnet50",
    "char_transformer",
]
MethodName = Literal[
    "dense",
    "grda",
    "recipe",
    "gmp",
    "magnitude_v2",
    "one_shot",
    "lottery",
    "random_pruning",
    "snip",
    "grasp",
    "set",
    "rigl",
    "acdc",
    "dpf",
    "swa",
    "dense_narrow",
    "l1_subgradient",
    "proximal_sgd",
    "rda",
    "l0",
    "str",
    "variational_dropout",
    "lc",
    "amc",
    "sensitivity",
    "obd",
    "obs",
    "directional",
    "channels",
    "l1_channels",
]
OptimizerName = Literal["sgd", "adamw", "lion", "muon"]


@dataclasses.dataclass(frozen=True)
class Config:
    """What the numbers of a run depend on. Two runs with equal configs give equal numbers."""

    dataset: Dataset = "digits"
    """The data set: images by their TFDS name, made-up ones of the same shape (`generated_...`), or
    `python_text`, which only `char_transformer` reads."""
    model: ModelName = "mlp"
    """The network: `mlp` (300-100), `small_cnn` (three convolutions with BatchNorm; also at a
    quarter and at a sixteenth of its width), `lenet5`, `vgg16` (as the paper trains it, with
    dropout; `vgg16_bn` has BatchNorm), `wrn_28_10`, `resnet50` or, for text, `char_transformer`."""
    method: tuple[MethodName, ...] = ("dense", "grda")
    """The methods to run and to compare, from the same start and with the same batches."""
    epochs: int = 30
    """Passes over the training set."""
    steps: int | None = None
    """Updates in the whole run; by default as many as there are in `epochs`."""
    batch_size: int = 128
    """Examples an update, over all devices together."""
    augment: Augment = "none"
    """What training sees of an image: `crop_flip` is a random part of it, mirrored half of the time
    (of photographs a part of random size, and of the others a window with black pixels around)."""
    optimizer: OptimizerName = "sgd"
    """The optimizer of every method but `grda`, which is one."""
    learning_rate: float = 0.1
    """The learning rate, at its highest."""
    schedule: Literal["constant", "cosine", "step", "plateau_linear", "milestones"] = "constant"
    """How the rate goes on: `cosine` falls to zero, `step` to a tenth at 1/2 and at 3/4,
    `plateau_linear` from 1/2 to 9/10 in a line to a hundredth, and `milestones` where told."""
    milestones: tuple[int, ...] = ()
    """Of the schedule `milestones`: the epochs after which the rate falls to a tenth."""
    warmup_epochs: int = 0
    """Over so many epochs the rate rises in a line to what the schedule says."""
    label_smoothing: float = 0.0
    """The share of a label that is spread evenly over all classes in training, from 0 to below 1.
    """
    momentum: float = 0.0
    """The momentum of SGD and of gRDA, from 0 (none) to below 1."""
    weight_decay: float = 0.0
    """The weight decay: coupled with SGD and gRDA, decoupled with the others."""
    clip_norm: float | None = None
    """The largest norm of a gradient: one above it is scaled down to it. By default none is."""
    penalise: Literal["kernels", "all"] = "kernels"
    """The leaves that are pruned: kernels (two axes or more), or all, as in the paper."""
    sparsity: float = 0.9
    """The fraction of zeros that is asked for, of every method that can be told one (`grda` has c
    and mu instead, but for c = None); `dense_narrow` leaves out as many weights. Of `channels` and
    `l1_channels` it is the fraction of operations that go with whole units."""
    grda: GRDASettings = dataclasses.field(default_factory=GRDASettings)
    """Of the method `grda` alone."""
    recipe: RecipeSettings = dataclasses.field(default_factory=RecipeSettings)
    """Of the methods `recipe` and `channels`."""
    gmp: GMPSettings = dataclasses.field(default_factory=GMPSettings)
    """Of the method `gmp`, and of `swa` where that prunes."""
    magnitude_v2: MagnitudeV2Settings = dataclasses.field(default_factory=MagnitudeV2Settings)
    """Of the method `magnitude_v2` alone."""
    one_shot: OneShotSettings = dataclasses.field(default_factory=OneShotSettings)
    """Of the method `one_shot` alone."""
    lottery: LotterySettings = dataclasses.field(default_factory=LotterySettings)
    """Of the method `lottery` alone."""
    random_pruning: RandomPruningSettings = dataclasses.field(default_factory=RandomPruningSettings)
    """Of the method `random_pruning` alone."""
    snip: SNIPSettings = dataclasses.field(default_factory=SNIPSettings)
    """Of the method `snip` alone."""
    grasp: GraSPSettings = dataclasses.field(default_factory=GraSPSettings)
    """Of the method `grasp` alone."""
    set: SETSettings = dataclasses.field(default_factory=SETSettings)
    """Of the method `set` alone."""
    rigl: RigLSettings = dataclasses.field(default_factory=RigLSettings)
    """Of the method `rigl` alone."""
    acdc: ACDCSettings = dataclasses.field(default_factory=ACDCSettings)
    """Of the method `acdc` alone."""
    dpf: DPFSettings = dataclasses.field(default_factory=DPFSettings)
    """Of the method `dpf` alone."""
    swa: SWASettings = dataclasses.field(default_factory=SWASettings)
    """Of the method `swa` alone."""
    l1_subgradient: L1SubgradientSettings = dataclasses.field(default_factory=L1SubgradientSettings)
    """Of the method `l1_subgradient` alone."""
    proximal_sgd: ProximalSGDSettings = dataclasses.field(default_factory=ProximalSGDSettings)
    """Of the method `proximal_sgd` alone."""
    rda: RDASettings = dataclasses.field(default_factory=RDASettings)
    """Of the method `rda` alone."""
    l0: L0Settings = dataclasses.field(default_factory=L0Settings)
    """Of the method `l0` alone."""
    soft_threshold_reparameterisation: STRSettings = dataclasses.field(default_factory=STRSettings)
    """Of the method `str` alone."""
    variational_dropout: VariationalDropoutSettings = dataclasses.field(
        default_factory=VariationalDropoutSettings
    )
    """Of the method `variational_dropout` alone."""
    lc: LCSettings = dataclasses.field(default_factory=LCSettings)
    """Of the method `lc` alone."""
    amc: AMCSettings = dataclasses.field(default_factory=AMCSettings)
    """Of the method `amc` alone."""
    sensitivity: SensitivitySettings = dataclasses.field(default_factory=SensitivitySettings)
    """Of the method `sensitivity` alone."""
    obd: OBDSettings = dataclasses.field(default_factory=OBDSettings)
    """Of the method `obd` alone."""
    obs: OBSSettings = dataclasses.field(default_factory=OBSSettings)
    """Of the method `obs` alone."""
    directional: DirectionalSettings = dataclasses.field(default_factory=DirectionalSettings)
    """Of the method `directional` alone."""
    dense_narrow: DenseNarrowSettings = dataclasses.field(default_factory=DenseNarrowSettings)
    """Of the method `dense_narrow` alone."""
    l1_channels: L1ChannelsSettings = dataclasses.field(default_factory=L1ChannelsSettings)
    """Of the method `l1_channels` alone."""
    seed: int = 0
    """Of the initial weights and of the order of the examples."""
    init_from: str | None = None
    """Start from the latest weights of another run of this network: the folder of a method's run,
    such as runs/digits/dense. The optimizer starts anew, on this run's own epochs."""
    evaluate: Literal["test", "validation"] = "test"
    """`validation` holds the last sixth of the training set out and scores that instead: the
    split on which settings are chosen."""
    accumulate: int = 1
    """Parts in which the batch of an update is taken, for want of memory; their mean gradient makes
    the update. Each part is normalised by itself where there is BatchNorm."""
    accumulate_by: Literal["multi_steps", "microbatch"] = "multi_steps"
    """How: by a call of the step for each part (optax.MultiSteps), or by a loop inside of one
    (optax.microbatch)."""
    param_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the weights and of the network's arithmetic. Accumulators, momentum and BatchNorm's
    statistics are float32 in any case."""
    loss_scale: float | None = None
    """Where a dynamic loss scale starts, such as 32768, for float16: halved when a gradient is not
    finite, whose update is skipped, and doubled after 2,000 updates."""
    skip_nonfinite: int | None = None
    """Skip updates whose gradient is not finite, up to so many in a row; by default the first ends
    the run. A skipped update counts as a step and changes nothing else."""

    def __post_init__(self) -> None:
        """Refuses what cannot be run, naming the field and its value."""
        several = isinstance(self.method, list | tuple)
        method = tuple(self.method) if several else (self.method,)
        object.__setattr__(self, "method", method)
        check(len(method) > 0, "method", method, "at least one method")
        for name in method:
            check_choice("method", name, get_args(MethodName))
        check(len(set(method)) == len(method), "method", method, "each method once")
        for field in dataclasses.fields(self):
            if getattr(field.type, "__origin__", None) is Literal:
                check_choice(field.name, getattr(self, field.name), get_args(field.type))
            if dataclasses.is_dataclass(field.type):
                settings = getattr(self, field.name)
                holds = isinstance(settings, field.type)  # type: ignore[arg-type]
                check(holds, field.name, settings, "the settings of a method")
                settings.validate()
        check_integer("epochs", self.epochs, 1)
        if self.steps is not None:
            check_integer("steps", self.steps, 1)
        check_integer("batch_size", self.batch_size, 1)
        check_integer("seed", self.seed, 0)
        check_finite("learning_rate", self.learning_rate)
        check_finite("momentum", self.momentum)
        check_finite("sparsity", self.sparsity)
        check(self.sparsity < 1, "sparsity", self.sparsity, "below 1")
        check(self.momentum < 1, "momentum", self.momentum, "below 1")
        check_finite("weight_decay", self.weight_decay)
        if self.clip_norm is not None:
            check_finite("clip_norm", self.clip_norm)
            check(self.clip_norm > 0, "clip_norm", self.clip_norm, "above 0")
        check_finite("label_smoothing", self.label_smoothing)
        check(self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "below 1")
        check_integer("warmup_epochs", self.warmup_epochs, 0)
        several = isinstance(self.milestones, list | tuple)
        check(several, "milestones", self.milestones, "a tuple of epochs")
        milestones = tuple(self.milestones)
        object.__setattr__(self, "milestones", milestones)
        for epoch in milestones:
            check_integer("milestones", epoch, 1)
        wanted = "epochs where the schedule is milestones, and none else"
        check((self.schedule == "milestones") == bool(milestones), "milestones", milestones, wanted)
        if self.dataset == "python_text":
            check(self.augment == "none", "augment", self.augment, "none for text")
        check_integer("accumulate", self.accumulate, 1)
        if self.loss_scale is not None:
            check_finite("loss_scale", self.loss_scale, 1)
        if self.skip_nonfinite is not None:
            check_integer("skip_nonfinite", self.skip_nonfinite, 1)
        check_accumulation(self)
        check_types(self)

    def differences(self, other: "Config") -> dict[str, tuple[Any, Any]]:
        """The fields in which two configs differ, each with both values."""
        mine, theirs = _flat(self.to_json()), _flat(other.to_json())
        return {k: (mine[k], theirs[k]) for k in mine if mine[k] != theirs[k]}

    def fingerprint(self, base: "Config") -> str:
        """A folder name made of the fields that differ from ``base``; empty where none does."""
        parts = []
        for key, (value, _) in self.differences(base).items():
            shown = "+".join(map(str, value)) if isinstance(value, list) else value
            parts.append(f"{key}={shown}")
        text = re.sub(r"[^A-Za-z0-9_.=+-]+", "_", "-".join(parts))
        if len(text) > 80:  # long names of folders fail on some file systems
            text = text[:71] + "-" + hashlib.sha256(text.encode()).hexdigest()[:8]
        return text

    def to_json(self) -> dict[str, Any]:
        """Plain values, as they stand in config.json."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> "Config":
        """The config that ``to_json`` wrote; fields that it lacks take their defaults.

        Raises:
            ValueError: it holds what is no field, or a value that cannot be run.
        """
        config: Config = _from_json(cls, plain, "config.json")
        return config


def _from_json(cls: type, plain: dict[str, Any], name: str) -> Any:
    fields = {field.name: field.type for field in dataclasses.fields(cls)}
    check(isinstance(plain, dict), name, plain, "an object of settings")
    unknown = sorted(set(plain) - set(fields))
    check(not unknown, "config.json", unknown, "made of known fields only")
    return cls(
        **{
            name: _from_json(fields[name], value, name)  # type: ignore[arg-type]
            if dataclasses.is_dataclass(fields[name])
            else value
            for name, value in plain.items()
        }
    )


def _flat(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for key, value in plain.items():
        rows |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return rows


@dataclasses.dataclass(frozen=True)
class Runtime:
    """How a run is carried out; nothing here changes what it computes, but for rounding."""

    runs_dir: Path = Path("runs")
    """Where the folders of the runs are."""
    name: str | None = None
    """The run's folder in it; by default made of the settings that differ from the preset."""
    data_dir: Path | None = None
    """Where TFDS keeps its data; by default where TFDS always does."""
    parallel: Literal["mesh", "pmap", "fsdp"] = "mesh"
    """Data-parallel by `jit` over a sharded mesh of devices, or by `pmap`; `fsdp` also splits the
    params and the optimizer's state over the devices."""
    devices: int | None = None
    """How many devices of each process; on a CPU as many are made up as are asked for. By default
    all."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where several processes are one run; then each is given this, its
    `process_id` and the `process_count`."""
    process_id: int | None = None
    """Which of the processes this one is, from 0."""
    process_count: int | None = None
    """How many processes there are."""
    distributed: bool = False
    """Several processes are one run, and JAX finds them by itself: on TPU pods, SLURM, Open MPI."""
    heartbeat_seconds: int = 100
    """After so long without a sign of life from one process all others end."""
    log_every: int = 50
    """Steps between two looks at the loss; the run goes on in the background meanwhile."""
    remat: bool = False
    """Keep only products and convolutions for the gradient, and compute the rest again, for want
    of memory."""
    donate: bool = True
    """Update the weights and the optimizer's state in their own memory."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints; there is always one at the end."""
    keep_masks: bool = False
    """Write where the weights are not zero at the end of each epoch, for analysis.topology."""
    keep_params: bool = False
    """Write the weights at the end of each epoch, for the analyses that follow them."""
    stop_after: int | None = None
    """Stop after this step with a checkpoint; the same command without it goes on."""
    dry_run: bool = False
    """Print what the run would take, from the program compiled for these devices, and stop. Needs
    no data and writes nothing."""
    fall_back: bool = False
    """Go on from the checkpoint before it where the newest is truncated or altered."""
    overwrite: bool = False
    """Delete what is in the run's folder and start anew."""
    compilation_cache: Path | None = dataclasses.field(
        default_factory=compilation_cache.default_folder
    )
    """Where the command line keeps compiled programs for its next run; None keeps none."""
    progress: bool = True
    """Whether to show a progress bar."""

    def __post_init__(self) -> None:
        """Refuses what cannot be run, naming the field and its value."""
        whole = ("devices", "log_every", "checkpoint_every", "stop_after", "process_count")
        for name in (*whole, "heartbeat_seconds"):
            value = getattr(self, name)
            if value is not None:
                check_integer(name, value, 1)
        check_choice("parallel", self.parallel, ("mesh", "pmap", "fsdp"))
        self._check_processes()

    def _check_processes(self) -> None:
        if self.coordinator is None:
            for name in ("process_id", "process_count"):
                value = getattr(self, name)
                check(value is None, name, value, "given with --coordinator only")
            return
        host, _, port = self.coordinator.rpartition(":")
        wanted = "HOST:PORT of process 0"
        check(bool(host) and port.isdecimal(), "coordinator", self.coordinator, wanted)
        check(not self.distributed, "distributed", True, "left out where there is a coordinator")
        check(self.process_count is not None, "process_count", None, "given with --coordinator")
        check(self.process_id is not None, "process_id", None, "given with --coordinator")
        if self.process_id is not None and self.process_count is not None:
            check_integer("process_id", self.process_id, 0)
            count = self.process_count
            below = f"below the process_count {count}"
            check(self.process_id < count, "process_id", self.process_id, below)
