"""What pruning costs beside SGD with momentum: `python -m experiments.bench --help`."""
