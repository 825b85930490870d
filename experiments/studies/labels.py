"""Many lines in one figure: who stands out, and labels that do not lie on one another."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes

GREY = "#8c8c8c"


class Style(NamedTuple):
    """How a contender is drawn."""

    color: str = GREY
    marker: str = "."
    width: float = 0.7
    weight: str = "normal"

    @property
    def stands_out(self) -> bool:
        """Whether it is one of the few."""
        return self.color != GREY


# Okabe and Ito's colours, which those who are colour-blind can tell apart, and a marker each.
OURS = Style("#d55e00", "o", 2.2, "bold")
RIVAL = Style("#000000", "s", 1.6, "bold")
OTHERS = (
    Style("#0072b2", "^", 1.4),
    Style("#009e73", "D", 1.4),
    Style("#cc79a7", "v", 1.4),
    Style("#56b4e9", "P", 1.4),
)


def styles(names: Sequence[str], ranking: Sequence[str]) -> dict[str, Style]:
    """The recipe, GMP and the best of the others in colour; the rest in grey."""
    chosen = {"recipe": OURS, "gmp": RIVAL}
    rivals = [name for name in ranking if name not in chosen]
    chosen |= dict(zip(rivals, OTHERS, strict=False))
    return {name: chosen.get(name, Style()) for name in names}


def spread_out(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places near to those wanted, ``gap`` apart at least, from ``low`` to ``high`` if they fit."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    places = [min(max(wanted[i], low), high) for i in order]
    # Neighbours that are too near share the middle of what they want, as one block.
    blocks = [[place, 1] for place in places]
    i = 0
    while i + 1 < len(blocks):
        (a, n), (b, m) = blocks[i], blocks[i + 1]
        if b - a >= gap * (n + m) / 2:
            i += 1
            continue
        size = n + m
        middle = (a * n + b * m) / size
        half = gap * (size - 1) / 2
        middle = max(min(middle, high - half), low + half)
        blocks[i : i + 2] = [[middle, size]]
        i = max(0, i - 1)
    spread = [
        middle + gap * (j - (int(size) - 1) / 2)
        for middle, size in blocks
        for j in range(int(size))
    ]
    found = [0.0] * len(wanted)
    for i, place in zip(order, spread, strict=True):
        found[i] = place
    return found


def label(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    styled: Sequence[Style],
    *,
    side: str = "right",
    size: float = 6.5,
) -> None:
    """Names beside the axes, each with a thin line to its point, after the limits are set.

    Args:
        axes: with its final limits.
        points: in data coordinates; of what lies outside the axes there is the name alone.
        texts: of the labels.
        styled: their colours.
        side: of the axes, `left` or `right`.
        size: of the letters.
    """
    height = axes.get_window_extent().height / axes.figure.dpi * 72
    low, high = axes.get_ylim()
    gap = 1.18 * size / height * (high - low)
    start = 1.06 if side == "right" else -0.06
    blended = axes.get_yaxis_transform()
    places = spread_out([y for _, y in points], gap, low, high)
    for (x, y), place, text, style in zip(points, places, texts, styled, strict=True):
        axes.annotate(
            text,
            xy=(x, min(max(y, low), high)),
            xycoords="data",
            xytext=(start, place),
            textcoords=blended,
            ha="left" if side == "right" else "right",
            va="center",
            fontsize=size,
            color=style.color if style.stands_out else "#5f5f5f",
            fontweight=style.weight,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": style.color,
                "linewidth": 0.4 if low <= y <= high else 0,
                "alpha": 0.7,
                "shrinkA": 1,
                "shrinkB": 2,
                "relpos": (0.0 if side == "right" else 1.0, 0.5),
            },
        )
