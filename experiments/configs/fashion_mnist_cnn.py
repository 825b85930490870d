"""Fashion-MNIST with a small BatchNorm CNN, plain SGD at a constant rate, as the paper trains.

    python -m experiments.run fashion_mnist_cnn

Its results, with other c and mu and more seeds, are in experiments/results/RESULTS.md.
"""

from experiments.config import Config
from experiments.methods.grda import Settings

CONFIG = Config(
    dataset="fashion_mnist", model="small_cnn", epochs=10, penalise="all", grda=Settings(mu=0.6)
)
