"""What other libraries are given: the same images, batches and initial weights."""

import ast
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import experiments
from experiments import data, models
from experiments.peers import export_data, pat
from experiments.studies import frontier
from experiments.studies.contenders import PEERS
from experiments.studies.frontier_cells import Results

BATCH = 100


@pytest.fixture(scope="module")
def arrays(digits, tmp_path_factory, data_dir):
    """As they are read from the file, without pickle."""
    path = tmp_path_factory.mktemp("peers") / "digits.npz"
    words = [path, "--dataset", "digits", "--seeds", 3, 8, "--epochs", 2, "--data-dir", data_dir]
    assert export_data.main([str(word) for word in words]) == 0
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize("evaluate", ["test", "validation"])
@pytest.mark.parametrize("seed", [3, 8])
def test_batches(digits, arrays, evaluate, seed):
    """Step by step those of data.batch, over the end of an epoch."""
    split, scored = data.splits(digits, evaluate)
    size, order = int(arrays[f"{evaluate}/size"]), arrays[f"{evaluate}/order/{seed}"]
    assert (len(split.labels), len(order)) == (size, 2)
    for step in range(2 * (size // BATCH)):
        epoch, i = divmod(step, size // BATCH)
        index = order[epoch, i * BATCH : (i + 1) * BATCH]
        wanted = data.batch(split, seed, step, BATCH)
        np.testing.assert_array_equal(arrays["train/inputs"][index], wanted.inputs)
        np.testing.assert_array_equal(arrays["train/labels"][index], wanted.labels)
    held_out = {"test": arrays["test/labels"], "validation": arrays["train/labels"][size:]}
    np.testing.assert_array_equal(held_out[evaluate], scored.labels)


def test_pixels_and_initial_weights(digits, arrays):
    assert (float(arrays["mean"]), float(arrays["std"])) == (digits.mean, digits.std)
    params, _ = models.build("mlp", (8, 8, 1), 10).init(jax.random.key(8))
    for layer, leaves in params.items():
        for kind, leaf in leaves.items():
            np.testing.assert_array_equal(arrays[f"init/8/{layer}/{kind}"], leaf)
    assert (int(arrays["classes"]), str(arrays["dataset"])) == (10, "digits")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x.csv"], "path must be a file named *.npz, got 'x.csv'."),
        (["x.npz", "--epochs", "0"], "epochs must be an integer >= 1, got 0."),
        (["x.npz", "--seeds", "-1"], "seeds must be an integer >= 0, got -1."),
    ],
)
def test_bad_arguments(words, message, capsys):
    assert export_data.main(words) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_a_peer_needs_nothing_of_this_project():
    """It runs in an environment that has none of it, and this one lacks PyTorch."""
    path = Path(experiments.__file__).parent / "peers" / "torchao_pat.py"
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"numpy", "torch", "torchao"}


def peer_row(run):
    """A row as the script prints it, whose accuracy falls with the sparsity and the rate."""
    given = dict(run)
    strength = given.get("reg_lambda", 0.0)
    sparsity = given.get("sparsity", 1 - 0.5 / (1 + 4 * strength / 5e-4))
    return {
        "config": {
            **{"model": "mlp", "method": ["pat_" + given["method"]], "sparsity": sparsity},
            **{"learning_rate": given["learning_rate"], "seed": given["seed"]},
            "pat": {"reg_lambda": strength, "heal_at": given["heal_at"]},
            "evaluate": given["evaluate"],
        },
        "result": {
            "eval_accuracy": 0.9 - 0.1 * sparsity**20 - 0.1 * given["learning_rate"],
            "penalised": {"nnz": round((1 - sparsity) * 266_200), "total": 266_200},
            "gradient_evaluations": 7020,
            "state_bytes": 2_131_280,
        },
    }


def test_pat_is_planned_like_every_other_contender():
    """Four trials each, then three seeds at the sparsities of all; nothing twice."""
    rows = []
    while planned := pat.missing(rows):
        rows.append(peer_row(planned[0]))
        assert pat.run_of_row(rows[-1]) == planned[0]
    told = [row for row in rows if row["config"]["method"] == ["pat_constraint"]]
    assert len(told) == 4 + 3 * len(frontier.MLP.sparsities)
    reported = [row for row in rows if row["config"]["evaluate"] == "test"]
    # The lower rate was better on the validation split, and of equals the first.
    assert {row["config"]["learning_rate"] for row in reported} == {0.05}
    assert {row["config"]["pat"]["heal_at"] for row in reported} == {0.75}
    assert all(row["config"]["seed"] in frontier.SEEDS for row in reported)
    results = Results(reported, "mlp")
    assert results.names() == list(PEERS)
    for name in PEERS:  # the sweep has reached to both sides of every sparsity
        for sparsity in frontier.MLP.sparsities:
            assert results.score(name, sparsity).n == 3
    # Which contenders have more seeds, and which go on to the CNN, is not for a peer to say.
    assert results.ranking(frontier.MLP.sparsities) == []


def test_a_run_of_pat_that_diverges_is_an_answer_too():
    rows = []
    while planned := pat.missing(rows):
        row = peer_row(planned[0])
        if row["config"]["learning_rate"] == 0.05:  # and no other trial is better
            row["result"] = {"diverged": True, "reason": "the loss is not finite at step 7"}
        rows.append(row)
    reported = [row for row in rows if row["config"]["evaluate"] == "test"]
    assert {row["config"]["learning_rate"] for row in reported} == {0.1}
    assert len(Results(reported, "mlp").at("pat_constraint", 0.95)) == 3


def test_pat_stands_in_the_table_beside_the_others(tmp_path):
    rows = []
    while planned := pat.missing(rows):
        rows.append(peer_row(planned[0]))
    table = frontier.table(
        Results([row for row in rows if row["config"]["evaluate"] == "test"], "mlp"),
        frontier.MLP,
        [],
    )
    lines = {line.split("|")[1].strip(): line for line in table.splitlines()[2:]}
    assert set(lines) == {peer.label for peer in PEERS.values()}


def test_the_arguments_of_a_run_are_those_of_the_script():
    """Which stands in another environment, and cannot be imported here."""
    source = (Path(experiments.__file__).parent / "peers" / "torchao_pat.py").read_text()
    for run in pat.missing([]):
        names = [word for word in pat.words(run) if word.startswith("--")]
        assert all(f'"{name}"' in source for name in names)
        assert len(set(names)) == len(names)
