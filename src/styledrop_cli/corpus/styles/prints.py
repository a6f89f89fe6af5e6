"""Families of colour: painted, printed, photographed, on a screen."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from styledrop_cli.corpus.styles.canvas import (
    CREAMS,
    Canvas,
    Colour,
    grey,
    kuwahara,
    over,
    posterise,
    ramp,
    saturate,
    smooth,
)


def watercolor(c: Canvas) -> Tensor:
    c.wobble(3.0, 14)
    c.wobble(1.2, 5)
    colour = saturate(c.spread(1.8), c.uniform(0.9, 1.5)).clamp(0.06, 0.99)
    wash = c.fractal(48)
    solid = smooth(c.alpha + 0.35 * (wash - 0.5), 0.35, 0.65)
    rim = (solid - c.blur(solid, 3)).clamp(min=0) * 2
    inner = (c.blur(c.flat(), 1) - c.blur(c.flat(), 4)).abs().amax(1, keepdim=True) * 1.5
    density = c.uniform(0.55, 0.95) * (0.45 + 1.0 * wash) + 0.9 * rim + inner
    density = density * (0.85 + 0.3 * c.noise(1.8))
    halo = smooth(c.blur(c.alpha, 8) + 0.5 * (c.fractal(24) - 0.5), 0.35, 0.6) * (1 - solid)
    sheet = c.background.clamp(0.05, 1) ** (0.55 + 0.8 * c.fractal(70))
    sheet = sheet * (0.3 * c.pick(CREAMS, 0.02) + 0.7)
    painted = colour ** (density * solid + 0.18 * halo)
    # A wash covers the sheet's colour a little: pigment is not a perfect filter.
    return (sheet * (1 - 0.75 * solid) + 0.75 * solid) * painted * c.paper(0.09)


def oil(c: Canvas) -> Tensor:
    tint = c.hue((0.15, 0.6), (0.7, 0.95))
    pale = c.background * over(torch.ones_like(tint), tint, 0.35 * c.chance(0.5))
    picture = saturate(c.flat(pale * (0.9 + 0.1 * c.fractal(40))), c.uniform(1.0, 1.5))
    angle = c.scalar(0, math.pi)
    bristles = 0.55 * c.strokes(2.5, 30, angle) + 0.45 * c.strokes(3, 22, angle + 1.1)
    drag = (bristles - 0.5) * c.scalar(12, 22)
    picture = c.warp(picture, drag * math.sin(angle), drag * math.cos(angle))
    picture = kuwahara(picture, max(2, round(c.scalar(3, 5) * c.unit)))
    picture = c.blur(picture, 0.6) * (0.92 + 0.16 * bristles)
    return picture + 0.07 * c.light(c.blur(bristles, 0.7), 0.9, 3.0)


_DUOS: tuple[tuple[Colour, Colour, Colour], ...] = (
    ((0.1, 0.08, 0.35), (0.9, 0.2, 0.45), (1.0, 0.85, 0.6)),
    ((0.02, 0.2, 0.3), (0.1, 0.6, 0.6), (0.98, 0.9, 0.7)),
    ((0.25, 0.02, 0.2), (0.95, 0.4, 0.2), (1.0, 0.95, 0.75)),
    ((0.05, 0.1, 0.2), (0.2, 0.45, 0.9), (0.85, 0.98, 1.0)),
    ((0.1, 0.2, 0.08), (0.45, 0.7, 0.2), (0.98, 0.98, 0.75)),
    ((0.2, 0.05, 0.35), (0.6, 0.35, 0.85), (0.75, 1.0, 0.85)),
    ((0.35, 0.05, 0.08), (0.9, 0.25, 0.25), (1.0, 0.9, 0.88)),
    ((0.05, 0.05, 0.05), (0.85, 0.1, 0.12), (0.96, 0.93, 0.86)),
)


def duotone(c: Canvas) -> Tensor:
    palette = c.pick_many(_DUOS)
    tone = grey(c.blur(c.flat(), 1.3))
    steps = posterise(((tone - 0.1) * 1.15).clamp(0, 1), 4, 0.08)
    # The thing keeps clear of the ground's tone: dark on light, or light on dark.
    night = c.chance(0.45)
    thing = ramp(night * (0.38 + 0.62 * steps) + (1 - night) * 0.72 * steps, palette)
    ground = night * (0.8 * palette[0] + 0.1 * palette[1]) + (1 - night) * palette[2]
    return over(ground + 0 * thing, thing, smooth(c.alpha, 0.4, 0.6)) * c.paper(0.03)


def pop_art(c: Canvas) -> Tensor:
    cell = c.scalar(5.5, 9)
    angle = c.scalar(0.3, 0.9)
    u = c.x * math.cos(angle) + c.y * math.sin(angle)
    v = -c.x * math.sin(angle) + c.y * math.cos(angle)
    wave = 0.5 + 0.25 * (torch.cos(u * (2 * math.pi / cell)) + torch.cos(v * (2 * math.pi / cell)))
    colour = saturate(posterise(saturate(c.blur(c.flat(), 1.5), 1.6), 3, 0.1), 1.4)
    tone = grey(c.blur(c.flat(), 2))
    dots = smooth(wave - (0.25 + 0.75 * tone), -0.06, 0.06)
    pigment = c.hue((0.7, 1.0), (0.7, 1.0))
    thing = over(colour, pigment * 0.6 * c.chance(0.6) + colour * 0.55, dots * 0.8)
    ground = c.pick(
        ((1.0, 0.87, 0.1), (0.1, 0.7, 0.9), (0.98, 0.35, 0.55), (0.95, 0.95, 0.9), (0.4, 0.8, 0.35), (1.0, 0.55, 0.15))
    )
    spot = c.pick(((1.0, 1.0, 1.0), (0.95, 0.2, 0.25), (0.15, 0.35, 0.85)))
    fade = 0.95 - 0.55 * (c.y / 256)
    back = over(ground + 0 * wave, spot, smooth(wave - fade, -0.06, 0.06))
    picture = over(back, thing, smooth(c.alpha, 0.4, 0.6))
    ink = torch.full_like(ground, 0.05)
    return over(over(picture, ink, c.lines(2.6, 0.09)), ink, c.outline(4))


def sepia(c: Canvas) -> Tensor:
    ground = c.background * (0.78 + 0.18 * c.fractal(90))
    shade = c.blur(c.shift(c.alpha, 3, 6), 9)
    picture = c.blur(c.flat(ground * (1 - 0.4 * shade)), c.scalar(0.8, 1.6))
    tone = grey(picture)
    dark, middle, light = c.pick_many(
        (
            ((0.15, 0.08, 0.04), (0.58, 0.42, 0.27), (0.97, 0.89, 0.74)),
            ((0.1, 0.07, 0.05), (0.5, 0.4, 0.3), (0.93, 0.88, 0.78)),
            ((0.2, 0.1, 0.05), (0.64, 0.43, 0.25), (0.98, 0.86, 0.66)),
        )
    )
    radius = ((c.x - 128) / 128).square() + ((c.y - 128) / 128).square()
    tone = (0.5 + 1.15 * (tone - 0.5)) * (1.04 - 0.22 * radius) + 0.12 * (c.noise(1) - 0.5)
    scratch = smooth(c.strokes(1.0, 200, 0.0), 0.86, 0.97)
    return ramp((tone + 0.12 * scratch).clamp(0, 1), (dark, middle, light))


_SKIES: tuple[tuple[Colour, Colour, Colour, Colour], ...] = (
    ((0.2, 0.12, 0.38), (0.72, 0.22, 0.42), (0.98, 0.5, 0.25), (1.0, 0.82, 0.42)),
    ((0.1, 0.2, 0.45), (0.5, 0.4, 0.6), (0.95, 0.55, 0.45), (1.0, 0.8, 0.55)),
    ((0.35, 0.05, 0.15), (0.8, 0.2, 0.12), (0.98, 0.45, 0.1), (1.0, 0.75, 0.2)),
    ((0.25, 0.2, 0.5), (0.7, 0.4, 0.7), (0.98, 0.6, 0.65), (1.0, 0.85, 0.7)),
)


def sunset(c: Canvas) -> Tensor:
    sky = c.pick_many(_SKIES)
    horizon = c.uniform(0.8, 0.92) * 256
    picture = ramp((c.y / horizon).clamp(0, 1), sky)
    sun_x, sun_y, sun_r = c.uniform(60, 196), c.uniform(90, 190), c.uniform(26, 48)
    far = ((c.x - sun_x).square() + (c.y - sun_y).square()).sqrt() / sun_r
    sun = 0.5 * sky[3] + 0.5
    picture = over(picture, sun, 0.55 * torch.exp(-((far - 1).clamp(min=0))))
    picture = over(picture, sun, smooth(far, 1.03, 0.97))
    bank = smooth(c.noise(26, stretch=0.3), 0.55, 0.85) * 0.25
    picture = over(picture, sky[1], bank)
    dark = sky[0] * 0.22
    land = smooth(c.y - horizon - 14 * (c.noise(70)[:, :, :1] - 0.5), -0.6, 0.6)
    picture = over(picture, dark, land)
    detail = c.lines(1.8, 0.08) * smooth(c.blur(c.alpha, 2), 0.9, 1.0)
    thing = dark + detail * sky[2] * 0.35
    return over(picture, thing, smooth(c.alpha, 0.4, 0.6))


def glitch(c: Canvas) -> Tensor:
    rows = c.noise(5)[..., :1] - 0.5
    jump = c.noise(18)[..., :1]
    dx = 50 * rows * (jump > 0.62).float()
    picture = c.flat(c.background * 0.96)
    split = c.scalar(4, 9)
    parts = [c.warp(picture[:, i : i + 1], dx + s, torch.zeros_like(dx)) for i, s in enumerate((-split, 0.0, split))]
    picture = torch.cat(parts, 1)
    scan = 0.88 + 0.12 * torch.sin(c.y * (2 * math.pi / 4))
    return picture * scan + 0.08 * (c.noise(1) - 0.5)


def stencil(c: Canvas) -> Tensor:
    wall = c.pick(((0.8, 0.78, 0.74), (0.55, 0.53, 0.52), (0.72, 0.5, 0.42), (0.9, 0.89, 0.86), (0.4, 0.45, 0.5)))
    wall = wall * (0.85 + 0.25 * c.fractal(40)) * c.paper(0.15)
    tone = grey(c.blur(c.flat(), 2.2))
    solid = smooth(c.blur(c.alpha, 1.5), 0.45, 0.55)
    first, second = c.hue((0.5, 0.95), (0.6, 1.0)), c.hue((0.0, 0.4), (0.02, 0.2))
    mist = (c.blur(c.alpha, 9) * 0.6 * smooth(c.noise(1.2), 0.3, 0.9)).clamp(0, 1)
    wear = 0.75 + 0.25 * smooth(c.noise(1.6) + 0.4 * c.fractal(20), 0.3, 0.7)
    picture = over(wall, first, mist * (1 - solid))
    picture = over(picture, first, solid * wear)
    # Half of the thing is the dark layer, whatever its own colours are.
    middle = (tone * solid).sum((2, 3), keepdim=True) / solid.sum((2, 3), keepdim=True).clamp(min=1)
    layer = smooth(0.92 * middle - tone + 0.08 * (c.noise(20) - 0.5), -0.05, 0.05) * solid
    return over(picture, second, torch.maximum(layer, c.lines(3.5, 0.1) * solid) * wear)


def heat(c: Canvas) -> Tensor:
    palette = c.pick_many(
        (
            ((0.03, 0.02, 0.2), (0.45, 0.05, 0.6), (0.9, 0.2, 0.35), (1.0, 0.65, 0.1), (1.0, 1.0, 0.75)),
            ((0.0, 0.05, 0.35), (0.0, 0.55, 0.75), (0.2, 0.85, 0.3), (1.0, 0.85, 0.1), (0.95, 0.15, 0.1)),
        ),
        0.02,
    )
    warm = 0.35 + 0.6 * c.blur(grey(c.flat()), 2)
    body = c.blur(c.alpha, 2.5)
    glow = 0.1 + 0.16 * c.blur(c.alpha, 16) + 0.06 * c.fractal(60)
    return ramp((glow * (1 - body) + warm * body).clamp(0, 1), palette)


def vaporwave(c: Canvas) -> Tensor:
    palette = c.pick_many(
        (
            ((0.16, 0.05, 0.4), (0.95, 0.2, 0.7), (0.3, 0.95, 0.98), (0.95, 1.0, 1.0)),
            ((0.1, 0.05, 0.3), (0.5, 0.2, 0.9), (1.0, 0.45, 0.75), (1.0, 0.95, 0.8)),
            ((0.05, 0.12, 0.35), (0.1, 0.55, 0.85), (0.95, 0.5, 0.9), (1.0, 0.92, 1.0)),
        )
    )
    thing = ramp((c.flat().mean(1, keepdim=True) * 1.05).clamp(0, 1), palette)
    horizon = c.uniform(0.55, 0.7) * 256
    below = smooth(c.y - horizon, -0.5, 0.5)
    picture = ramp((c.y / horizon).clamp(0, 1) * 0.55, palette)
    depth = (c.y - horizon).clamp(min=1.0)
    across = ((c.x - 128) / depth * 2.2) % 1
    down = (180 / depth) % 1
    wide = 1.8 / depth + 0.02
    grid = torch.maximum((across < 2.2 * wide).float(), (down < 0.08 + 12 * wide / depth).float())
    floor = over(palette[0] * 0.7 + 0 * picture, palette[2], 0.85 * grid * smooth(depth, 2, 30))
    picture = over(picture, floor, below)
    return over(picture, thing, c.alpha)
