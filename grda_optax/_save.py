"""Writing a sparse file: leaf by leaf, and all of it or nothing."""

import contextlib
import os
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np

from . import _layout as layout
from ._checks import PyTree, check_path
from ._describe import Leaf, describe
from ._header import pack_header
from ._layout import CHUNK, Tensor


def save_sparse(
    path: str | os.PathLike[str],
    params: PyTree,
    *,
    values_dtype: jax.typing.DTypeLike | None = None,
    deflate: bool = False,
) -> int:
    r"""Writes a tree of arrays to a file in which zeros cost one bit each.

    A leaf of :math:`d` entries, :math:`k` of them not zero, of :math:`b` bytes each takes

    .. math:: \min(\lceil d / 8 \rceil + k b, \; d b)

    bytes: a bitmask and the packed values, or all entries where that is smaller. The file is a
    `safetensors <https://huggingface.co/docs/safetensors>`_ file with checksums; its layout
    stands beside this reference and in ``grda_optax/_layout.py``. Equal params give equal files
    (with ``deflate``: on equal zlibs).

    The file appears whole or not at all: it is written beside ``path`` and then put in its place,
    where an older file stays until then. The leaves are brought to the host one by one.

    Args:
        path: the file to write, usually ``NAME.safetensors``; its folder must exist.
        params: a tree of arrays and numbers, of any dtype that JAX has. Its containers may be
            dicts (keys: strings or integers), lists, tuples, ``None``, or any class whose
            children are registered by dict key, index or attribute (``nnx.State``, Equinox
            modules, dataclasses); :func:`load_sparse` says as what these come back.
        values_dtype: ``bfloat16`` or ``float16``, to which float32 and float64 entries are rounded
            in the file; what rounds to zero is a zero in it. They come back in their own dtype.
            ``None`` keeps every bit.
        deflate: compress the bitmasks with zlib, which pays where whole rows are zero.

    Returns:
        The size of the file in bytes.

    Raises:
        ValueError: ``values_dtype`` is another one, or too narrow for an entry; ``deflate`` is no
            bool; ``path`` is a folder; ``params`` hold what is no array of numbers, is traced,
            or lies partly on the devices of another process, or containers of other kinds.
        OSError: the file cannot be written.

    Examples:
        >>> import pathlib, tempfile
        >>> import jax.numpy as jnp
        >>> from grda_optax import load_sparse, save_sparse
        >>> params = {"kernel": jnp.zeros((1000, 100)).at[0].set(0.5)}  # 400,000 bytes
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "params.safetensors"
        ...     size = save_sparse(path, params)
        ...     restored = load_sparse(path)
        >>> size - size % 1000, bool((restored["kernel"] == params["kernel"]).all())
        (13000, True)
    """
    target = check_path(path)
    if target.is_dir():
        raise ValueError(f"path must name a file, got the folder {str(target)!r}.")
    if not isinstance(deflate, bool):
        raise ValueError(f"deflate must be True or False, got {deflate!r}.")
    leaves: list[Leaf] = []
    tree = describe(params, (), _narrow_dtype(values_dtype), leaves)
    names = [leaf.record["name"] for leaf in leaves]
    if len(set(names)) < len(names):
        raise ValueError("params must have one leaf a path, got a container with equal keys.")
    gap = len(pack_header(tree, _longest(leaves)))
    if gap - 8 > layout.MAX_HEADER:
        raise ValueError(
            f"params must fit a header of {layout.MAX_HEADER:,} bytes, got {len(leaves):,} leaves "
            f"that need {gap - 8:,}."
        )
    with _atomically(target) as file:
        file.seek(gap)
        tensors: dict[str, Tensor] = {}
        for leaf in leaves:
            tensors |= _write(file, leaf, gap, deflate)
        size = file.tell()
        file.seek(0)
        # Only now are offsets and checksums known; spaces fill what the estimate was too long.
        file.write(pack_header(tree, tensors, gap))
    return size


def _narrow_dtype(values_dtype: Any) -> np.dtype[Any] | None:
    if values_dtype is None:
        return None
    with contextlib.suppress(TypeError):
        dtype: np.dtype[Any] = jax.numpy.dtype(values_dtype)
        if dtype in layout.NARROW.values():
            return dtype
    raise ValueError(f"values_dtype must be None, bfloat16 or float16, got {values_dtype!r}.")


def _longest(leaves: list[Leaf]) -> dict[str, Tensor]:
    """Entries that take no fewer characters than the true ones will."""
    end = sum(np.size(leaf.value) * leaf.stored.itemsize for leaf in leaves)
    tensors: dict[str, Tensor] = {}
    for leaf in leaves:
        name, size = leaf.record["name"], np.size(leaf.value)
        kind, more = layout.native(leaf.stored), layout.tail(leaf.stored)
        sparse = {
            f"{name}.mask": Tensor("U8", (size,), end, end),
            f"{name}.values": Tensor(kind, (size, *more), end, end),
        }
        dense = {f"{name}.dense": Tensor(kind, (*np.shape(leaf.value), *more), end, end)}
        longer = len(pack_header(None, sparse)) > len(pack_header(None, dense))
        tensors |= sparse if longer else dense
    return tensors


def _write(file: BinaryIO, leaf: Leaf, start: int, deflate: bool) -> dict[str, Tensor]:
    """Appends the data of a leaf, completes its record, and says where they are."""
    flat = _on_host(leaf)
    name, kind, more = leaf.record["name"], layout.native(leaf.stored), layout.tail(leaf.stored)
    mask = bytearray()
    nnz = 0
    for chunk in _chunks(flat, leaf):
        bits = layout.set_bits(chunk)
        nnz += int(np.count_nonzero(bits))
        mask += np.packbits(bits).tobytes()
    checksum = 0
    tensors: dict[str, Tensor] = {}
    sparse = layout.is_sparse(flat.size, nnz, leaf.stored.itemsize)
    leaf.record["encoding"] = "bits" if sparse else "dense"
    begin = file.tell() - start
    if sparse:
        stored: bytes | bytearray = mask
        if deflate and len(packed := zlib.compress(stored)) < len(stored):
            stored, leaf.record["encoding"] = packed, "deflate"
        file.write(stored)
        checksum = zlib.crc32(stored)
        tensors[f"{name}.mask"] = Tensor("U8", (len(stored),), begin, begin + len(stored))
        begin += len(stored)
    for chunk in _chunks(flat, leaf):
        values = (chunk[layout.set_bits(chunk)] if sparse else chunk).tobytes()
        file.write(values)
        checksum = zlib.crc32(values, checksum)
    leaf.record["crc32"] = f"{checksum:08x}"
    shape = (nnz,) if sparse else np.shape(leaf.value)
    name = f"{name}.values" if sparse else f"{name}.dense"
    tensors[name] = Tensor(kind, (*shape, *more), begin, file.tell() - start)
    return tensors


def _on_host(leaf: Leaf) -> np.ndarray:
    """The entries in C order; of an array on another device nothing stays here afterwards."""
    value = leaf.value
    if isinstance(value, jax.Array):
        # An Array of JAX keeps the copy that numpy gets of it, and so would the params; a new
        # Array of the same buffer takes its copy along when it goes.
        if value.is_fully_replicated:
            value = np.asarray(value.addressable_data(0))
        else:
            whole = np.empty(value.shape, value.dtype)
            for shard in value.addressable_shards:
                whole[shard.index] = np.asarray(shard.data.addressable_data(0))
            value = whole
    return np.ascontiguousarray(value, leaf.dtype).reshape(-1)


def _chunks(flat: np.ndarray, leaf: Leaf) -> Iterator[np.ndarray]:
    """Piece by piece, in the dtype of the file."""
    for start in range(0, flat.size, CHUNK):
        chunk = flat[start : start + CHUNK]
        if leaf.stored == leaf.dtype:
            yield chunk
            continue
        with np.errstate(all="ignore"):
            narrow = chunk.astype(leaf.stored)
        if (lost := np.isinf(narrow) & np.isfinite(chunk)).any():
            raise ValueError(
                f"values_dtype must hold every entry, got {leaf.stored} for "
                f"{chunk[lost][0]:g} at {leaf.record['name']}."
            )
        yield narrow


@contextlib.contextmanager
def _atomically(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` when it is complete and on the disk."""
    path = Path(os.path.realpath(path))  # a link stays one
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
