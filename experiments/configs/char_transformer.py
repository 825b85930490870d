"""A small transformer on the source of Python's standard library: nothing to download.

    python -m experiments.run char_transformer

Three methods of 1,872 steps each; embeddings and positions are pruned as the other kernels are.
"""

from experiments.config import Config

CONFIG = Config(
    dataset="python_text",
    model="char_transformer",
    method=("dense", "gmp", "recipe"),
    epochs=8,
    batch_size=64,
    optimizer="adamw",
    learning_rate=1e-3,
    schedule="cosine",
    weight_decay=0.05,
    sparsity=0.8,
)
