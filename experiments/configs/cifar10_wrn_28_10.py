"""CIFAR-10 with WRN-28-10, plain SGD and gRDA, as the paper trains.

    python -m experiments.run cifar10_wrn_28_10
    python -m experiments.run cifar10_wrn_28_10 --method grda --grda.mu 0.55 --seed 1

The paper's numbers (`--grda.mu` and `--grda.c` choose the row;
every leaf is penalised, and counted):

| method | c | mu | zeros (%) | top-1 (%) | runs |
| --- | --- | --- | ---: | ---: | ---: |
| SGD |  |  | 0.00 | 94.17 ± 0.12 | 10 |
| gRDA | 0.001 | 0.4 | 62.19 | 94.25 ± 0.11 | 4 |
| gRDA | 0.001 | 0.501 | 90.17 | 94.46 ± 0.13 | 10 |
| gRDA | 0.001 | 0.55 | 94.74 | 94.43 ± 0.08 | 10 |
| gRDA | 0.001 | 0.6 | 97.07 | 94.50 ± 0.17 | 10 |
| gRDA | 0.001 | 0.65 | 98.29 | 94.53 ± 0.12 | 10 |

About 8.2 hours a run: the authors' logs say 148 s an epoch, on a GPU that they do not name.
"""

from experiments.config import Config
from experiments.methods.grda import Settings

CONFIG = Config(
    dataset="cifar10",
    model="wrn_28_10",
    epochs=200,
    batch_size=128,
    augment="crop_flip",
    learning_rate=0.1,
    schedule="plateau_linear",
    penalise="all",
    grda=Settings(c=0.001, mu=0.501),
)
