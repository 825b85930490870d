"""The study of RDA and the recipe, on rows that are made up."""

from experiments.config import Config
from experiments.studies import frontier, recipe_and_rda
from experiments.studies.contenders import CONTENDERS
from experiments.studies.recipe_and_rda import FRONTIERS, SEEDS, SETTINGS, STRENGTHS

from .test_studies import fake, lines_of


def test_its_settings_are_those_of_the_frontier_but_for_what_is_compared():
    """The same network, budget and batch, on a split and with seeds that no reported run has."""
    assert not set(SEEDS) & {*frontier.SEEDS, *frontier.MORE_SEEDS}
    for config, preset in recipe_and_rda.runs():
        assert preset == frontier.CNN.preset
        assert config.evaluate == "validation"
        differ = {name.partition(".")[0] for name in frontier.CNN.base.differences(config)}
        changed = {"method", "seed", "evaluate", "learning_rate", "weight_decay", "rda", "recipe"}
        assert differ <= changed


def test_rda_is_read_between_its_strengths_and_differences_are_paired(tmp_path):
    """In the logarithm of the weights left, in the middle of 90 and 97.5 % are 95 %."""
    (rda,) = [x for x in SETTINGS if x.name == "rda" and x.weight_decay == 0]
    assert CONTENDERS["rda"].kind == "swept"
    few, many = rda.configs(SEEDS[0])
    assert (few.rda.strength, many.rda.strength) == STRENGTHS
    alone, _ = rda.configs(SEEDS[1])
    rows = [
        fake(few, accuracy=0.92, sparsity=0.9),
        fake(many, accuracy=0.90, sparsity=0.975),
        fake(alone, accuracy=0.5, sparsity=0.9),  # on one side only, so that nothing is read
        *(fake(FRONTIERS.configs(seed)[0], accuracy=0.905) for seed in SEEDS),
    ]
    lines = lines_of(recipe_and_rda.render(rows, tmp_path))
    (line,) = [line for line in lines if line[0] == CONTENDERS["rda"].label]
    assert line == ["RDA", "0.1", "0", "91.00", "+0.50", "1"]
    (line,) = [line for line in lines if line[0] == CONTENDERS["recipe"].label]
    assert line == ["recipe", "0.05", "0.0005", "90.50 ± 0.00", "", "3"]


def test_a_row_of_another_network_is_not_counted(tmp_path):
    other = fake(Config(method=("recipe",)))
    header, *lines = lines_of(recipe_and_rda.render([other], tmp_path))
    assert header[-1] == "seeds"
    assert not lines
