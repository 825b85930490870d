"""The frontier: who is run on what, which settings are chosen, and what the pages say."""

import dataclasses
import itertools
import math

import pytest

from experiments import study
from experiments.config import Config
from experiments.frontier import timed
from experiments.methods import METHODS
from experiments.studies import frontier, frontier_tuning, sweep
from experiments.studies.contenders import CONTENDERS, TRIALS, changed, contender_of
from experiments.studies.frontier_cells import Results
from experiments.studies.labels import spread_out, styles
from experiments.studies.rows import compact, config_of, results_by_config

from .frontier_rows import HOPELESS, frontier_rows, row_of, tuning_rows


@pytest.fixture(scope="module")
def tuning():
    return tuning_rows()[0]


@pytest.fixture(scope="module")
def finished(tuning):
    return frontier_rows(tuning)[0]


def test_every_method_takes_part():
    """But for those that take whole units, whose sparsity is of operations."""
    of_units = {"channels", "l1_channels"}
    assert {x.method for x in CONTENDERS.values()} == set(METHODS) - of_units


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_contender_has_as_many_trials_and_is_known_by_its_config(name):
    contender = CONTENDERS[name]
    if contender.takes[0]:
        assert not contender.grid
        return
    configs = [frontier_tuning.trial(contender, changes) for changes in contender.trials]
    assert len(set(configs)) == TRIALS
    assert {contender_of(config) for config in configs} == {name}
    assert {config.evaluate for config in configs} == {"validation"}


def test_the_best_trial_is_chosen_and_the_first_of_equals(tuning):
    results = results_by_config(tuning)
    contender = CONTENDERS["gmp"]
    configs = [frontier_tuning.trial(contender, changes) for changes in contender.trials]
    for accuracies, best in ([0.8, 0.9, 0.9, 0.7], 1), ([0.8, 0.7, 0.6, 0.95], 3):
        for config, accuracy in zip(configs, accuracies, strict=True):
            results[config] = {"config": config.to_json(), "result": {"eval_accuracy": accuracy}}
        assert frontier_tuning.chosen("gmp", results) == contender.trials[best]
    # Others take them under their own names.
    taken = frontier_tuning.chosen("magnitude_v2", results)
    assert taken == {"learning_rate": 0.1, "magnitude_v2.update_every": 200}
    results[configs[3]]["result"] = {"diverged": True}
    assert frontier_tuning.chosen("gmp", results) == contender.trials[0]
    del results[configs[2]]
    assert frontier_tuning.chosen("gmp", results) is None
    assert frontier_tuning.chosen("magnitude_v2", results) is None


def test_what_never_ends_is_chosen_by_nobody(tuning):
    chosen = frontier_tuning.all_chosen(tuning)
    assert set(chosen) == set(CONTENDERS) - {HOPELESS}
    assert frontier.tuned(tuning)
    assert not frontier.tuned(tuning[:-1])


def test_a_run_is_planned_when_its_tuning_is_complete(tuning):
    assert frontier.runs([], [], [], []) == []
    mine = [r for r in tuning if contender_of(config_of(r)) == "recipe"]
    planned = [config for config, _ in frontier.runs([], mine, [], [])]
    assert [config.sparsity for config in planned] == [0.95, 0.9, 0.98, 0.8, 0.99]
    assert {contender_of(config) for config in planned} == {"recipe"}
    assert {config.evaluate for config in planned} == {"test"}
    # Seeds come in the outer loop: the next one when this is done.
    rows = [row_of(config) for config in planned]
    more = [config.seed for config, _ in frontier.runs(rows, mine, [], [])]
    assert more == [0] * 5 + [1] * 5
    assert [c.seed for c, _ in frontier.runs(rows[:-1], mine, [], [])] == [0] * 5


@pytest.mark.slow
def test_the_plan_grows_to_what_the_best_are_run_on(tuning, finished):
    configs = [config_of(row) for row in finished]
    assert len(set(configs)) == len(configs)
    assert contender_of(configs[0]) == "gmp"
    best = Results(finished, "mlp", (0, 1, 2)).ranking(frontier.MLP.sparsities)
    assert HOPELESS not in best
    assert "snip" not in best  # which has no result at 99 %

    def of(model, seed):
        mine = [c for c in configs if c.model == model and c.seed == seed]
        return {contender_of(config) for config in mine}

    assert of("mlp", 0) == set(CONTENDERS) - {HOPELESS, "magnitude_v2"}
    assert of("mlp", 3) == of("mlp", 4) == {"gmp", *best[:6]}
    for seed in range(3):
        assert of("small_cnn", seed) == {*best[:8], *frontier.ALWAYS_ON_CNN}
    assert of("small_cnn", 3) == set()
    # Until all have run on the MLP nothing is known of the CNN.
    part = [row for row in finished if row["config"]["seed"] < 2]
    assert {c.model for c, _ in frontier.runs(part, tuning, [], [])} == {"mlp"}


def test_all_seeds_of_a_sweep_have_the_strengths_that_the_first_has_found(finished):
    strengths = {}
    for row in finished:
        config = config_of(row)
        if contender_of(config) == "proximal_sgd":
            seed = strengths.setdefault(config.seed, {})
            seed[config.proximal_sgd.strength] = 1 - row["result"]["penalised"]["nnz"] / 266_200
    assert set(strengths) == {0, 1, 2}
    assert set(strengths[1]) == set(strengths[2]) <= set(strengths[0])
    for found in strengths.values():
        assert min(found.values()) < 0.8
        assert max(found.values()) >= 0.99


def test_a_walk_by_hand():
    assert sweep.walk({}, 0.8, 0.99) == [0]
    assert sweep.walk({0: 0.9}, 0.8, 0.99) == [0, 1]
    assert sweep.walk({0: 0.9, 1: 0.995}, 0.8, 0.99) == [0, 1, -1]
    assert not sweep.finished({0: 0.9, 1: 0.995}, 0.8, 0.99)
    # Another seed's may be below 80 %, or not: clearly below is a ninth more weights.
    assert sweep.walk({0: 0.9, 1: 0.995, -1: 0.79}, 0.8, 0.99) == [0, 1, -1, -2]
    # From 10 % of the weights to 0.5 % is a wide gap, and from 20 % to 10 % is none.
    found = {0: 0.9, 1: 0.995, -1: 0.8, -2: 0.77}
    assert sweep.walk(found, 0.8, 0.99) == [0, 1, -1, -2, 0.5]
    # It is halved until there is none, or the strengths are an eighth of a doubling apart.
    found[0.5] = 0.971
    assert sweep.walk(found, 0.8, 0.99) == [0, 1, -1, -2, 0.5, 0.25, 0.75]
    found |= {0.25: 0.949, 0.75: 0.985}
    assert sweep.walk(found, 0.8, 0.99)[-1] == 0.875
    assert sweep.finished(found | {0.875: 0.991}, 0.8, 0.99)
    dying = {0: 0.775, 1: 0.887, 2: 1.0, 1.5: 0.943, 1.75: 1.0, 1.625: 1.0}
    assert sweep.finished(dying, 0.8, 0.99)
    # In tuning it ends as soon as both sides of the one sparsity are there.
    assert sweep.finished({0: 0.94, 1: 0.96}, 0.95, 0.95)
    # What never gets there is given up.
    never = {float(k): 0.1 for k in range(sweep.FARTHEST + 1)}
    assert sweep.finished(never, 0.8, 0.99)
    # Others repeat what is not clearly beyond, and the next on either side.
    found = {-2: 0.5, -1: 0.7, 0: 0.85, 1: 0.9, 2: 0.95, 3: 0.971, 4: 0.98, 5: 0.99}
    assert sweep.finished(found, 0.8, 0.97)
    assert sweep.around(found, 0.8, 0.97) == [-1, 0, 1, 2, 3, 4]


def test_interpolation_by_hand():
    points = [(0.9, 89.0), (0.99, 87.0), (0.5, 90.0), (1.0, 10.0)]
    assert sweep.interpolate(points, 0.9) == pytest.approx(89.0)
    # In the logarithm 10 % to 1 % has its middle at the square root of 0.1 %.
    assert sweep.interpolate(points, 1 - math.sqrt(1e-3)) == pytest.approx(88.0)
    assert math.isnan(sweep.interpolate(points, 0.995))
    # Nothing is said of what lies in a wide gap, but all of where a run is.
    assert math.isnan(sweep.interpolate(points, 0.95, widest=9.0))
    assert sweep.interpolate(points, 0.95, widest=11.0) == sweep.interpolate(points, 0.95)
    assert sweep.interpolate(points, 0.9, widest=2.0) == pytest.approx(89.0)
    assert math.isnan(sweep.interpolate([], 0.9))
    assert sweep.read_at(points, 0.4) == 90.0
    assert sweep.read_at(points, 0.995) == -math.inf


def rows_by_hand():
    """GMP and the recipe at 95 %, three seeds and two; the dense network; a run that diverged."""
    rows = []
    for name, accuracies in {
        "gmp": [0.88, 0.89, 0.90],
        "recipe": [0.89, 0.91],
        "dense": [0.9],
    }.items():
        contender = CONTENDERS[name]
        for seed, accuracy in enumerate(accuracies):
            base = dataclasses.replace(frontier.MLP.base, seed=seed)
            row = row_of(frontier_tuning.trial(contender, contender.trials[0], base))
            row["result"] |= {"eval_accuracy": accuracy, "state_bytes": 100}
            rows.append(row)
            if name == "recipe":
                row["result"] |= {"state_bytes": 150, "gradient_evaluations": 2 * 7020}
    lost = config_of(rows[4])
    rows.append({"config": dataclasses.replace(lost, seed=2).to_json(), "result": {"diverged": 1}})
    return rows


def test_a_table_by_hand():
    table = frontier.table(Results(rows_by_hand(), "mlp"), frontier.MLP, [])
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    zeros = ["80 %", "90 %", "95 %", "98 %", "99 %"]
    assert lines[0] == ["", *zeros, "seeds", "cost", "memory", "to GMP"]
    # Quantiles of Student's t: 4.303 for two degrees of freedom, 12.706 for one.
    scores = ["-", "-", "90.00 ± 12.71 (1 diverged)", "-", "-"]
    assert lines[2] == ["recipe", *scores, "3", "2.00", "1.50", "+1.50 ± 6.35"]
    assert lines[3] == ["GMP", "-", "-", "89.00 ± 2.48", "-", "-", "3", "1.00", "1.00", ""]
    assert lines[4] == ["dense", "90.00 (no zeros)", *[""] * 4, "1", "1.00", "1.00", ""]


@pytest.mark.slow
def test_seconds_are_relative_to_the_dense_run_that_was_timed_beside(finished):
    assert frontier.seconds_a_step([]) == {}
    time = timed(finished)
    assert contender_of(config_of(time[0])) == "dense"
    seconds = frontier.seconds_a_step(time)
    assert seconds["dense"] == 1.0
    assert seconds["recipe"] == pytest.approx(21 / 22)  # by its place, as the rows are made
    table = frontier.table(Results(finished, "mlp"), frontier.MLP, time)
    assert "seconds a step" in table.splitlines()[0]


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["all", "some", "one"])
def test_the_pages_of_any_rows_can_be_made(finished, tuning, tmp_path, kept):
    rows = {"all": finished, "some": finished[::7], "one": finished[3:4]}[kept]
    page = frontier.render(rows, tmp_path, rows, tuning, [], [])
    assert "**mlp**, 15 epochs, on a chip\n" in page
    for picture in tmp_path.glob("*.png"):
        assert f"({picture.name})" in page
        assert picture.stat().st_size > 10_000
    assert (
        len(list(tmp_path.iterdir())) == page.count("![") == {"all": 6}.get(kept, page.count("!["))
    )
    if kept == "all":
        assert "3 diverged" in page
        assert page.count("\n| GMP |") == 2
    tried = frontier_tuning.render(tuning[: len(rows)], tmp_path, tuning)
    assert ("diverged, or never as sparse" in tried) == (kept == "all")


def test_small_rows_say_as_much(tuning, finished):
    for row in [*tuning[:40], *finished[:40]]:
        config = config_of(row)
        small = compact(row)["config"]
        assert Config.from_json(small) == config
        if config.method == ("recipe",):
            assert "recipe" in small
            assert "gmp" not in small
    # A setting of another method that is no default stays, since the config has it.
    odd = changed(Config(method=("dense",)), {"gmp.update_every": 7})
    assert compact({"config": odd.to_json()})["config"]["gmp"]["update_every"] == 7


def test_labels_keep_their_distance():
    wanted = [5.0, 1.0, 1.1, 1.2, 9.9, 9.9]
    places = spread_out(wanted, 0.5, 0.0, 10.0)
    ordered = sorted(places)
    assert all(b - a >= 0.5 - 1e-9 for a, b in itertools.pairwise(ordered))
    assert min(places) >= 0
    assert max(places) <= 10
    assert places[0] == 5.0
    assert places[1:4] == pytest.approx([0.6, 1.1, 1.6])
    assert sorted(range(6), key=lambda i: places[i]) == [1, 2, 3, 0, 4, 5]


def test_a_few_stand_out():
    styled = styles(list(CONTENDERS), ["acdc", "recipe", "rigl", "gmp", "str", "obs", "dpf"])
    out = {name for name, style in styled.items() if style.stands_out}
    assert out == {"recipe", "gmp", "acdc", "rigl", "str", "obs"}
    assert len({(styled[n].color, styled[n].marker) for n in out}) == len(out)


def test_the_command_tunes_first(monkeypatch):
    from experiments import frontier as command

    calls = []
    monkeypatch.setattr(study, "run_study", lambda name, workers, console: calls.append(name))
    command.run(1, None)
    assert calls == ["frontier_tuning", "frontier"]
