"""Fashion-MNIST with an MLP 300-100, plain SGD at a constant rate, as the paper trains.

    python -m experiments.run fashion_mnist

Its results, with other c and mu and more seeds, are in experiments/results/RESULTS.md.
"""

from experiments.config import Config
from experiments.methods.grda import Settings

CONFIG = Config(
    dataset="fashion_mnist", model="mlp", epochs=15, penalise="all", grda=Settings(mu=0.6)
)
