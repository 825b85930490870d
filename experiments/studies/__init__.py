"""Questions and the runs that answer them: one file a study, one line in STUDIES."""

from types import ModuleType

from experiments.studies import (
    asked_and_got,
    extremes,
    fashion_mnist_paper,
    frontier,
    frontier_tuning,
    learning_rate,
    recipe_and_rda,
    recipe_controls,
    recipe_fashion_mnist,
    recipe_pretrained,
    recipe_pretrained_tuning,
    recipe_small,
    recipe_transformer,
    recipe_tuning,
    settling,
    structured_fashion_mnist,
    suggest_c_error,
)

STUDIES: dict[str, ModuleType] = {
    "fashion_mnist_paper": fashion_mnist_paper,
    "settling": settling,
    "learning_rate": learning_rate,
    "suggest_c_error": suggest_c_error,
    "asked_and_got": asked_and_got,
    "recipe_fashion_mnist": recipe_fashion_mnist,
    "recipe_tuning": recipe_tuning,
    "recipe_controls": recipe_controls,
    "recipe_small": recipe_small,
    "recipe_pretrained": recipe_pretrained,
    "recipe_pretrained_tuning": recipe_pretrained_tuning,
    "recipe_transformer": recipe_transformer,
    "extremes": extremes,
    "frontier_tuning": frontier_tuning,
    "frontier": frontier,
    "recipe_and_rda": recipe_and_rda,
    "structured_fashion_mnist": structured_fashion_mnist,
}
