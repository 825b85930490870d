"""What other libraries are given: the same images, batches and initial weights."""

import ast
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import experiments
from experiments import data, models
from experiments.peers import export_data

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
    assert capsys.readouterr().out == f"error: {message}\n"


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
