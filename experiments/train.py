"""A run of one method: all that its method may use, from the data to the training loop."""

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import optax
from rich.console import Console

from experiments import averaging, data, loop, models, precision
from experiments.checkpoint import trained_weights
from experiments.config import Config, Runtime
from experiments.interventions import Intervention
from experiments.loop import Trained as Trained
from experiments.models.widths import Width
from experiments.optimizers import base_optimizer, learning_rate_schedule
from experiments.parallel import DataParallel
from experiments.reparameterisation import Reparameterisation
from experiments.step import State as State
from experiments.step import apply_gradients, loss_and_gradients, loss_and_statistics

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of one method; what a method may use stands here."""

    config: Config
    runtime: Runtime
    dataset: data.Dataset
    parallel: DataParallel
    folder: Path
    console: Console

    def __post_init__(self) -> None:
        """Refuses a batch that does not fit the data or the devices, and weights of others."""
        batch, examples = self.config.batch_size, self.examples
        if batch > examples:
            raise ValueError(f"batch_size must be at most the {examples} examples, got {batch}.")
        if batch % self.parallel.size:
            raise ValueError(
                f"batch_size must be a multiple of the {self.parallel.size} devices, got {batch}."
            )
        if batch % (pieces := self.parallel.size * self.config.accumulate):
            raise ValueError(
                f"batch_size must be a multiple of {pieces}, which are accumulate = "
                f"{self.config.accumulate} parts on {self.parallel.size} devices, got {batch}."
            )
        _ = self.model  # which refuses data that are not for it
        if self.config.init_from is not None:
            self.start()

    @functools.cached_property
    def splits(self) -> tuple[data.Split | data.Stream, data.Split | data.Stream]:
        """What is trained on, and what is scored."""
        return data.splits(self.dataset, self.config.evaluate)

    @property
    def examples(self) -> int:
        """How many are trained on."""
        return data.examples(self.splits[0])

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one example."""
        return data.input_shape(self.dataset.train)

    @functools.cached_property
    def model(self) -> models.Model:
        """The network as pure functions."""
        return self._build()

    def _build(self, width: Width | None = None) -> models.Model:
        return models.build(
            self.config.model,
            self.input_shape,
            self.dataset.num_classes,
            self.dataset.mean,
            self.dataset.std,
            width,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training set."""
        return self.examples // self.config.batch_size

    @functools.cached_property
    def total_steps(self) -> int:
        """Updates in the whole run."""
        return self.config.steps or self.config.epochs * self.steps_per_epoch

    @functools.cached_property
    def learning_rate(self) -> optax.Schedule:
        """The learning rate at each step, from 0."""
        return self.schedule(self.total_steps)

    def schedule(self, steps: int) -> optax.Schedule:
        """The schedule that the config names, over so many steps."""
        return learning_rate_schedule(self.config, steps)

    def with_learning_rate(self, learning_rate: optax.Schedule) -> "Job":
        """The same job with another schedule."""
        return self._with(learning_rate=learning_rate)

    def with_steps(self, total_steps: int) -> "Job":
        """The same job over so many updates, whatever the epochs of the config."""
        return self._with(total_steps=total_steps, learning_rate=self.schedule(total_steps))

    def with_width(self, width: Width) -> "Job":
        """The same job on the network with ``width`` times the units, or so many in each layer."""
        narrow = self._with(model=self._build(width))
        narrow.__dict__.pop("_start", None)
        return narrow

    def _with(self, **properties: Any) -> "Job":
        # Not `dataclasses.replace`, which would forget the properties that are read already:
        # weights to start from may lie in a folder that has been deleted since.
        job = copy.copy(self)
        job.__dict__.update(properties)
        return job

    def rows(self, step: int) -> data.Split:
        """The examples of an update (from 0) that this process reads, on the host."""
        config = self.config
        rows = self.parallel.rows(config.batch_size)
        return data.batch(
            self.splits[0], config.seed, step, config.batch_size, config.augment, rows
        )

    def batch(self, step: int) -> PyTree:
        """The examples of an update (from 0) on the devices."""
        return self.parallel.place(self.rows(step))

    def base_optimizer(self) -> optax.GradientTransformationExtraArgs:
        """The optimizer that the config names, with its schedule."""
        return base_optimizer(self.config, self.learning_rate)

    def penalised(self, params: PyTree) -> PyTree:
        """Which leaves are pruned."""
        everything = self.config.penalise == "all"
        return jax.tree.map(lambda x: everything or x.ndim >= 2, params)

    def start(self) -> tuple[PyTree, PyTree]:
        """The params and the statistics before the first step: new ones, or another run's."""
        return self._start

    @functools.cached_property  # read before --overwrite can delete the run that they are of
    def _start(self) -> tuple[PyTree, PyTree]:
        new = self.model.init(jax.random.key(self.config.seed))
        if self.config.init_from is not None:
            new = trained_weights(self.config, like=new)
        return precision.cast(new[0], self.config.param_dtype), new[1]

    def compiled_step(
        self,
        tx: optax.GradientTransformationExtraArgs,
        weights_of: Reparameterisation | None = None,
    ) -> Callable[[PyTree, PyTree], PyTree]:
        """One update: (state, batch) to (state, metrics), in the memory of the state given."""
        return self.parallel.wrap(
            functools.partial(loss_and_gradients, self, weights_of),
            then=functools.partial(apply_gradients, self, tx, weights_of),
            name="training_step",
            donate=self.runtime.donate,
        )

    def loss(
        self, params: PyTree, statistics: PyTree, batch: data.Split
    ) -> tuple[jax.Array, PyTree]:
        """The mean loss of one device's batch, and the statistics after it."""
        return loss_and_statistics(self, params, statistics, batch)

    def train(
        self,
        tx: optax.GradientTransformationExtraArgs,
        *,
        interventions: Sequence[Intervention] = (),
        reparameterisation: Reparameterisation | None = None,
    ) -> Trained:
        """Trains with ``tx`` to the end, or goes on from the folder's latest checkpoint.

        Interventions are for what no transformation can do, since it needs data or more gradients.
        With a reparameterisation it is the raw values that ``tx`` moves.
        """
        return loop.run(self, tx, interventions, reparameterisation)

    def average(
        self,
        tx: optax.GradientTransformationExtraArgs,
        *,
        start: int,
        every: int = 1,
        interventions: Sequence[Intervention] = (),
    ) -> Trained:
        """Trains with ``tx``, and ends with the mean of the weights from ``start`` updates on.

        Every ``every`` updates they enter, the last time at the end. Only then the scores and the
        counts are those of the mean, with statistics of BatchNorm that are made for it.
        """
        averaged = averaging.average_weights(tx, start, every, self.total_steps)
        last = Intervention(self.total_steps, averaging.use_average)
        return self.train(averaged, interventions=[*interventions, last])
