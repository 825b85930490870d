"""What zeros save: the tables of files, smaller networks and sparse products, from `--save`'s."""

import json
from pathlib import Path

from experiments.bench import compacted, files, inference, sparse_execution
from experiments.bench.sparse_execution import break_even, by_product
from experiments.log import Row

title = "What zeros save"
FILES, INFERENCE = "files.json", "inference.json"
LARGE = 10**7
"""Operations an example, from which on a network's times are shown in short."""
COMPACTED, SPARSE = "compacted.json", "sparse_execution.json"


def render(folder: Path) -> str:
    """What has been timed so far, and nothing if that is nothing."""
    pages = {FILES: in_files, INFERENCE: smaller, COMPACTED: networks, SPARSE: products}
    found = {page: folder / name for name, page in pages.items()}
    return "\n\n".join(
        page(json.loads(path.read_text())) for page, path in found.items() if path.exists()
    )


def summary(folder: Path) -> str:
    """The same in a few lines; nothing if nothing has been measured."""
    pages = {FILES: _smallest_file, COMPACTED: _smaller_networks, SPARSE: _sparse_products}
    found = {page: folder / name for name, page in pages.items()}
    lines = [page(json.loads(path.read_text())) for page, path in found.items() if path.exists()]
    return "\n".join(f"- {line}" for line in lines)


def _smallest_file(saved: Row) -> str:
    row = min(saved["files"], key=lambda row: abs(row["sparsity"] - 0.9))
    part = {name: f"{row[name] / row['dense']:.3f}" for name in files.FORMS}
    of = f"{saved['weights']:,} float32 weights with {100 * row['sparsity']:g} % zeros"
    return (
        f"A file of {of} takes {part['sparse']} of the "
        f"dense one's bytes, or {part['deflate']} deflated; gzip takes {part['gzip']}, and a list "
        f"of indices {part['coo']} (`{saved['command']}`)."
    )


def _smaller_networks(saved: Row) -> str:
    times = []
    large = [item for item in saved["networks"].items() if item[1]["before"]["flops"] >= LARGE]
    for name, row in large:
        batch, costs = next(iter(row["costs"].items()))
        before, after = (1000 * costs[x]["seconds"] for x in ("before", "after"))
        times.append(f"{name} {before:.3g} → {after:.3g}")
    return (
        f"Milliseconds for {batch} example{'s' if batch != '1' else ''} without "
        f"{100 * saved['removed']:g} % of the units of every layer, on {saved['device']}: "
        f"{', '.join(times)} (`{saved['command']}`)."
    )


def _sparse_products(saved: Row) -> str:
    points = [break_even(rows, "bcoo") for rows in by_product(saved["products"]).values()]
    least, most = (f([1.0 if x is None else x for x in points]) for f in (min, max))
    worst = "never" if most == 1 else f"from {100 * most:g} % on"
    return (
        f"A sparse product (BCOO) is faster than the dense one from {100 * least:g} % zeros on in "
        f"the best of {len(points)} cases, and {worst} in the worst (`{saved['command']}`)."
    )


def in_files(saved: Row) -> str:
    """Bytes on a disk, beside those of other formats."""
    return f"### Files\n\nMade by `{saved['command']}`.\n\n{files.shown(saved).markdown()}"


def smaller(saved: Row) -> str:
    """A network with whole units gone: only set to zero, and cut out."""
    return (
        f"### Whole units: `{saved['model']}`\n\n{_made(saved)} *Zeros* leaves the arrays as large "
        "as they were, *cut out* is what `compact` gives; the units that go are those that the "
        f"smaller network has not.\n\n{inference.shown(saved).markdown()}"
    )


def networks(saved: Row) -> str:
    """Every network, whole and with the same fraction of each layer's units cut out."""
    return (
        f"### Whole units: every network\n\n{_made(saved)} The units are drawn at random, and "
        f"`compact` cuts them out.\n\n{compacted.shown(saved).markdown()}"
    )


def products(saved: Row) -> str:
    """From how many zeros on a sparse product is faster than the dense one."""
    return (
        "### Sparse products\n\n"
        f"{_made(saved)} The fraction of zeros from which on each is faster than the dense "
        "product: BCOO is JAX's, CSR scipy's through a callback, and the blocks are whole ones of "
        f"{saved['block']} by {saved['block']}.\n\n{sparse_execution.shown(saved).markdown()}"
    )


def _made(saved: Row) -> str:
    return (
        f"Made by `{saved['command']}` on {saved['device']} with jax {saved['versions']['jax']}; "
        f"medians over {saved['rounds']} rounds in one process, in turns."
    )
