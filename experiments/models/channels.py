"""Which leaves of a network share their hidden units, so that whole units can go.

One entry of TIES a network; each layer is a `grda_optax.Tied`. Paths may have something in front of
them, so that params and statistics can be cut together.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from experiments.checks import check_choice
from grda_optax import Tied, compact

PyTree = Any


def dense(layer: str, reader: str) -> Tied:
    """Units of a dense layer behind which zero stays zero, and the rows that read them."""
    return Tied({f"(^|/){layer}/": -1}, {f"(^|/){reader}/kernel$": -2})


def convolution(layer: str, norm: str, reader: str, statistics: bool) -> Tied:
    """Channels of a convolution with BatchNorm; a flat map's rows go with their channels."""
    followers = {f"(^|/){reader}/kernel$": -2}
    if statistics:
        followers[f"(^|/){norm}/(mean|var)$"] = -1
    return Tied({f"(^|/){layer}/": -1, f"(^|/){norm}/(scale|bias)$": -1}, followers)


def _mlp(statistics: bool) -> dict[str, Tied]:
    del statistics
    return {"dense1": dense("dense1", "dense2"), "dense2": dense("dense2", "head")}


def _small_cnn(statistics: bool) -> dict[str, Tied]:
    return {
        "conv1": convolution("conv1", "norm1", "conv2", statistics),
        "conv2": convolution("conv2", "norm2", "conv3", statistics),
        "conv3": convolution("conv3", "norm3", "dense", statistics),
        "dense": dense("dense", "head"),
    }


TIES: dict[str, Callable[[bool], dict[str, Tied]]] = {
    "mlp": _mlp,
    "small_cnn": _small_cnn,
    "small_cnn_quarter": _small_cnn,
    "small_cnn_sixteenth": _small_cnn,
}
"""By network and hidden layer the units that can go; with BatchNorm's statistics or without."""


def ties(model: str, statistics: bool = False) -> list[Tied]:
    """The hidden layers of a network from the first to the last, as groups of its params.

    Args:
        model: one of TIES.
        statistics: whether the tree in which they are looked for holds BatchNorm's statistics too.
    """
    check_choice("model (for channels)", model, tuple(TIES))
    return list(TIES[model](statistics).values())


class Compacted(NamedTuple):
    """A network without the units that are zero; ``build(..., width=width)`` applies it."""

    params: PyTree
    statistics: PyTree
    width: tuple[int, ...]


def compacted(model: str, params: PyTree, statistics: PyTree) -> Compacted:
    """The smaller network of the same outputs, and the units that its layers have left."""
    layers = ties(model, statistics=bool(statistics))
    small = compact({"params": params, "statistics": statistics}, layers)
    return Compacted(small["params"], small["statistics"], width_of(model, small["params"]))


def width_of(model: str, params: PyTree) -> tuple[int, ...]:
    """How many units every hidden layer has."""
    return tuple(params[layer]["kernel"].shape[-1] for layer in TIES[model](False))
