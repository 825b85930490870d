"""CIFAR-100 with VGG16, plain SGD and gRDA, as the paper trains on CIFAR-10.

    python -m experiments.run cifar100_vgg16
    python -m experiments.run cifar100_vgg16 --method grda --grda.mu 0.51 --seed 1

The authors published no number for it.

About 1.7 hours a run, as on CIFAR-10.
"""

import dataclasses

from experiments.configs import cifar10_vgg16

CONFIG = dataclasses.replace(cifar10_vgg16.CONFIG, dataset="cifar100")
