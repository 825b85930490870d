"""What the site adds to its pages while it is built: results, their commands, and formulas.

A page holds ``<!-- results: TITLE -->`` where a section of experiments/results/RESULTS.md belongs,
which is made from the committed rows. A study that has not been run yet leaves a line that says so.
"""

import html
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "experiments" / "results"
FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\(?:\(|\[)(?P<tex>.*?)\\(?:\)|\])</(?P=tag)>',
    re.DOTALL,
)


def sections(text: str) -> dict[str, str]:
    """The sections of RESULTS.md by their titles."""
    parts = re.split(r"(?m)^## (.+)\n", text)
    return {title: body.strip() for title, body in zip(parts[1::2], parts[2::2], strict=True)}


def results() -> dict[str, str]:
    """The sections that there are today."""
    return sections((RESULTS / "RESULTS.md").read_text())


def commands() -> dict[str, str]:
    """The command that makes each section, by its title; also of those that are not there yet."""
    found = {}
    for path in sorted((ROOT / "experiments" / "studies").glob("*.py")):
        if title := re.search(r'(?m)^title = "(.+)"$', path.read_text()):
            found[title[1]] = f"python -m experiments.study {path.stem}"
    for title, body in results().items():
        if made := re.search(r"Made by `(.+?)`", body):
            found[title] = made[1]
    return found


def section(title: str) -> str:
    """A section as a page shows it, with its command."""
    command = commands().get(title, "python -m experiments.study --render-only")
    body = results().get(title)
    if body is None:
        return f'!!! note "Not run yet"\n\n    `{command}` makes this part.'
    body = re.sub(r"(!\[[^\]]*\]\()(\w+\.png\))", r"\1results/\2", body)
    return body if command in body else f"{body}\n\nMade by `{command}`."


def ahead(title: str, name: str) -> str:
    """Who is better than a method, in the tables of a section whose columns are sparsities."""
    lines = []
    body = results().get(title, "")
    for model, table in re.findall(r"(?m)^\*\*(\w+)\*\*.*\n\n((?:\|.*\n?)+)", body):
        header, _, *rows = [
            [cell.strip() for cell in line.strip()[1:-1].split("|")] for line in table.splitlines()
        ]
        own = next((row for row in rows if row[0] == name), None)
        for i, column in enumerate(header):
            if own is None or not re.fullmatch(r"\d+ %", column) or mean_of(own[i]) is None:
                continue
            better = [row[0] for row in rows if (mean_of(row[i]) or 0) > mean_of(own[i])]
            lines.append(f"- {model}, {column} zeros: {', '.join(better) or 'nobody'}")
    return "\n".join(lines) or "Nobody knows, before it has been run."


def mean_of(cell: str) -> float | None:
    """The number that a cell begins with, if it is one of a sparse network."""
    number = re.match(r"\d+\.\d+", cell)
    return float(number[0]) if number and "no zeros" not in cell else None


def figures() -> str:
    """A row for every figure of the results, with its command."""
    lines = ["| figure | made by |", "| --- | --- |"]
    for title, body in results().items():
        command = commands().get(title, "python -m experiments.study --render-only")
        for name in re.findall(r"!\[[^\]]*\]\((\w+\.png)\)", body):
            lines.append(f"| [{name}](results/{name}): {title} | `{command}` |")
    return "\n".join(lines)


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Fills in the results."""
    markdown = re.sub(r"(?m)^<!-- results: (.+?) -->$", lambda m: section(m[1]), markdown)
    markdown = re.sub(
        r"(?m)^<!-- ahead of (.+?): (.+?) -->$", lambda m: ahead(m[2], m[1]), markdown
    )
    return re.sub(r"(?m)^<!-- figures -->$", lambda m: figures(), markdown)


def on_files(files: Any, config: Any) -> Any:
    """Adds what is kept elsewhere: figures of the results, the notebook and the changelog."""
    import jupytext
    from mkdocs.structure.files import File

    def add(uri: str, **source: Any) -> None:
        files.append(File.generated(config, uri, **source))

    for path in sorted(RESULTS.glob("*.png")):
        add(f"results/{path.name}", abs_src_path=str(path))
    add("results/digits.png", abs_src_path=str(ROOT / "docs" / "digits.png"))
    add("changelog.md", content=(ROOT / "CHANGELOG.md").read_text())
    notebook = jupytext.read(ROOT / "docs" / "notebook.py")
    cells = (
        cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```"
        for cell in notebook.cells
    )
    add("notebook.md", content="\n\n".join(cells))
    return files


def on_page_content(html: str, **kwargs: Any) -> str:
    """Formulas as MathML, which browsers draw themselves."""
    return FORMULA.sub(mathml, html)


def mathml(match: re.Match[str]) -> str:
    """One formula."""
    from latex2mathml.converter import convert

    display = "block" if match["tag"] == "div" else "inline"
    return str(convert(html.unescape(match["tex"]).strip(), display=display))
