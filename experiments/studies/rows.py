"""What a study of many methods makes of its rows: smaller ones, and those of configs."""

import functools
import json
from collections.abc import Iterable

from experiments.config import Config
from experiments.log import Row

# Whose settings a method reads besides those of its own name.
SETTINGS = {"str": ("soft_threshold_reparameterisation",), "swa": ("swa", "gmp")}


def has_diverged(row: Row) -> bool:
    """Whether the run came to no end."""
    return bool(row["result"].get("diverged"))


def compact(row: Row) -> Row:
    """The row without the settings of methods that have no part in it, where they are defaults."""
    plain, default = row["config"], Config().to_json()
    used = {name for method in plain["method"] for name in SETTINGS.get(method, (method,))}
    kept = {
        name: value
        for name, value in plain.items()
        if name in used or not isinstance(value, dict) or value != default[name]
    }
    return row | {"config": kept}


def config_of(row: Row) -> Config:
    """The config of a row."""
    return _config(json.dumps(row["config"]))


@functools.lru_cache(maxsize=10_000)  # rows are asked for their configs over and over
def _config(text: str) -> Config:
    return Config.from_json(json.loads(text))


def results_by_config(rows: Iterable[Row]) -> dict[Config, Row]:
    """The rows by their config."""
    return {config_of(row): row for row in rows}
