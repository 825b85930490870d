"""The study of channels, on rows that are made up, and what it says of times."""

import json

import pytest

from experiments.bench import inference
from experiments.studies import structured_fashion_mnist as study


def rows():
    """Of two seeds; ours is better than the l1 norm by half a point, and by 0.1 a seed."""
    made = []
    for config, _ in study.runs():
        if config.seed == 2:
            continue
        accuracy = 0.91 - 0.02 * config.sparsity
        if config.method == ("channels",):
            accuracy += 0.005 + 0.001 * config.seed
        result = {"eval_accuracy": accuracy}
        made.append({"config": config.to_json(), "result": result})
    return made


def test_all_methods_meet_at_every_size():
    planned = [config for config, _ in study.runs()]
    assert len(planned) == 3 * (1 + 3 * 3)
    assert {config.dense_narrow.by for config in planned} == {"flops"}


def test_without_times(tmp_path):
    text = study.render(rows(), tmp_path)
    assert "No times have been measured yet." in text
    assert "| 0 | 91.00 ± 0.00 |" in text
    # 0.5 and 0.6 points: their mean, and 12.706 standard errors of 0.05.
    assert text.count("+0.55 ± 0.64 | +0.55 ± 0.64 |") == 3
    assert "ms" not in text.split("| operations")[1].splitlines()[0]
    assert (tmp_path / "structured_fashion_mnist.png").stat().st_size > 5000


def test_with_times(tmp_path):
    networks = {
        name: {
            "sparsity": sparsity,
            "units": [1, 2],
            "costs": {"128": {"seconds": seconds, "ratio": seconds / 0.02}},
        }
        for name, sparsity, seconds in (
            ("dense", 0.0, 0.02),
            ("50 %, zeros", 0.5, 0.9),
            ("50 %, cut out", 0.5, 0.011),
            ("70 %, cut out", 0.7, 0.008),
            ("90 %, cut out", 0.9, 0.004),
        )
    }
    (tmp_path / study.TIMES).write_text(json.dumps({"networks": networks}))
    text = study.render(rows(), tmp_path)
    assert "| 1-2 | 11.00 | 0.55 |" in text
    assert "| 1-2 | 20.00 | 1.00 |" in text
    assert "900" not in text
    assert "No times" not in text


def test_some_rows_are_enough(tmp_path):
    assert study.render(rows()[:3], tmp_path).count("\n| ") == 6


@pytest.mark.slow
def test_inference_from_end_to_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    target = tmp_path / "inference.json"
    words = ["--model", "mlp", "--sparsities", "0.5", "--batch-sizes", "2", "128", "--rounds", "1"]
    assert inference.main([*words, "--save", str(target)]) == 0
    saved = json.loads(target.read_text())["networks"]
    assert list(saved) == ["dense", "50 %, zeros", "50 %, cut out"]
    full, zeros, small = saved.values()
    assert full["units"] == zeros["units"] == [300, 100]
    assert small["flops"] == pytest.approx(0.5 * full["flops"], rel=0.01)
    assert small["bytes"] < 0.52 * full["bytes"]
    assert all(set(row["costs"]) == {"2", "128"} for row in saved.values())
    assert "50 %, cut out" in capsys.readouterr().out
    assert set(study.times(tmp_path)) == {0.0, 0.5}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sparsities", "0.0"], "sparsities must be above 0 and below 1, got 0.0."),
        (["--batch-sizes", "0"], "batch_sizes must be an integer >= 1, got 0."),
        (["--save", "no/x.json"], "save must be in a folder that exists, got 'no/x.json'."),
    ],
)
def test_what_cannot_be_timed_is_named_at_once(words, message, capsys):
    assert inference.main(words) == 2
    assert message in " ".join(capsys.readouterr().err.split())
