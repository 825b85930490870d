"""CIFAR-100 with VGG16 and BatchNorm, the recipe beside its rival at 95 %.

    python -m experiments.run cifar100_vgg16_recipe --sparsity 0.98

As `cifar10_vgg16_recipe` in everything else.
"""

import dataclasses

from experiments.configs import cifar10_vgg16_recipe

CONFIG = dataclasses.replace(cifar10_vgg16_recipe.CONFIG, dataset="cifar100")
