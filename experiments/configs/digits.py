"""Scikit-learn's 8 x 8 digits with an MLP 300-100: nothing to download, ends in a minute.

python -m experiments.run digits
"""

import dataclasses

from experiments.config import Config
from experiments.methods.grda import Settings

PLAIN = Config(
    dataset="digits", model="mlp", epochs=60, batch_size=32, grda=Settings(c=0.02, mu=0.6)
)
"""By the paper: SGD at a constant rate. Studies begin from it."""
CONFIG = dataclasses.replace(
    PLAIN,
    method=("dense", "recipe", "grda"),
    learning_rate=0.05,
    momentum=0.9,
    schedule="cosine",
    grda=Settings(c=0.06, mu=0.6),
)
