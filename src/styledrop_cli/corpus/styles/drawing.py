"""Families drawn with a line: ink, pencil, chalk, light."""

from __future__ import annotations

import torch
from torch import Tensor

from styledrop_cli.corpus.styles.canvas import CREAMS, Canvas, Colour, grey, over, posterise, saturate, smooth

_INKS: tuple[Colour, ...] = (
    (0.08, 0.08, 0.1),
    (0.08, 0.08, 0.1),
    (0.1, 0.1, 0.12),
    (0.1, 0.15, 0.45),
    (0.4, 0.18, 0.1),
    (0.5, 0.08, 0.12),
    (0.08, 0.3, 0.22),
    (0.3, 0.1, 0.4),
)


def _tinted_paper(c: Canvas, grain: float) -> Tensor:
    """The given background on paper; white paper takes a slight tint of its own."""
    return (c.background * (0.4 * c.pick(CREAMS, 0.02) + 0.6) * c.paper(grain)).clamp(0, 1)


def _ink(c: Canvas, ink: Tensor) -> Tensor:
    """The ink, or a pale one where the background is too dark for it."""
    dark = (grey(c.background).mean((2, 3), keepdim=True) < 0.36).float()
    return ink * (1 - dark) + (0.75 + 0.25 * ink) * dark


def line_drawing(c: Canvas) -> Tensor:
    c.wobble(c.scalar(0.3, 1.6))
    lines = c.lines(c.scalar(1.6, 4.0))
    lines = (lines * (0.75 + 0.5 * c.noise(6))).clamp(0, 1)
    return over(_tinted_paper(c, 0.03), _ink(c, c.pick(_INKS)), lines)


def outline(c: Canvas) -> Tensor:
    c.wobble(c.scalar(0.0, 1.0))
    width = c.scalar(3.0, 8.0)
    dark = c.chance(0.5)
    ink = c.hue((0.5, 0.9), (0.12, 0.35)) * dark + c.hue((0.6, 1), (0.6, 1)) * (1 - dark)
    inner = c.lines(0.6 * width, 0.09)
    fill = saturate(posterise(c.blur(c.flat(), 1.2), 5, 0.2), c.uniform(0.7, 1.5))
    white = c.chance(0.25)
    fill = fill * (1 - white) + white
    picture = over(c.background, fill, smooth(c.alpha, 0.3, 0.7))
    picture = over(picture, ink, inner)
    return over(picture, ink, c.outline(width))


def pencil(c: Canvas) -> Tensor:
    c.wobble(1.0, 12)
    tone = 1 - grey(c.blur(c.flat(), 1.5))
    tone = (tone * 0.8 + 0.12) * smooth(c.alpha, 0.2, 0.8)
    angle = c.scalar(0.5, 1.1)
    hatch = 0.6 * c.strokes(1.8, 40, -angle) + 0.4 * c.noise(1.2)
    shade = smooth(tone * 0.95 - hatch + 0.3, 0.0, 0.75)
    lines = c.lines(1.6, 0.03) + 0.5 * c.shift(c.lines(1.3, 0.08), 1.5, -1.5)
    dark = (0.75 * shade + 0.8 * lines * (0.6 + 0.6 * c.noise(2))).clamp(0, 0.9)
    lead = c.pick(((0.2, 0.2, 0.22), (0.25, 0.25, 0.28), (0.2, 0.2, 0.22), (0.35, 0.2, 0.15)))
    return over(_tinted_paper(c, 0.08), _ink(c, lead), dark)


def crayon(c: Canvas) -> Tensor:
    c.wobble(2.2, 16)
    angle = c.scalar(0.4, 1.2)
    wax = 0.5 * c.strokes(2.6, 46, angle) + 0.5 * c.noise(1.6)
    cover = smooth(wax, 0.3, 0.52)
    colour = saturate(posterise(c.spread(1.5), 5, 0.3), c.uniform(1.2, 1.9))
    lines = c.lines(c.scalar(3, 5.5), 0.06)
    sheet = _tinted_paper(c, 0.05)
    picture = over(sheet, colour, 0.92 * cover * smooth(c.alpha, 0.3, 0.7))
    stick = saturate(colour, 1.2) * 0.45
    return over(picture, stick, lines * smooth(c.noise(1.5), 0.2, 0.5))


def chalk(c: Canvas) -> Tensor:
    c.wobble(1.8)
    board = c.pick(((0.13, 0.24, 0.2), (0.1, 0.1, 0.11), (0.14, 0.16, 0.2), (0.12, 0.28, 0.2)))
    board = board * (0.85 + 0.45 * c.fractal(70)) + 0.04 * c.fractal(20)
    grain = smooth(0.7 * c.noise(1.5) + 0.3 * c.noise(3), 0.28, 0.62)
    white = c.chance(0.4)
    colour = 0.35 + 0.65 * saturate(c.spread(2), 1.6)
    colour = colour * (1 - white) + 0.94 * white
    hatch = smooth(c.strokes(3, 60, c.scalar(0.5, 1.1)), 0.45, 0.7)
    tone = grey(c.blur(c.flat(), 1.5))
    fill = c.uniform(0.15, 0.6) * hatch * (0.3 + tone) * smooth(c.alpha, 0.3, 0.7)
    lines = c.lines(c.scalar(2.6, 4.5), 0.05)
    chalk = torch.maximum(fill, lines) * (0.25 + 0.85 * grain)
    return over(board, colour, chalk.clamp(0, 0.95))


def woodcut(c: Canvas) -> Tensor:
    c.wobble(1.0)
    ink = c.pick(((0.08, 0.07, 0.07), (0.08, 0.07, 0.07), (0.12, 0.14, 0.3), (0.4, 0.1, 0.08), (0.1, 0.22, 0.18)))
    sheet = c.pick(((0.95, 0.91, 0.82), (0.97, 0.96, 0.93), (0.9, 0.83, 0.7), (0.88, 0.9, 0.86)))
    tone = grey(c.blur(c.flat(), 1.8))
    cuts = c.stripes(c.scalar(6.5, 10), c.scalar(1.2, 1.9), 5)
    inside = smooth(c.alpha, 0.4, 0.6)
    black = smooth(cuts - (tone * 1.25 - 0.18), -0.14, 0.14) * inside
    lines = c.lines(3.2, 0.06)
    rays = c.stripes(c.scalar(9, 13), c.scalar(0, 0.4), 6)
    sky = smooth(rays, 0.8, 0.95) * (1 - c.grow(inside, 9)) * c.chance(0.6)
    print_ = torch.maximum(torch.maximum(black, lines), sky)
    wear = smooth(c.strokes(1.6, 50, 0.03), 0.1, 0.3)
    return over(sheet * c.paper(0.05), ink, print_ * (0.8 + 0.2 * wear))


def crosshatch(c: Canvas) -> Tensor:
    c.wobble(0.8)
    tone = grey(c.blur(c.flat(), 1.5))
    inside = smooth(c.alpha, 0.4, 0.6)
    period = c.scalar(4.5, 6.5)
    dark = torch.zeros_like(tone)
    for angle, level in ((0.75, 0.88), (-0.75, 0.62), (0.05, 0.4), (1.55, 0.22)):
        wave = c.stripes(period, angle, 1.6)
        dark = torch.maximum(dark, smooth(wave, 0.6, 0.85) * smooth(level - tone, -0.04, 0.06))
    lines = c.lines(2.0, 0.05)
    ink = _ink(c, c.pick(_INKS))
    return over(_tinted_paper(c, 0.03), ink, torch.maximum(0.9 * dark * inside, lines))


def neon(c: Canvas) -> Tensor:
    wall = c.pick(((0.02, 0.02, 0.03), (0.03, 0.02, 0.07), (0.01, 0.04, 0.06), (0.05, 0.01, 0.05)))
    tube = c.lines(c.scalar(2.6, 4.2), 0.07)
    own = saturate(c.spread(2.5), 3.0)
    own = own / own.amax(1, keepdim=True).clamp(min=0.2)
    split = smooth(c.blur(grey(c.flat()), 3), 0.35, 0.65)
    pair = c.hue((0.75, 1), (0.95, 1)) * split + c.hue((0.75, 1), (0.95, 1)) * (1 - split)
    free = c.chance(0.65)
    colour = pair * free + own * (1 - free)
    lit = colour * tube
    glow = 0.8 * c.blur(lit, 2.5) + 1.1 * c.blur(lit, 7) + 1.3 * c.blur(lit, 20)
    return (wall + glow + lit * 0.7 + 0.6 * smooth(c.blur(tube, 0.8), 0.55, 1.0)).clamp(0, 1)


def blueprint(c: Canvas) -> Tensor:
    blue = c.pick(((0.08, 0.24, 0.55), (0.1, 0.3, 0.62), (0.05, 0.18, 0.42), (0.12, 0.34, 0.58)))
    sheet = blue * (0.92 + 0.16 * c.fractal(60))
    cell = c.scalar(14, 26)
    fx, fy, _, _ = c.boxes(cell)
    grid = ((fx < 1.0 / cell / c.unit) | (fy < 1.0 / cell / c.unit)).float()
    lines = c.lines(c.scalar(1.6, 2.6), 0.035)
    halo = c.outline(6) - c.outline(4.5)
    shade = smooth(c.stripes(6, 0.8, 0.0), 0.75, 0.9) * smooth(0.55 - grey(c.flat()), 0, 0.2)
    white = (0.18 * grid + lines + 0.3 * shade * c.alpha + 0.25 * halo.clamp(0, 1)).clamp(0, 0.95)
    return over(sheet, torch.ones_like(blue), white)


def pastel(c: Canvas) -> Tensor:
    c.wobble(2.5, 10)
    tint = c.hue((0.15, 0.45), (0.9, 1.0))
    colour = c.spread(2.5)
    colour = 0.3 + 0.7 * saturate(colour, 1.1)
    colour = over(colour, tint, 0.25 * c.uniform())
    rub = 0.5 * c.strokes(4, 40, c.scalar(0.4, 1.2)) + 0.5 * c.noise(1.7)
    solid = smooth(c.blur(c.alpha, 2) + 0.5 * (rub - 0.5), 0.3, 0.75)
    sheet = c.background * (0.5 + 0.5 * c.pick(((0.93, 0.9, 0.86), (1, 1, 1), (0.86, 0.88, 0.9))))
    sheet = sheet * c.paper(0.12)
    picture = over(sheet, colour, solid * (0.55 + 0.45 * smooth(rub, 0.25, 0.6)))
    return over(picture, colour * 0.55, 0.6 * c.lines(3.5, 0.07) * smooth(rub, 0.3, 0.6))
