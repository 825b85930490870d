"""CIFAR-10 with WRN-28-10, the recipe beside its rival at 95 %.

    python -m experiments.run cifar10_wrn_28_10_recipe --sparsity 0.98

Momentum, a cosine schedule, weight decay and label smoothing around `prune_with`, where the paper's
own config has plain SGD. The settings are the usual ones, and were not tuned for it.

About 8.2 hours a method, by the authors' 148 s an epoch.
"""

import dataclasses

from experiments.configs import cifar10_wrn_28_10

CONFIG = dataclasses.replace(
    cifar10_wrn_28_10.CONFIG,
    weight_decay=5e-4,
    sparsity=0.95,
    method=("dense", "gmp", "recipe"),
    schedule="cosine",
    warmup_epochs=5,
    momentum=0.9,
    label_smoothing=0.1,
    penalise="kernels",
)
