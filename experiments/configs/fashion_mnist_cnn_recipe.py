"""Fashion-MNIST, BatchNorm CNN, momentum and a cosine schedule: the recipe beside its rival.

python -m experiments.run fashion_mnist_cnn_recipe --sparsity 0.98
"""

import dataclasses

from experiments.configs import fashion_mnist_recipe

CONFIG = dataclasses.replace(fashion_mnist_recipe.CONFIG, model="small_cnn", epochs=10)
