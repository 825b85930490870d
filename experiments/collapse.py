"""Layer collapse: a layer without a weight, through which nothing of the input comes.

Tanaka, Kunin, Yamins and Ganguli, *Pruning neural networks without any data by iteratively
conserving synaptic flow*, NeurIPS 2020, section 3.
"""

from collections.abc import Mapping
from typing import Any

SIGNAL = ("kernel", "embedding", "scale")
"""The leaves that the signal goes through; a bias that is zero stops nothing."""


def collapsed(leaves: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The layers that have collapsed, by the path of the leaf that is empty.

    Args:
        leaves: by path, such as ``dense1/kernel``, a mapping with ``nnz`` and ``total``.
    """
    return [
        name
        for name, count in leaves.items()
        if name.rsplit("/", 1)[-1] in SIGNAL and count["total"] > 0 and count["nnz"] == 0
    ]
