"""Reads the library's docstrings for the site: their reStructuredText becomes Markdown."""

import re
from typing import Any

import griffe

import grda_optax

PUBLIC = {name for name in dir(grda_optax) if not name.startswith("_")}


class Markdown(griffe.Extension):
    """Rewrites every docstring of the package before it is parsed."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """The package, when all of it has been read."""
        _rewrite(pkg)


def _rewrite(obj: griffe.Object) -> None:
    if obj.docstring is not None:
        obj.docstring.value = markdown(obj.docstring.value)
    for parameter in getattr(obj, "parameters", ()):  # a constant's value instead of its name
        constant = obj.module.members.get(str(parameter.default))
        if constant is not None and constant.is_attribute:
            parameter.default = str(constant.value)
    for member in obj.members.values():
        if not member.is_alias:
            _rewrite(member)


def markdown(text: str) -> str:
    r"""Formulas, references, links and tables of a docstring as Markdown has them.

    Examples:
        >>> markdown(r"Of :math:`h`, as in :func:`firm`.")
        'Of \\(h\\), as in [`firm`][grda_optax.firm].'
    """
    text = re.sub(r"(?m)^( *)\.\. math::((?:.*\n)(?:(?:\1 +\S.*)?\n)*|.*$)", _display, text + "\n")
    text = re.sub(r"(?s):math:`([^`]*)`", lambda m: rf"\({' '.join(m[1].split())}\)", text)
    text = re.sub(r":(?:attr|class|func|mod):`([\w.]+)`", _reference, text)
    text = re.sub(r"(?s)`([^`<>]+) <(https?://[^>]+)>`__?", _link, text)
    text = re.sub(r"(?m)(^ *=+  +=+\n)(.*?\n)\1((?:.*\n)*?)\1", _table, text)
    return text.rstrip("\n")


def _display(match: re.Match[str]) -> str:
    """A displayed formula, in the indentation that it had."""
    indent, formula = match[1], " ".join(match[2].split())
    if r"\\" in formula:
        formula = rf"\begin{{aligned}}{formula}\end{{aligned}}"
    return f"\n{indent}\\[{formula}\\]\n\n"


def _reference(match: re.Match[str]) -> str:
    name = match[1]
    return f"[`{name}`][grda_optax.{name}]" if name in PUBLIC else f"`{name}`"


def _link(match: re.Match[str]) -> str:
    return f"[{' '.join(match[1].split())}]({match[2]})"


def _table(match: re.Match[str]) -> str:
    """A simple table of two columns."""
    rule, header, body = match[1], match[2], match[3]
    indent = re.match(" *", rule)[0]
    edge = re.search(r"=  +=", rule).start() + 1
    rows = [(line[:edge].strip(), line[edge:].strip()) for line in [header, *body.splitlines()]]
    lines = [f"{indent}| {a} | {b} |" for a, b in rows]
    return "\n".join([lines[0], f"{indent}| --- | --- |", *lines[1:]]) + "\n"
