"""Questions and the runs that answer them: one file a study, one line in STUDIES."""

from types import ModuleType

from experiments.studies import (
    fashion_mnist_paper,
    recipe_fashion_mnist,
    recipe_tuning,
    structured_fashion_mnist,
)

STUDIES: dict[str, ModuleType] = {
    "fashion_mnist_paper": fashion_mnist_paper,
    "recipe_fashion_mnist": recipe_fashion_mnist,
    "recipe_tuning": recipe_tuning,
    "structured_fashion_mnist": structured_fashion_mnist,
}
