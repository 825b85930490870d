"""ImageNet with ResNet-50, plain SGD and gRDA, the rate to a tenth every 30 epochs.

    python -m experiments.run imagenet_resnet50_steps
    python -m experiments.run imagenet_resnet50_steps --method grda --grda.mu 0.7 --seed 1

The paper's numbers (`--grda.mu` and `--grda.c` choose the row; every leaf is penalised, and
counted), of single runs at the epoch that was best on the validation set:

| method | c | mu | zeros (%) | top-1 (%) | runs |
| --- | --- | --- | ---: | ---: | ---: |
| gRDA | 0.005 | 0.65 | 97.05 | 66.46 | 1 |
| gRDA | 0.004 | 0.65 | 96.36 | 68.06 | 1 |
| gRDA | 0.005 | 0.7 | 98.26 | 62.60 | 1 |
| gRDA | 0.004 | 0.7 | 97.69 | 65.17 | 1 |
| gRDA | 0.003 | 0.7 | 96.87 | 67.28 | 1 |
| gRDA | 0.005 | 0.75 | 98.99 | 56.15 | 1 |
| gRDA | 0.003 | 0.75 | 98.10 | 63.76 | 1 |
| gRDA | 0.002 | 0.75 | 97.06 | 67.23 | 1 |
| gRDA | 0.004 | 0.75 | 98.62 | 60.12 | 1 |
| gRDA | 0.005 | 0.8 | 99.51 | 43.47 | 1 |
| gRDA | 0.005 | 0.85 | 99.84 | 22.69 | 1 |

3.9e+18 operations: 14 hours a run on 8 devices that sustain 10 TFLOP/s each.
"""

import dataclasses

from experiments.configs import imagenet_resnet50
from experiments.methods.grda import Settings

CONFIG = dataclasses.replace(
    imagenet_resnet50.CONFIG,
    epochs=125,
    schedule="milestones",
    milestones=(30, 60, 90, 120),
    grda=Settings(c=0.004, mu=0.65),
)
