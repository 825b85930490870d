"""From a tree of arrays to the object that stands for it in the header of a sparse file."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import DictKey, GetAttrKey, SequenceKey

from . import _layout as layout
from ._checks import PyTree


class Leaf(NamedTuple):
    """A leaf that is to be written, and its object in the tree of the header."""

    value: Any
    dtype: np.dtype[Any]
    stored: np.dtype[Any]
    record: dict[str, Any]


def describe(
    node: PyTree, path: tuple[str | int, ...], narrow: np.dtype[Any] | None, leaves: list[Leaf]
) -> Any:
    """The tree as it stands in the header; its leaves are added to ``leaves``."""
    name = layout.leaf_name(path) if path else "params"
    if node is None:
        return None
    try:
        children, _ = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    except ValueError as error:
        raise ValueError(
            f"params must have dicts with keys that can be sorted, got {list(node)} at {name}."
        ) from error
    if len(children) == 1 and children[0][0] == ():
        leaves.append(_leaf(node, name, narrow))
        return leaves[-1].record
    if len(path) >= layout.MAX_DEPTH:
        raise ValueError(f"params must be at most {layout.MAX_DEPTH} levels deep, got {name}.")
    keys = [key for (key,), _ in children]
    kind, labels = _kind(node, keys, name)
    if kind == "box":
        return describe(children[0][1], path, narrow, leaves)
    entries: list[Any] = [kind]
    for label, (_, child) in zip(labels, children, strict=True):
        entries += [label] if kind == "dict" else []
        entries.append(describe(child, (*path, label), narrow, leaves))
    return entries


def _kind(node: PyTree, keys: list[Any], name: str) -> tuple[str, list[Any]]:
    """As what a container comes back, and what its children are called."""
    if isinstance(node, tuple):  # of named ones, too, the fields' names are lost
        return "tuple", list(range(len(keys)))
    if isinstance(node, list) or (keys and all(isinstance(key, SequenceKey) for key in keys)):
        return "list", list(range(len(keys)))
    if all(isinstance(key, GetAttrKey) for key in keys):
        labels = [key.name for key in keys]
        # nnx.Variable and Linen's nn.Partitioned are boxes around one value.
        return ("box" if labels == ["value"] else "dict"), labels
    if all(isinstance(key, DictKey) for key in keys):
        labels = [key.key for key in keys]
        for label in labels:
            if type(label) not in (int, str) or not _fits(label):
                raise ValueError(
                    f"params must have strings or 64-bit integers as keys, got {label!r} at {name}."
                )
        return "dict", labels
    raise ValueError(
        "params must be made of containers whose children are registered by key, index or "
        f"attribute, got {type(node).__name__} at {name}."
    )


def _fits(label: str | int) -> bool:
    if isinstance(label, int):
        return -(2**63) <= label < 2**63
    return label == label.encode(errors="ignore").decode()  # which half a surrogate pair is not


def _leaf(value: Any, name: str, narrow: np.dtype[Any] | None) -> Leaf:
    """The leaf, if it can be stored."""
    if isinstance(value, jax.core.Tracer):
        raise ValueError(f"params must be arrays with values, got a traced one at {name}.")
    if isinstance(value, jax.Array) and not (
        value.is_fully_addressable or value.is_fully_replicated
    ):
        raise ValueError(
            "params must lie on the devices of this process or be replicated, got one that is "
            f"shared out among processes at {name}."
        )
    numbers = bool | int | float | complex
    if not (isinstance(value, numbers) or hasattr(value, "__array__")):
        raise ValueError(f"params must be arrays of numbers, got {type(value).__name__} at {name}.")
    dtype = value.dtype if isinstance(value, jax.Array) else np.asarray(value).dtype
    known = layout.DTYPES.get(dtype.name)
    if known is None or known.kind != dtype.kind or known.itemsize != dtype.itemsize:
        raise ValueError(f"params must be arrays of numbers, got {dtype} at {name}.")
    record = {
        "name": name,
        "dtype": known.name,
        "shape": list(np.shape(value)),
        "encoding": "deflate",  # the longest, until it is known
        "crc32": "0" * layout.DIGITS,
    }
    stored = narrow if narrow is not None and known.name in layout.WIDE else known
    return Leaf(value, known, stored, record)
