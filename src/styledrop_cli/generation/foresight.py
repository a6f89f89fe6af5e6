"""How long drawing will take here, found out by drawing a little."""

from __future__ import annotations

import time
from dataclasses import replace

from styledrop_cli.base.base import Base
from styledrop_cli.generation.pipeline import PictureRequest, StyleMix, draw


def seconds_each(base: Base, mixture: StyleMix, wanted: PictureRequest) -> float:
    """About how many seconds a picture takes: one is drawn with few of its steps, three times. Raises as ``draw``."""
    settings = wanted.settings
    few = min(settings.steps, settings.guidance_every)  # of which one has guidance

    def drawn_in(steps: int) -> float:
        began = time.monotonic()
        for _ in draw(base, mixture, [replace(wanted, settings=replace(settings, steps=steps))]):
            pass
        return time.monotonic() - began

    drawn_in(1)  # what is loaded once is not counted
    first = drawn_in(1)
    return first + max(0.0, drawn_in(min(1 + few, 256)) - first) / few * (settings.steps - 1)
