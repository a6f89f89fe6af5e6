"""From what people say for a palette to its colours: some are in a picture, some in an adapter's file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from styledrop_cli.adapters.file import examples_of
from styledrop_cli.adapters.header import AdapterFile
from styledrop_cli.base.base import Base
from styledrop_cli.errors import ModelError, PictureError, UsageError
from styledrop_cli.io.colour import clusters, from_oklab, oklab
from styledrop_cli.io.images import from_base64, load_picture, square, to_tensor
from styledrop_cli.io.palette import EXAMPLE, FROM_PICTURE, KEEP, Palette, check_palette, is_picture

LOOKED_AT = 256  # pixels of a side, to which a picture is scaled before its main colours are looked for


def palette_of(said: str | Sequence[str], base: Base, files: Sequence[AdapterFile]) -> Palette:
    """The palette that is ``said``: colours, a picture's path, or ``KEEP``, what the styles of ``files`` learnt from.

    Raises UsageError for colours that are none, for too few or too many of them, for a picture of one colour, and where
    there is nothing to keep; PictureError for a picture that cannot be read.
    """
    if not isinstance(said, str):
        return Palette.read(said)
    check_palette(said)
    if said == KEEP:
        if not files:
            hint = f"say colours, {EXAMPLE}, or name a picture"
            raise UsageError(f"there is no style whose colours a palette '{KEEP}' could be", hint)
        return main_colours([one for file in files for one in references_shown(base, file)], "the style's pictures")
    if is_picture(said):
        return main_colours([to_tensor(square(load_picture(Path(said)), LOOKED_AT))], said)
    return Palette.read(said)


def main_colours(pictures: Sequence[Tensor], what: str) -> Palette:
    """The colours that pictures ``[3,H,W]`` in [0,1] mostly have, the most seen first, at most ``FROM_PICTURE``.

    ``what`` they are is for the UsageError that those of a single colour raise.
    """
    pixels = torch.cat([one.flatten(1).T for one in pictures])
    colours = from_oklab(clusters(oklab(pixels), FROM_PICTURE)[0]).mul(255).round().int().tolist()
    if len(colours) < 2:
        raise UsageError(f"{what} has one colour alone, and a palette takes two at least", f"say colours: {EXAMPLE}")
    return Palette(tuple((red, green, blue) for red, green, blue in colours))


def references_shown(base: Base, file: AdapterFile) -> list[Tensor]:
    """The pictures ``[3,H,W]`` in [0,1] that an adapter learnt from: its thumbnail, of several what their ids show.

    Raises UsageError if the file has neither.
    """
    with suppress(PictureError):
        if file.header.thumbnail and len(file.header.pictures) < 2:
            return [to_tensor(from_base64(file.header.thumbnail))]
    try:
        shown = examples_of(file).whole.long().to(base.device)
    except ModelError as error:
        raise UsageError(f"{error.message}: it has no colours to keep", f"say colours: {EXAMPLE}") from None
    return [*base.pictures(shown, base.sizes[0]).cpu()]
