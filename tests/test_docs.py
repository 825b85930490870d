"""The pages of the site: every block runs, every figure has its script, every name its place."""

import ast
import importlib.util
import inspect
import re
import shlex
import textwrap
from pathlib import Path

import jax
import pytest

import grda_optax

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "pages"
BLOCK = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
PUBLIC = {name for name in dir(grda_optax) if not name.startswith("_")}

# Those that take less than a second; the others are run with `-m slow`.
QUICK = {"index.md"}


def pages():
    return sorted(PAGES.rglob("*.md"))


def name_of(path):
    return path.relative_to(PAGES).as_posix()


def blocks(path):
    """The blocks of a page in their order, as (language, code), without the tabs' indentation."""
    return [(m[2], textwrap.dedent(m[3])) for m in BLOCK.finditer(path.read_text())]


def with_code():
    for path in pages():
        if any(language == "python" for language, _ in blocks(path)):
            marks = [] if name_of(path) in QUICK else [pytest.mark.slow]
            yield pytest.param(path, id=name_of(path), marks=marks)


def assert_alike(printed, shown):
    """Equal, but for numbers that differ with the rounding of a machine, which are nearly so."""
    number, loose = re.compile(r"\d[\d,.]*"), re.compile(r"\w/\w|^all\b|accuracy|loss")
    for a, b in zip(printed.splitlines(), shown.splitlines(), strict=True):
        if loose.search(b):
            assert number.sub("#", a).split() == number.sub("#", b).split()
            values = [
                [float(x.replace(",", "")) for x in number.findall(line)] for line in (a, b)
            ]
            assert values[0] == pytest.approx(values[1], rel=0.25, abs=3)
        else:
            assert a.split() == b.split()


@pytest.mark.parametrize("path", list(with_code()))
def test_the_blocks_of_a_page_run(path, capsys):
    """In their order, in one namespace; a block of text is what the one before has printed."""
    namespace, printed = {"__name__": "page"}, ""
    for language, code in blocks(path):
        if language == "text":
            assert_alike(printed, code)
        if language == "python":
            with jax.numpy_rank_promotion("allow"):
                exec(compile(code, name_of(path), "exec"), namespace)
            printed = capsys.readouterr().out


@pytest.mark.parametrize("path", pages(), ids=name_of)
def test_every_block_is_of_a_kind_that_is_tested(path):
    for language, code in blocks(path):
        assert language in {"python", "text", "sh"}, code
        if language == "sh":
            for line in code.splitlines():
                check_command(line)


def check_command(line):
    """A command of the project's: what it runs is there."""
    words = shlex.split(line, comments=True)
    if words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]) or words[2] in {"build", "pip", "pytest"}, line
    elif words:
        program = {"mkdocs", "ruff", "mypy", "jupytext", "twine", "git", ".ci/run", "python"}
        assert words[0] in program, line


def test_every_public_name_has_a_reference_page():
    found = [
        name
        for path in (PAGES / "reference").glob("*.md")
        for name in re.findall(r"^::: grda_optax\.(\w+)$", path.read_text(), re.MULTILINE)
    ]
    assert sorted(found) == sorted(PUBLIC)


def test_the_index_of_the_reference_names_them_all():
    index = (PAGES / "reference" / "index.md").read_text()
    assert set(re.findall(r"\]\[grda_optax\.(\w+)\]", index)) == PUBLIC
