"""ImageNet with ResNet-50, plain SGD and gRDA, the rate to a tenth after 140 epochs.

    python -m experiments.run imagenet_resnet50_drop
    python -m experiments.run imagenet_resnet50_drop --method grda --grda.mu 0.51 --seed 1

The paper's numbers (`--grda.mu` and `--grda.c` choose the row; every leaf is penalised, and
counted), of single runs at the epoch that was best on the validation set:

| method | c | mu | zeros (%) | top-1 (%) | runs |
| --- | --- | --- | ---: | ---: | ---: |
| gRDA | 0.01 | 0.4 | 79.69 | 72.75 | 1 |
| gRDA | 0.005 | 0.501 | 86.09 | 73.13 | 1 |
| gRDA | 0.005 | 0.51 | 87.28 | 73.14 | 1 |
| gRDA | 0.005 | 0.55 | 91.59 | 73.24 | 1 |
| gRDA | 0.005 | 0.6 | 94.98 | 72.16 | 1 |
| gRDA | 0.005 | 0.65 | 97.10 | 70.04 | 1 |
| gRDA | 0.005 | 0.7 | 98.17 | 65.51 | 1 |

4.9e+18 operations: 17 hours a run on 8 devices that sustain 10 TFLOP/s each.
"""

import dataclasses

from experiments.configs import imagenet_resnet50
from experiments.methods.grda import Settings

CONFIG = dataclasses.replace(
    imagenet_resnet50.CONFIG,
    epochs=155,
    schedule="milestones",
    milestones=(140,),
    grda=Settings(c=0.005, mu=0.55),
)
