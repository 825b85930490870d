"""Questions and the runs that answer them: one file a study, one line in STUDIES."""

from types import ModuleType

from experiments.studies import (
    fashion_mnist_paper,
    frontier,
    frontier_tuning,
    recipe_fashion_mnist,
    recipe_tuning,
)

STUDIES: dict[str, ModuleType] = {
    "fashion_mnist_paper": fashion_mnist_paper,
    "recipe_fashion_mnist": recipe_fashion_mnist,
    "recipe_tuning": recipe_tuning,
    "frontier_tuning": frontier_tuning,
    "frontier": frontier,
}
