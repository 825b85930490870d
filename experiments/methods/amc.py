r"""AMC: an agent chooses the sparsity of every layer (He et al., ECCV 2018).

A trained network is pruned layer by layer, each by magnitude, to the fraction that the agent of
:mod:`experiments.methods._ddpg` says when it sees the layer's shape and what is left to prune. The
reward is the accuracy of the network pruned so, not trained on, on some examples of the training
set (which the network has learned from, as there). The layers still to come can lose neither more
than their most nor less than nothing; an action is a place between what that leaves a layer, from
the fewest weights (0) to the most (1). In the paper it is a fraction of the layer, clipped to
these; where 95 % of a network go they are so close that nearly every action would be clipped. So
every episode ends with exactly the sparsity that is asked for. The best one is trained on.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from experiments.checks import check, check_finite, check_integer
from experiments.methods._ddpg import Episode, Hyperparameters, Policy, search
from experiments.methods._layers import most_zeros, zeros_wanted
from experiments.methods._prune_trained import Scores, prune_trained

if TYPE_CHECKING:
    from experiments.train import Job, Trained

if TYPE_CHECKING:
    pass

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Settings:
    """When the search is, how long, and on which examples it is rewarded."""

    begin: float = 0.4
    """The fraction of training before the search, above 0 and below 1."""
    episodes: int = 200
    """How many times the network is pruned, each time to the sparsity asked for."""
    exploring: int = 50
    """The first of them, from which nothing is learned yet."""
    examples: int = 1000
    """How many of the last training examples the accuracy is measured on."""
    most: float = 0.99
    """The fraction of a layer that may go at most, unless the sparsity is above it."""

    def validate(self) -> None:
        """Refuses what is out of range."""
        check_finite("amc.begin", self.begin)
        check(0 < self.begin < 1, "amc.begin", self.begin, "above 0 and below 1")
        check_integer("amc.episodes", self.episodes, 1)
        check_integer("amc.exploring", self.exploring, 0)
        check_integer("amc.examples", self.examples, 1)
        check_finite("amc.most", self.most)
        check(self.most <= 1, "amc.most", self.most, "at most 1")


def layer_features(shapes: Sequence[Shape]) -> np.ndarray:
    """Of every layer (layers, 5) its place, outputs, inputs, window and size, from 0 to 1."""
    rows = [
        (i, math.prod(shape[-1:]), math.prod(shape[-2:-1]), math.prod(shape[:-2]), math.prod(shape))
        for i, shape in enumerate(shapes)
    ]
    table = np.array(rows, np.float32)
    return table / np.maximum(table.max(axis=0), 1)


def zeros_of_layer(action: float, t: int, room: Sequence[int], left: int) -> int:
    """How many weights of layer ``t`` go by an action, when ``left`` have still to go.

    Args:
        action: from the fewest (0) to the most (1) that leave the sparsity within reach.
        t: the layer's place.
        room: how many of each layer may go.
        left: at most the sum of ``room`` from this layer on.
    """
    least, most = max(0, left - sum(room[t + 1 :])), min(room[t], left)
    return least + round(action * (most - least))


def allocate(
    accuracy: Callable[[Sequence[int]], float],
    shapes: Sequence[Shape],
    sparsity: float,
    *,
    episodes: int,
    exploring: int,
    most: float,
    seed: int,
    agent: Hyperparameters | None = None,
) -> list[int]:
    """How many weights of every layer go: ``round(sparsity * total)`` together.

    Args:
        accuracy: of the network without so many of the smallest weights of every layer.
        shapes: of the layers.
        sparsity: from 0 to below 1.
        episodes: how many allocations are tried.
        exploring: the first of them, which only explore.
        most: the fraction of a layer that may go at most, unless ``sparsity`` is above it.
        seed: of the agent.
        agent: its hyperparameters, ``None`` is AMC's.
    """
    sizes = [math.prod(shape) for shape in shapes]
    total, wanted = sum(sizes), zeros_wanted(sparsity, sizes)
    room = most_zeros(sizes, sparsity, most)
    features = layer_features(shapes)

    def zeros_of(actions: Sequence[float]) -> list[int]:
        zeros: list[int] = []
        for t, action in enumerate(actions):
            zeros.append(zeros_of_layer(action, t, room, wanted - sum(zeros)))
        return zeros

    def play(policy: Policy) -> Episode:
        states: list[np.ndarray] = []
        actions: list[float] = []
        for t in range(len(sizes)):
            gone = sum(zeros_of(actions))
            previous = actions[-1] if actions else 0.0
            progress = [(wanted - gone) / total, sum(sizes[t:]) / total, previous]
            states.append(np.array([*features[t], *progress], np.float32))
            actions.append(policy(states[-1]))
        return Episode(np.stack(states), np.array(actions), accuracy(zeros_of(actions)))

    found = search(
        play,
        features=features.shape[1] + 3,
        episodes=episodes,
        exploring=exploring,
        seed=seed,
        settings=agent,
    )
    return zeros_of(found.best.actions.tolist())


def run(job: "Job") -> "Trained":
    """Trains, prunes as the agent has found best, and trains on."""
    settings = job.config.amc

    def allocation(scores: Scores, shapes: list[Shape]) -> list[int]:
        return allocate(
            lambda zeros: scores(zeros)[0],
            shapes,
            job.config.sparsity,
            episodes=settings.episodes,
            exploring=settings.exploring,
            most=settings.most,
            seed=job.config.seed,
        )

    return prune_trained(job, settings.begin, settings.examples, allocation)
