"""The file of `--save`: a section for each part, with the command and the versions of its own.

    {"parts": {"update": {"data": ..., "config": ..., "command": ..., "versions": ..., ...}}}

Earlier releases wrote one command for all parts; their files are read as if each had its own.
"""

import json
from pathlib import Path

from experiments.folder import write_json
from experiments.log import Row

_ORIGIN = ("config", "command", "versions", "python", "device", "load")
_EARLIER = {
    "update": ("update",),
    "training": ("training",),
    "curvature": ("products", "lanczos", "memory"),
}


def read(path: Path) -> dict[str, Row]:
    """The sections by part; none where there is no file."""
    if not path.exists():
        return {}
    saved: Row = json.loads(path.read_text())
    if "parts" in saved:
        sections: dict[str, Row] = saved["parts"]
        return sections
    origin = {name: saved[name] for name in _ORIGIN if name in saved}
    found = {}
    for part, names in _EARLIER.items():
        data = {name: saved[name] for name in names if name in saved}
        if data:
            found[part] = {"data": data, **origin}
    return found


def merge(path: Path, new: dict[str, Row]) -> None:
    """Puts sections in the place of those of the same parts, and leaves the others as they are."""
    write_json(path, {"parts": {**read(path), **new}})
