"""ImageNet with ResNet-50, plain SGD and gRDA at a constant rate, as the paper trains.

    python -m experiments.run imagenet_resnet50
    python -m experiments.run imagenet_resnet50 --method grda --grda.mu 0.51 --seed 1

The paper's numbers (`--grda.mu` and `--grda.c` choose the row; every leaf is penalised, and
counted), of single runs at the epoch that was best on the validation set:

| method | c | mu | zeros (%) | top-1 (%) | runs |
| --- | --- | --- | ---: | ---: | ---: |
| SGD |  |  | 0.00 | 68.71 | 1 |
| gRDA | 0.005 | 0.501 | 86.03 | 70.60 | 1 |
| gRDA | 0.005 | 0.51 | 87.38 | 70.35 | 1 |
| gRDA | 0.005 | 0.55 | 91.54 | 69.76 | 1 |

4.7e+18 operations: 16 hours a run on 8 devices that sustain 10 TFLOP/s each.
"""

from experiments.config import Config
from experiments.methods.grda import Settings

CONFIG = Config(
    dataset="imagenet2012",
    model="resnet50",
    epochs=150,
    batch_size=256,
    augment="crop_flip",
    learning_rate=0.1,
    schedule="constant",
    penalise="all",
    grda=Settings(c=0.005, mu=0.501),
)
