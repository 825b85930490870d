"""Questions and the runs that answer them: one file a study, one line in STUDIES."""

from types import ModuleType

from experiments.studies import fashion_mnist_paper

STUDIES: dict[str, ModuleType] = {"fashion_mnist_paper": fashion_mnist_paper}
