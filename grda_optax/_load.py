"""Reading a sparse file that may be broken or hostile: checked first, then leaf by leaf."""

import os
import zlib
from typing import BinaryIO

import numpy as np

from . import _layout as layout
from ._checks import PyTree, check_path
from ._header import Leaf, Node, Refused, exactly, parse, short
from ._layout import CHUNK


def load_sparse(path: str | os.PathLike[str]) -> PyTree:
    """Reads the tree that :func:`save_sparse` wrote.

    Everything is checked before it is believed: the header, sizes and offsets before any array is
    made, the mask of a leaf before the leaf, and all bytes by their CRC-32. That finds damage; it
    does not tell who wrote the file. Nothing of it is executed. Apart from the tree itself, at
    most the bitmask of one leaf is in memory.

    Args:
        path: the file.

    Returns:
        The tree, of numpy arrays in their own memory, with the shapes and dtypes that were saved
        (``bfloat16`` and the like are those of ml_dtypes, as JAX has them): any function of JAX
        takes it, ``jax.device_put`` moves it to a device, and JAX without ``jax_enable_x64`` takes
        64-bit entries for 32-bit ones. Dicts, lists, tuples and ``None`` come back as such, named
        tuples as tuples, other containers as dicts (by dict key or attribute) or lists (by index),
        and a box around one ``value``, such as an ``nnx.Variable``, as what is in it:
        ``nnx.state(model)`` as the dict that ``nnx.replace_by_pure_dict`` takes.

    Raises:
        ValueError: the file is none of :func:`save_sparse`'s, of a later version, truncated or
            altered, or holds a dtype that this JAX does not have.
        OSError: the file cannot be read.

    Examples:
        >>> import pathlib, tempfile
        >>> import jax.numpy as jnp
        >>> from grda_optax import load_sparse, save_sparse
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "params.safetensors"
        ...     _ = save_sparse(path, {"layers": [jnp.array([0.0, -0.0, 2.0]), None]})
        ...     load_sparse(path)
        {'layers': [array([ 0., -0.,  2.], dtype=float32), None]}
    """
    with check_path(path).open("rb") as file:
        try:
            tree, start = parse(file, os.fstat(file.fileno()).st_size)
            return _build(file, tree, start)
        except Refused as error:
            raise ValueError(
                f"path must be a whole and unaltered file of save_sparse, got {os.fspath(path)!r}: "
                f"{error}."
            ) from error


def _build(file: BinaryIO, node: Node, start: int) -> PyTree:
    """The tree, with the leaves read as they come."""
    if node is None:
        return None
    if isinstance(node, Leaf):
        return _read(file, node, start)
    children = [_build(file, child, start) for child in node.children]
    if node.kind == "dict":
        return dict(zip(node.keys, children, strict=True))
    return children if node.kind == "list" else tuple(children)


def _read(file: BinaryIO, leaf: Leaf, start: int) -> np.ndarray:
    """One leaf, piece by piece; its mask has been counted before there is an array to fill."""
    mask, checksum = None, 0
    if leaf.mask is not None:
        file.seek(start + leaf.mask.begin)
        stored = exactly(file, leaf.mask.end - leaf.mask.begin)
        checksum = zlib.crc32(stored)
        mask = np.frombuffer(_inflate(stored, leaf), np.uint8)
        _check_mask(mask, leaf)
    file.seek(start + leaf.values.begin)
    flat = np.zeros(leaf.size, leaf.dtype)
    for begin in range(0, leaf.size, CHUNK):
        part = flat[begin : begin + CHUNK]
        bits = None
        count = part.size
        if mask is not None:
            packed = mask[begin // 8 : (begin + CHUNK) // 8]
            bits = np.unpackbits(packed, count=part.size).view(np.bool_)
            count = int(np.count_nonzero(bits))
        content = exactly(file, count * leaf.stored.itemsize)
        checksum = zlib.crc32(content, checksum)
        values = np.frombuffer(content, leaf.stored)
        _check_values(values, leaf)
        with np.errstate(invalid="ignore"):  # of a signalling NaN that becomes wider
            part[... if bits is None else bits] = values
    if f"{checksum:08x}" != leaf.crc32:
        raise Refused(f"the checksum of the leaf {short(leaf.name)} is wrong")
    return flat.reshape(leaf.shape)


def _inflate(stored: bytes, leaf: Leaf) -> bytes:
    """The bytes of the mask, and never more of them than it has."""
    if leaf.encoding != "deflate":
        return stored
    size = layout.mask_bytes(leaf.size)
    inflater = zlib.decompressobj()
    try:
        mask = inflater.decompress(stored, size + 1)
    except zlib.error as error:
        raise Refused(f"the mask of the leaf {short(leaf.name)} cannot be inflated") from error
    if len(mask) != size or not inflater.eof or inflater.unused_data:
        raise Refused(f"the mask of the leaf {short(leaf.name)} does not inflate to {size} bytes")
    return mask


def _check_mask(mask: np.ndarray, leaf: Leaf) -> None:
    """As many bits as values, and none beyond the last entry."""
    bits, nnz = int(np.bitwise_count(mask).sum(dtype=np.int64)), leaf.values.shape[0]
    if bits != nnz:
        raise Refused(f"the mask of the leaf {short(leaf.name)} has {bits} bits for {nnz} values")
    if leaf.size % 8 and mask[-1] & (0xFF >> leaf.size % 8):
        raise Refused(f"the mask of the leaf {short(leaf.name)} goes on after its last entry")


def _check_values(values: np.ndarray, leaf: Leaf) -> None:
    """No zero where the mask has a bit, and no bool of another byte than 0 and 1."""
    if leaf.mask is not None and not layout.set_bits(values).all():
        raise Refused(f"the leaf {short(leaf.name)} has a zero among its values")
    if leaf.dtype == np.bool_ and (values.view(np.uint8) > 1).any():
        raise Refused(f"the leaf {short(leaf.name)} has a bool that is neither true nor false")
