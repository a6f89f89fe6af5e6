"""Letters in the colours of a reference.

A small base was taught each letter in a colour of its own, and a style's colours reach the ground more than the letter.
Here a drawn letter's own colour is moved to one of the reference's; its edge, its texture and its ground stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from styledrop_cli.adapters.file import references_of
from styledrop_cli.base.base import Base
from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.generation.pipeline import StyleMix
from styledrop_cli.io.images import to_image, to_tensor

if TYPE_CHECKING:
    from PIL.Image import Image

MOST = 5  # inks
APART = 0.25  # how far an ink is from the ground and from other inks at least: a distance in RGB, black to white 1.73
LEAST = 0.03  # the share of a picture's pixels that an ink has at least


def inks_of(pictures: Sequence[Tensor]) -> list[Tensor]:
    """The colours that references ``[3,H,W]`` in [0,1] are painted in, each RGB ``[3]``, the most seen first.

    An ink is like neither the ground, the median along the edge, nor an ink found before; where paint is thin the
    ground shines through, so its colour is the mean of the third that is farthest from the ground. A picture that has
    no more than its ground has none.
    """
    found: list[tuple[float, Tensor]] = []
    for picture in pictures:
        pixels, ground = picture.flatten(1).T, _ground(picture)
        left = pixels[(pixels - ground).norm(dim=1) >= APART]
        while len(left) >= LEAST * len(pixels) and len(found) < MOST * len(pictures):
            # The fullest cell of a coarse grid of colours, and all that is near its mean.
            cells = (left * 5.99).floor().long() @ torch.tensor([36, 6, 1])
            middle = left[cells == cells.bincount().argmax()].mean(0)
            near = (left - middle).norm(dim=1) < APART
            away = (left[near] - ground).norm(dim=1)
            ink = left[near][away >= away.quantile(2 / 3)].mean(0)
            if near.sum() >= LEAST * len(pixels) and all((ink - other).norm() >= APART / 2 for _, other in found):
                found.append((float(away.sum()), ink))
            left = left[~near]
    return [ink for _, ink in sorted(found, key=lambda one: -one[0])][:MOST]


def reference_inks(base: Base, mixture: StyleMix) -> list[Tensor]:
    """The inks of what the styles of ``mixture`` learnt from, as the base shows it; none of a file without pictures."""
    pictures: list[Tensor] = []
    for file, _ in mixture.styles:
        with suppress(ModelError, UsageError):
            shown = references_of(file).whole.long().to(base.device)
            pictures += [*base.pictures(shown, base.sizes[0]).cpu()]
    return inks_of(pictures)


def painted(inks: Sequence[Tensor], number: int) -> tuple[Callable[[Image], Image], dict[str, str]] | tuple[()]:
    """How the ``number``-th of many is brought to its ink, and what its file says of it; nothing without inks."""
    if not inks:
        return ()
    ink = inks[number % len(inks)]
    red, green, blue = (round(255 * value) for value in ink.tolist())
    return partial(inked, ink=ink), {"ink": f"#{red:02x}{green:02x}{blue:02x}"}


def inked(image: Image, ink: Tensor) -> Image:
    """The picture of one thing on a ground, with the thing's own colour moved to ``ink`` [3]; the ground stays.

    A picture that shows nothing but its ground is returned as it is.
    """
    picture = to_tensor(image)
    ground = _ground(picture)[:, None, None]
    away = (picture - ground).norm(dim=0)
    far = float(away.flatten().quantile(0.98))
    if far < APART / 2:
        return image
    own = picture[:, away > far / 2].mean(1)[:, None, None]
    line = own - ground
    share = (((picture - ground) * line).sum(0) / (line * line).sum()).clamp(0, 1)
    return to_image((picture + share * (ink[:, None, None] - own)).clamp(0, 1))


def _ground(picture: Tensor) -> Tensor:
    """The colour of a picture's edge, ``[3]``."""
    edge = max(1, picture.shape[-1] // 32)
    sides = (picture[:, :edge], picture[:, -edge:], picture[:, :, :edge], picture[:, :, -edge:])
    return torch.cat([side.flatten(1) for side in sides], 1).median(1).values
