"""How many units the hidden layers of a network have: a fraction of its own, or so many."""

from experiments.checks import check

Width = float | tuple[int, ...]


def units(full: tuple[int, ...], width: Width) -> tuple[int, ...]:
    """The units of every hidden layer: ``width`` times ``full``, 2 or more; or those given."""
    if not isinstance(width, tuple):
        return tuple(max(2, round(width * n)) for n in full)
    good = len(width) == len(full) and all(n >= 1 for n in width)
    check(good, "width", width, f"a number, or {len(full)} integers >= 1")
    return width
