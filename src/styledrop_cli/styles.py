"""Procedural style families in batched torch: a picture of a thing in, a styled picture out.

``apply_style("watercolor", rgba, background, generator)`` draws the thing in ``rgba`` on
``background`` the way the family says. Everything random comes from the generator: colours and
strengths are drawn per picture, lengths that shape a filter (line widths, tile sizes) once per
call. All lengths are written for 256 px and scale with the picture.

Families held out for measuring must never be added here: stained glass, risograph, cross
stitch, gold.

Sources: Kuwahara filter (Kuwahara et al. 1976); watercolour transmittance and edge darkening
after Bousseau et al. 2006; the rest is plain image arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from styledrop_cli.errors import UsageError

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class StyleFamily:
    """One family: its name, how captions call it, and whether the given background shows."""

    name: str
    descriptions: tuple[str, ...]
    keeps_background: bool
    draw: Callable[[Canvas], Tensor]


class Canvas:
    """One batch to style, with seeded random draws and the filters the families share."""

    def __init__(self, rgba: Tensor, background: Tensor, generator: torch.Generator) -> None:
        """Take ``[B, 4, S, S]`` and ``[B, 3, S, S]`` in [0, 1]."""
        self.rgb, self.alpha = rgba[:, :3], rgba[:, 3:]
        self.background = background
        self.generator = generator
        self.batch, self.size = rgba.shape[0], rgba.shape[-1]
        self.unit = self.size / 256
        line = torch.arange(self.size, device=rgba.device, dtype=torch.float32) / self.unit
        self.y, self.x = line.view(1, 1, -1, 1), line.view(1, 1, 1, -1)

    # -- random draws ---------------------------------------------------------------------

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """One number a picture, ``[B, 1, 1, 1]``."""
        draw = torch.rand(self.batch, 1, 1, 1, generator=self.generator, device=self._home)
        return (low + (high - low) * draw).to(self.rgb.device)

    def scalar(self, low: float, high: float) -> float:
        """One number for the whole call."""
        draw = torch.rand((), generator=self.generator, device=self._home)
        return low + (high - low) * float(draw)

    def pick(self, table: Sequence[Colour], vary: float = 0.05) -> Tensor:
        """One colour a picture out of a table, slightly varied, ``[B, 3, 1, 1]``."""
        return self.pick_many([(c,) for c in table], vary)[0]

    def pick_many(self, table: Sequence[Sequence[Colour]], vary: float = 0.04) -> list[Tensor]:
        """One palette a picture: a list of ``[B, 3, 1, 1]``."""
        rows = torch.tensor(table, device=self._home)
        index = torch.randint(len(table), (self.batch,), generator=self.generator, device=self._home)
        chosen = rows[index]
        noise = torch.rand(chosen.shape, generator=self.generator, device=self._home)
        chosen = (chosen + vary * (2 * noise - 1)).clamp(0, 1).to(self.rgb.device)
        return [c.view(self.batch, 3, 1, 1) for c in chosen.unbind(1)]

    def hue(self, saturation: tuple[float, float], value: tuple[float, float]) -> Tensor:
        """One random colour a picture, ``[B, 3, 1, 1]``."""
        return hsv(self.uniform(), self.uniform(*saturation), self.uniform(*value))

    def chance(self, probability: float) -> Tensor:
        """1 with the given probability, else 0, per picture."""
        return (self.uniform() < probability).float()

    def noise(self, cell: float, channels: int = 1, stretch: float = 1.0) -> Tensor:
        """Smooth noise in [0, 1]; ``cell`` px wide, ``cell * stretch`` px tall."""
        width = max(2, min(self.size, round(256 / cell)))
        height = max(2, min(self.size, round(256 / (cell * stretch))))
        raw = torch.rand(self.batch, channels, height, width, generator=self.generator, device=self._home).to(
            self.rgb.device
        )
        if width == height == self.size:
            return raw
        return F.interpolate(raw, size=(self.size, self.size), mode="bilinear", align_corners=False)

    def fractal(self, cell: float, channels: int = 1) -> Tensor:
        """Three octaves of noise, contrast stretched, in [0, 1]."""
        mix = sum(w * self.noise(cell / s, channels) for w, s in ((0.5, 1), (0.3, 2), (0.2, 4.5)))
        assert isinstance(mix, Tensor)
        return ((mix - 0.5) * 1.6 + 0.5).clamp(0, 1)

    def strokes(self, width: float, length: float, angle: float) -> Tensor:
        """Noise stretched along ``angle`` (radians), gently curved, in [0, 1]."""
        streaks = self.noise(width, stretch=length / width)
        bend = 10 * (self.noise(60) - 0.5)
        x, y = self.x - 128 + bend, self.y - 128 + bend
        u = (x * math.cos(angle) + y * math.sin(angle)) / 182
        v = (-x * math.sin(angle) + y * math.cos(angle)) / 182
        grid = torch.stack((u.squeeze(1), v.squeeze(1)), -1)
        return F.grid_sample(streaks, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    @property
    def _home(self) -> torch.device:
        return self.generator.device

    # -- filters --------------------------------------------------------------------------

    def blur(self, x: Tensor, sigma: float) -> Tensor:
        """Gaussian blur; wide ones are done on a smaller picture."""
        sigma *= self.unit
        if sigma < 0.3:
            return x
        shrink = 1
        while sigma / shrink > 3 and x.shape[-1] // (shrink * 2) >= 8:
            shrink *= 2
        small = F.avg_pool2d(x, shrink) if shrink > 1 else x
        sigma /= shrink
        radius = min(max(1, math.ceil(2.5 * sigma)), small.shape[-1] - 1)
        steps = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
        kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
        kernel = (kernel / kernel.sum()).view(1, 1, -1)
        flat = small.flatten(0, 1).unsqueeze(1)
        flat = F.pad(flat, (radius,) * 4, mode="replicate")
        flat = F.conv2d(F.conv2d(flat, kernel.unsqueeze(2)), kernel.unsqueeze(3))
        out = flat.view(small.shape)
        if shrink > 1:
            out = F.interpolate(out, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return out

    def grow(self, mask: Tensor, radius: float) -> Tensor:
        """Dilate by ``radius`` px with a rounded shape."""
        k = max(1, round(radius * self.unit))
        square = max(1, round(0.6 * k))
        plus = torch.maximum(_max1d(mask, k, 1, square), _max1d(mask, square, 1, k))
        plus = torch.maximum(plus, _max1d(mask, round(0.85 * k), 1, round(0.85 * k)))
        return self.blur(plus, 0.7)

    def shift(self, x: Tensor, dx: float, dy: float) -> Tensor:
        """Move by whole pixels; what comes in repeats the border."""
        n = round(max(abs(dx), abs(dy)) * self.unit) + 1
        padded = F.pad(x, (n, n, n, n), mode="replicate")
        left, top = n - round(dx * self.unit), n - round(dy * self.unit)
        return padded[..., top : top + self.size, left : left + self.size]

    def warp(self, x: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
        """Sample ``x`` at positions moved by (dx, dy) px (``[B, 1, S, S]`` each)."""
        u = (self.x + dx + 0.5 / self.unit) / 128 - 1
        v = (self.y + dy + 0.5 / self.unit) / 128 - 1
        u, v = u + 0 * v, v + 0 * u
        grid = torch.stack((u.squeeze(1), v.squeeze(1)), -1).expand(x.shape[0], -1, -1, -1)
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def wobble(self, amount: float, cell: float = 18) -> None:
        """Bend the thing as an unsteady hand would."""
        bend = (self.noise(cell, 2) - 0.5) * 2 * amount
        premultiplied = torch.cat((self.rgb * self.alpha, self.alpha), 1)
        moved = self.warp(premultiplied, bend[:, :1], bend[:, 1:])
        self.alpha = moved[:, 3:]
        self.rgb = (moved[:, :3] / self.alpha.clamp(min=1e-3)).clamp(0, 1)

    def flat(self, under: Tensor | float = 1.0) -> Tensor:
        """The thing over a background."""
        return self.rgb * self.alpha + under * (1 - self.alpha)

    def spread(self, sigma: float) -> Tensor:
        """The thing's colours, blurred and continued beyond its outline."""
        both = self.blur(torch.cat((self.rgb * self.alpha, self.alpha), 1), sigma)
        wide = self.blur(both, 4 * sigma + 4)
        both = both + 0.05 * wide
        return (both[:, :3] / both[:, 3:].clamp(min=1e-4)).clamp(0, 1)

    def lines(self, width: float, threshold: float = 0.05) -> Tensor:
        """Outline and inner contours as lines of even width, in [0, 1]."""
        stack = self.blur(torch.cat((self.flat(), self.alpha), 1), 0.45 * width + 0.4)
        gx = F.pad(stack[..., 1:-1, 2:] - stack[..., 1:-1, :-2], (1, 1, 1, 1))
        gy = F.pad(stack[..., 2:, 1:-1] - stack[..., :-2, 1:-1], (1, 1, 1, 1))
        slope = (gx.square() + gy.square()).sqrt().amax(1, keepdim=True)
        slope = slope * (0.45 * width + 0.7) * self.unit
        k = max(1, round((width + 1) * self.unit))
        peak = _max1d(slope, k, 1, k)
        ridge = slope / peak.clamp(min=1e-4)
        return smooth(ridge, 0.55, 0.85) * smooth(peak, threshold, 2.5 * threshold)

    def outline(self, width: float) -> Tensor:
        """A band around the silhouette, in [0, 1]."""
        solid = smooth(self.alpha, 0.3, 0.7)
        return (self.grow(solid, width) - solid).clamp(0, 1)

    def stripes(self, period: float, angle: float, bend: float = 2.0) -> Tensor:
        """A wave in [0, 1] across ``angle``: compare with a tone to hatch."""
        phase = self.x * math.cos(angle) + self.y * math.sin(angle)
        phase = phase + bend * (self.noise(30) - 0.5) * 2
        return 0.5 + 0.5 * torch.sin(phase * (2 * math.pi / period))

    def paper(self, strength: float) -> Tensor:
        """Paper grain as a factor just below 1."""
        grain = 0.6 * self.noise(1.6) + 0.4 * self.noise(4)
        return 1 - strength * grain

    def boxes(
        self,
        cell: float,
        bend: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Cells of a grid, bent by ``[B, 2, S, S]`` px.

        Returns the fractional position in the cell and the offset to its middle, both in the
        bent coordinates.
        """
        x, y = self.x + 0 * self.y, self.y + 0 * self.x
        if bend is not None:
            x, y = x + bend[:, :1], y + bend[:, 1:]
        fx, fy = (x / cell) % 1, (y / cell) % 1
        return fx, fy, (0.5 - fx) * cell, (0.5 - fy) * cell

    def unbend(self, bend: Tensor, mx: Tensor, my: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets in bent coordinates to offsets in the picture, the same for a whole cell."""
        tx, ty = mx + bend[:, :1], my + bend[:, 1:]
        there = self.warp(bend, tx, ty)
        return tx - there[:, :1], ty - there[:, 1:]

    def light(self, height: Tensor, angle: float, strength: float) -> Tensor:
        """Slope of a height field towards a light, about -1..1."""
        gx = F.pad(height[..., 2:] - height[..., :-2], (1, 1))
        gy = F.pad(height[..., 2:, :] - height[..., :-2, :], (0, 0, 1, 1))
        slope = (gx * math.cos(angle) + gy * math.sin(angle)) * (strength * self.unit)
        return slope / (1 + slope.square()).sqrt()


# -- colour arithmetic --------------------------------------------------------------------


def hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Hue, saturation, value ``[B, 1, ...]`` in [0, 1] to RGB ``[B, 3, ...]``."""
    parts = []
    for n in (5, 3, 1):
        k = (n + hue * 6) % 6
        parts.append(value - value * saturation * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.cat(parts, 1)


def grey(rgb: Tensor) -> Tensor:
    """Luma ``[B, 1, H, W]``."""
    return 0.3 * rgb[:, :1] + 0.59 * rgb[:, 1:2] + 0.11 * rgb[:, 2:]


def smooth(x: Tensor, low: float, high: float) -> Tensor:
    """Smoothstep from 0 at ``low`` to 1 at ``high``."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def saturate(rgb: Tensor, amount: Tensor | float) -> Tensor:
    """Scale the distance from grey."""
    base = grey(rgb)
    return (base + (rgb - base) * amount).clamp(0, 1)


def posterise(x: Tensor, levels: int, soft: float = 0.0) -> Tensor:
    """Round to ``levels`` steps."""
    scaled = x * (levels - 1)
    if soft:
        base = scaled.floor()
        return (base + smooth(scaled - base, 0.5 - soft, 0.5 + soft)) / (levels - 1)
    return scaled.round() / (levels - 1)


def ramp(tone: Tensor, colours: Sequence[Tensor]) -> Tensor:
    """Map tones in [0, 1] along evenly spaced colours (each ``[B, 3, 1, 1]``)."""
    position = tone * (len(colours) - 1)
    out = colours[0] + torch.zeros_like(position)
    for i in range(len(colours) - 1):
        out = out + (colours[i + 1] - colours[i]) * (position - i).clamp(0, 1)
    return out


def over(under: Tensor, colour: Tensor, mask: Tensor) -> Tensor:
    """``colour`` over ``under`` where ``mask``."""
    return under + (colour - under) * mask


def _max1d(x: Tensor, rx: int, channels: int, ry: int) -> Tensor:
    x = F.max_pool2d(x, (1, 2 * rx + 1), 1, (0, rx))
    return F.max_pool2d(x, (2 * ry + 1, 1), 1, (ry, 0))


def kuwahara(x: Tensor, radius: int) -> Tensor:
    """Kuwahara filter: each pixel takes the mean of its most even quadrant."""
    k = radius + 1
    luma = grey(x)
    stack = torch.cat((x, luma, luma.square()), 1)
    stack = F.pad(stack, (radius,) * 4, mode="replicate")
    mean = F.avg_pool2d(F.avg_pool2d(stack, (1, k), 1), (k, 1), 1)
    variance = mean[:, 4:] - mean[:, 3:4].square()
    h, w = x.shape[-2:]
    best, least = mean[:, :3, :h, :w], variance[..., :h, :w]
    for top, left in ((0, radius), (radius, 0), (radius, radius)):
        here = variance[..., top : top + h, left : left + w]
        better = here < least
        best = torch.where(better, mean[:, :3, top : top + h, left : left + w], best)
        least = torch.minimum(here, least)
    return best


# -- the families -------------------------------------------------------------------------

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
_CREAMS: tuple[Colour, ...] = (
    (1.0, 1.0, 1.0),
    (0.98, 0.96, 0.92),
    (0.97, 0.94, 0.86),
    (0.95, 0.95, 0.95),
)


def _tinted_paper(c: Canvas, grain: float) -> Tensor:
    """The given background on paper; white paper takes a slight tint of its own."""
    return (c.background * (0.4 * c.pick(_CREAMS, 0.02) + 0.6) * c.paper(grain)).clamp(0, 1)


def _ink(c: Canvas, ink: Tensor) -> Tensor:
    """The ink, or a pale one where the background is too dark for it."""
    dark = (grey(c.background).mean((2, 3), keepdim=True) < 0.36).float()
    return ink * (1 - dark) + (0.75 + 0.25 * ink) * dark


def _line_drawing(c: Canvas) -> Tensor:
    c.wobble(c.scalar(0.3, 1.6))
    lines = c.lines(c.scalar(1.6, 4.0))
    lines = (lines * (0.75 + 0.5 * c.noise(6))).clamp(0, 1)
    return over(_tinted_paper(c, 0.03), _ink(c, c.pick(_INKS)), lines)


def _outline(c: Canvas) -> Tensor:
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


def _pencil(c: Canvas) -> Tensor:
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


def _watercolor(c: Canvas) -> Tensor:
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
    sheet = sheet * (0.3 * c.pick(_CREAMS, 0.02) + 0.7)
    painted = colour ** (density * solid + 0.18 * halo)
    # A wash covers the sheet's colour a little: pigment is not a perfect filter.
    return (sheet * (1 - 0.75 * solid) + 0.75 * solid) * painted * c.paper(0.09)


def _oil(c: Canvas) -> Tensor:
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


def _crayon(c: Canvas) -> Tensor:
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


def _chalk(c: Canvas) -> Tensor:
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


def _woodcut(c: Canvas) -> Tensor:
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


def _crosshatch(c: Canvas) -> Tensor:
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


def _neon(c: Canvas) -> Tensor:
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


def _blueprint(c: Canvas) -> Tensor:
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


def _duotone(c: Canvas) -> Tensor:
    palette = c.pick_many(_DUOS)
    tone = grey(c.blur(c.flat(), 1.3))
    steps = posterise(((tone - 0.1) * 1.15).clamp(0, 1), 4, 0.08)
    # The thing keeps clear of the ground's tone: dark on light, or light on dark.
    night = c.chance(0.45)
    thing = ramp(night * (0.38 + 0.62 * steps) + (1 - night) * 0.72 * steps, palette)
    ground = night * (0.8 * palette[0] + 0.1 * palette[1]) + (1 - night) * palette[2]
    return over(ground + 0 * thing, thing, smooth(c.alpha, 0.4, 0.6)) * c.paper(0.03)


def _pop_art(c: Canvas) -> Tensor:
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


def _pixel_art(c: Canvas) -> Tensor:
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


def _mosaic(c: Canvas) -> Tensor:
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


def _paper_cut(c: Canvas) -> Tensor:
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


def _sticker(c: Canvas) -> Tensor:
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


def _metal(c: Canvas) -> Tensor:
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


def _wood(c: Canvas) -> Tensor:
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


def _clay(c: Canvas) -> Tensor:
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


def _sepia(c: Canvas) -> Tensor:
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


def _low_poly(c: Canvas) -> Tensor:
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


_SKIES: tuple[tuple[Colour, Colour, Colour, Colour], ...] = (
    ((0.2, 0.12, 0.38), (0.72, 0.22, 0.42), (0.98, 0.5, 0.25), (1.0, 0.82, 0.42)),
    ((0.1, 0.2, 0.45), (0.5, 0.4, 0.6), (0.95, 0.55, 0.45), (1.0, 0.8, 0.55)),
    ((0.35, 0.05, 0.15), (0.8, 0.2, 0.12), (0.98, 0.45, 0.1), (1.0, 0.75, 0.2)),
    ((0.25, 0.2, 0.5), (0.7, 0.4, 0.7), (0.98, 0.6, 0.65), (1.0, 0.85, 0.7)),
)


def _sunset(c: Canvas) -> Tensor:
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


def _glitch(c: Canvas) -> Tensor:
    rows = c.noise(5)[..., :1] - 0.5
    jump = c.noise(18)[..., :1]
    dx = 50 * rows * (jump > 0.62).float()
    picture = c.flat(c.background * 0.96)
    split = c.scalar(4, 9)
    parts = [c.warp(picture[:, i : i + 1], dx + s, torch.zeros_like(dx)) for i, s in enumerate((-split, 0.0, split))]
    picture = torch.cat(parts, 1)
    scan = 0.88 + 0.12 * torch.sin(c.y * (2 * math.pi / 4))
    return picture * scan + 0.08 * (c.noise(1) - 0.5)


def _stencil(c: Canvas) -> Tensor:
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


def _heat(c: Canvas) -> Tensor:
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


def _vaporwave(c: Canvas) -> Tensor:
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


def _pastel(c: Canvas) -> Tensor:
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


_FAMILIES = (
    StyleFamily("line-drawing", ("line drawing", "ink line drawing", "line art"), True, _line_drawing),
    StyleFamily("outline", ("bold outline", "thick outline cartoon", "bold outlined"), True, _outline),
    StyleFamily("pencil", ("pencil sketch", "pencil drawing", "graphite sketch"), True, _pencil),
    StyleFamily(
        "watercolor", ("watercolor painting", "watercolour", "watercolor", "watercolour painting"), True, _watercolor
    ),
    StyleFamily("oil", ("oil painting", "oil paint", "impasto oil painting"), True, _oil),
    StyleFamily("crayon", ("crayon drawing", "wax crayon", "crayon"), True, _crayon),
    StyleFamily("chalk", ("chalk drawing", "chalkboard", "chalk on a board"), False, _chalk),
    StyleFamily("woodcut", ("woodcut", "woodcut print", "linocut"), False, _woodcut),
    StyleFamily("crosshatch", ("ink crosshatch", "crosshatched ink drawing", "engraving"), True, _crosshatch),
    StyleFamily("neon", ("neon", "neon sign", "glowing neon"), False, _neon),
    StyleFamily("blueprint", ("blueprint", "technical blueprint"), False, _blueprint),
    StyleFamily("duotone", ("duotone poster", "duotone", "screen print poster"), False, _duotone),
    StyleFamily("pop-art", ("pop art", "halftone pop art", "comic book"), False, _pop_art),
    StyleFamily("pixel-art", ("pixel art", "8-bit pixel art", "retro video game"), True, _pixel_art),
    StyleFamily("mosaic", ("mosaic", "tile mosaic", "mosaic of small tiles"), True, _mosaic),
    StyleFamily("paper-cut", ("paper cut", "paper cutout", "layered paper"), True, _paper_cut),
    StyleFamily("sticker", ("sticker", "die-cut sticker", "glossy sticker"), True, _sticker),
    StyleFamily("metal", ("embossed metal", "brushed steel relief", "metal"), False, _metal),
    StyleFamily("wood", ("wood carving", "carved wood", "wooden"), False, _wood),
    StyleFamily("clay", ("clay", "clay sculpture", "plasticine"), True, _clay),
    StyleFamily("sepia", ("sepia photo", "old photograph", "vintage sepia photograph"), True, _sepia),
    StyleFamily("low-poly", ("low poly", "low-poly", "polygonal"), True, _low_poly),
    StyleFamily("sunset", ("sunset silhouette", "silhouette at sunset"), False, _sunset),
    StyleFamily("glitch", ("glitch", "glitch art", "broken television"), True, _glitch),
    StyleFamily("stencil", ("spray paint stencil", "stencil graffiti", "street art"), False, _stencil),
    StyleFamily("heat-map", ("thermal image", "heat map", "infrared"), False, _heat),
    StyleFamily("vaporwave", ("vaporwave", "retro synthwave", "synthwave"), False, _vaporwave),
    StyleFamily("pastel", ("pastel drawing", "soft pastel", "chalk pastel"), True, _pastel),
)
STYLES: dict[str, StyleFamily] = {family.name: family for family in _FAMILIES}


def apply_style(name: str, rgba: Tensor, background: Tensor, generator: torch.Generator) -> Tensor:
    """Draw things in a style.

    Args:
        name: a key of ``STYLES``.
        rgba: ``[B, 4, S, S]`` in [0, 1], colours not multiplied by alpha.
        background: ``[B, 3, S, S]`` in [0, 1]; families that bring their own ignore it.
        generator: where every random parameter comes from.

    Returns:
        ``[B, 3, S, S]`` in [0, 1].

    Raises:
        UsageError: for an unknown name or shapes that do not fit.
    """
    family = STYLES.get(name)
    if family is None:
        raise UsageError(f"unknown style family: {name}", hint=f"one of: {', '.join(STYLES)}")
    batch, size = rgba.shape[0], rgba.shape[-1]
    if rgba.shape != (batch, 4, size, size) or background.shape != (batch, 3, size, size):
        raise UsageError(
            f"apply_style wants [B,4,S,S] and [B,3,S,S], got {tuple(rgba.shape)} and {tuple(background.shape)}"
        )
    with torch.no_grad():
        drawn = family.draw(Canvas(rgba, background, generator))
        return drawn.expand(batch, 3, size, size).clamp(0, 1)
