"""Text instead of images: characters in, the next ones out, each of them counted once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import data, models
from experiments.config import Config
from experiments.configs import char_transformer
from experiments.datasets import python_text
from grda_optax import sparsity_report

from .conftest import change

# 40 sequences in batches of 8 are 5 steps an epoch.
TINY = change(char_transformer.CONFIG, method=("recipe",), epochs=4, batch_size=8)


@pytest.fixture(scope="module")
def text():
    return data.load("python_text")


@pytest.fixture(scope="module")
def tiny(text):
    """40 sequences to train on, and 24 to score, of which the last batch has to be filled up."""
    return text._replace(
        train=data.Split(*(x[:40] for x in text.train)),
        test=data.Split(*(x[:24] for x in text.test)),
    )


@pytest.fixture(scope="module")
def model():
    return models.build("char_transformer", (64,), 97)


def test_the_text_is_this_pythons_library(text):
    assert text.num_classes == len(python_text.SYMBOLS) == 97
    for inputs, labels in (text.train, text.test):
        assert inputs.shape == labels.shape == (len(labels), 64)
        assert (inputs.dtype, labels.dtype) == (np.uint8, np.int32)
        assert labels.max() < 97
        np.testing.assert_array_equal(inputs[:, 1:], labels[:, :-1])
    assert text.train.labels.size > 700_000
    assert 0.09 < text.test.labels.size / text.train.labels.size < 0.12
    symbols = np.frombuffer(python_text.SYMBOLS, np.uint8)
    start = symbols[text.train.inputs[:50]].tobytes().decode()
    assert start in python_text._source("argparse").decode()
    again = python_text.read()["test"]
    np.testing.assert_array_equal(again[0], text.test.inputs)


def test_other_characters_are_left_out():
    tokens = python_text.encode("a\tü\r\n~".encode())
    assert [python_text.SYMBOLS[i : i + 1] for i in tokens] == [b"a", b"\t", b"\n", b"~"]


@pytest.mark.parametrize("size", [0, 1, 64, 65, 128, 129, 300])
def test_every_character_but_the_first_is_predicted_once(size):
    tokens = np.arange(size) % 251
    found = python_text.windows(tokens)
    assert found.shape == (max(0, size - 1) // 64, 65)
    np.testing.assert_array_equal(found[:, 1:].ravel(), tokens[1 : 1 + 64 * len(found)])


def test_no_module_is_missing_without_a_word(monkeypatch):
    monkeypatch.setattr(python_text, "MODULES", ("sys",))  # which is not written in Python
    with pytest.raises(ValueError, match=r"^dataset python_text needs the source .* library's sys"):
        python_text.read()


def test_parameter_count(model):
    params, statistics = model.init(jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(params)) == 429_921
    assert not jax.tree.leaves(statistics)


@pytest.mark.slow
def test_no_character_sees_a_later_one(model, tiny):
    params, statistics = model.init(jax.random.key(0))
    tokens = tiny.train.inputs[:2]
    changed = tokens.copy()
    changed[:, 40] = (changed[:, 40] + 1) % 97
    before, after = (model.apply(params, statistics, x, False)[0] for x in (tokens, changed))
    assert before.shape == (2, 64, 97)
    np.testing.assert_array_equal(before[:, :40], after[:, :40])
    assert np.all(np.any(before[:, 40:] != after[:, 40:], axis=-1))


@pytest.mark.slow
def test_a_few_steps_learn_and_the_sparsity_is_exact(train, make_job, tmp_path, tiny):
    trained = train(tmp_path / "run", TINY, dataset=tiny)
    losses = [row["loss"] for row in trained.rows]
    assert losses[-1] < losses[0] - 1
    count = trained.result["penalised"]
    assert count["nnz"] == round(0.2 * count["total"])

    job = make_job(tmp_path / "unused", TINY, dataset=tiny)
    logits, _ = job.model.apply(trained.params, trained.statistics, tiny.test.inputs, False)
    right = np.argmax(logits, -1) == tiny.test.labels
    assert trained.result["eval_accuracy"] == pytest.approx(float(right.mean()), abs=1e-6)
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), tiny.test.labels[..., None], -1)
    assert trained.result["eval_loss"] == pytest.approx(-float(log_p.mean()), rel=1e-4)
    assert sparsity_report(trained.params, job.penalised).penalised.nnz == count["nnz"]


@pytest.mark.slow
def test_eight_devices_are_one(train, tmp_path, tiny):
    """24 scored sequences; on eight devices and on one, each of their characters counts once."""
    config = change(TINY, method=("dense",), epochs=1)
    one, eight = (
        train(tmp_path / str(n), config, dataset=tiny, devices=n, parallel=mode)
        for n, mode in ((1, "mesh"), (8, "mesh"))
    )
    losses = [[row["loss"] for row in x.rows] for x in (one, eight)]
    np.testing.assert_allclose(*losses, rtol=1e-3)
    assert one.result["eval_loss"] == pytest.approx(eight.result["eval_loss"], rel=1e-3)
    assert one.result["eval_accuracy"] == pytest.approx(eight.result["eval_accuracy"], abs=2e-3)


@pytest.mark.parametrize(
    ("config", "kind", "wanted"),
    [
        (Config(model="char_transformer"), "images", "mlp, small_cnn, .*"),
        (Config(model="mlp", dataset="python_text", batch_size=8), "text", "char_transformer"),
    ],
)
def test_a_network_for_other_data_is_refused(
    make_job, tmp_path, tiny, digits, config, kind, wanted
):
    dataset = tiny if config.dataset == "python_text" else digits
    message = rf"^model \(for {kind}\) must be one of {wanted}, got '{config.model}'\.$"
    with pytest.raises(ValueError, match=message):
        make_job(tmp_path / "run", config, dataset=dataset)
    assert not any(tmp_path.iterdir())
