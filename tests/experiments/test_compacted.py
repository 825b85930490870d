"""Every network without some of its units: the same logits, and as many weights as it says."""

import itertools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import models
from experiments.bench import compacted as bench
from experiments.bench import networks
from experiments.methods._channels import l1_norms, unit_masks
from experiments.models import channels
from grda_optax import Tied, group_norms, group_threshold, sparsity

from ..grda_optax.trees import assert_same_bits

# What each reads here, and how wide it is: as small as the whole structure can be had. VGG16 reads
# images that are large enough for a flat map of two pixels, whose rows go with their channels.
FAMILIES = {
    "mlp": ((4, 4, 1), 1.0),
    "small_cnn": ((28, 28, 1), 1 / 4),
    "lenet5": ((28, 28, 1), 1.0),
    "vgg16": ((64, 32, 3), 1 / 8),
    "vgg16_bn": ((64, 32, 3), 1 / 8),
    "wrn_28_10": ((8, 8, 3), 1 / 16),
    "resnet50": ((32, 32, 3), 1 / 16),
    "char_transformer": ((8,), 1.0),
}
CLASSES = 10


def build(name, width):
    return models.build(name, FAMILIES[name][0], CLASSES, width=width)


def leaves(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def removed(params, ties, gone):
    """The members of these units are zero; what reads them is as it was, and would be seen."""
    params = jax.tree.map(np.array, params)
    for tie, flags in zip(ties, gone, strict=True):
        for path, leaf in leaves(params).items():
            for pattern, place in tie.members.items():
                if re.search(pattern, path):
                    axis, width = place if isinstance(place, tuple) else (place, 1)
                    at = np.arange(leaf.shape[axis]) // width % len(flags)
                    np.moveaxis(leaf, axis, 0)[flags[at]] = 0
    return params


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_the_smaller_network_says_the_same(name):
    shape, width = FAMILIES[name]
    rng = np.random.default_rng(3)
    model = build(name, width)
    params, statistics = networks.random(model, kept=0.75)
    counts = channels.width_of(name, params)
    # Of every layer at least one unit goes, and at least half of them stay.
    gone = [rng.permutation(np.arange(n) < rng.integers(1, n // 2 + 1)) for n in counts]
    zeros = removed(params, channels.ties(name), gone)
    small = channels.compacted(name, zeros, statistics)
    assert small.width == tuple(int((~flags).sum()) for flags in gone)
    # Training leaves zeros in the readers, too, and so the same network.
    trained = jax.jit(lambda p: group_threshold(p, 1e-6, channels.ties(name), "hard"))(zeros)
    assert sparsity(trained) > sparsity(zeros)
    assert_same_bits(channels.compacted(name, trained, statistics), small)
    symbols = CLASSES if name in models.TEXT_MODELS else 256
    inputs = jnp.asarray(rng.integers(0, symbols, (3, *shape)).astype(np.uint8))
    dense, full, found = (
        np.asarray(networks.compiled(m, p, s)(inputs))
        for m, p, s in (
            (model, params, statistics),
            (model, zeros, statistics),
            (build(name, small.width), small.params, small.statistics),
        )
    )
    scale = full.std()
    assert np.abs(full - dense).max() > 1e-2 * scale, "the units that are gone did something"
    assert np.abs(full - full[:1]).max() > 1e-2 * scale, "the logits are those of the inputs"
    assert np.abs(found - full).max() < 1e-5 * scale
    fresh = jax.eval_shape(build(name, small.width).init, jax.random.key(0))
    alike = jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, fresh, small[:2])
    assert all(jax.tree.leaves(alike))


def dense(inputs, outputs):
    return inputs * outputs + outputs


def conv(side, inputs, outputs, bias=0, norms=0):
    """A norm has a scale and a bias."""
    return side * side * inputs * outputs + (bias + 2 * norms) * outputs


def chain(layer, sizes):
    return sum(itertools.starmap(layer, itertools.pairwise(sizes)))


def vgg(width, norms):
    *convolutions, first, second = width
    flat = 2 * convolutions[-1]
    return chain(lambda a, b: conv(3, a, b, 1, norms), (3, *convolutions)) + chain(
        dense, (flat, first, second, CLASSES)
    )


def wide_resnet(width):
    sizes = iter(width)
    stem = inputs = next(sizes)
    total = conv(3, 3, stem, 1)
    for _ in range(3):
        outputs = next(sizes)
        total += conv(1, inputs, outputs, 1)  # the shortcut
        for _ in range(4):
            inner = next(sizes)
            total += 2 * inputs + conv(3, inputs, inner, 1, 1) + conv(3, inner, outputs, 1)
            inputs = outputs
    return total + 2 * inputs + dense(inputs, CLASSES)


def resnet50(width):
    sizes = iter(width)
    inputs = next(sizes)
    total = conv(7, 3, inputs, norms=1)
    for blocks in (3, 4, 6, 3):
        outputs = next(sizes)
        total += conv(1, inputs, outputs, norms=1)  # the shortcut
        for _ in range(blocks):
            first, second = next(sizes), next(sizes)
            total += conv(1, inputs, first, norms=1) + conv(3, first, second, norms=1)
            total += conv(1, second, outputs, norms=1)
            inputs = outputs
    return total + dense(inputs, CLASSES)


def char_transformer(width):
    """Heads of 32 in a stream of 128, ten symbols, eight at once."""
    total = 128 * CLASSES + 128 * 8 + 2 * 128 + dense(128, CLASSES)
    for heads, hidden in zip(width[::2], width[1::2], strict=True):
        total += dense(128, 3 * 32 * heads) + dense(32 * heads, 128)
        total += dense(128, hidden) + dense(hidden, 128) + 2 * 2 * 128
    return total


FORMULAS = {
    "mlp": lambda w: chain(dense, (16, *w, CLASSES)),
    "small_cnn": lambda w: (
        chain(lambda a, b: conv(3, a, b, norms=1), (1, *w[:3]))
        + chain(dense, (4 * w[2], w[3], CLASSES))
    ),
    "lenet5": lambda w: (
        chain(lambda a, b: conv(5, a, b, 1), (1, *w[:2]))
        + chain(dense, (25 * w[1], *w[2:], CLASSES))
    ),
    "vgg16": lambda w: vgg(w, 0),
    "vgg16_bn": lambda w: vgg(w, 1),
    "wrn_28_10": wide_resnet,
    "resnet50": resnet50,
    "char_transformer": char_transformer,
}


def abstract(name, width):
    return jax.eval_shape(build(name, width).init, jax.random.key(0))[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_as_many_weights_as_the_units_say(name):
    """Also where the first two have equally many: a block with a shortcut keeps it."""
    width = (3, 3, *range(2, len(channels.ties(name))))
    params = abstract(name, width)
    assert channels.width_of(name, params) == width
    assert sum(x.size for x in jax.tree.leaves(params)) == FORMULAS[name](width)


@pytest.mark.parametrize("name", models.MODELS)
def test_the_units_are_groups_of_the_whole_network(name):
    """As training takes them: no leaf in two, none but the head and the embeddings in none."""
    shape = (64,) if name in models.TEXT_MODELS else (32, 32, 3)
    params, _ = jax.eval_shape(models.build(name, shape, 10).init, jax.random.key(0))
    ties = channels.ties(name)
    norms = jax.eval_shape(lambda p: group_norms(p, ties), params)
    assert tuple(len(x) for x in norms) == channels.width_of(name, params)
    kernels = {path for path in leaves(params) if path.endswith("kernel")}
    members = {path for path in kernels for tie in ties if found(tie.members, path)}
    followers = {path for path in kernels for tie in ties if found(tie.followers, path)}
    text = name in models.TEXT_MODELS
    # What writes to the transformer's stream, or reads it, is cut on the other side alone.
    stream = {path for path in kernels if re.search("projection|dense2", path)} if text else set()
    assert kernels - members == {"head/kernel"} | stream
    first = {path for path in kernels if re.search("attention|dense1|head", path)}
    assert kernels - followers == (first if text else {f"{models.ENDS[name][0]}/kernel"})


def found(patterns, path):
    return any(re.search(pattern, path) for pattern in patterns)


def test_the_magnitudes_of_a_unit_are_summed_over_all_its_kernels():
    params = {
        "a": {"kernel": jnp.array([[1.0, -2.0, 3.0, 4.0]]), "bias": jnp.full(4, 9.0)},
        "b": {"kernel": jnp.array([[0.5, 0.5], [0.0, 1.0]])},
    }
    both = Tied({"a/": (-1, 1), "b/": 0})
    np.testing.assert_allclose(l1_norms(params, both), [1 + 3 + 1, 2 + 4 + 1])
    heads = Tied({"a/": (-1, 2)}, {"b/": (0, 1)})
    np.testing.assert_allclose(l1_norms(params, heads), [3, 7])


def test_masks_of_heads_that_lie_side_by_side():
    """Two heads of two entries, for queries and again for keys."""
    params = {"in": jnp.ones((1, 8)), "out": jnp.ones((4, 1))}
    heads = Tied({"in": (-1, 2)}, {"out": (0, 2)})
    masks = unit_masks(params, [heads], [jnp.array([False, True])])
    np.testing.assert_array_equal(masks["in"], [[0, 0, 1, 1, 0, 0, 1, 1]])
    np.testing.assert_array_equal(masks["out"][:, 0], [0, 0, 1, 1])


@pytest.mark.slow
def test_the_bench_from_end_to_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    target = tmp_path / "compacted.json"
    names = ["mlp", "vgg16_bn", "char_transformer"]
    words = ["--networks", *names, "--width", "0.1", "--batch-sizes", "1", "3", "--rounds", "1"]
    assert bench.main([*words, "--removed", "0.25", "--save", str(target)]) == 0
    saved = json.loads(target.read_text())
    assert list(saved["networks"]) == names
    for row in saved["networks"].values():
        before, after = row["before"], row["after"]
        assert after["units"] == [max(1, round(0.75 * n)) for n in before["units"]]
        for size in ("weights", "bytes", "flops"):
            assert after[size] < before[size]
        assert row["difference"] < 1e-5
        assert set(row["costs"]) == {"1", "3"}
        assert all(x["seconds"] > 0 for cost in row["costs"].values() for x in cost.values())
    mlp = saved["networks"]["mlp"]["after"]
    assert (mlp["units"], mlp["weights"]) == ([22, 8], 784 * 22 + 22 + 22 * 8 + 8 + 8 * 10 + 10)
    assert mlp["flops"] == 2 * (784 * 22 + 22 * 8 + 8 * 10)
    out = capsys.readouterr().out
    assert "25 % of every layer's units cut out" in out
    assert all(name in out for name in names)


def test_every_network_has_inputs_and_is_cut_by_the_bench():
    assert set(networks.INPUTS) == set(models.MODELS) == set(channels.TIES)
    assert set(models.MODELS) - set(bench.NETWORKS) == {"small_cnn_quarter", "small_cnn_sixteenth"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--networks", "vgg"],
            "networks must be of mlp, small_cnn, small_cnn_quarter, small_cnn_sixteenth, lenet5, "
            "vgg16, vgg16_bn, wrn_28_10, resnet50, char_transformer, got 'vgg'.",
        ),
        (["--removed", "1.0"], "removed must be above 0 and below 1, got 1.0."),
        (["--batch-sizes", "0"], "batch_sizes must be an integer >= 1, got 0."),
        (["--width", "0.0"], "width must be above 0, got 0.0."),
        (["--rounds", "0"], "rounds must be an integer >= 1, got 0."),
        (["--save", "no/x.json"], "save must be in a folder that exists, got 'no/x.json'."),
    ],
)
def test_what_cannot_be_timed_is_named_at_once(words, message, capsys):
    assert bench.main(words) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_as_many_numbers_as_there_are_layers():
    message = "width must be a number, or 4 integers >= 1, got (1, 2)."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):  # JAX adds a note
        abstract("char_transformer", (1, 2))
