"""Scikit-learn's 8 x 8 digits with an MLP 300-100: nothing to download, ends in a minute.

python -m experiments.run digits
"""

from experiments.config import Config
from experiments.methods.grda import Settings

CONFIG = Config(
    dataset="digits", model="mlp", epochs=60, batch_size=32, grda=Settings(c=0.02, mu=0.6)
)
