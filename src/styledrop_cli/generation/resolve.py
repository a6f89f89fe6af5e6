"""How pictures are drawn, once all who have a say in it were heard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from styledrop_cli.adapters.palette import palette_of
from styledrop_cli.base.base import Base
from styledrop_cli.generation.pipeline import StyleMix
from styledrop_cli.settings import SampleSettings, exact


def settings_of(base: Base, mixture: StyleMix, *given: Mapping[str, Any]) -> SampleSettings:
    """The settings of ``mixture`` on ``base``: what is ``given``, the last first, before what its adapters recommend.

    What nobody says is the base's own default. A palette is said by its colours from here on. Raises UsageError for
    values out of range, and as ``adapters.palette.palette_of`` does.
    """
    values = {"size": base.sizes[-1]} | mixture.recommended
    for more in given:
        values |= more
    if values.get("palette"):
        palette = palette_of(values["palette"], base, [file for file, _ in mixture.styles])
        values["palette"] = str(palette)
    return base.sampling(**values)


def within_reach(base: Base, given: Mapping[str, Any], on_message: Callable[[str], None]) -> dict[str, Any]:
    """What a person has ``given``, no scale beyond what draws on ``base`` what was asked for; each that was, is said.

    For options on the command line and in lists. From Python scales are taken as they are.
    """
    values = dict(given)
    for name, most in base.spec.reach.items():
        if name in values and values[name] > most:
            on_message(
                f"Warning: {name} {exact(values[name])} is drawn as {exact(most)}: that is as far as it is of use with "
                f"{base.name}"
            )
            values[name] = most
    return values
