"""Which leaves of a network share their hidden units, so that whole units can go.

One entry of TIES a network; each layer is a `grda_optax.Tied`. The leaves are looked for among the
params, or in a tree of both "params" and "statistics", so that both can be cut together.

Where blocks add to what came in, a channel of the sum is one unit of all of them: of every layer
that is added to it, with the norm behind it, or, where the norm comes before the layers that read
the sum, with that.
"""

import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from experiments.checks import check_choice
from experiments.models import char_transformer, resnet50, vgg
from grda_optax import Tied, compact

PyTree = Any
Place: TypeAlias = tuple[int, int]
"""The axis of a leaf along which units lie, and how many entries each of them has."""
Ties: TypeAlias = list[Tied]


def tied(layers: str, readers: str, norms: str = "", statistics: bool = False) -> Tied:
    """Units of layers behind which zero stays zero.

    Args:
        layers: a regular expression for the paths of dense layers or convolutions, which are zero
            with their biases; of alternatives, each a whole path.
        readers: likewise, for those that read the units; of a flat map all rows of a channel.
        norms: likewise, for the norms of the units, which are zero with their scales and biases.
        statistics: whether the norms' statistics are in the tree, which go with the units.
    """
    members = {_inside(layers): -1}
    followers = {_inside(readers, "kernel"): -2}
    if norms:
        members[_inside(norms, "scale|bias")] = -1
        if statistics:
            followers[_inside(norms, "mean|var")] = -1
    return Tied(members, followers)


def _inside(layers: str, leaves: str = r"\w+") -> str:
    return f"^((params|statistics)/)?({layers})/({leaves})$"


def _chain(*layers: str) -> Ties:
    """Each layer is read by the next one; the last has classes, and no units."""
    return [tied(layer, reader) for layer, reader in itertools.pairwise(layers)]


def _small_cnn(statistics: bool) -> Ties:
    return [
        tied("conv1", "conv2", "norm1", statistics),
        tied("conv2", "conv3", "norm2", statistics),
        tied("conv3", "dense", "norm3", statistics),
        tied("dense", "head"),
    ]


def _vgg(statistics: bool, batch_norm: bool) -> Ties:
    names = [f"{n}_{i}" for n, sizes in enumerate(vgg.STAGES, 1) for i in range(1, len(sizes) + 1)]
    convolutions = [f"conv{name}" for name in names]
    if not batch_norm:
        return _chain(*convolutions, "dense1", "dense2", "head")
    readers = [*convolutions[1:], "dense1"]
    return [
        *(
            tied(f"conv{name}", reader, f"norm{name}", statistics)
            for name, reader in zip(names, readers, strict=True)
        ),
        *_chain("dense1", "dense2", "head"),
    ]


def _wide_resnet(statistics: bool) -> Ties:
    found = [tied("conv1", r"block1_1/(conv1|shortcut)", "block1_1/norm1", statistics)]
    for stage in (1, 2, 3):
        later, after = rf"block{stage}_(?!1/)\d+", f"block{stage + 1}_1"
        readers, norm = (f"{after}/(conv1|shortcut)", f"{after}/norm1")
        if stage == 3:
            readers, norm = "head", "norm"
        found += [
            tied(
                rf"block{stage}_\d+/conv2|block{stage}_1/shortcut",
                rf"{later}/conv1|{readers}",
                rf"{later}/norm1|{norm}",
                statistics,
            )
        ]
        for i in range(1, 5):  # of 28 layers
            at = f"block{stage}_{i}"
            found += [tied(f"{at}/conv1", f"{at}/conv2", f"{at}/norm2", statistics)]
    return found


def _resnet50(statistics: bool) -> Ties:
    found = [tied("conv1", r"block1_1/(conv1|shortcut)", "norm1", statistics)]
    for stage, blocks in enumerate(resnet50.STAGES, 1):
        last = stage == len(resnet50.STAGES)
        after = "head" if last else f"block{stage + 1}_1/(conv1|shortcut)"
        found += [
            tied(
                rf"block{stage}_\d+/conv3|block{stage}_1/shortcut",
                rf"block{stage}_(?!1/)\d+/conv1|{after}",
                rf"block{stage}_\d+/norm3|block{stage}_1/shortcut_norm",
                statistics,
            )
        ]
        for i in range(1, blocks + 1):
            at = f"block{stage}_{i}"
            for n in (1, 2):
                found += [tied(f"{at}/conv{n}", f"{at}/conv{n + 1}", f"{at}/norm{n}", statistics)]
    return found


def _char_transformer(_: bool) -> Ties:
    """Heads and hidden units; what the blocks add to stays, since LayerNorm is over all of it."""
    found = []
    for block in ("block1", "block2"):
        head = char_transformer.HEAD
        heads = Tied(
            {_inside(f"{block}/attention"): (-1, head)},
            {_inside(f"{block}/projection", "kernel"): (-2, head)},
        )
        found += [heads, tied(f"{block}/dense1", f"{block}/dense2")]
    return found


TIES: dict[str, Callable[[bool], Ties]] = {
    "mlp": lambda _: _chain("dense1", "dense2", "head"),
    "small_cnn": _small_cnn,
    "small_cnn_quarter": _small_cnn,
    "small_cnn_sixteenth": _small_cnn,
    "lenet5": lambda _: _chain("conv1", "conv2", "dense1", "dense2", "head"),
    "vgg16": lambda statistics: _vgg(statistics, batch_norm=False),
    "vgg16_bn": lambda statistics: _vgg(statistics, batch_norm=True),
    "wrn_28_10": _wide_resnet,
    "resnet50": _resnet50,
    "char_transformer": _char_transformer,
}
"""By network the units that can go, layer by layer in the order of the network's ``width``; with
BatchNorm's statistics or without."""


def ties(model: str, statistics: bool = False) -> Ties:
    """The hidden layers of a network from the first to the last, as groups of its params.

    Args:
        model: one of TIES.
        statistics: whether the tree in which they are looked for holds BatchNorm's statistics too.
    """
    check_choice("model (for channels)", model, tuple(TIES))
    return TIES[model](statistics)


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
    return tuple(unit_count(params, tie) for tie in ties(model))


def unit_count(params: PyTree, tie: Tied) -> int:
    """As many as the shortest of the axes holds."""
    leaves = jax.tree.leaves(params)
    return min(
        int(np.shape(leaf)[place[0]]) // place[1]
        for patterns in (tie.members, tie.followers)
        for leaf, place in zip(leaves, places(params, patterns), strict=True)
        if place is not None
    )


def places(params: PyTree, patterns: Mapping[str, Any]) -> list[Place | None]:
    """Where units lie in every leaf, by the first pattern that is found in its path."""
    names = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    found = [next((x for p, x in patterns.items() if re.search(p, name)), None) for name in names]
    return [x if isinstance(x, tuple) or x is None else (x, 1) for x in found]
