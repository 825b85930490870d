"""Checks of settings: each raises a ValueError that names the setting and the value it got."""

import dataclasses
import functools
import math
import typing
from collections.abc import Callable
from typing import Any, Literal

LARGEST = 2**31 - 1
"""Of the integers, which end up in int32 counters."""


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
    check(value <= LARGEST, name, value, f"at most {LARGEST}")  # type: ignore[operator]


def check_finite(name: str, value: object, at_least: float = 0) -> None:
    """Raises unless the value is a finite number, and not smaller."""
    holds = _is_finite(value) and value >= at_least  # type: ignore[operator]
    check(holds, name, value, f"a finite number >= {at_least:g}")


def check_types(settings: Any, prefix: str = "") -> None:
    """Raises unless every field of a dataclass is what its annotation says, and finite."""
    for name, holds, wanted in _fields(type(settings)):  # type: ignore[arg-type]
        value = getattr(settings, name)
        if holds is None:
            check_types(value, f"{prefix}{name}.")
        elif not holds(value):
            check(False, prefix + name, value, wanted)


@functools.cache
def _fields(settings: Any) -> list[tuple[str, Callable[[Any], bool] | None, str]]:
    """Of every field its name, whether a value fits (None of settings inside), and what does."""
    return [
        (name, None, "") if dataclasses.is_dataclass(kind) else (name, *_kind(kind))
        for name, kind in typing.get_type_hints(settings).items()
    ]


def _kind(kind: Any) -> tuple[Callable[[Any], bool], str]:
    inside = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        return lambda x: isinstance(x, str) and x in inside, "one of " + ", ".join(inside)
    if typing.get_origin(kind) is tuple:
        each, wanted = _kind(inside[0])
        return lambda x: isinstance(x, tuple) and all(map(each, x)), f"a tuple, each {wanted}"
    if type(None) in inside:
        some, wanted = _kind(inside[0])
        return lambda x: x is None or some(x), f"{wanted} or None"
    if kind is float:
        return _is_finite, "a finite number"
    words = {int: "an integer", bool: "True or False", str: "a string"}
    return lambda x: type(x) is kind, words[kind]


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False
