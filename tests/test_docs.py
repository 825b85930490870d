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
            values = [[float(x.replace(",", "")) for x in number.findall(line)] for line in (a, b)]
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
        assert max(map(len, code.splitlines())) <= 88, code  # what is seen without scrolling
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
        for name in re.findall(r"^::: grda_optax\.([a-zA-Z]\w*)$", path.read_text(), re.MULTILINE)
    ]
    assert sorted(found) == sorted(PUBLIC)


def test_the_index_of_the_reference_names_them_all():
    index = (PAGES / "reference" / "index.md").read_text()
    assert set(re.findall(r"\]\[grda_optax\.(\w+)\]", index)) == PUBLIC


def hooks():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_figure_has_a_command_that_makes_it():
    """Those of results stand in RESULTS.md, the others in the script of figures."""
    site, reproduce = hooks(), (PAGES / "reproduce.md").read_text()
    made = set(re.findall(r"results/(\w+\.png)", site.figures())) | {"digits.png"}
    drawn = set(re.findall(r'"(\w+)": \1\b', (ROOT / "docs" / "figures.py").read_text()))
    assert {p.stem for p in (PAGES / "figures").glob("*.png")} == drawn
    assert all(f"figures/{name}.png" in reproduce for name in drawn)
    for path in pages():
        for folder, name in re.findall(r"!\[[^\]]*\]\((\w+)/(\w+)\.png\)", path.read_text()):
            assert folder in {"results", "figures"}
            assert f"{name}.png" in made if folder == "results" else name in drawn


@pytest.mark.slow
def test_the_figures_are_drawn(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import figures

    figures.main(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in (PAGES / "figures").iterdir()}


@pytest.mark.slow
def test_the_notebook_runs(capsys):
    code = (ROOT / "docs" / "notebook.py").read_text()
    with jax.numpy_rank_promotion("allow"):
        exec(compile(code, "notebook.py", "exec"), {"__name__": "notebook"})
    assert ["penalised", "90.00"] in [x.split()[:2] for x in capsys.readouterr().out.splitlines()]


def test_titles_of_results_are_those_of_the_studies():
    """So that a page does not wait for a section that will never come."""
    site = hooks()
    titles = {*site.commands(), *site.results(), "What zeros save"}
    for path in pages():
        text = path.read_text()
        for title in re.findall(r"(?m)^<!-- results: (.+?) -->$", text):
            assert title in titles, title
        for title in re.findall(r"(?m)^<!-- ahead of \w+: (.+?) -->$", text):
            assert title in titles, title


def test_sections_of_results(monkeypatch):
    site = hooks()
    text = "# R\n\n## One\n\n![A](one.png)\n\nMade by `python y`.\n\n## Two\n\nb\n"
    assert site.sections(text) == {"One": "![A](one.png)\n\nMade by `python y`.", "Two": "b"}
    monkeypatch.setattr(site, "results", lambda: site.sections(text))
    assert site.section("One") == "![A](results/one.png)\n\nMade by `python y`."
    assert "| [one.png](results/one.png): One | `python y` |" in site.figures()
    missing = site.section("The frontier, Fashion-MNIST")
    assert "Not run yet" in missing
    assert "`python -m experiments.study frontier`" in missing


def test_who_is_ahead(monkeypatch):
    site = hooks()
    table = (
        "**mlp**, 15 epochs\n\n|  | 90 % | 95 % | seeds |\n| --- | ---: | ---: | ---: |\n"
        "| STR | 89.50 ± 0.10 | - | 3 |\n| recipe | 89.40 ± 0.10 | 89.10 | 3 |\n"
        "| GMP | 89.00 | 89.00 (1 diverged) | 3 |\n| dense | 89.90 (no zeros) |  | 3 |\n"
    )
    monkeypatch.setattr(site, "results", lambda: {"F": table})
    assert site.ahead("F", "recipe") == "- mlp, 90 % zeros: STR\n- mlp, 95 % zeros: nobody"
    assert "before it has been run" in site.ahead("not there", "recipe")


def calls(text):
    """The calls of public names in inline code, as (name, call)."""
    for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text):
        try:
            tree = ast.parse(code.replace("...", "None"), mode="eval")
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in PUBLIC:
                yield node.func.id, node


@pytest.mark.parametrize("path", [ROOT / "README.md", *pages()], ids=lambda p: p.name)
def test_calls_in_the_text_have_arguments_that_exist(path):
    text = re.sub(r"(?ms)^( *)```.*?^\1```", "", path.read_text())
    for name, call in calls(text):
        parameters = inspect.signature(getattr(grda_optax, name)).parameters
        named = {keyword.arg for keyword in call.keywords}
        assert named <= set(parameters), (name, named)
        assert len(call.args) + len(named) <= len(parameters), name


@pytest.mark.parametrize("path", pages(), ids=name_of)
def test_links_lead_somewhere(path):
    made = {"notebook.md", "changelog.md"}
    text = re.sub(r"(?ms)^( *)```.*?^\1```", "", path.read_text())
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", text):
        there = (path.parent / target).exists() or target in made or target.startswith("results/")
        assert there, target
    for name in re.findall(r"\]\[grda_optax\.(\w+)\]", text):
        assert name in PUBLIC


def test_every_page_is_in_the_navigation():
    config = (ROOT / "docs" / "mkdocs.yml").read_text()
    listed = re.findall(r"^ +- ([\w/-]+\.md)$", config, re.MULTILINE)
    assert sorted(listed) == sorted([*map(name_of, pages()), "notebook.md", "changelog.md"])


def test_the_version_is_one():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {grda_optax.__version__}\n" in citation
    assert f"\n## {grda_optax.__version__}" in (ROOT / "CHANGELOG.md").read_text()
