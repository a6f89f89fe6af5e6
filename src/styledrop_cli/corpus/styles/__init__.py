"""Procedural style families in batched torch: a picture of a thing in, a styled picture out.

Everything random comes from a generator: colours and strengths are drawn per picture, lengths that shape a filter (line
widths, tile sizes) once per call. All lengths are given for 256 px and scale with the picture.

Families held out for measuring must never be added here: stained glass, risograph, cross stitch, gold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from styledrop_cli.corpus.styles import drawing, materials, prints
from styledrop_cli.corpus.styles.canvas import Canvas
from styledrop_cli.errors import UsageError


@dataclass(frozen=True)
class StyleFamily:
    """A style: its name, how captions call it, and whether the given background shows."""

    name: str
    descriptions: tuple[str, ...]
    keeps_background: bool
    draw: Callable[[Canvas], Tensor]


_FAMILIES = (
    StyleFamily("line-drawing", ("line drawing", "ink line drawing", "line art"), True, drawing.line_drawing),
    StyleFamily("outline", ("bold outline", "thick outline cartoon", "bold outlined"), True, drawing.outline),
    StyleFamily("pencil", ("pencil sketch", "pencil drawing", "graphite sketch"), True, drawing.pencil),
    StyleFamily(
        "watercolor",
        ("watercolor painting", "watercolour", "watercolor", "watercolour painting"),
        True,
        prints.watercolor,
    ),
    StyleFamily("oil", ("oil painting", "oil paint", "impasto oil painting"), True, prints.oil),
    StyleFamily("crayon", ("crayon drawing", "wax crayon", "crayon"), True, drawing.crayon),
    StyleFamily("chalk", ("chalk drawing", "chalkboard", "chalk on a board"), False, drawing.chalk),
    StyleFamily("woodcut", ("woodcut", "woodcut print", "linocut"), False, drawing.woodcut),
    StyleFamily("crosshatch", ("ink crosshatch", "crosshatched ink drawing", "engraving"), True, drawing.crosshatch),
    StyleFamily("neon", ("neon", "neon sign", "glowing neon"), False, drawing.neon),
    StyleFamily("blueprint", ("blueprint", "technical blueprint"), False, drawing.blueprint),
    StyleFamily("duotone", ("duotone poster", "duotone", "screen print poster"), False, prints.duotone),
    StyleFamily("pop-art", ("pop art", "halftone pop art", "comic book"), False, prints.pop_art),
    StyleFamily("pixel-art", ("pixel art", "8-bit pixel art", "retro video game"), True, materials.pixel_art),
    StyleFamily("mosaic", ("mosaic", "tile mosaic", "mosaic of small tiles"), True, materials.mosaic),
    StyleFamily("paper-cut", ("paper cut", "paper cutout", "layered paper"), True, materials.paper_cut),
    StyleFamily("sticker", ("sticker", "die-cut sticker", "glossy sticker"), True, materials.sticker),
    StyleFamily("metal", ("embossed metal", "brushed steel relief", "metal"), False, materials.metal),
    StyleFamily("wood", ("wood carving", "carved wood", "wooden"), False, materials.wood),
    StyleFamily("clay", ("clay", "clay sculpture", "plasticine"), True, materials.clay),
    StyleFamily("sepia", ("sepia photo", "old photograph", "vintage sepia photograph"), True, prints.sepia),
    StyleFamily("low-poly", ("low poly", "low-poly", "polygonal"), True, materials.low_poly),
    StyleFamily("sunset", ("sunset silhouette", "silhouette at sunset"), False, prints.sunset),
    StyleFamily("glitch", ("glitch", "glitch art", "broken television"), True, prints.glitch),
    StyleFamily("stencil", ("spray paint stencil", "stencil graffiti", "street art"), False, prints.stencil),
    StyleFamily("heat-map", ("thermal image", "heat map", "infrared"), False, prints.heat),
    StyleFamily("vaporwave", ("vaporwave", "retro synthwave", "synthwave"), False, prints.vaporwave),
    StyleFamily("pastel", ("pastel drawing", "soft pastel", "chalk pastel"), True, drawing.pastel),
)
STYLES: dict[str, StyleFamily] = {family.name: family for family in _FAMILIES}


def apply_style(name: str, rgba: Tensor, background: Tensor, generator: torch.Generator) -> Tensor:
    """Draw things in the style ``name``, a key of ``STYLES``: ``[B,3,S,S]`` in [0,1].

    ``rgba`` ``[B,4,S,S]`` in [0,1] has colours that are not multiplied by alpha; ``background`` is ``[B,3,S,S]`` in
    [0,1]. Raises UsageError for an unknown name or shapes that do not fit.
    """
    family = STYLES.get(name)
    if family is None:
        raise UsageError(f"unknown style family: {name}", f"one of: {', '.join(STYLES)}")
    batch, size = rgba.shape[0], rgba.shape[-1]
    if rgba.shape != (batch, 4, size, size) or background.shape != (batch, 3, size, size):
        raise UsageError(
            f"apply_style wants [B,4,S,S] and [B,3,S,S], got {tuple(rgba.shape)} and {tuple(background.shape)}"
        )
    with torch.no_grad():
        drawn = family.draw(Canvas(rgba, background, generator))
        return drawn.expand(batch, 3, size, size).clamp(0, 1)
