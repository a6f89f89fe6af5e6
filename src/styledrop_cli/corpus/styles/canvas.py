"""One batch to style: seeded random draws, and the filters and colour arithmetic that the families share.

Sources: Kuwahara filter (Kuwahara et al. 1976); watercolour transmittance and edge darkening after Bousseau et al.
2006; the rest is plain image arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Colour = tuple[float, float, float]
CREAMS: tuple[Colour, ...] = ((1.0, 1.0, 1.0), (0.98, 0.96, 0.92), (0.97, 0.94, 0.86), (0.95, 0.95, 0.95))


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
        rows, columns = (_blurring(side, sigma, x) for side in small.shape[-2:])
        out = rows @ small @ columns.T
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

    def boxes(self, cell: float, bend: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Cells of a grid, bent by ``[B,2,S,S]`` px: position in the cell, 0 to 1, and offset to its middle (x, y)."""
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


def _blurring(side: int, sigma: float, like: Tensor) -> Tensor:
    """The matrix ``[side,side]`` of a Gaussian blur of a line, which is continued beyond its ends by its end values.

    A product of matrices is several times as fast on a CPU as a convolution of one channel.
    """
    radius = min(max(1, math.ceil(2.5 * sigma)), side - 1)
    steps = torch.arange(-radius, radius + 1, device=like.device)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2).to(like.dtype)
    places = (torch.arange(side, device=like.device)[:, None] + steps).clamp(0, side - 1)
    return like.new_zeros(side, side).scatter_add_(1, places, (kernel / kernel.sum()).expand(side, -1))


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
