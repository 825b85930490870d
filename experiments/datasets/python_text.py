"""Text that every Python brings along: source code of its standard library, as characters."""

import importlib.util
from pathlib import Path

import numpy as np

# Plain modules, in no package and not frozen into the interpreter, from Python 3.11 on; 1.1 MB.
MODULES = (
    "argparse",
    "configparser",
    "difflib",
    "doctest",
    "fractions",
    "heapq",
    "imaplib",
    "inspect",
    "ipaddress",
    "mailbox",
    "optparse",
    "random",
    "shutil",
    "statistics",
    "tarfile",
    "textwrap",
)
SYMBOLS = b"\t\n" + bytes(range(32, 127))
"""What is kept of the text: tab, end of line, and the 95 ASCII characters that can be printed."""
CONTEXT = 64
TEST_FRACTION = 0.1


def read() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Both splits: characters (n, 64) as uint8 numbers of SYMBOLS, and the ones that follow each.

    The test split is the last tenth of every module. The text is that of the running Python, so
    numbers compare within one version of it.

    Raises:
        ValueError: this Python comes without the source of its standard library.
    """
    parts: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    for name in MODULES:
        tokens = encode(_source(name))
        cut = len(tokens) - int(TEST_FRACTION * len(tokens))
        parts["train"].append(windows(tokens[:cut]))
        parts["test"].append(windows(tokens[cut:]))
    splits = {split: np.concatenate(arrays) for split, arrays in parts.items()}
    return {split: (x[:, :-1], x[:, 1:].astype(np.int32)) for split, x in splits.items()}


def _source(name: str) -> bytes:
    spec = importlib.util.find_spec(name)
    path = Path((spec and spec.origin) or "")
    if path.suffix != ".py" or not path.is_file():
        raise ValueError(
            f"dataset python_text needs the source of the standard library's {name}, which this "
            "Python comes without."
        )
    return path.read_bytes()


def encode(text: bytes) -> np.ndarray:
    """The place of every character in SYMBOLS; others are left out."""
    places = np.full(256, len(SYMBOLS), np.uint8)
    places[np.frombuffer(SYMBOLS, np.uint8)] = np.arange(len(SYMBOLS), dtype=np.uint8)
    tokens = places[np.frombuffer(text, np.uint8)]
    return tokens[tokens < len(SYMBOLS)]


def windows(tokens: np.ndarray) -> np.ndarray:
    """Pieces of 64 + 1 characters, each starting with the last of the one before.

    So every character but the first is predicted once; an end that fills no piece is left out.
    """
    count = (len(tokens) - 1) // CONTEXT
    pieces: np.ndarray = tokens[np.arange(count)[:, None] * CONTEXT + np.arange(CONTEXT + 1)]
    return pieces
