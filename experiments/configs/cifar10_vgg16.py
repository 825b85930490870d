"""CIFAR-10 with VGG16, plain SGD and gRDA, as the paper trains.

    python -m experiments.run cifar10_vgg16
    python -m experiments.run cifar10_vgg16 --method grda --grda.mu 0.51 --seed 1

The paper's numbers (`--grda.mu` and `--grda.c` choose the row;
every leaf is penalised, and counted):

| method | c | mu | zeros (%) | top-1 (%) | runs |
| --- | --- | --- | ---: | ---: | ---: |
| SGD |  |  | 0.00 | 90.82 ± 0.18 | 10 |
| gRDA | 0.0005 | 0.4 | 24.45 | 90.87 ± 0.21 | 10 |
| gRDA | 0.0005 | 0.51 | 61.41 | 91.02 ± 0.15 | 10 |
| gRDA | 0.0005 | 0.6 | 90.48 | 90.86 ± 0.26 | 10 |
| gRDA | 0.0005 | 0.7 | 97.22 | 90.64 ± 0.24 | 9 |

About 1.7 hours a run: the authors' logs say 10.4 s an epoch, on a GPU that they do not name.
Their code's VGG16 has no BatchNorm, and dropout; `--model vgg16_bn` is the other one.
"""

from experiments.config import Config
from experiments.methods.grda import Settings

CONFIG = Config(
    dataset="cifar10",
    model="vgg16",
    epochs=600,
    batch_size=128,
    augment="crop_flip",
    learning_rate=0.1,
    schedule="plateau_linear",
    penalise="all",
    grda=Settings(c=0.0005, mu=0.6),
)
