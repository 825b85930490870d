"""The page of what zeros save, from times that are made up."""

import json

from experiments.bench import gains

MADE = {"command": "python -m x", "device": "cpu", "versions": {"jax": "0.1"}, "rounds": 3}


def cost(seconds, ratio):
    return {"seconds": seconds, "ratio": ratio}


def test_nothing_has_been_timed_yet(tmp_path):
    assert gains.render(tmp_path) == ""


def test_a_row_for_every_network_and_every_kernel(tmp_path):
    networks = {
        "dense": {"units": [8, 4], "flops": 1000, "bytes": 40, "costs": {"1": cost(0.002, 1.0)}},
        "50 %, cut out": {
            "units": [6, 3],
            "flops": 500,
            "bytes": 20,
            "costs": {"1": cost(0.001, 0.5)},
        },
    }
    products = [
        {
            "layer": "mlp dense1/kernel",
            "shape": [4, 2],
            "rows": 1,
            "sparsity": s,
            "costs": {
                "dense": cost(1e-6, 1.0),
                "csr": cost(1e-6, 2 - s),
                "bcoo": cost(1e-6, ratio),
            },
        }
        for s, ratio in ((0.5, 1.5), (0.9, 0.7))
    ]
    (tmp_path / gains.INFERENCE).write_text(
        json.dumps(MADE | {"model": "small_cnn", "networks": networks})
    )
    size = {"weights": 2e6, "bytes": 8e6, "flops": 5e9}
    network = {
        "before": size,
        "after": {name: x / 4 for name, x in size.items()},
        "costs": {"8": {"before": cost(0.2, 1.0), "after": cost(0.05, 0.25)}},
        "difference": 2e-7,
    }
    cut = MADE | {"removed": 0.5, "width": 1.0, "networks": {"vgg16": network}}
    (tmp_path / gains.COMPACTED).write_text(json.dumps(cut))
    only = gains.render(tmp_path)
    assert "| vgg16, 32-32-3 | 2 → 0.5 | 8 → 2 | 5,000 → 1,250 | 200 → 50 | 0.25 | 2e-07 |" in only
    assert "| 50 %, cut out | 6-3 | 500 | 20 | 1.000 | 0.50 |" in only
    assert "not always fewer milliseconds" not in only
    assert "Sparse products" not in only
    (tmp_path / gains.SPARSE).write_text(json.dumps(MADE | {"block": 16, "products": products}))
    both = gains.render(tmp_path)
    assert both.startswith(only)
    assert "| mlp dense1/kernel | 4 by 2 | 1 | 1.0 | never | 90 |" in both

    assert gains.summary(tmp_path).splitlines() == [
        "- Milliseconds for 8 examples without 50 % of the units of every layer, on cpu: vgg16 "
        "200 → 50 (`python -m x`).",
        "- A sparse product (BCOO) is faster than the dense one from 90 % zeros on in the best of "
        "1 cases, and from 90 % on in the worst (`python -m x`).",
    ]

    networks["50 %, cut out"]["costs"]["1"] = cost(0.003, 1.5)
    (tmp_path / gains.INFERENCE).write_text(
        json.dumps(MADE | {"model": "small_cnn", "networks": networks})
    )
    assert "not always fewer milliseconds" in gains.render(tmp_path)
