"""The layout of a sparse file: what is where, so that thirty lines of numpy can read it.

A sparse file is a safetensors file (every reader of that format opens it):

    8 bytes        the length N of the header, a little-endian unsigned integer
    N bytes        the header: JSON, filled up with spaces to a multiple of 8 bytes
    all the rest   the data of the tensors, one after another, little-endian, without gaps

The header maps the name of a tensor to its ``dtype``, its ``shape`` and its ``data_offsets``, the
first byte and the one after the last, counted from the end of the header. ``__metadata__`` holds
four strings:

    crc32      the CRC-32 of all header bytes after these eight hexadecimal digits, with which every
               header begins: {"__metadata__":{"crc32":"01234567"
    format     grda_optax.sparse
    tree       the tree as JSON, see below
    version    1

A tree is ``null`` (None), a leaf, or a list that begins with what it is: ``["list", a, b, ...]``,
``["tuple", a, b, ...]`` or ``["dict", key, a, key, b, ...]``, its keys strings or integers. A leaf
is an object:

    name       its path, such as hidden/kernel; ~1 stands for a slash in a key, and ~0 for a tilde
    dtype      numpy's name of what it is in memory, such as float32 or bfloat16
    shape      a list of integers
    encoding   dense, bits or deflate
    crc32      of the data of its tensors, one after the other

``dense``: the tensor NAME.dense holds all entries, in C order. ``bits``: NAME.mask holds one bit an
entry in C order, the first in the most significant bit of the first byte (``numpy.packbits``), and
NAME.values the entries whose bit is set. ``deflate``: the same, with the bytes of the mask
compressed by zlib. A bit is set where any bit of the entry is, so -0.0 is among the values. A leaf
is dense where mask and values, uncompressed, would not be smaller.

The tensors have the dtype of the leaf (F32, BF16, BOOL ...), with three exceptions: float32 and
float64 may be stored as F16 or BF16; a complex number is a last axis of two, real and imaginary
part; and the bytes of what safetensors has no name for (int4, some kinds of float8) are U8.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

FORMAT, VERSION = "grda_optax.sparse", "1"
START = b'{"__metadata__":{"crc32":"'
DIGITS = 8  # of a CRC-32
MAX_HEADER = 1 << 24  # bytes; some 50,000 leaves
MAX_DEPTH = 100
CHUNK = 1 << 16  # entries that are worked on at a time, a multiple of 8
MAX_DEFLATE = 1032  # zlib makes no more bytes than that out of one

# The names that safetensors has for them; every other dtype here has one byte, and is stored as U8.
NATIVE = {
    "bool": "BOOL",
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "complex64": "F32",
    "complex128": "F64",
}
SMALL = (
    *("int1", "int2", "int4", "uint1", "uint2", "uint4", "float4_e2m1fn"),
    *("float6_e2m3fn", "float6_e3m2fn", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz"),
    *("float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
)
# What this JAX knows of them; those that numpy lacks are ml_dtypes's.
DTYPES = {
    name: np.dtype(getattr(jnp, {"bool": "bool_"}.get(name, name)))
    for name in (*NATIVE, *SMALL)
    if hasattr(jnp, {"bool": "bool_"}.get(name, name))
}
SIZES = {kind: DTYPES[name].itemsize for name, kind in NATIVE.items() if DTYPES[name].kind != "c"}
NARROW = {"F16": DTYPES["float16"], "BF16": DTYPES["bfloat16"]}
WIDE = ("float32", "float64")  # what may be stored in these


class Tensor(NamedTuple):
    """One entry of the header: ``dtype`` as safetensors names it, and where the data are."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def native(dtype: np.dtype[Any]) -> str:
    """What safetensors calls the tensor of such a leaf."""
    return NATIVE.get(dtype.name, "U8")


def tail(dtype: np.dtype[Any]) -> tuple[int, ...]:
    """The axis that a tensor has more than its leaf."""
    return (2,) if dtype.kind == "c" else ()


def mask_bytes(size: int) -> int:
    """One bit an entry."""
    return -(-size // 8)


def is_sparse(size: int, nnz: int, itemsize: int) -> bool:
    """Whether mask and values are smaller than all entries."""
    return mask_bytes(size) + nnz * itemsize < size * itemsize


def set_bits(x: np.ndarray) -> np.ndarray:
    """Where any bit of an entry is set, -0.0 among them; ``x`` has one axis."""
    if x.itemsize == 16:
        real, imaginary = x.view(np.uint64).reshape(-1, 2).T
        return np.asarray((real | imaginary) != 0)
    return np.asarray(x.view(f"u{x.itemsize}") != 0)


def leaf_name(keys: Iterable[str | int]) -> str:
    """The name of the leaf at this path, which no other path has."""
    return "/".join(str(key).replace("~", "~0").replace("/", "~1") for key in keys)
