"""What cannot be saved, and files that are broken or hostile: refused by name, before any harm."""

import json
import re
import tracemalloc
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grda_optax import _layout, load_sparse, save_sparse

from .trees import assert_same_bits

START = _layout.START
W = np.zeros((4, 5), np.float32)
W[::2, 0] = [1.0, -2.0]
W[3, 4] = -0.0
# In the file: w.mask at bytes 0 to 3 of the data, w.values to 15, x.dense to 27, y.values to 28.
TREE = {"w": W, "x": [np.arange(1.0, 4.0, dtype=np.float32)], "y": (np.True_, None)}
LONG = 5000 * "n"


def raises(message):
    """A ValueError with this message, whole."""
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


def refuses(path, reason):
    return raises(
        f"path must be a whole and unaltered file of save_sparse, got {str(path)!r}: {reason}."
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "params.safetensors"


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """A good file."""
    return saved(tmp_path_factory.mktemp("files") / "good", TREE)


def saved(path, tree, **options):
    save_sparse(path, tree, **options)
    return path.read_bytes()


def opened(content):
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    return header, json.loads(header["__metadata__"]["tree"]), content[8 + length :]


def sealed(text, data):
    """A file with this header and a checksum that holds: as who means harm would make it."""
    rest = text[len(START) + 8 :]
    text = text[: len(START)] + f"{zlib.crc32(rest):08x}".encode() + rest
    return len(text).to_bytes(8, "little") + text + data


def forged(header, tree, data):
    header["__metadata__"]["tree"] = tree if isinstance(tree, str) else json.dumps(tree)
    return sealed(json.dumps(header, separators=(",", ":")).encode(), data)


def leaf_of(tree, name):
    """The object of a leaf of TREE in the header."""
    return {"w": tree[2], "x/0": tree[4][1], "y/0": tree[6][1]}[name]


def load_within(path, limit):
    """Loads; no more bytes than that may be asked for at any time, whatever comes of it."""
    tracemalloc.start()
    try:
        return load_sparse(path)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < limit


# What is put in the header and the tree in the place of what is there, and what is wrong with it.
HEADERS = {
    "no format": (("__metadata__", "format"), "pt", "its format is 'pt', and not {format}"),
    "a later version": (
        ("__metadata__", "version"),
        "2",
        "its version is '2'; this release reads '1'",
    ),
    "more metadata": (
        ("__metadata__", "more"),
        "",
        "its metadata are not those of a sparse file",
    ),
    "no tensor": (("w.mask",), 3, "the tensor 'w.mask' must have the fields {fields}"),
    "too many fields": (
        ("w.mask", "more"),
        3,
        "the tensor 'w.mask' must have the fields {fields}",
    ),
    "unknown dtype": (("w.mask", "dtype"), "O", "the tensor 'w.mask' has the unknown dtype 'O'"),
    "dtype of another type": (
        ("w.mask", "dtype"),
        ["U8"],
        "the tensor 'w.mask' has the unknown dtype ['U8']",
    ),
    "negative shape": (
        ("w.mask", "shape"),
        [-3],
        "the tensor 'w.mask' has the impossible shape [-3]",
    ),
    "shape of bools": (
        ("w.mask", "shape"),
        [True],
        "the tensor 'w.mask' has the impossible shape [True]",
    ),
    "shape of floats": (
        ("w.mask", "shape"),
        [3.0],
        "the tensor 'w.mask' has the impossible shape [3.0]",
    ),
    "overflowing shape": (
        ("w.mask", "shape"),
        [2**32, 2**32],
        "the tensor 'w.mask' has the impossible shape [4294967296, 4294967296]",
    ),
    "no offsets": (
        ("w.mask", "data_offsets"),
        [0],
        "the tensor 'w.mask' has the offsets [0], which are not two integers",
    ),
    "offsets of floats": (
        ("w.mask", "data_offsets"),
        [0, 3.0],
        "the tensor 'w.mask' has the offsets [0, 3.0], which are not two integers",
    ),
    "wrong size": (
        ("w.mask", "data_offsets"),
        [0, 4],
        "the tensor 'w.mask' has offsets [0, 4] for 3 bytes",
    ),
    "backwards": (
        ("w.mask", "data_offsets"),
        [3, 0],
        "the tensor 'w.mask' has offsets [3, 0] for 3 bytes",
    ),
    "before the data": (
        ("w.mask", "data_offsets"),
        [-3, 0],
        "the tensor 'w.mask' begins at byte -3 where the one before it ends at 0",
    ),
    "overlap": (
        ("w.values", "data_offsets"),
        [2, 14],
        "the tensor 'w.values' begins at byte 2 where the one before it ends at 3",
    ),
    "gap": (
        ("w.values", "data_offsets"),
        [4, 16],
        "the tensor 'w.values' begins at byte 4 where the one before it ends at 3",
    ),
    "beyond the end": (
        ("y/0.dense", "data_offsets"),
        [10**15, 10**15 + 1],
        "the tensor 'y/0.dense' begins at byte 1000000000000000 where the one before it ends at 27",
    ),
    "larger than the file": (
        ("x/0.dense",),
        {"dtype": "F32", "shape": [2**40], "data_offsets": [15, 15 + 2**42]},
        "the tensor 'y/0.dense' begins at byte 27 where the one before it ends at 4398046511119",
    ),
    "of nobody": (
        (LONG,),
        {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]},
        "the tensor 'nnnnnnnnnnnn...nnnnnnnnnnnnn' belongs to no leaf",
    ),
}
LEAVES = {
    "fields": ("w", "dtype", None, "a leaf of its tree must have the fields {leaf}"),
    "dtype of another type": ("w", "dtype", [], "the leaf 'w' is not described by strings"),
    "unknown dtype": (
        "w",
        "dtype",
        "object",
        "the leaf 'w' has the dtype 'object', which is unknown here",
    ),
    "other dtype": ("w", "dtype", "int32", "the leaf 'w' of int32 is stored as F32"),
    "shape": ("w", "shape", [20, None], "the leaf 'w' has the impossible shape [20, None]"),
    "many axes": (
        "w",
        "shape",
        [1] * 66,
        "the leaf 'w' has the impossible shape [1, 1, 1, 1, 1, 1, ...]",
    ),
    "encoding": ("w", "encoding", "rle", "the leaf 'w' has the unknown encoding 'rle'"),
    "dense as sparse": ("x/0", "encoding", "bits", "the tensor 'x/0.mask' is missing"),
    "sparse as dense": ("w", "encoding", "dense", "the tensor 'w.dense' is missing"),
    "name": ("w", "name", "v", "the tensor 'v.mask' is missing"),
    "a name twice": ("x/0", "name", "w", "the tensor 'w.dense' is missing"),
    "another shape": ("x/0", "shape", [4], "the leaf 'x/0' of shape (4,) has (3,)"),
    "fewer entries than values": (
        "w",
        "shape",
        [2],
        "the leaf 'w' has values of the shape (3,)",
    ),
    "more entries than bits": (
        "w",
        "shape",
        [25],
        "the leaf 'w' of 25 entries has a mask of 3 bytes",
    ),
    "far more entries than bits": (
        "w",
        "shape",
        [2**50],
        "the leaf 'w' of 1125899906842624 entries has a mask of 3 bytes",
    ),
    "fewer entries than bits": ("w", "shape", [19], "the mask of the leaf 'w' goes on {end}"),
    "deflate": (
        "w",
        "encoding",
        "deflate",
        "the leaf 'w' of 20 entries has a mask of 3 bytes",
    ),
    "checksum": ("w", "crc32", "0" * 8, "the checksum of the leaf 'w' is wrong"),
}
WORDS = {
    "format": "'grda_optax.sparse'",
    "fields": "data_offsets, dtype, shape",
    "leaf": "crc32, dtype, encoding, name, shape",
    "end": "after its last entry",
}


@pytest.mark.parametrize("case", HEADERS)
def test_hostile_headers(path, content, case):
    where, value, reason = HEADERS[case]
    header, tree, data = opened(content)
    inner = header
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    path.write_bytes(forged(header, tree, data))
    with refuses(path, reason.format(**WORDS)):
        load_within(path, 1e6)


@pytest.mark.parametrize("case", LEAVES)
def test_hostile_leaves(path, content, case):
    name, field, value, reason = LEAVES[case]
    header, tree, data = opened(content)
    leaf_of(tree, name)[field] = value
    if value is None:
        del leaf_of(tree, name)[field]
    path.write_bytes(forged(header, tree, data))
    with refuses(path, reason.format(**WORDS)):
        load_within(path, 1e6)


TREES = {
    "3": "its tree holds 3, which is neither a leaf nor a container",
    "[]": "its tree holds [], which is neither a leaf nor a container",
    '["set", null]': "its tree holds ['set', None], which is neither a leaf nor a container",
    '["dict", "a"]': "its tree has a dict with a key and no value",
    '["dict", "a", null, "a", null]': "its tree has a dict with the keys ['a', 'a']",
    '["dict", true, null]': "its tree has a dict with the keys [True]",
    '["dict", {}, null]': "its tree has a dict with the keys [{}]",
    '{"a": 1, "a": 2}': "its tree names something twice",
    '["list", NaN]': "its tree holds nan, which is neither a leaf nor a container",
    '["list"': "its tree is not JSON that can be read",
    "\ud800": "its tree is not JSON that can be read",
    "9" * 5000: "its tree is not JSON that can be read",
    101 * '["list",' + "null" + 101 * "]": "its tree is more than 100 levels deep",
    100_000 * "[" + 100_000 * "]": "its tree is not JSON that can be read",
    '["list"]': "the tensor 'w.mask' belongs to no leaf",
}


@pytest.mark.parametrize("number", range(len(TREES)))
def test_hostile_trees(path, content, number):
    text, reason = list(TREES.items())[number]
    header, _, data = opened(content)
    path.write_bytes(forged(header, text, data))
    with refuses(path, reason):
        load_within(path, 1e7)


def test_a_name_that_stands_twice(path, content):
    """Which a reader that takes the last of the two does not see."""
    header, tree, data = opened(content)
    text = json.dumps(header, separators=(",", ":")).encode()
    again = b'"w.mask":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},'
    at = text.index(b'"w.mask"')
    path.write_bytes(sealed(text[:at] + again + text[at:], data))
    with refuses(path, "its header names something twice"):
        load_sparse(path)
    tree += ["w2", leaf_of(tree, "w")]
    path.write_bytes(forged(header, tree, data))
    with refuses(path, "the tensor 'w.mask' is missing"):  # the first leaf has taken it
        load_sparse(path)


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"", "it has 0 bytes, too few for a header"),
        (b"1234567", "it has 7 bytes, too few for a header"),
        (b"\xff" * 8, "its header has 18,446,744,073,709,551,615 bytes, more than 16,777,216"),
        ((1 << 24).to_bytes(8, "little"), "its header has 16,777,216 bytes, and the file only {}"),
        (bytes(8), "its header does not begin as one of save_sparse does"),
        (b"\x02" + bytes(7) + b"{}", "its header does not begin as one of save_sparse does"),
    ],
)
def test_what_is_no_sparse_file(path, start, reason):
    path.write_bytes(start)
    with refuses(path, reason.format("0 more")):
        load_within(path, 1e5)


def test_a_plain_safetensors_file_is_refused(path):
    from safetensors.numpy import save_file

    save_file({"w": W}, path)
    with refuses(path, "its header does not begin as one of save_sparse does"):
        load_sparse(path)


def data_of_w(tree, data, *, mask=None, values=None):
    """Other data for the leaf w, with its checksum."""
    mask, values = mask or data[:3], values or data[3:15]
    leaf_of(tree, "w")["crc32"] = f"{zlib.crc32(mask + values):08x}"
    return mask + values + data[15:]


def test_masks_and_values_that_do_not_fit(path, content):
    header, tree, data = opened(content)
    forgeries = {
        "the mask of the leaf 'w' has 4 bits for 3 values": {"mask": b"\x80\x20\x30"},
        "the mask of the leaf 'w' has 2 bits for 3 values": {"mask": b"\x80\x20\x00"},
        "the mask of the leaf 'w' goes on after its last entry": {"mask": b"\x80\x20\x08"},
        "the leaf 'w' has a zero among its values": {"values": data[3:11] + bytes(4)},
    }
    for reason, change in forgeries.items():
        path.write_bytes(forged(header, tree, data_of_w(tree, data, **change)))
        with refuses(path, reason):
            load_sparse(path)
    tree = opened(content)[1]
    leaf_of(tree, "y/0")["crc32"] = f"{zlib.crc32(b'2'):08x}"
    path.write_bytes(forged(header, tree, data[:-1] + b"2"))
    with refuses(path, "the leaf 'y/0' has a bool that is neither true nor false"):
        load_sparse(path)


def test_bombs(path):
    """A mask inflates to what its leaf needs and no further, and is counted before there is one."""
    size = 8 << 20
    zeros = np.zeros(size, np.float32)
    content = saved(path, zeros, deflate=True)
    assert len(content) < 2000
    header, tree, data = opened(content)
    bomb = zlib.compress(bytes(64 << 20))  # 64 times what is expected

    def forge(mask, entries, nnz=0):
        shape = {"dtype": "U8", "shape": [len(mask)], "data_offsets": [0, len(mask)]}
        end = len(mask) + 4 * nnz
        header["params.mask"] = shape
        header["params.values"] = {"dtype": "F32", "shape": [nnz], "data_offsets": [len(mask), end]}
        tree["shape"], tree["crc32"] = [entries], f"{zlib.crc32(mask + bytes(4 * nnz)):08x}"
        path.write_bytes(forged(header, tree, mask + bytes(4 * nnz)))

    forge(bomb, size)
    with refuses(path, "the mask of the leaf 'params' does not inflate to 1048576 bytes"):
        load_within(path, 4 << 20)
    forge(bomb, 1 << 40)
    with refuses(
        path, f"the leaf 'params' has {len(bomb)} bytes that cannot inflate to 137438953472"
    ):
        load_within(path, 1 << 20)
    forge(data, size, nnz=2)
    with refuses(path, "the mask of the leaf 'params' has 0 bits for 2 values"):
        load_within(path, 4 << 20)
    inflate = "the mask of the leaf 'params' does not inflate to 1048576 bytes"
    for mask, reason in {
        data[:-4]: inflate,
        data + b"more": inflate,
        zlib.compress(bytes((1 << 20) - 1)): inflate,
        b"?" + data[1:]: "the mask of the leaf 'params' cannot be inflated",
    }.items():
        forge(mask, size)
        with refuses(path, reason):
            load_within(path, 4 << 20)
    forge(data, size)
    assert_same_bits(load_sparse(path), zeros)


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    """A file with bits, deflated and dense leaves, and what it is of."""
    tree = {**TREE, "z": np.tile(np.arange(100.0) == 0, (100, 1))}
    return saved(tmp_path_factory.mktemp("files") / "varied", tree, deflate=True), tree


def is_found(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^path must be a whole and unaltered file"):
        load_sparse(path)


def flipped(content, i):
    broken = bytearray(content)
    broken[i // 8] ^= 1 << i % 8
    return broken


def test_a_flipped_bit_of_every_byte_is_found(path, varied):
    content, tree = varied
    for i in range(len(content)):
        is_found(path, flipped(content, 8 * i + i % 8))
    path.write_bytes(content)
    assert_same_bits(load_sparse(path), tree)


def test_every_truncation_is_found(path, varied):
    content, _ = varied
    for length in range(len(content)):
        is_found(path, content[:length])
    is_found(path, content + b" ")


@pytest.mark.slow
def test_every_flipped_bit_is_found(path, varied):
    content, _ = varied
    for i in range(8 * len(content)):
        is_found(path, flipped(content, i))


def load_or_refuse(path, content):
    path.write_bytes(content)
    try:
        return load_within(path, 1e7)
    except ValueError as error:
        if not str(error).startswith("path must be a whole and unaltered file of save_sparse, "):
            raise
        return None


@settings(max_examples=1000)
@given(st.data())
def test_damage(tmp_path_factory, content, data):
    """Bytes set, moved, cut out, put in and cut off: a ValueError, or the same file again."""
    path = tmp_path_factory.getbasetemp() / "damaged"
    broken = bytearray(content)
    place = st.integers(0, len(content))
    for _ in range(data.draw(st.integers(1, 4))):
        a, b = sorted((data.draw(place), data.draw(place)))
        piece = data.draw(st.binary(max_size=9) | st.just(content[a:b]))
        broken[a : data.draw(st.sampled_from([a, a + len(piece), b]))] = piece
    restored = load_or_refuse(path, bytes(broken))
    if restored is None:
        assert broken != content
    else:
        assert broken == content
        assert_same_bits(restored, TREE)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 30)
    | st.integers()
    | st.floats()
    | st.sampled_from(
        ["w", "x/0", "dense", "bits", "deflate", "U8", "F32", "F16", "float32", "dict"]
    )
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(value, path=()):
    """The way to everything in a JSON value."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


@settings(max_examples=100)
@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda x: sealed(START + bytes(8), x)))
def test_anything_but_a_file(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "anything"
    assert load_or_refuse(path, content) is None


@pytest.mark.slow
@settings(max_examples=1000)
@given(st.data())
def test_forgeries(tmp_path_factory, content, data):
    """Any JSON in any place of the header, with right checksums: a ValueError, or a tree."""
    path = tmp_path_factory.getbasetemp() / "forged"
    header, tree, rest = opened(content)
    header["__metadata__"]["tree"] = tree
    for _ in range(data.draw(st.integers(1, 2))):
        *way, last = data.draw(st.sampled_from([x for x in places(header) if x]))
        inner = header
        for key in way:
            inner = inner[key]
        inner[last] = data.draw(values)
    if isinstance(header["__metadata__"], dict):
        if "tree" in header["__metadata__"]:
            header["__metadata__"]["tree"] = json.dumps(header["__metadata__"]["tree"])
        header["__metadata__"] = {"crc32": "00000000", **header["__metadata__"]}
    text = json.dumps(header, separators=(",", ":")).encode()
    load_or_refuse(path, sealed(text, rest))


# What cannot be saved.


@pytest.mark.parametrize("value", ["float32", "int8", jnp.float8_e5m2, "half a byte", 3])
def test_values_dtype(path, value):
    with raises(f"values_dtype must be None, bfloat16 or float16, got {value!r}."):
        save_sparse(path, TREE, values_dtype=value)
    assert not path.exists()


def test_values_that_overflow(path):
    x = {"a": np.array([0, 1, 1e5, np.inf], np.float32)}
    with raises("values_dtype must hold every entry, got float16 for 100000 at a."):
        save_sparse(path, x, values_dtype="float16")
    x = {"a": np.array([0, 1, -1e300])}
    with raises("values_dtype must hold every entry, got bfloat16 for -1e+300 at a."):
        save_sparse(path, x, values_dtype=jnp.bfloat16)
    assert list(path.parent.iterdir()) == []


def test_deflate_and_path(path):
    with raises("deflate must be True or False, got 6."):
        save_sparse(path, TREE, deflate=6)
    with raises(f"path must name a file, got the folder {str(path.parent)!r}."):
        save_sparse(path.parent, TREE)
    with pytest.raises(FileNotFoundError):
        save_sparse(path / "deeper" / "x", TREE)
    with pytest.raises(FileNotFoundError):
        load_sparse(path)


class Slots:
    """A container whose children have no keys."""


jax.tree_util.register_pytree_node(Slots, lambda x: ((W,), None), lambda *_: Slots())


@jax.tree_util.register_pytree_with_keys_class
class Twice:
    """A container with a key for two children."""

    def tree_flatten_with_keys(self):
        return [(jax.tree_util.DictKey(key), W) for key in (1, "1")], None

    @classmethod
    def tree_unflatten(cls, *_):
        return cls()


def nested(depth):
    return [nested(depth - 1)] if depth else W


CANNOT_BE_SAVED = {
    "params must be arrays of numbers, got object at a/0.": {"a": [np.array(None)]},
    "params must be arrays of numbers, got str at a.": {"a": "text"},
    "params must be arrays of numbers, got <U4 at a.": {"a": np.array("text")},
    "params must be arrays of numbers, got function at params.": nested,
    "params must be arrays of numbers, got ShapeDtypeStruct at a.": {
        "a": jax.ShapeDtypeStruct((3,), jnp.float32)
    },
    "params must be arrays of numbers, got datetime64[s] at params.": np.array(0, "M8[s]"),
    "params must be arrays of numbers, got key<fry> at params.": jax.random.key(0),
    "params must have dicts with keys that can be sorted, got [1, 'a'] at x.": {
        "x": {1: W, "a": W}
    },
    "params must have strings or 64-bit integers as keys, got True at a.": {"a": {True: W}},
    "params must have strings or 64-bit integers as keys, got 1.5 at params.": {1.5: W},
    f"params must have strings or 64-bit integers as keys, got {2**63} at params.": {2**63: W},
    "params must have strings or 64-bit integers as keys, got '\\ud800' at params.": {"\ud800": W},
    "params must be made of containers whose children are registered by key, index or attribute, "
    "got Slots at s.": {"s": Slots()},
    "params must have one leaf a path, got a container with equal keys.": Twice(),
    f"params must be at most 100 levels deep, got {'/'.join(100 * '0')}.": nested(101),
}


@pytest.mark.parametrize("message", CANNOT_BE_SAVED)
def test_params(path, message):
    with raises(message):
        save_sparse(path, CANNOT_BE_SAVED[message])
    assert list(path.parent.iterdir()) == []


def test_what_is_just_deep_enough(path):
    save_sparse(path, nested(100))
    assert_same_bits(load_sparse(path), nested(100))


def test_traced_params(path):
    message = "params must be arrays with values, got a traced one at a."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):  # to which jit adds notes
        jax.jit(lambda x: save_sparse(path, {"a": x}))(W)
    assert not path.exists()


def test_too_many_leaves(path, monkeypatch):
    monkeypatch.setattr(_layout, "MAX_HEADER", 2000)
    with pytest.raises(
        ValueError, match=r"^params must fit a header of 2,000 bytes, got 20 leaves"
    ):
        save_sparse(path, [W] * 20)
    assert not path.exists()
