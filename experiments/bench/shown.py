"""A table of what was measured, on the console and in RESULTS.md."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.log import Row
from experiments.studies import tables


class Shown(NamedTuple):
    """One table, with what has to be known to read it."""

    title: str
    header: Sequence[str]
    lines: Sequence[Sequence[str]]
    note: str = ""

    def print(self, console: Console) -> None:
        """Prints it; the first column is text, the others are numbers."""
        table = Table(title=escape(self.title), caption=escape(self.note.replace("`", "")))
        for i, name in enumerate(self.header):
            table.add_column(escape(name), justify="right" if i else "left")
        for line in self.lines:
            table.add_row(*map(escape, line))
        console.print(table)

    def markdown(self) -> str:
        """The same for a page."""
        table = tables.markdown(list(self.header), [list(line) for line in self.lines])
        return "\n\n".join(x for x in (f"**{self.title}**", table, self.note) if x)


def of_costs(title: str, costs: Row) -> Shown:
    """Times of what was measured in turns, beside the first of them."""
    header = ["", "milliseconds", f"over {next(iter(costs))}"]
    lines = [[k, f"{1000 * x['seconds']:.2f}", f"{x['ratio']:.2f}"] for k, x in costs.items()]
    return Shown(title, header, lines)
