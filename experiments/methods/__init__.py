"""Ways to train a network, sparse or dense: one file a method, one line in METHODS."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from experiments.methods import dense, gmp, grda, recipe

if TYPE_CHECKING:
    from experiments.train import Job, Trained

METHODS: dict[str, Callable[["Job"], "Trained"]] = {
    "dense": dense.run,
    "grda": grda.run,
    "recipe": recipe.run,
    "gmp": gmp.run,
}
