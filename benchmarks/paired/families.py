"""The held-out styles: four procedural families, and OpenMoji, which is drawn by hand.

They exist to measure with: nothing is ever trained on them, so they live here and not in ``styledrop_cli.styles``,
with whose canvas they are drawn. Stained glass after Mould 2003 (leading along the contours, glass in cells between);
the rest is plain image arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from styledrop_cli.corpus.styles.canvas import Canvas, Colour, grey, over, posterise, ramp, saturate, smooth


@dataclass(frozen=True)
class HeldOut:
    """A style nobody has trained on: its name, how prompts call it, and how it is drawn (None: it is drawn already).

    Settings may be chosen on ``development`` styles; the others are for the final table only.
    """

    name: str
    text: str
    development: bool
    draw: Callable[[Canvas], Tensor] | None


def _voronoi(c: Canvas, cell: float) -> tuple[Tensor, Tensor, Tensor]:
    """Cells about ``cell`` px wide: the offset (x, y) to each pixel's site, and the distance to the cell's edge, px."""
    count = math.ceil(256 / cell) + 2
    place = torch.rand(c.batch, 2, count, count, generator=c.generator).to(c.rgb.device)
    column, row = (c.x.flatten() / cell).long() + 1, (c.y.flatten() / cell).long() + 1
    offsets = []
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            i, j = row + down, column + right
            site = place[:, :, i.clamp(0, count - 1)[:, None], j.clamp(0, count - 1)[None]]
            x = (site[:, :1] + (j - 1)) * cell - c.x
            y = (site[:, 1:] + (i - 1)[:, None]) * cell - c.y
            offsets.append(torch.cat((x, y), 1))
    sites = torch.stack(offsets, 1)  # [B, 9, 2, S, S]
    two = sites.square().sum(2).topk(2, dim=1, largest=False)
    first, second = (sites.gather(1, two.indices[:, k, None, None].expand(-1, 1, 2, -1, -1))[:, 0] for k in (0, 1))
    apart = (second - first).square().sum(1, keepdim=True).sqrt().clamp(min=1e-3)
    edge = (two.values[:, 1:] - two.values[:, :1]) / (2 * apart)  # to the line half way between the two sites
    return first[:, :1], first[:, 1:], edge


_GLASS: tuple[tuple[Colour, Colour], ...] = (
    ((0.08, 0.25, 0.75), (0.25, 0.62, 0.95)),
    ((0.05, 0.42, 0.35), (0.35, 0.75, 0.45)),
    ((0.85, 0.5, 0.08), (1.0, 0.82, 0.35)),
    ((0.45, 0.12, 0.55), (0.8, 0.4, 0.75)),
    ((0.6, 0.06, 0.12), (0.95, 0.35, 0.3)),
    ((0.1, 0.5, 0.62), (0.6, 0.88, 0.9)),
)


def stained_glass(c: Canvas) -> Tensor:
    """Cells of saturated glass, leaded along the thing's contours and between the cells, with light behind."""
    cell, lead = c.scalar(24, 36), c.scalar(1.6, 2.3)
    dx, dy, edge = _voronoi(c, cell)
    deep, bright = c.pick_many(_GLASS, 0.05)
    inside = smooth(c.blur(c.alpha, 1.2), 0.4, 0.6)
    own = c.warp(saturate(c.spread(3.0), c.uniform(1.7, 2.3)).clamp(0.05, 0.95), 0.35 * dx, 0.35 * dy)
    vary = c.warp(c.noise(1.3, 3), dx, dy)
    ground = over(deep + 0 * own, bright, vary[:, :1])
    pane = over(ground, own * (0.82 + 0.36 * vary[:, 1:2]), inside)
    x, y = c.uniform(70, 186), c.uniform(40, 140)
    far = ((c.x - x).square() + (c.y - y).square()).sqrt() / 150
    pane = pane * (0.72 + 0.5 * torch.exp(-far.square())) * (0.86 + 0.28 * c.strokes(5, 60, c.scalar(0, math.pi)))
    pane = over(pane, torch.ones_like(pane), 0.3 * vary[:, 2:] * torch.exp(-2 * far.square()))
    seam = smooth(edge, 0.9 * lead, 0.55 * lead)
    contour = torch.maximum(c.outline(1.7 * lead), c.lines(1.3 * lead, 0.12) * inside)
    frame = torch.minimum(torch.minimum(c.x, 255 - c.x), torch.minimum(c.y, 255 - c.y))
    came = torch.maximum(torch.maximum(seam, contour), smooth(frame, 2.6 * lead, 2.0 * lead))
    metal = 0.07 + 0.16 * c.light(c.blur(came, 1.0), 0.8, 3.0).clamp(min=0)
    return over(pane, metal + 0 * pane, came)


_PAPERS: tuple[Colour, ...] = ((0.97, 0.95, 0.89), (0.96, 0.94, 0.9), (0.98, 0.96, 0.87))
_INKS: tuple[tuple[Colour, Colour, Colour], ...] = (  # the spot ink that takes cyan's, magenta's and yellow's place
    ((0.0, 0.47, 0.75), (1.0, 0.28, 0.56), (1.0, 0.91, 0.0)),
    ((0.0, 0.51, 0.54), (1.0, 0.42, 0.34), (1.0, 0.72, 0.22)),
    ((0.24, 0.33, 0.53), (1.0, 0.28, 0.69), (0.99, 0.85, 0.55)),
    ((0.0, 0.66, 0.36), (0.95, 0.31, 0.38), (1.0, 0.91, 0.3)),
    ((0.46, 0.36, 0.65), (1.0, 0.45, 0.3), (0.35, 0.86, 0.76)),
)


def risograph(c: Canvas) -> Tensor:
    """Two or three spot inks, screened and grainy, each printed a little beside the other, on off-white paper."""
    paper = c.pick(_PAPERS, 0.01)
    inks = c.pick_many(_INKS, 0.03)
    third = c.chance(0.6)
    light = saturate(c.blur(c.flat(), 1.0), c.uniform(1.2, 1.7))
    need = 1 - light  # of cyan, magenta and yellow
    black = need.amin(1, keepdim=True)
    cyan, magenta, yellow = (need - 0.5 * black).clamp(0, 1).split(1, 1)
    magenta = (magenta + (1 - third) * 0.5 * yellow).clamp(0, 1)
    # A disc of tint behind the thing, as posters have it, in the second ink or the third.
    radius = c.uniform(92, 116)
    disc = smooth(radius - ((c.x - 128).square() + (c.y - 128).square()).sqrt(), -1, 1) * c.chance(0.6)
    tint = 0.4 * disc * (1 - smooth(c.grow(c.alpha, 2), 0.3, 0.7))
    which = c.chance(0.5) * third
    densities = (cyan + 0.35 * black, magenta + tint * (1 - which), yellow * third + tint * which)
    picture = paper + 0 * light
    turn, period = c.scalar(0, math.pi), c.scalar(5.5, 8)
    for k, (ink, density) in enumerate(zip(inks, densities, strict=True)):
        off, way = c.scalar(1.5, 4.5), c.scalar(0, 2 * math.pi)
        density = c.shift(density, off * math.cos(way), off * math.sin(way))
        angle = turn + k * math.pi / 3
        u = c.x * math.cos(angle) + c.y * math.sin(angle)
        v = -c.x * math.sin(angle) + c.y * math.cos(angle)
        wave = 0.5 + 0.25 * (torch.cos(u * (2 * math.pi / period)) + torch.cos(v * (2 * math.pi / period)))
        dots = smooth(density - 0.12 - 0.76 * wave, -0.16, 0.16)
        covered = 0.35 * density + 0.65 * dots
        grain = smooth(c.noise(1.2) + 0.5 * c.noise(3.5), 0.2, 0.62) * (0.88 + 0.12 * c.fractal(50))
        picture = picture * (1 - 0.92 * covered.clamp(0, 1) * grain * (1 - ink))
    return picture * c.paper(0.06)


_LINENS: tuple[Colour, ...] = (
    (0.93, 0.89, 0.8), (0.97, 0.95, 0.9), (0.85, 0.87, 0.88), (0.88, 0.8, 0.7), (0.8, 0.86, 0.82),
)  # fmt: skip


def cross_stitch(c: Canvas) -> Tensor:
    """Crosses of a few colours of thread, counted on linen."""
    cell = 256 / round(c.scalar(28, 38))
    fx, fy, mx, my = c.boxes(cell)
    few = round(c.scalar(4, 6))
    colour = posterise(saturate(c.blur(c.spread(1.5), 0.3 * cell), c.uniform(1.1, 1.6)), few)
    rim = (c.grow(smooth(c.blur(1 - c.alpha, 1.0), 0.4, 0.6), 0.55 * cell) * c.alpha).clamp(0, 1)
    colour = colour * (1 - 0.45 * rim * c.chance(0.6))
    thread = c.warp(colour, mx, my)
    stitched = (c.warp(c.blur(c.alpha, 0.25 * cell), mx, my) > 0.5).float()
    vary = c.warp(c.noise(1.5), mx, my)
    # Two diagonals a cell, the second over the first; each is round and darker at its sides.
    falling, rising = ((fx - fy).abs() / 0.3, (fx + fy - 1).abs() / 0.3)
    ends = smooth(torch.maximum((fx - 0.5).abs(), (fy - 0.5).abs()), 0.5, 0.44)
    linen = c.pick(
        ((0.93, 0.89, 0.8), (0.97, 0.95, 0.9), (0.85, 0.87, 0.88), (0.88, 0.8, 0.7), (0.8, 0.86, 0.82)), 0.02
    )
    weave = torch.sin(c.x * (4 * math.pi / cell)) * torch.sin(c.y * (4 * math.pi / cell))
    hole = smooth((0.5 - (fx - 0.5).abs()).square() + (0.5 - (fy - 0.5).abs()).square(), 0.03, 0.008)
    picture = linen * (1 + 0.05 * weave) * (1 - 0.42 * hole) * c.paper(0.1)
    picture = picture * (1 - 0.35 * c.blur(stitched, 0.4 * cell) * (1 - stitched))  # the threads' shadow
    picture = over(picture, 0.55 * thread, 0.55 * stitched)  # what lies between the threads of a stitch
    for strand, shade in ((falling, 0.8), (rising, 1.06)):
        body = thread * shade * (1.08 - 0.4 * strand.square()) * (0.9 + 0.2 * vary)
        picture = over(picture, body.clamp(0, 1), smooth(strand, 1.05, 0.85) * ends * stitched)
    return picture


_GROUNDS: tuple[Colour, ...] = (
    (0.06, 0.06, 0.08), (0.07, 0.1, 0.2), (0.22, 0.04, 0.07), (0.04, 0.16, 0.13), (0.95, 0.91, 0.82), (0.9, 0.86, 0.8),
)  # fmt: skip


def gold(c: Canvas) -> Tensor:
    """The thing embossed in gold, engraved lines and bright edges, on a dark or cream ground."""
    dark, deep, middle, high, white = c.pick_many(
        (
            ((0.2, 0.1, 0.02), (0.55, 0.34, 0.07), (0.85, 0.62, 0.18), (0.98, 0.86, 0.45), (1.0, 0.98, 0.86)),
            ((0.24, 0.13, 0.03), (0.62, 0.41, 0.1), (0.9, 0.7, 0.25), (1.0, 0.9, 0.55), (1.0, 0.99, 0.9)),
            ((0.22, 0.1, 0.05), (0.6, 0.34, 0.14), (0.88, 0.6, 0.27), (0.99, 0.83, 0.52), (1.0, 0.97, 0.88)),
        ),
        0.02,
    )
    ground = c.pick(_GROUNDS, 0.02) * (0.94 + 0.1 * c.fractal(60)) * c.paper(0.05)
    solid = smooth(c.blur(c.alpha, 1.2), 0.4, 0.6)
    tone = grey(c.flat())
    height = 0.55 * c.blur(solid, 2.5) + 0.75 * c.blur(solid, 8) + 0.5 * c.blur(tone * solid, 2)
    height = height - 0.35 * c.blur(c.lines(3, 0.06), 1.0) + 0.02 * c.noise(9)
    angle = c.scalar(0.6, 1.1)
    lit = c.light(height, angle, 11)  # towards the upper left where it is bright
    sheen = 0.5 + 0.1 * torch.sin((0.8 * c.x + c.y) / c.uniform(26, 40) + 6 * c.uniform())
    metal = ramp((sheen + 0.42 * lit + 0.22 * (c.blur(tone, 1.5) - 0.5)).clamp(0, 1), (dark, deep, middle, high, white))
    shine = smooth(c.light(c.blur(height, 1.5), angle, 18), 0.72, 0.96) + 0.8 * smooth(sheen + 0.5 * lit, 0.86, 1.0)
    metal = over(metal, white, (0.75 * shine).clamp(0, 1))
    metal = over(metal, dark, 0.7 * c.lines(2.0, 0.07) * solid)
    shade = c.blur(c.shift(solid, 4, 6), 6) * (1 - solid)
    rim = c.outline(3.5)
    picture = over(ground * (1 - 0.5 * shade), ramp((sheen + 0.5 * lit).clamp(0, 1), (dark, middle, white)), rim)
    return over(picture, metal, solid)


# The colours behind things in these styles: on such grounds other styles too must be told from them.
GROUNDS: tuple[Colour, ...] = (*(colour for pair in _GLASS for colour in pair), *_PAPERS, *_LINENS, *_GROUNDS)

HELD_OUT: dict[str, HeldOut] = {
    style.name: style
    for style in (
        HeldOut("stained glass", "stained glass", True, stained_glass),
        HeldOut("risograph", "risograph print", True, risograph),
        HeldOut("OpenMoji", "outlined emoji", False, None),
        HeldOut("cross stitch", "cross stitch", False, cross_stitch),
        HeldOut("gold", "gold", False, gold),
    )
}
