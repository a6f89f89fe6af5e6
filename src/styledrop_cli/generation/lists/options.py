"""What a prompt line, a CSV column, a TOML key and a kit's asset can set beside the prompt: one table for all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from styledrop_cli.io.text_files import short
from styledrop_cli.settings import SampleSettings, exact

Reader = Callable[[Any], Any]  # makes a value of what was written; raises ValueError, which says what it must be

DEFAULTS = SampleSettings.defaults()
SETTINGS = (
    "negative",
    "seed",
    "strength",
    "lambda_a",
    "lambda_b",
    "guard",
    "steps",
    "temperature",
    "palette",
    "palette_strength",
)
OPTIONS: dict[str, type] = {"number": int, "name": str, "style": str} | {
    name: type(DEFAULTS[name]) for name in SETTINGS
}
RANGES = SampleSettings.RANGES | {"number": (1, 1000)}
KEYS = {written: name for name in OPTIONS for written in (name, name.replace("_", "-"))}  # lambda_a, lambda-a


def number_between(kind: type, least: float, most: float) -> Reader:
    """What reads a number, int or float, within a range; it may be written as a text."""

    def read(value: object) -> Any:
        if isinstance(value, str):
            with suppress(ValueError):
                value = kind(value)
        if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
            raise ValueError(f"must be a {'whole ' if kind is int else ''}number, not '{short(value)}'")
        if not least <= value <= most:  # nor is NaN
            raise ValueError(f"must be between {exact(least)} and {exact(most)}, not {short(value)}")
        return kind(value)

    return read


NUMBERS = {name: number_between(kind, *RANGES[name]) for name, kind in OPTIONS.items() if kind is not str}
