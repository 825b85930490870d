"""Training jobs that put grda_optax to work and measure it; `python -m experiments.run --help`."""
