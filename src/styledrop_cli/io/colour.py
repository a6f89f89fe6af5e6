"""Colours as people see them: OKLab to work in, CIELAB and CIEDE2000 to measure by, and the main colours of a picture.

sRGB is in [0,1], ``[...,3]``, as all other colours. OKLab is Björn Ottosson's (2020): equal distances look about
equally far, black to white is 1, and blends of two colours keep their hue. CIELAB is that of the white point D65.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Linear sRGB to the cones' responses, and their cube roots to OKLab (Ottosson's tables of 2021-01-25).
_TO_CONES = torch.tensor(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ],
    dtype=torch.float64,
)
_TO_OKLAB = torch.tensor(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ],
    dtype=torch.float64,
)
_FROM_OKLAB, _FROM_CONES = torch.linalg.inv(_TO_OKLAB), torch.linalg.inv(_TO_CONES)
# Linear sRGB to XYZ (IEC 61966-2-1), divided by D65's white, so that white is 1, 1, 1.
_TO_XYZ = torch.tensor(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], dtype=torch.float64
)
_TO_XYZ = _TO_XYZ / _TO_XYZ.sum(1, keepdim=True)

ITERATIONS = 12  # of k-means
CELL = 0.03  # OKLab: colours of one cell of such a size are looked at as one
ALIKE = 0.06  # OKLab: main colours nearer than this are one
LEAST = 0.01  # the share of a picture that a main colour has at least


def _linear(srgb: Tensor) -> Tensor:
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055).clamp(min=0) ** 2.4)


def oklab(srgb: Tensor) -> Tensor:
    """OKLab of sRGB ``[...,3]`` in [0,1].

    Lightness in [0,1], then green to red and blue to yellow, each in about [-0.4,0.4].
    """
    cones = _linear(srgb) @ _TO_CONES.to(srgb).T
    return cones.clamp(min=0) ** (1 / 3) @ _TO_OKLAB.to(srgb).T


def from_oklab(colours: Tensor) -> Tensor:
    """OKLab ``[...,3]`` as sRGB; what no screen shows is cut off at 0 and 1."""
    linear = ((colours @ _FROM_OKLAB.to(colours).T) ** 3 @ _FROM_CONES.to(colours).T).clamp(0, 1)
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def cielab(srgb: Tensor) -> Tensor:
    """CIELAB of sRGB ``[...,3]`` in [0,1]; lightness in [0,100]."""
    xyz = _linear(srgb) @ _TO_XYZ.to(srgb).T
    f = torch.where(xyz > (6 / 29) ** 3, xyz.clamp(min=1e-9) ** (1 / 3), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = f.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def delta_e(one: Tensor, other: Tensor) -> Tensor:
    """CIEDE2000 of colours in CIELAB ``[...,3]``, which are broadcast: ``[...]``, 0 for equals, about 1 just seen.

    After Sharma, Wu and Dalal, "The CIEDE2000 Color-Difference Formula" (2005), whose test pairs it gives.
    """
    (l1, a1, b1), (l2, a2, b2) = one.unbind(-1), other.unbind(-1)
    mean_chroma = (torch.hypot(a1, b1) + torch.hypot(a2, b2)) / 2
    stretch = 1 + (1 - _high(mean_chroma)) / 2
    a1, a2 = a1 * stretch, a2 * stretch
    c1, c2 = torch.hypot(a1, b1), torch.hypot(a2, b2)
    full = 2 * torch.pi
    h1, h2 = torch.atan2(b1, a1) % full, torch.atan2(b2, a2) % full
    coloured = c1 * c2 != 0  # grey has no hue
    turn = torch.where(coloured, (h2 - h1 + torch.pi) % full - torch.pi, 0)
    # Of opposite hues the formula takes the difference as it stands.
    turn = torch.where((h2 - h1).abs() == torch.pi, h2 - h1, turn)
    apart = (h1 - h2).abs() > torch.pi
    hue = (h1 + h2) / 2 + torch.where(apart, torch.where(h1 + h2 < full, torch.pi, -torch.pi), 0.0)
    hue = torch.where(coloured, hue, h1 + h2)
    light, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    weigh = (
        1
        - 0.17 * (hue - torch.pi / 6).cos()
        + 0.24 * (2 * hue).cos()
        + 0.32 * (3 * hue + torch.pi / 30).cos()
        - 0.20 * (4 * hue - 63 * torch.pi / 180).cos()
    )
    off = (light - 50) ** 2
    s_l, s_c, s_h = 1 + 0.015 * off / (20 + off).sqrt(), 1 + 0.045 * chroma, 1 + 0.015 * chroma * weigh
    bend = torch.exp(-(((hue * 180 / torch.pi - 275) / 25) ** 2)) * torch.pi / 3  # twice the formula's angle
    rotation = -2 * _high(chroma) * bend.sin()
    d_l, d_c, d_h = (l2 - l1) / s_l, (c2 - c1) / s_c, 2 * (c1 * c2).sqrt() * (turn / 2).sin() / s_h
    return (d_l**2 + d_c**2 + d_h**2 + rotation * d_c * d_h).clamp(min=0).sqrt()


def _high(chroma: Tensor) -> Tensor:
    return (chroma**7 / (chroma**7 + 25.0**7)).sqrt()


def clusters(colours: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The main ones of OKLab colours ``[N,3]``, ``[K,3]``, at most ``most``, and each one's share of all, ``[K]``.

    K-means over the cells of a grid of colours, which starts from what is much seen and far from the others, so there
    is no chance in it. Those nearer to each other than ``ALIKE`` become one, those with a share below ``LEAST`` are
    left to the others; the largest is first.
    """
    places = (colours / CELL).round().long()
    _, cell = (places @ torch.tensor([1 << 40, 1 << 20, 1])).unique(return_inverse=True)
    weights = cell.bincount().double()
    cells = torch.zeros(len(weights), 3, dtype=torch.float64).index_add_(0, cell, colours.double()) / weights[:, None]
    chosen = [int(weights.argmax())]
    while len(chosen) < min(most, len(cells)):
        far = torch.cdist(cells, cells[chosen]).amin(1)
        worth = torch.where(far >= ALIKE, weights * far**2, 0)
        if worth.max() <= 0:
            break
        chosen.append(int(worth.argmax()))
    centres = cells[chosen]
    for _ in range(ITERATIONS):
        nearest = torch.cdist(cells, centres).argmin(1)
        of_each = torch.zeros(len(centres), dtype=torch.float64).index_add_(0, nearest, weights)
        sums = torch.zeros_like(centres).index_add_(0, nearest, cells * weights[:, None])
        centres, of_each = sums[of_each > 0] / of_each[of_each > 0, None], of_each[of_each > 0]
    kept: list[int] = []
    for index in of_each.argsort(descending=True, stable=True).tolist():
        near = bool(kept) and float((centres[kept] - centres[index]).norm(dim=1).amin()) < ALIKE
        if not kept or (not near and of_each[index] >= LEAST * len(colours)):
            kept.append(index)
    centres = centres[kept]
    nearest = torch.cdist(cells, centres).argmin(1)
    shares = torch.zeros(len(kept), dtype=torch.float64).index_add_(0, nearest, weights) / len(colours)
    return centres.to(colours), shares.to(colours)
