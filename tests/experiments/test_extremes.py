"""The studies of the rate and of the extremes, on rows that are made up."""

import dataclasses

import pytest

from experiments.config import Config
from experiments.studies import extremes, learning_rate

from .test_studies import fake, lines_of


def with_layers(config, counts, accuracy):
    row = fake(config, accuracy=accuracy)
    row["result"]["leaves"] = {
        name: {"nnz": n, "total": 1000, "penalised": True} for name, n in counts.items()
    }
    return row


def test_a_collapse_and_a_death_are_counted_by_seed(tmp_path):
    recipe = extremes.NETWORKS["mlp"][0]
    last = recipe.configs[-1]
    seeds = recipe.of(last)
    rows = [
        with_layers(seeds[0], {"dense1/kernel": 2, "head/kernel": 0, "head/bias": 0}, 0.1),
        with_layers(seeds[1], {"dense1/kernel": 2, "head/kernel": 4, "head/bias": 0}, 0.5),
    ]
    (_, line, *_) = lines_of(extremes.render(rows, tmp_path))
    # Of 2,000 weights 2 and 6 are left.
    assert line == [
        *("recipe", "99.80", "30.00 ± 28.28", "2", "2"),
        *("head (1 of 2)", "1 of 2"),
    ]
    assert extremes.dead(rows[0])
    assert not extremes.dead(rows[1])


def test_strengths_grow_with_the_momentum():
    plain, _, momentum, _ = learning_rate.BASES
    assert plain.strengths == learning_rate.STRENGTHS
    assert momentum.strengths == pytest.approx([10 * c for c in plain.strengths])
    (config, *_) = learning_rate.planned(momentum, "step", momentum.strengths[0])
    assert (config.momentum, config.schedule, config.grda.c) == (0.9, "step", 0.05)


@pytest.mark.parametrize(
    ("schedule", "share"), [("constant", 1.0), ("step", 0.5275), ("cosine", 0.5)]
)
def test_training_time_is_the_sum_of_the_rates(schedule, share):
    row = fake(Config(method=("grda",), schedule=schedule, learning_rate=0.1))
    row["epochs"]["step"] = [4000]
    assert learning_rate.training_time(row) == pytest.approx(400 * share, rel=5e-3)


def test_the_accuracy_is_read_between_the_strengths_of_each_seed():
    """In the logarithm of the weights left, in the middle of 80 and 95 % are 90 %."""
    base = learning_rate.BASES[0]
    few, many = (learning_rate.planned(base, "cosine", c)[0] for c in base.strengths[:2])
    other = dataclasses.replace(few, seed=1)
    groups = [
        [fake(few, accuracy=0.8, sparsity=0.8), fake(other, accuracy=0.5, sparsity=0.8)],
        [fake(many, accuracy=0.6, sparsity=0.95)],
    ]
    found = learning_rate.read_at(groups, 0.9)
    assert found.n == 1  # the other seed does not reach that far
    assert found.mean == pytest.approx(70)


def test_twice_the_rate_that_falls_trains_for_as_long_as_one_that_does_not():
    """And with momentum an update carries on: 1 / (1 - 0.9) times as far."""
    plain, _, momentum, _ = learning_rate.BASES
    times = []
    for base, schedule in (
        (learning_rate.TWICE, "cosine"),
        (plain, "constant"),
        (momentum, "constant"),
    ):
        row = fake(learning_rate.planned(base, schedule, 0.01)[0])
        row["epochs"]["step"] = [4000]
        times.append(learning_rate.training_time(row))
    assert times == pytest.approx([400, 400, 2000], rel=0.01)


def test_what_falls_is_set_beside_what_does_not_seed_by_seed(tmp_path):
    plain = learning_rate.BASES[0]
    rows = []
    for schedule, better in (("constant", 0.0), ("step", 0.02)):
        few, many = (learning_rate.planned(plain, schedule, c) for c in plain.strengths[:2])
        for seed in (0, 1):
            noise = 0.1 * seed  # is the same under both, and drops out
            rows += [
                fake(few[seed], accuracy=0.8 + noise + better, sparsity=0.96),
                fake(many[seed], accuracy=0.7 + noise + better, sparsity=0.99),
                fake(learning_rate.planned(plain, schedule, None)[seed], accuracy=0.85 + noise),
            ]
    lines = lines_of(learning_rate.render(rows, tmp_path))
    (line,) = [x for x in lines if x[0] == "plain, step"]
    assert line == ["plain, step", "plain, constant", "3", "5", "+2.00 ± 0.00", "+0.00 ± 0.00"]
