"""What can be measured: a name, how, and the tables of it; one line each."""

import math
from collections.abc import Callable
from typing import NamedTuple

import optax

from experiments.bench import (
    compiling,
    curvature,
    devices,
    job,
    memory,
    peers,
    sizes,
    updates,
)
from experiments.bench.arguments import Arguments
from experiments.bench.shown import Shown, of_costs
from experiments.bench.timing import plain
from experiments.log import Row


class Measured(NamedTuple):
    """How a part is measured, which of the settings it depends on, and its tables."""

    settings: tuple[str, ...]
    measure: Callable[[Arguments], Row]
    shown: Callable[[Row, Row], list[Shown]]
    """Of the data and of the config."""


def _update(told: Arguments) -> Row:
    weights, costs = updates.time_update(told.weights, told.rounds)
    return {"weights": weights, "update": plain(costs)}


def _show_update(data: Row, config: Row) -> list[Shown]:
    weights = data.get("weights", config["weights"])  # which earlier releases had in the config
    return [of_costs(f"Update of {weights:,} weights", data["update"])]


def _training(told: Arguments) -> Row:
    return {"training": plain(updates.time_training(told.batch_size, told.rounds))}


def _show_training(data: Row, config: Row) -> list[Shown]:
    title = f"Training step of `small_cnn`, batch {config['batch_size']}"
    return [of_costs(title, data["training"])]


def _curvature(told: Arguments) -> Row:
    size = (told.curvature_weights, told.examples)
    return {
        "memory": curvature.memory(*size),
        "products": plain(curvature.time_products(*size, told.rounds)),
        "lanczos": plain(curvature.time_lanczos(*size, math.ceil(told.rounds / 3))),
    }


def _show_curvature(data: Row, config: Row) -> list[Shown]:
    of = "{curvature_weights:,} weights, {examples:,} examples".format(**config)
    memory = (
        "Memory of fifty steps of Lanczos beyond that of the products: "
        f"{data['memory']['basis']:.2f} times the basis (50 vectors of the network's size) "
        f"where it is kept, {data['memory']['no_basis']:.1f} vectors where it is not."
    )
    return [
        of_costs(f"Products with the Hessian, {of}", data["products"]),
        of_costs(f"Lanczos, {of}", data["lanczos"])._replace(note=memory),
    ]


def _peers(told: Arguments) -> Row:
    assert told.torch is not None
    with peers.Torch(told.torch) as torch:
        fitting = tuple(n for n in told.sizes if n <= 25_000_000)
        rows = peers.measure(torch, fitting, told.leaves, told.rounds)
        return {"torch": torch.origin, "rows": rows}


def _large(told: Arguments) -> Row:
    image = (told.image_size, told.image_size, 3)
    rounds = math.ceil(told.rounds / 3)
    more = {"adam": optax.adam(1e-3)}
    costs = updates.time_training(
        told.network_batch, rounds, told.network, image, classes=1000, more=more
    )
    return {"training": plain(costs)}


def _show_large(data: Row, config: Row) -> list[Shown]:
    side = config["image_size"]
    title = "Training step of `{network}`, batch {network_batch}, ".format(**config)
    return [of_costs(f"{title}{side} by {side} images", data["training"])]


def _memory(told: Arguments) -> Row:
    networks = {"fashion_mnist_cnn": told.batch_size}
    if told.network == "resnet50":
        networks["imagenet_resnet50"] = told.network_batch
    return {"programs": memory.measure(told.weights, networks)}


PARTS: dict[str, Measured] = {
    "update": Measured(("weights", "rounds"), _update, _show_update),
    "sizes": Measured(
        ("sizes", "leaves", "rounds"),
        lambda told: {"rows": sizes.measure(told.sizes, told.leaves, told.rounds)},
        lambda data, _: sizes.shown(data["rows"]),
    ),
    "peers": Measured(("sizes", "leaves", "rounds"), _peers, lambda data, _: peers.shown(data)),
    "training": Measured(("batch_size", "rounds"), _training, _show_training),
    "large": Measured(("network", "image_size", "network_batch", "rounds"), _large, _show_large),
    "memory": Measured(
        ("weights", "batch_size", "network", "network_batch"),
        _memory,
        lambda data, _: memory.shown(data["programs"]),
    ),
    "compilation": Measured(
        ("compiled_leaves", "rounds"),
        lambda told: compiling.measure(told.compiled_leaves, math.ceil(told.rounds / 5)),
        lambda data, _: compiling.shown(data),
    ),
    "devices": Measured(
        ("devices", "network_batch"),
        lambda told: devices.measure(told.devices, told.network_batch),
        lambda data, _: devices.shown(data),
    ),
    "job": Measured(
        ("job", "rounds"),
        lambda told: job.measure(told.job, math.ceil(told.rounds / 3)),
        lambda data, _: job.shown(data),
    ),
    "curvature": Measured(("curvature_weights", "examples", "rounds"), _curvature, _show_curvature),
}
"""In the order of their tables."""
