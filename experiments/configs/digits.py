"""Scikit-learn's 8 x 8 digits with an MLP 300-100: nothing to download, ends in a minute.

python -m experiments.run digits
"""

from experiments.config import Config
from experiments.methods.grda import Settings

CONFIG = Config(
    dataset="digits",
    model="mlp",
    method=("dense", "recipe", "grda"),
    epochs=60,
    batch_size=32,
    learning_rate=0.05,
    momentum=0.9,
    schedule="cosine",
    sparsity=0.9,
    grda=Settings(c=0.06, mu=0.6),
)
