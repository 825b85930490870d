"""Sparse files: every bit comes back, the sizes are exact, and one leaf is in memory at a time."""

import json
import os
import pathlib
import tracemalloc
from collections import OrderedDict
from typing import NamedTuple

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from grda_optax import _layout, load_sparse, save_sparse

from .trees import assert_same_bits

CHUNK = _layout.CHUNK
SHAPES = [(), (0,), (3, 0, 2), (1,), (7,), (5, 13), (2, 3, 4, 1), (CHUNK + 9,)]


def random_bits(dtype, shape, seed, density=0.3):
    """Any pattern of bits, NaN of every kind, -0.0 and subnormal numbers among them."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape, dtype=int))
    if dtype == np.bool_:
        return (rng.random(size) < density).reshape(shape)
    entries = np.frombuffer(rng.bytes(size * dtype.itemsize), dtype).copy()
    entries.view(np.uint8).reshape(size, dtype.itemsize)[rng.random(size) > density] = 0
    return entries.reshape(shape)


def round_trip(folder, tree, **options):
    path = pathlib.Path(folder) / "params.safetensors"
    assert save_sparse(path, tree, **options) == path.stat().st_size
    assert [x.name for x in path.parent.iterdir()] == [path.name]
    return load_sparse(path)


def open_file(path):
    """The header with its tree, and the data."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    return header, json.loads(header["__metadata__"]["tree"]), content[8 + length :]


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("name", _layout.DTYPES)
def test_every_bit_comes_back(tmp_path, name, deflate):
    dtype = _layout.DTYPES[name]
    tree = [
        random_bits(dtype, shape, i, density)
        for i, shape in enumerate(SHAPES)
        for density in (0, 0.3, 1)
    ]
    restored = round_trip(tmp_path, tree, deflate=deflate)
    assert_same_bits(restored, tree)
    for leaf in restored:
        assert type(leaf) is np.ndarray
        assert leaf.flags.writeable
        assert leaf.flags.c_contiguous


def test_minus_zero_and_nan_are_no_zeros(tmp_path):
    payload = np.array([0x7FC01234, 0xFF800001, 0x80000000, 0, 1, 0, 0, 0, 0, 0], np.uint32)
    restored = round_trip(tmp_path, payload.view(np.float32))
    assert list(restored.view(np.uint32)) == list(payload)
    assert np.signbit(restored[2])


@pytest.mark.parametrize("size", [CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 3])
def test_leaves_of_several_chunks(tmp_path, size):
    leaf = random_bits(np.dtype(np.float32), (size,), size, 0.1)
    leaf[-1] = 1.0
    assert_same_bits(round_trip(tmp_path, leaf), leaf)


def test_the_order_in_memory_is_no_matter(tmp_path):
    x = random_bits(np.dtype(np.float32), (6, 10), 0)
    tree = {"big_endian": x.astype(">f4"), "fortran": np.asfortranarray(x), "strided": x[::2, ::-3]}
    restored = round_trip(tmp_path, tree)
    for key, leaf in tree.items():
        assert restored[key].dtype == np.float32
        assert restored[key].tobytes() == leaf.astype("<f4").tobytes()


class Pair(NamedTuple):
    first: object
    second: object


W = np.array([[0.0, 2.0], [0.0, 0.0]], np.float32)
ODD = {
    **{"": W, "params": W, "a/b": W, "a": {"b": W}, "a~1b": W, '\u00e9\n\U0001f40d"': W},
    **{"k": W, "k.mask": W, "k.values": {"mask": W}, "__metadata__": W},
}
TREES = {  # what is saved, and what comes back
    "leaf": (W, W),
    "none": (None, None),
    "empty": ({"a": {}, "b": [], "c": (), "d": None}, {"a": {}, "b": [], "c": (), "d": None}),
    "nested": ({"x": [W, (W, None), {}], "a": {"b": W}}, {"a": {"b": W}, "x": [W, (W, None), {}]}),
    "named tuple": ([Pair(W, Pair(None, W))], [(W, (None, W))]),
    "ordered": (OrderedDict(b=W, a=W), {"b": W, "a": W}),
    "integer keys": ({3: W, -1: {2**63 - 1: W}}, {-1: {2**63 - 1: W}, 3: W}),
    "odd keys": (ODD, dict(sorted(ODD.items()))),
    "numbers": (
        {"a": 1.5, "b": True, "c": -3, "d": 2j, "e": np.float16(0)},
        {
            "a": np.array(1.5),
            "b": np.array(True),
            "c": np.array(-3),
            "d": np.array(2j),
            "e": np.array(0, np.float16),
        },
    ),
}


@pytest.mark.parametrize("name", TREES)
def test_trees(tmp_path, name):
    saved, expected = TREES[name]
    restored = round_trip(tmp_path, saved)
    assert repr(restored) == repr(expected)  # the types of the containers, and the order in dicts
    assert_same_bits(restored, expected)


def test_containers_of_others_come_back_as_dicts(tmp_path):
    """By dict key and attribute; what a Variable or another box holds, as such."""

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(2, 3, rngs=rngs) for _ in range(2)])
            self.norm = nnx.BatchNorm(3, rngs=rngs)

    model = Model(nnx.Rngs(0))
    state = nnx.state(model)
    restored = round_trip(tmp_path, state)
    assert_same_bits(restored, nnx.to_pure_dict(state))
    nnx.update(model, jax.tree.map(jnp.zeros_like, state))
    nnx.replace_by_pure_dict(state, restored)
    nnx.update(model, state)
    assert_same_bits(nnx.to_pure_dict(nnx.state(model)), restored)

    module = eqx.nn.Linear(2, 3, key=jax.random.key(0))
    assert_same_bits(round_trip(tmp_path, module), {"weight": module.weight, "bias": module.bias})
    boxed = {"kernel": nn.Partitioned(jnp.ones(3), names=("x",))}
    assert_same_bits(round_trip(tmp_path, boxed), {"kernel": jnp.ones(3)})


def test_arrays_of_jax(tmp_path, devices):
    """Of any dtype and placement; the numpy arrays that come back are as good to JAX."""
    mesh = jax.sharding.Mesh(np.array(devices).reshape(4, 2), ("a", "b"))
    for axes in (("a",), ("a", "b"), (None, "b"), ()):
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
        x = jax.device_put(random_bits(np.dtype(jnp.bfloat16), (8, 6), 3), sharding)
        restored = round_trip(tmp_path, {"x": x})
        assert restored["x"].tobytes() == np.asarray(x).tobytes()
        put = jax.device_put(restored, sharding)
        assert put["x"].dtype == jnp.bfloat16
    assert jax.jit(lambda t: t["x"] + 1)(restored).dtype == jnp.bfloat16


def test_the_size_of_a_million_weights(tmp_path):
    """90 % zeros in float32: 1/8 of a byte for a bit, and 4 bytes for one in ten."""
    w = np.zeros(1_000_000, np.float32)
    w[::10] = np.random.default_rng(0).normal(size=100_000)
    path = tmp_path / "w.safetensors"
    size = save_sparse(path, w)
    header, _, data = open_file(path)
    assert len(data) == 125_000 + 400_000
    assert len(header) == 3
    assert size <= 0.135 * w.nbytes
    before = path.read_bytes()
    save_sparse(path, jnp.asarray(w))
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["int8", "bool", "float16", "float32", "complex128"])
def test_dense_where_that_is_smaller(tmp_path, name):
    """min(ceil(d / 8) + k b, d b) bytes for every count k."""
    dtype = _layout.DTYPES[name]
    d, b = 21, dtype.itemsize
    tree = [np.r_[np.ones(k, dtype), np.zeros(d - k, dtype)] for k in range(d + 1)]
    path = tmp_path / "x.safetensors"
    save_sparse(path, tree)
    _, (_, *records), data = open_file(path)
    expected = [min(3 + k * b, d * b) for k in range(d + 1)]
    assert len(data) == sum(expected)
    assert [x["encoding"] for x in records] == ["dense" if e == d * b else "bits" for e in expected]


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_narrow_values(tmp_path, name):
    """Rounded as numpy does; only float32 and float64, which come back as such."""
    narrow = _layout.DTYPES[name]
    x = np.where(np.arange(1000) % 5, 0, np.random.default_rng(0).normal(size=1000))
    x[:4] = [-0.0, np.nan, np.inf, 1e-46]
    tree = {
        "wide": [x, x.astype(np.float32)],
        "other": [np.arange(3), x.astype(np.complex64), np.float16(x), x.astype(jnp.bfloat16)],
        "dense": np.ones((3, 4), np.float32) / 3,
    }
    for dtype in (name, narrow, getattr(jnp, name)):
        restored = round_trip(tmp_path, tree, values_dtype=dtype)
        assert_same_bits(restored["other"], tree["other"])
        for key in ("wide", "dense"):
            rounded = jax.tree.map(lambda x: x.astype(narrow).astype(x.dtype), tree[key])
            assert_same_bits(restored[key], rounded)
    header, _, _ = open_file(tmp_path / "params.safetensors")
    kind = {"float16": "F16", "bfloat16": "BF16"}[name]
    assert header["wide/0.values"] == {**header["wide/0.values"], "dtype": kind, "shape": [202]}


def test_deflate(tmp_path):
    """Of whole rows without a weight little is left; a mask that does not shrink stays as it is."""
    rows = np.zeros((1000, 1000), np.float32)
    rows[::10] = 1
    noise = random_bits(np.dtype(np.float32), (9, 9), 0)
    assert_same_bits(round_trip(tmp_path, [rows, noise], deflate=True), [rows, noise])
    header, (_, *records), _ = open_file(tmp_path / "params.safetensors")
    assert [x["encoding"] for x in records] == ["deflate", "bits"]
    assert header["0.mask"]["shape"][0] < 2_000


def test_thirty_lines_of_numpy_read_it(tmp_path):
    """The layout as it is documented, and nothing of the library."""
    code = """
import json, zlib
import numpy as np
import ml_dtypes  # for the names of bfloat16 and float8

NAMES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}

def read(path):
    content = open(path, "rb").read()
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    def data(name):
        first, last = header[name]["data_offsets"]
        return content[begin + first : begin + last]
    def leaf(x):
        name, dtype, size = x["name"], np.dtype(x["dtype"]), int(np.prod(x["shape"], dtype=int))
        stored = f"{name}.dense" if x["encoding"] == "dense" else f"{name}.values"
        narrow = dtype.name in ("float32", "float64")
        stored_dtype = NAMES[header[stored]["dtype"]] if narrow else dtype
        values = np.frombuffer(data(stored), stored_dtype)
        if x["encoding"] == "dense":
            return values.astype(dtype).reshape(x["shape"])
        mask = data(f"{name}.mask")
        mask = zlib.decompress(mask) if x["encoding"] == "deflate" else mask
        array = np.zeros(size, dtype)
        array[np.unpackbits(np.frombuffer(mask, np.uint8), count=size).astype(bool)] = values
        return array.reshape(x["shape"])
    def node(x):
        if x is None or isinstance(x, dict):
            return leaf(x) if x else None
        kind, *rest = x
        if kind == "dict":
            return dict(zip(rest[::2], map(node, rest[1::2])))
        return {"list": list, "tuple": tuple}[kind](map(node, rest))
    return node(json.loads(header["__metadata__"]["tree"]))
"""
    program = [x for x in code[code.index("def read") :].splitlines() if x]
    assert len(program) <= 30
    scope = {}
    exec(code, scope)
    tree = {
        "all": [random_bits(x, (9, 11), i) for i, x in enumerate(_layout.DTYPES.values())],
        "rest": (None, {}, {5: np.ones((3, 2), np.float32), 7: np.float64(0)}),
        "rows": np.tile(np.arange(100.0) == 0, (100, 1)).astype(np.float32),
    }
    path = tmp_path / "params.safetensors"
    for options in ({}, {"deflate": True}, {"values_dtype": "bfloat16"}):
        if options.get("values_dtype"):
            tree["all"] = [np.ones((3, 3), np.float64), np.eye(40, dtype=np.float32)]
        save_sparse(path, tree, **options)
        assert_same_bits(scope["read"](path), tree)
        assert_same_bits(load_sparse(path), tree)


def test_safetensors_reads_it(tmp_path):
    """Names, shapes and values, by the library that the format is of."""
    path = tmp_path / "params.safetensors"
    kernel = random_bits(np.dtype(np.float32), (30, 20), 0, 0.1)
    tree = {
        "hidden": {"kernel": kernel, "bias": np.arange(1.0, 4.0, dtype=np.float32)},
        "z": np.array([1j, 2], np.complex64),
        **{name: random_bits(x, (9,), 0, 1) for name, x in _layout.DTYPES.items()},
    }
    save_sparse(path, tree)
    with safe_open(path, "numpy") as file:
        assert set(file.metadata()) == {"crc32", "format", "tree", "version"}
        assert {"hidden/kernel.mask", "hidden/kernel.values", "hidden/bias.dense"} < {*file.keys()}
        mask = np.unpackbits(file.get_tensor("hidden/kernel.mask")).astype(bool)
        assert (mask == kernel.view(np.uint32).ravel().astype(bool)).all()
        values = file.get_tensor("hidden/kernel.values")
        assert values.tobytes() == kernel.ravel()[mask].tobytes()
        np.testing.assert_array_equal(file.get_tensor("hidden/bias.dense"), [1, 2, 3])
        np.testing.assert_array_equal(file.get_tensor("z.dense"), [[0, 1], [2, 0]])
        assert file.get_slice("bfloat16.dense").get_dtype() == "BF16"


LEAF = 1 << 22  # bytes
COUNT = 5


def peak_of(function):
    """What it returns, and the most bytes that were held meanwhile above those held before."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    try:
        result = function()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return result, peak - before, after - before


@pytest.mark.parametrize("name", ["float32", "int8", "complex128"])
@pytest.mark.parametrize("options", [{}, {"deflate": True}, {"values_dtype": "float16"}])
@pytest.mark.parametrize("density", [0.05, 1])
def test_at_most_one_leaf_in_memory(tmp_path, name, options, density):
    """Beside the params when saving, and beside the tree that comes back when loading."""
    dtype = _layout.DTYPES[name]
    rng = np.random.default_rng(0)
    leaf = (rng.random(LEAF // dtype.itemsize) < density).astype(dtype)
    tree = [leaf] * COUNT
    path = tmp_path / "params.safetensors"
    _, peak, after = peak_of(lambda: save_sparse(path, tree, **options))
    assert peak < LEAF
    assert after < 1e5
    restored, peak, after = peak_of(lambda: load_sparse(path))
    assert peak < COUNT * LEAF + LEAF
    assert after >= COUNT * LEAF
    np.testing.assert_array_equal(restored[-1], leaf)


def test_params_on_many_devices_leave_nothing_on_the_host(tmp_path, devices):
    """JAX keeps the host's copy of an array as long as the array; one leaf's is what may be."""
    mesh = jax.sharding.Mesh(np.array(devices), ("a",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("a"))
    tree = [jax.device_put(np.ones(LEAF // 4, np.float32), sharding) for _ in range(COUNT)]
    _, peak, after = peak_of(lambda: save_sparse(tmp_path / "params.safetensors", tree))
    assert peak < 1.5 * LEAF
    assert after < LEAF


def test_an_older_file_is_kept_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "params.safetensors"
    save_sparse(path, {"w": W})
    good = {"a": np.ones(5, np.float32)}
    with pytest.raises(ValueError, match="values_dtype"):
        save_sparse(path, [good, np.full(5, 1e30, np.float32)], values_dtype="float16")
    for name in ("fsync", "replace"):
        owner = os if name == "fsync" else pathlib.Path
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                save_sparse(path, good)
    assert list(tmp_path.iterdir()) == [path]
    assert_same_bits(load_sparse(path), {"w": W})
    save_sparse(path, good)
    assert_same_bits(load_sparse(path), good)


def test_it_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    path, events = tmp_path / "params.safetensors", []
    sync, replace = os.fsync, pathlib.Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("fsync"), sync(fd)))
    monkeypatch.setattr(
        pathlib.Path, "replace", lambda a, b: (events.append("replace"), replace(a, b))[1]
    )
    save_sparse(path, W)
    assert events[:2] == ["fsync", "replace"]
    if os.name == "posix":
        assert events == ["fsync", "replace", "fsync"]  # the last of the folder


@pytest.mark.skipif(os.name != "posix", reason="links and modes")
def test_links_and_modes(tmp_path):
    (tmp_path / "real").mkdir()
    link, real = tmp_path / "link.safetensors", tmp_path / "real" / "params.safetensors"
    link.symlink_to(real)
    save_sparse(link, W)
    assert link.is_symlink()
    assert_same_bits(load_sparse(real), W)
    (plain := tmp_path / "plain").touch()
    assert real.stat().st_mode == plain.stat().st_mode


leaves = st.builds(
    lambda name, shape, seed, density: random_bits(_layout.DTYPES[name], shape, seed, density),
    st.sampled_from(sorted(_layout.DTYPES)),
    st.lists(st.integers(0, 5), max_size=4).map(tuple),
    st.integers(0, 2**32),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
trees = st.recursive(
    st.none() | leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.dictionaries(st.integers(-9, 9), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.mark.slow
@given(trees, st.booleans())
def test_any_tree_comes_back(tmp_path_factory, tree, deflate):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    save_sparse(path, tree, deflate=deflate)
    assert_same_bits(load_sparse(path), tree)
