"""How a command tells that it cannot do what it was asked to: in one line, on standard error."""

from rich.console import Console
from rich.markup import escape


def tell(error: object) -> None:
    """Prints it; what looks like markup is printed as it is."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print("[red]error:[/red]", escape(str(error)))
