"""Tables of what has been measured, from the files that `--save` wrote: one for each machine."""

from pathlib import Path

from experiments.bench import sections
from experiments.bench.parts import PARTS
from experiments.log import Row

title = "What it costs"
FILES = "bench*.json"


def render(folder: Path) -> str:
    """The tables of each part that has been measured, under the command that made them."""
    shown = [text for path in sorted(folder.glob(FILES)) for text in _tables(sections.read(path))]
    if not shown:
        return ""
    intro = (
        "Times are medians over rounds in one process, in turns; a ratio is the median of those "
        "within a round."
    )
    return "\n\n".join([intro, *shown])


def _tables(found: dict[str, Row]) -> list[str]:
    shown, made = [], ""
    for part in (name for name in PARTS if name in found):
        section = found[part]
        origin = (
            f"Made by `{section['command']}` on {section['device']} with jax "
            f"{section['versions']['jax']}."
        )
        if origin != made:
            shown.append(origin)
        made = origin
        shown += [x.markdown() for x in PARTS[part].shown(section["data"], section["config"])]
    return shown
