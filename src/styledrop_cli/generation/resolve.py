"""How pictures are drawn, once all who have a say in it were heard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from styledrop_cli.base.base import Base
from styledrop_cli.generation.pipeline import StyleMix
from styledrop_cli.settings import SampleSettings


def settings_of(base: Base, mixture: StyleMix, *given: Mapping[str, Any]) -> SampleSettings:
    """The settings of ``mixture`` on ``base``: what is ``given``, the last first, before what its adapters recommend.

    What nobody says is the base's own default. Raises UsageError for values out of range.
    """
    values = {"size": base.sizes[-1]} | mixture.recommended
    for more in given:
        values |= more
    return base.sampling(**values)
