"""Checks of settings: each raises a ValueError that names the setting and the value it got."""

import math
from typing import Any


def check(holds: bool, name: str, value: object, wanted: str) -> None:
    """Raises unless ``holds``."""
    if not holds:
        raise ValueError(f"{name} must be {wanted}, got {value!r}.")


def check_choice(name: str, value: object, allowed: tuple[Any, ...]) -> None:
    """Raises unless the value is one of those allowed."""
    check(value in allowed, name, value, "one of " + ", ".join(map(str, allowed)))


def check_integer(name: str, value: object, at_least: int) -> None:
    """Raises unless the value is an integer, and not smaller."""
    holds = isinstance(value, int) and not isinstance(value, bool) and value >= at_least
    check(holds, name, value, f"an integer >= {at_least}")


def check_finite(name: str, value: object, at_least: float = 0) -> None:
    """Raises unless the value is a finite number, and not smaller."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    holds = number and math.isfinite(value) and value >= at_least  # type: ignore[arg-type,operator]
    check(holds, name, value, f"a finite number >= {at_least:g}")
