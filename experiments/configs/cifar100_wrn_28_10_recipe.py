"""CIFAR-100 with WRN-28-10, the recipe beside its rival at 95 %.

    python -m experiments.run cifar100_wrn_28_10_recipe --sparsity 0.98

As `cifar10_wrn_28_10_recipe` in everything else.
"""

import dataclasses

from experiments.configs import cifar10_wrn_28_10_recipe

CONFIG = dataclasses.replace(cifar10_wrn_28_10_recipe.CONFIG, dataset="cifar100")
