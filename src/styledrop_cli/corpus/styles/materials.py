"""Families made of something: tiles, paper, metal, wood, clay, blocks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from styledrop_cli.corpus.styles.canvas import Canvas, grey, hsv, over, posterise, ramp, saturate, smooth


def pixel_art(c: Canvas) -> Tensor:
    count = round(c.scalar(20, 36))
    small = F.interpolate(torch.cat((c.rgb * c.alpha, c.alpha), 1), size=(count, count), mode="area")
    alpha = (small[:, 3:] > 0.45).float()
    colour = (small[:, :3] / small[:, 3:].clamp(min=1e-3)).clamp(0, 1)
    colour = posterise(saturate(colour, c.uniform(1.0, 1.6)), round(c.scalar(4, 7)))
    rim = (F.max_pool2d(alpha, 3, 1, 1) - alpha) * c.chance(0.6)
    ink = c.hue((0.3, 0.8), (0.08, 0.3))
    ground = F.interpolate(c.background, size=(count, count), mode="area")
    ground = posterise(ground, 6)
    picture = over(over(ground, colour, alpha), ink, rim)
    return F.interpolate(picture, size=(c.size, c.size), mode="nearest")


def mosaic(c: Canvas) -> Tensor:
    cell = c.scalar(7.5, 11.5)
    bend = (c.noise(90, 2) - 0.5) * 40
    fx, fy, mx, my = c.boxes(cell, bend)
    mx, my = c.unbend(bend, mx, my)
    picture = c.blur(saturate(c.flat(c.background), c.uniform(0.9, 1.4)), 0.25 * cell)
    picture = picture * (1 - 0.45 * c.blur(c.lines(5, 0.07), 1))
    tile = c.warp(picture, mx, my)
    tile = tile * (0.82 + 0.26 * c.warp(c.noise(1), mx, my))
    edge = torch.minimum(torch.minimum(fx, 1 - fx), torch.minimum(fy, 1 - fy)) * cell
    tile = tile + 0.1 * (smooth(edge, 0.6, 2.0) - smooth(edge, 2.0, 3.2)) * (0.5 - fy) * 2
    grout = c.pick(((0.93, 0.91, 0.87), (0.75, 0.72, 0.68), (0.85, 0.8, 0.7)))
    return over(grout * c.paper(0.08), tile, smooth(edge, 0.5, 1.4))


def paper_cut(c: Canvas) -> Tensor:
    tone = grey(c.blur(c.flat(), 2.2))
    solid = smooth(c.blur(c.alpha, 1.2), 0.45, 0.55)
    own = saturate(posterise(c.spread(2.5), 4, 0.15), c.uniform(1.0, 1.6))
    flip = c.chance(0.5)
    hue = c.uniform()
    drift = c.uniform(-0.12, 0.12)
    drop = c.scalar(2.5, 4.5)
    layers = [
        (c.grow(solid, c.scalar(5, 9)), None),
        (solid, 1.0),
        (solid * smooth(0.72 - tone, -0.03, 0.03), 0.72),
        (solid * smooth(0.42 - tone, -0.03, 0.03), 0.45),
    ]
    picture = c.background * (1 - 0.06)
    for i, (mask, value) in enumerate(layers):
        shade = c.blur(c.shift(mask, 0.6 * drop, drop), 0.9 * drop) * (1 - mask)
        picture = picture * (1 - 0.5 * shade)
        if value is None:
            colour = torch.full_like(hue.expand(-1, 3, -1, -1), 0.98)
        else:
            tint = hsv(
                (hue + i * drift) % 1,
                torch.full_like(hue, 0.25 + 0.2 * i),
                torch.full_like(hue, 1.1 - 0.18 * i).clamp(0, 1),
            )
            level = (own / grey(own).clamp(min=0.12) * (0.25 + 0.6 * value)).clamp(0, 1)
            colour = tint * flip + level * (1 - flip)
        picture = over(picture, colour + 0 * picture, mask)
    return picture * c.paper(0.07)


def sticker(c: Canvas) -> Tensor:
    width = c.scalar(7, 11)
    solid = smooth(c.alpha, 0.3, 0.7)
    card = (solid + c.outline(width)).clamp(0, 1)
    shade = c.blur(c.shift(card, 3, 5), 5)
    picture = c.background * (1 - 0.42 * shade)
    picture = over(picture, torch.full_like(picture, 0.99), card)
    fill = saturate(c.flat(), c.uniform(1.0, 1.5))
    picture = over(picture, fill, c.alpha)
    gloss = smooth((c.x + 0.7 * c.y - 60 - 200 * c.uniform()).abs(), 26, 20) * card
    return over(picture, torch.ones_like(picture), 0.22 * gloss)


def _relief(c: Canvas, inner: float) -> Tensor:
    """Height of the thing as a relief, about 0..1."""
    body = 0.6 * c.blur(c.alpha, 3) + 0.4 * c.blur(c.alpha, 9)
    return body + inner * c.blur(grey(c.flat()) * c.alpha, 1.5)


def metal(c: Canvas) -> Tensor:
    # Cold metals only: a yellow one would come near a family that is held out.
    low, middle, high = c.pick_many(
        (
            ((0.1, 0.11, 0.13), (0.5, 0.53, 0.57), (0.97, 0.98, 1.0)),
            ((0.07, 0.09, 0.14), (0.38, 0.45, 0.56), (0.9, 0.96, 1.0)),
            ((0.05, 0.05, 0.06), (0.3, 0.31, 0.33), (0.8, 0.81, 0.84)),
            ((0.08, 0.13, 0.13), (0.35, 0.5, 0.49), (0.85, 0.98, 0.95)),
            ((0.13, 0.06, 0.1), (0.52, 0.4, 0.48), (0.98, 0.9, 0.95)),
        ),
        0.03,
    )
    brushed = c.strokes(1.4, 80, math.pi / 2 + c.scalar(-0.2, 0.2))
    angle = c.scalar(0.6, 1.1)
    lit = c.light(_relief(c, 0.55), angle, 9) * -1
    sheen = 0.5 + 0.12 * torch.sin((c.x - c.y) / 40 + 6 * c.uniform())
    tone = sheen + 0.5 * lit * -1 + 0.12 * (brushed - 0.5)
    inside = smooth(c.alpha, 0.3, 0.7)
    tone = tone + 0.16 * inside * (grey(c.flat()) - 0.35) - 0.1 * (c.outline(5))
    return ramp(tone.clamp(0, 1), (low, middle, high))


def wood(c: Canvas) -> Tensor:
    dark, light = c.pick_many(
        (
            ((0.32, 0.18, 0.09), (0.78, 0.55, 0.33)),
            ((0.2, 0.1, 0.06), (0.52, 0.31, 0.19)),
            ((0.5, 0.34, 0.2), (0.92, 0.76, 0.55)),
            ((0.3, 0.12, 0.08), (0.68, 0.33, 0.22)),
        ),
        0.03,
    )
    rings = c.strokes(7, 200, c.scalar(-0.15, 0.15))
    fine = c.strokes(1.5, 70, 0.0)
    grain = 0.5 + 0.3 * torch.sin(rings * 22) * 0.6 + 0.35 * (fine - 0.5)
    inside = smooth(c.alpha, 0.4, 0.6)
    tone = grey(c.blur(c.flat(), 1.5))
    grain = grain + inside * (0.55 * tone - 0.18) - 0.18 * (1 - inside)
    lit = c.light(_relief(c, 0.7), c.scalar(0.6, 1.0), 8)
    burn = c.lines(2.2, 0.06)
    picture = ramp(grain.clamp(0, 1), (dark, light)) * (1 + 0.5 * lit)
    return (picture * (1 - 0.55 * burn)).clamp(0, 1)


def clay(c: Canvas) -> Tensor:
    c.wobble(1.6, 24)
    solid = smooth(c.blur(c.alpha, 2.2), 0.4, 0.6)
    colour = saturate(c.spread(1.6), c.uniform(0.8, 1.3))
    tint = c.hue((0.1, 0.5), (0.85, 1.0))
    colour = over(colour, tint * (0.35 + 0.65 * grey(colour)), 0.6 * c.chance(0.4))
    colour = 0.1 + 0.85 * colour
    height = 0.5 * c.blur(solid, 4) + 0.7 * c.blur(solid, 11) - 0.25 * c.blur(c.lines(4), 1.6)
    height = height + 0.05 * c.noise(7)
    lit = c.light(height, c.scalar(0.7, 1.1), 13)
    shine = smooth(c.light(c.blur(height, 2.5), 0.9, 16), 0.55, 0.95)
    body = colour * (0.86 + 0.38 * lit) + 0.14 * shine
    shade = c.blur(c.shift(solid, 5, 8), 8)
    return over(c.background * (1 - 0.45 * shade), body.clamp(0, 1), solid)


def low_poly(c: Canvas) -> Tensor:
    cell = c.scalar(13, 22)
    bend = (c.noise(2.2 * cell, 2) - 0.5) * 1.5 * cell
    fx, fy, mx, my = c.boxes(cell, bend)
    upper = (fx + fy < 1).float()
    third = (upper / 3 + (1 - upper) * 2 / 3 - 0.5) * cell
    mx, my = c.unbend(bend, mx + third, my + third)
    picture = c.blur(saturate(c.flat(c.background), c.uniform(1.0, 1.4)), 1.5)
    facet = c.warp(picture, mx, my)
    vary = c.warp(c.noise(1.5), mx, my)
    inside = c.warp(c.blur(c.alpha, 1.5), mx, my)
    facet = facet * (1 + (vary - 0.5) * (0.1 + 0.4 * inside)) + 0.07 * inside * (upper - 0.5)
    return c.blur(facet, 0.5)
