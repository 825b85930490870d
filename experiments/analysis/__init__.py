"""Reads what is there, and writes numbers and figures: one file a question.

Those in ANALYSES need no run of their own: they have a `title` and a `render(folder)`, which gives
a section of RESULTS.md.
"""

from types import ModuleType

from experiments.analysis import published

ANALYSES: dict[str, ModuleType] = {"published": published}
