"""Every form of a product gives the product; how fast, no test asks."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench import sparse_execution as bench


@pytest.mark.parametrize("shape", [(13, 7), (8, 8)])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_every_form_is_the_product(shape, sparsity):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, shape[0]), np.float32))
    scattered = bench.with_zeros(shape, sparsity)
    blocks = bench.with_zeros(shape, sparsity, 4)
    found = bench.products(shape, sparsity, 4)
    for name, product in found.items():
        weight = blocks if name == "blocks" else scattered
        np.testing.assert_allclose(product(x), np.asarray(x) @ weight, rtol=1e-4, atol=1e-5)


def test_so_many_zeros_and_whole_blocks_of_them():
    assert (bench.with_zeros((40, 25), 0.9) == 0).sum() == 900
    blocks = bench.with_zeros((40, 24), 0.75, 4).reshape(10, 4, 6, 4)
    gone = (blocks == 0).all((1, 3))
    assert gone.sum() == 45
    assert (blocks != 0).all((1, 3)).sum() == 15


def test_shapes_are_those_of_the_networks():
    assert list(bench.shapes(["mlp"])) == [(784, 300), (300, 100), (100, 10)]
    assert (9 * 64, 128) in bench.shapes(["small_cnn"])
    text = bench.shapes(["char_transformer"])
    assert {(128, 384), (128, 512), (512, 128), (128, 97)} <= set(text)
    assert (97, 128) not in text


def test_break_even_by_hand():
    def rows(*ratios):
        return [
            {"sparsity": s, "costs": {"csr": {"seconds": 1.0, "ratio": r}}}
            for s, r in zip((0.5, 0.9, 0.99), ratios, strict=True)
        ]

    assert bench.break_even(rows(2.0, 0.9, 0.5), "csr") == 0.9
    assert bench.break_even(rows(0.9, 1.1, 0.5), "csr") == 0.99
    assert bench.break_even(rows(0.9, 0.8, 1.0), "csr") is None
    assert bench.break_even(rows(0.9, 0.8, 0.7), "csr") == 0.5


@pytest.mark.slow
def test_tiny_from_end_to_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    target = tmp_path / "times.json"
    words = ["--networks", "mlp", "--rows", "2", "--sparsities", "0.9", "--rounds", "1"]
    assert bench.main([*words, "--save", str(target)]) == 0
    saved = json.loads(target.read_text())
    assert [row["shape"] for row in saved["products"]] == [[784, 300], [300, 100], [100, 10]]
    for row in saved["products"]:
        assert set(row["costs"]) == {"dense", "bcoo", "csr", "blocks"}
        assert row["costs"]["dense"]["ratio"] == 1
    assert "mlp dense1/kernel" in capsys.readouterr().out
    assert {"jax", "scipy"} <= set(saved["versions"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rounds", "0"], "rounds must be an integer >= 1, got 0."),
        (["--sparsities", "1.0"], "sparsities must be from 0 to below 1, got 1.0."),
        (
            ["--networks", "vgg"],
            "networks must be of mlp, small_cnn, char_transformer, got 'vgg'.",
        ),
    ],
)
def test_what_cannot_be_timed_is_named_at_once(words, message, capsys):
    assert bench.main(words) == 2
    assert message in " ".join(capsys.readouterr().err.split())
