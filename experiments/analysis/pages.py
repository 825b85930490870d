"""The sections of RESULTS.md that are not those of a study: one line each.

Each has a `title` and a `render(folder)`, which gives the section, or nothing where there is none
yet.
"""

from types import ModuleType

from experiments.analysis import (
    compiled_report,
    connectivity_report,
    curves,
    layers,
    norms,
    paper_path,
    projection,
    published,
    spectrum,
    theorem_report,
    topology,
    tpu_report,
)
from experiments.bench import gains
from experiments.bench import report as bench_report

PAGES: dict[str, ModuleType] = {
    "theorem": theorem_report,
    "bench": bench_report,
    "compiled": compiled_report,
    "tpu": tpu_report,
    "gains": gains,
    "published": published,
    "paper_path": paper_path,
    "curves": curves,
    "connectivity": connectivity_report,
    "projection": projection,
    "spectrum": spectrum,
    "norms": norms,
    "layers": layers,
    "topology": topology,
}
