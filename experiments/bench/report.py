"""Tables of what has been measured, from the file that `--save` wrote."""

from pathlib import Path

from experiments.bench import sections
from experiments.bench.parts import PARTS

title = "What it costs"
FILE = "bench.json"


def render(folder: Path) -> str:
    """The tables of each part that has been measured, under the command that made them."""
    found = sections.read(folder / FILE)
    if not found:
        return ""
    shown = [
        "Times are medians over rounds in one process, in turns; a ratio is the median of those "
        "within a round."
    ]
    made = ""
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
    return "\n\n".join(shown)
