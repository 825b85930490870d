"""The header of a sparse file: packed, and parsed with every doubt."""

import dataclasses
import json
import math
import reprlib
import zlib
from typing import Any, BinaryIO

import numpy as np

from . import _layout as layout
from ._layout import DIGITS, START, Tensor

CHECKED = len(START) + DIGITS  # from here on the checksum of the header counts


def to_json(value: Any) -> str:
    """In ASCII, without spaces."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def pack_header(tree: Any, tensors: dict[str, Tensor], size: int = 0) -> bytes:
    """The header with its length before it, filled up with spaces to ``size`` bytes."""
    metadata = {
        "crc32": "0" * DIGITS,
        "format": layout.FORMAT,
        "tree": to_json(tree),
        "version": layout.VERSION,
    }
    entries = {
        name: {"dtype": x.dtype, "shape": list(x.shape), "data_offsets": [x.begin, x.end]}
        for name, x in tensors.items()
    }
    text = to_json({"__metadata__": metadata, **entries}).encode()
    length = max(len(text) + -len(text) % 8, size - 8)
    rest = text[CHECKED:].ljust(length - CHECKED)
    return length.to_bytes(8, "little") + START + f"{zlib.crc32(rest):08x}".encode() + rest


class Refused(Exception):
    """What is wrong with a file."""


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A leaf whose description fits itself and its tensors; ``mask`` is None of a dense one."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    encoding: str
    crc32: str
    stored: np.dtype[Any]
    mask: Tensor | None
    values: Tensor

    @property
    def size(self) -> int:
        """The number of entries."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Container:
    """A ``dict``, ``list`` or ``tuple``; only a dict has keys."""

    kind: str
    keys: list[str | int]
    children: list["Node"]


Node = Leaf | Container | None


def parse(file: BinaryIO, size: int) -> tuple[Node, int]:
    """The tree of a file of ``size`` bytes, and where its data begin.

    Raises:
        Refused: anything is not as :mod:`grda_optax._layout` has it.
    """
    if size < 8:
        raise Refused(f"it has {size} bytes, too few for a header")
    length = int.from_bytes(exactly(file, 8), "little")
    if length > layout.MAX_HEADER:
        raise Refused(f"its header has {length:,} bytes, more than {layout.MAX_HEADER:,}")
    if length > size - 8:
        raise Refused(f"its header has {length:,} bytes, and the file only {size - 8:,} more")
    text = exactly(file, length)
    if not text.startswith(START):
        raise Refused("its header does not begin as one of save_sparse does")
    rest = text[CHECKED:]
    if text[len(START) : CHECKED] != f"{zlib.crc32(rest):08x}".encode():
        raise Refused("the checksum of its header is wrong")
    header = _json(text, "its header")
    metadata = header.pop("__metadata__")  # which it begins with
    _check_metadata(metadata)
    tensors = _tensors(header, size - 8 - length)
    tree = _node(_json(metadata["tree"], "its tree"), tensors, 0)
    if tensors:
        raise Refused(f"the tensor {short(next(iter(tensors)))} belongs to no leaf")
    return tree, 8 + length


def exactly(file: BinaryIO, count: int) -> bytes:
    """The next bytes, all of them."""
    content = file.read(count)
    if len(content) != count:
        raise Refused("it became shorter while it was read")
    return content


def short(value: Any) -> str:
    """For a message; of a hostile file it could have megabytes."""
    return reprlib.repr(value)


def _json(text: str | bytes, what: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise Refused(f"{what} names something twice")
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{what} is not JSON that can be read") from error


def _check_metadata(metadata: Any) -> None:
    form, version = metadata.get("format"), metadata.get("version")
    if form != layout.FORMAT:
        raise Refused(f"its format is {short(form)}, and not {layout.FORMAT!r}")
    if version != layout.VERSION:
        raise Refused(f"its version is {short(version)}; this release reads {layout.VERSION!r}")
    if set(metadata) != {"crc32", "format", "tree", "version"} or type(metadata["tree"]) is not str:
        raise Refused("its metadata are not those of a sparse file")


def _fields(value: Any, names: set[str], what: str) -> None:
    if type(value) is not dict or set(value) != names:
        raise Refused(f"{what} must have the fields {', '.join(sorted(names))}")


def _shape(value: Any, itemsize: int, what: str) -> tuple[int, ...]:
    """Of an array that numpy could make."""
    fits = type(value) is list and len(value) <= 65 and all(type(x) is int for x in value)
    if (
        not fits
        or any(x < 0 for x in value)
        or math.prod(max(x, 1) for x in value) * itemsize >= 2**63
    ):
        raise Refused(f"{what} has the impossible shape {short(value)}")
    return tuple(value)


def _tensors(entries: dict[str, Any], size: int) -> dict[str, Tensor]:
    """What the header says of the tensors, which fill the data without gap or overlap."""
    tensors = {}
    for name, entry in entries.items():
        what = f"the tensor {short(name)}"
        _fields(entry, {"dtype", "shape", "data_offsets"}, what)
        dtype, offsets = entry["dtype"], entry["data_offsets"]
        if type(dtype) is not str or dtype not in layout.SIZES:
            raise Refused(f"{what} has the unknown dtype {short(dtype)}")
        shape = _shape(entry["shape"], layout.SIZES[dtype], what)
        if type(offsets) is not list or [type(x) for x in offsets] != [int, int]:
            raise Refused(f"{what} has the offsets {short(offsets)}, which are not two integers")
        expected = math.prod(shape) * layout.SIZES[dtype]
        if offsets[1] - offsets[0] != expected:
            raise Refused(f"{what} has offsets {short(offsets)} for {short(expected)} bytes")
        tensors[name] = Tensor(dtype, shape, *offsets)
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1][2:]):
        if tensor.begin != end:
            raise Refused(
                f"the tensor {short(name)} begins at byte {short(tensor.begin)} where the one "
                f"before it ends at {end}"
            )
        end = tensor.end
    if end != size:
        raise Refused(f"its tensors have {short(end)} bytes, and the file has {size} for them")
    return tensors


def _node(value: Any, tensors: dict[str, Tensor], depth: int) -> Node:
    """A node of the tree; the tensors of its leaves are taken out of ``tensors``."""
    if value is None:
        return None
    if type(value) is dict:
        return _leaf(value, tensors)
    if type(value) is not list or not value or value[0] not in ("dict", "list", "tuple"):
        raise Refused(f"its tree holds {short(value)}, which is neither a leaf nor a container")
    kind, *rest = value
    if depth >= layout.MAX_DEPTH:
        raise Refused(f"its tree is more than {layout.MAX_DEPTH} levels deep")
    keys = rest[::2] if kind == "dict" else []
    if any(type(key) not in (str, int) for key in keys) or len(set(keys)) < len(keys):
        raise Refused(f"its tree has a dict with the keys {short(keys)}")
    if kind == "dict" and len(rest) % 2:
        raise Refused("its tree has a dict with a key and no value")
    inner = rest[1::2] if kind == "dict" else rest
    return Container(kind, keys, [_node(x, tensors, depth + 1) for x in inner])


def _leaf(record: dict[str, Any], tensors: dict[str, Tensor]) -> Leaf:
    """A leaf, with the tensors that it must have."""
    _fields(record, {"name", "dtype", "shape", "encoding", "crc32"}, "a leaf of its tree")
    name, dtype, encoding = record["name"], record["dtype"], record["encoding"]
    what = f"the leaf {short(name)}"
    if not all(type(record[x]) is str for x in ("name", "dtype", "encoding", "crc32")):
        raise Refused(f"{what} is not described by strings")
    if dtype not in layout.DTYPES:
        raise Refused(f"{what} has the dtype {short(dtype)}, which is unknown here")
    shape = _shape(record["shape"], layout.DTYPES[dtype].itemsize, what)
    if encoding not in ("dense", "bits", "deflate"):
        raise Refused(f"{what} has the unknown encoding {short(encoding)}")
    try:
        mask = None if encoding == "dense" else tensors.pop(f"{name}.mask")
        values = tensors.pop(f"{name}.dense" if encoding == "dense" else f"{name}.values")
    except KeyError as error:
        raise Refused(f"the tensor {short(error.args[0])} is missing") from error
    known = layout.DTYPES[dtype]
    stored = known
    if values.dtype != layout.native(known):
        if dtype not in layout.WIDE or values.dtype not in layout.NARROW:
            raise Refused(f"{what} of {dtype} is stored as {values.dtype}")
        stored = layout.NARROW[values.dtype]
    leaf = Leaf(name, known, shape, encoding, record["crc32"], stored, mask, values)
    _check_shapes(leaf, what)
    return leaf


def _check_shapes(leaf: Leaf, what: str) -> None:
    """The tensors have the shapes that the leaf's own asks for."""
    more = layout.tail(leaf.dtype)
    if leaf.mask is None:
        if leaf.values.shape != (*leaf.shape, *more):
            raise Refused(f"{what} of shape {short(leaf.shape)} has {short(leaf.values.shape)}")
        return
    nnz, *rest = leaf.values.shape or (-1,)
    if tuple(rest) != more or not 0 <= nnz <= leaf.size:
        raise Refused(f"{what} has values of the shape {short(leaf.values.shape)}")
    expected = layout.mask_bytes(leaf.size)
    stored = leaf.mask.end - leaf.mask.begin
    fits = stored == expected if leaf.encoding == "bits" else stored < expected
    if leaf.mask.dtype != "U8" or leaf.mask.shape != (stored,) or not fits:
        raise Refused(f"{what} of {leaf.size} entries has a mask of {stored} bytes")
    if leaf.encoding == "deflate" and expected > layout.MAX_DEFLATE * stored:
        raise Refused(f"{what} has {stored} bytes that cannot inflate to {expected}")
