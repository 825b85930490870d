"""CIFAR-100 with WRN-28-10, plain SGD and gRDA, as the paper trains.

    python -m experiments.run cifar100_wrn_28_10
    python -m experiments.run cifar100_wrn_28_10 --method grda --grda.mu 0.55 --seed 1

The paper's numbers (`--grda.mu` and `--grda.c` choose the row;
every leaf is penalised, and counted):

| method | c | mu | zeros (%) | top-1 (%) | runs |
| --- | --- | --- | ---: | ---: | ---: |
| SGD |  |  | 0.00 | 76.53 ± 0.18 | 10 |
| gRDA | 0.001 | 0.501 | 82.69 | 76.92 ± 0.20 | 10 |
| gRDA | 0.001 | 0.55 | 90.20 | 77.00 ± 0.18 | 10 |
| gRDA | 0.001 | 0.6 | 94.20 | 77.00 ± 0.38 | 10 |
| gRDA | 0.001 | 0.65 | 96.30 | 76.85 ± 0.21 | 10 |

About 8.2 hours a run, as on CIFAR-10.
"""

import dataclasses

from experiments.configs import cifar10_wrn_28_10

CONFIG = dataclasses.replace(cifar10_wrn_28_10.CONFIG, dataset="cifar100")
