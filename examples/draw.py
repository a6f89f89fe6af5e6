"""Draw the reference pictures beside this file, without any picture or model as input.

    pip install -e '.[pocket]'          # resvg-py renders the vector shapes
    python examples/draw.py             # all of them, about fifteen seconds
    python examples/draw.py watercolor  # one of them

Every picture is 512 px square and comes from fixed seeds, so the same command draws the same
picture. The pictures and this file's shapes are dedicated to the public domain (CC0 1.0).

Sources: watercolour transmittance and edge darkening after Bousseau et al. 2006; sphere tracing
after Hart 1996; soft shadows and ambient occlusion from distance fields after Quilez 2010.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = 512
Array = NDArray[np.floating[Any]]
Vector = tuple[float, float, float]


# -- what the drawings share ------------------------------------------------------------------


def svg(body: str) -> Array:
    """Render SVG elements in a 512 x 512 box: ``[512, 512, 4]`` in [0, 1], alpha last."""
    import resvg_py

    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE} {SIZE}">'
    png = bytes(resvg_py.svg_to_bytes(svg_string=f"{head}{body}</svg>", width=SIZE, height=SIZE))
    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    return (np.asarray(picture, dtype=np.float32) / 255).astype(np.float32)


def flat(body: str) -> Array:
    """Render SVG elements over white: ``[512, 512, 3]``."""
    rgba = svg(body)
    return rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]


def shape(path: str) -> Array:
    """The area inside an SVG path, as a mask ``[512, 512]``."""
    return svg(f'<path d="{path}"/>')[..., 3]


def stroke(path: str, width: float) -> Array:
    """A line along an SVG path, as a mask ``[512, 512]``."""
    look = f'fill="none" stroke="#000" stroke-width="{width}" stroke-linecap="round" stroke-linejoin="round"'
    return svg(f'<path d="{path}" {look}/>')[..., 3]


def colour(code: str) -> Array:
    """``#rrggbb`` as three numbers in [0, 1]."""
    return np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float32) / 255


def smooth(x: Array, low: float, high: float) -> Array:
    """0 up to ``low``, 1 from ``high``, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def noise(rng: np.random.Generator, cell: float) -> Array:
    """Smooth noise in about [0, 1], ``cell`` px wide."""
    n = max(2, round(SIZE / cell) + 1)
    grid = Image.fromarray(rng.random((n, n), dtype=np.float32))
    return np.asarray(grid.resize((SIZE, SIZE), Image.Resampling.BICUBIC), dtype=np.float32)


def fractal(rng: np.random.Generator, cell: float) -> Array:
    """Four octaves of noise, contrast stretched, in [0, 1]."""
    weights = (0.45, 0.28, 0.17, 0.1)
    mix = sum((w * noise(rng, cell / 2**i) for i, w in enumerate(weights)), np.zeros((SIZE, SIZE), np.float32))
    return np.asarray(np.clip((mix - 0.5) * 1.8 + 0.5, 0, 1))


def blur(x: Array, sigma: float) -> Array:
    """Gaussian blur of ``[H, W]``, the border mirrored."""
    pad = int(3 * sigma) + 1
    wide = np.pad(x, pad, mode="symmetric")
    fy, fx = np.fft.fftfreq(wide.shape[0])[:, None], np.fft.rfftfreq(wide.shape[1])[None]
    gain = np.exp(-2 * (np.pi * sigma) ** 2 * (fy**2 + fx**2))
    soft = np.fft.irfft2(np.fft.rfft2(wide) * gain, s=wide.shape)
    return soft[pad:-pad, pad:-pad].astype(np.float32)


def warp(x: Array, dx: Array, dy: Array) -> Array:
    """Sample ``[H, W]`` bilinearly at positions moved by (dx, dy) px."""
    row, column = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    v, u = np.clip(row + dy, 0, SIZE - 1.001), np.clip(column + dx, 0, SIZE - 1.001)
    i, j = v.astype(int), u.astype(int)
    v, u = v - i, u - j
    top = x[i, j] * (1 - u) + x[i, j + 1] * u
    low = x[i + 1, j] * (1 - u) + x[i + 1, j + 1] * u
    return np.asarray(top * (1 - v) + low * v, np.float32)


# -- flat illustration ------------------------------------------------------------------------


def flat_illustration() -> Array:
    """A mountain cabin in navy, coral and cream."""
    navy, deep, slate, coral, blush, cream = "#1d2b4f", "#14203d", "#4a5f8a", "#f2694b", "#f9b49a", "#fdf1dd"

    def tree(x: float, y: float, s: float, fill: str, dark: str) -> str:
        tiers = ""
        for top, half, low in ((0, 15, 34), (18, 21, 60), (40, 27, 90)):
            tiers += f'<path d="M0,{top} L{half},{low} L{-half},{low} Z" fill="{fill}"/>'
            tiers += f'<path d="M0,{top} L{half},{low} L0,{low} Z" fill="{dark}"/>'
        trunk = f'<rect x="-4" y="90" width="8" height="14" fill="{deep}"/>'
        return f'<g transform="translate({x},{y}) scale({s})">{trunk}{tiers}</g>'

    return flat(f"""
    <rect width="512" height="512" fill="{cream}"/>
    <clipPath id="disc"><circle cx="256" cy="256" r="202"/></clipPath>
    <g clip-path="url(#disc)">
      <rect width="512" height="512" fill="{blush}"/>
      <circle cx="372" cy="162" r="38" fill="{cream}"/>
      <path d="M-10,330 L70,222 L112,268 L214,112 L300,246 L334,206 L440,340 V520 H-10 Z" fill="{slate}"/>
      <path d="M214,112 L300,246 L334,206 L440,340 H236 L252,262 L222,214 Z" fill="#3a4d78"/>
      <path d="M214,112 L252,171 L236,166 L222,190 L206,168 L184,184 L178,167 Z" fill="{cream}"/>
      <path d="M40,352 C120,292 200,300 262,318 C340,296 410,300 480,344 V520 H40 Z" fill="{navy}"/>
      {tree(112, 234, 0.98, "#2c4170", "#243660")}{tree(152, 256, 0.8, "#2c4170", "#243660")}
      {tree(404, 226, 1.02, "#2c4170", "#243660")}{tree(364, 256, 0.78, "#2c4170", "#243660")}
      <path d="M30,388 C120,350 200,356 270,366 C350,352 420,360 490,392 V520 H30 Z" fill="{coral}"/>
      <path d="M30,430 C130,392 210,404 300,420 C380,432 440,420 490,436 V520 H30 Z" fill="#d9543a"/>
      <path d="M256,380 H292 C288,398 330,410 316,426 C300,444 250,450 240,480 H180 C190,440 262,420 264,404 Z"
            fill="{cream}"/>
      <path d="M308,212 H330 V262 H308 Z" fill="{deep}"/>
      <path d="M186,294 L256,222 L326,294 V384 H186 Z" fill="{cream}"/>
      <path d="M256,222 L326,294 V384 H294 V294 Z" fill="#f3dfc2"/>
      <path d="M256,196 L352,294 L338,308 L256,224 L174,308 L160,294 Z" fill="{coral}"/>
      <path d="M256,196 L352,294 L338,308 L256,224 Z" fill="#d9543a"/>
      <path d="M256,312 H292 V384 H256 Z" fill="{navy}"/>
      <circle cx="284" cy="350" r="3.4" fill="{blush}"/>
      <path d="M204,312 H242 V348 H204 Z" fill="{navy}"/>
      <path d="M207,315 H221.500 V328.500 H207 Z M224.500,315 H239 V328.500 H224.500 Z
               M207,331.500 H221.500 V345 H207 Z M224.500,331.500 H239 V345 H224.500 Z" fill="{blush}"/>
      <circle cx="256" cy="266" r="13" fill="{navy}"/><circle cx="256" cy="266" r="8.500" fill="{blush}"/>
      <path d="M186,356 H256 M186,370 H256 M292,356 H326 M292,370 H326" stroke="#e8cfae" stroke-width="3"/>
      {tree(132, 288, 1.18, navy, deep)}{tree(386, 292, 1.2, navy, deep)}
      <path d="M308,206 C300,192 314,180 304,164 C296,150 302,136 316,128 C312,142 316,150 321,160
               C329,178 318,192 322,206 Z" fill="{cream}"/>
    </g>
    """)


# -- watercolour ------------------------------------------------------------------------------


class Sheet:
    """Watercolour paper that takes washes of transparent paint."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        tooth = blur(noise(self.rng, 1.0), 0.9) - 0.5
        self.grain = np.clip(0.5 + 2.2 * tooth + 0.5 * (fractal(self.rng, 14) - 0.5), 0, 1)
        bump = self.grain - np.roll(self.grain, (1, 1), (0, 1))
        self.picture: Array = colour("#fdfaf3") * (1 - 0.02 * fractal(self.rng, 120) + 0.05 * bump)[..., None]

    def wash(
        self,
        mask: Array,
        paint: str,
        second: str | None = None,
        *,
        strength: float = 1.0,
        wobble: float = 3.0,
        edge: float = 0.7,
        pool: float = 0.9,
        wet: float = 0.0,
        cell: float = 70,
        toward: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """Lay one wash.

        Args:
            mask: where the brush went, ``[512, 512]``.
            paint, second: the pigment, and one that runs into it while wet.
            strength: how much pigment.
            wobble: how unsteady the outline is, px.
            edge: how much darker the dried rim is.
            pool: how unevenly the pigment settles.
            wet: how far the wash bleeds into wet paper, px.
            cell: the size of pools, px.
            toward: the direction in which ``second`` gains over ``paint``.
        """
        rng = self.rng
        dx = wobble * (3 * (fractal(rng, 46) - 0.5) + 1.1 * (noise(rng, 7) - 0.5))
        dy = wobble * (3 * (fractal(rng, 46) - 0.5) + 1.1 * (noise(rng, 7) - 0.5))
        area = warp(mask, dx, dy)
        if wet:
            area = smooth(blur(area, wet) + 0.34 * (fractal(rng, 34) - 0.5), 0.22, 0.85)
        area = area * (1 - 0.4 * smooth(self.grain, 0.72, 0.95) * (1 - smooth(blur(area, 5), 0.5, 1.0)))
        rim = np.clip(area - blur(area, 2.2), 0, 1) + 0.7 * np.clip(area - blur(area, 7), 0, 1)
        pools = 1 + pool * (fractal(rng, cell) - 0.5) * 1.5
        blooms = fractal(rng, cell * 0.8)
        ring = np.exp(-(((blooms - 0.62) / 0.025) ** 2)) * (pool * 0.28)
        settle = 1 + 0.55 * (0.5 - self.grain) + 0.12 * (noise(rng, 2.2) - 0.5)
        density = strength * area * np.clip(pools + ring, 0.18, 2.4) * settle + strength * edge * rim
        row, column = np.mgrid[:SIZE, :SIZE].astype(np.float32) / SIZE - 0.5
        mix = smooth(fractal(rng, 80) + toward[0] * column + toward[1] * row, 0.3, 0.7)[..., None]
        absorb = -np.log(np.clip(colour(paint), 0.02, 0.99))
        if second:
            absorb = absorb * (1 - mix) - np.log(np.clip(colour(second), 0.02, 0.99)) * mix
        self.picture = self.picture * np.exp(-density[..., None] * absorb)

    def spatter(self, paint: str, count: int, centre: tuple[float, float], reach: float) -> None:
        """Fling drops of paint."""
        drops = ""
        for _ in range(count):
            x, y = self.rng.normal(centre, reach)
            drops += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{0.8 + 2.6 * self.rng.random() ** 3:.2f}"/>'
        self.wash(svg(drops)[..., 3], paint, strength=0.8, wobble=1.0, edge=0.9)

    def lift(self, mask: Array, strength: float = 1.0) -> None:
        """Take paint off again, or leave the paper white."""
        keep = (strength * mask)[..., None]
        self.picture = self.picture * (1 - keep) + colour("#fdfaf3") * keep


def watercolor() -> Array:
    """A kingfisher on a branch."""
    sheet = Sheet(7)
    back = "M250,70 C340,50 430,130 440,230 C450,330 400,420 300,440 C200,450 110,400 90,310 C70,200 130,90 250,70 Z"
    sheet.wash(shape(back), "#b9dcd6", "#f4dcb8", strength=0.55, wobble=9, wet=20, edge=0.3, toward=(-0.8, 0.6))
    sheet.spatter("#5f9fa6", 30, (270, 240), 95)

    bird = (
        "M168,158 C178,104 252,88 286,134 C298,160 290,196 294,214 C330,232 344,262 352,296 C360,330 356,346 340,366"
        " C300,384 246,362 222,320 C200,284 194,246 188,214 C172,204 160,184 168,158 Z"
    )
    tail = "M318,330 L352,318 C368,360 386,404 396,446 L376,450 C356,420 334,380 318,330 Z"
    sheet.lift(shape(bird + tail), 0.85)
    sheet.wash(shape(tail), "#1f5c9a", "#123a6b", strength=0.95, wobble=2)
    breast = (
        "M190,214 C206,226 226,222 240,250 C256,292 300,334 338,362 C300,384 246,362 222,320 C200,284 192,246 190,214 Z"
    )
    sheet.wash(shape(breast), "#f0913a", "#f6bd62", strength=0.95, wobble=2.5, toward=(0.4, -0.8))
    belly = "M204,262 C220,300 252,342 322,366 C290,378 246,360 222,320 C210,300 206,280 204,262 Z"
    sheet.wash(shape(belly), "#d9622a", strength=0.5, wobble=5, wet=6, edge=0.3)
    cheek = "M200,168 C222,160 248,170 256,186 C246,202 216,198 198,186 Z"
    sheet.wash(shape(cheek), "#e5772c", "#f0a04a", strength=0.9, wobble=2)
    lore = "M166,156 C176,150 188,152 194,160 C186,168 174,170 166,168 Z"
    sheet.wash(shape(lore), "#e5772c", strength=0.8, wobble=1.5)
    cap = (
        "M167,154 C176,104 252,88 286,134 C296,152 300,176 290,204 C280,214 268,206 262,190"
        " C254,168 228,154 206,150 C192,148 180,148 167,154 Z"
    )
    sheet.wash(shape(cap), "#2f86c4", "#1d4f97", strength=1.05, wobble=2.2, toward=(0.9, -0.4))
    stripe = "M178,186 C200,200 226,204 250,212 C246,226 226,226 210,222 C194,214 182,202 178,186 Z"
    sheet.wash(shape(stripe), "#2f78b8", "#1d4f97", strength=0.9, wobble=2)
    wing = (
        "M246,214 C292,194 336,238 350,296 C362,344 372,384 384,420 C350,396 296,352 268,306 C248,274 234,236 246,214 Z"
    )
    sheet.wash(shape(wing), "#2a8fc0", "#1b4a92", strength=1.1, wobble=2.5, pool=1.2, toward=(0.7, 0.9))
    stripe = "M284,202 C312,208 344,258 354,306 C364,344 370,370 376,396 C360,340 334,262 284,202 Z"
    sheet.wash(shape(stripe), "#5fd0dc", "#38b0d6", strength=0.7, wobble=2, edge=0.5)
    for feathers, width in (
        ("M262,250 C290,262 318,300 336,340 M256,236 C280,240 300,256 318,280", 5.0),
        ("M270,284 C296,308 326,344 352,380 M284,322 C306,344 332,370 362,398", 4.0),
    ):
        sheet.wash(stroke(feathers, width), "#173a78", strength=0.75, wobble=2.5, edge=0.4)
    dots = "".join(
        f'<ellipse cx="{x}" cy="{y}" rx="3.6" ry="2.2" transform="rotate(-30 {x} {y})"/>'
        for x, y in ((204, 126), (222, 116), (242, 114), (262, 122), (216, 136), (236, 132), (256, 138), (272, 144))
    )
    sheet.wash(svg(dots)[..., 3], "#173a78", strength=0.7, wobble=1.5)
    down = "M206,226 C212,256 222,284 238,308 M226,236 C232,262 246,288 264,314"
    sheet.wash(stroke(down, 3.5), "#d9622a", strength=0.35, wobble=3, edge=0.3)

    bill = "M170,152 C138,152 96,168 58,190 C96,190 140,184 176,174 Z"
    sheet.wash(shape(bill), "#2a2f3c", "#4c5566", strength=0.95, wobble=1.2, toward=(0.8, 0.0))
    bill = "M176,175 C142,185 104,191 78,193 C112,198 150,194 182,186 Z"
    sheet.wash(shape(bill), "#3a3a44", "#c8643a", strength=0.85, wobble=1.2, toward=(1.2, 0.0))
    sheet.wash(svg('<circle cx="196" cy="161" r="9.5"/>')[..., 3], "#161a22", strength=1.5, wobble=0.6, pool=0.3)
    sheet.lift(svg('<circle cx="193" cy="157.500" r="2.800"/>')[..., 3])

    branch = (
        "M96,420 C150,396 220,398 286,388 C340,380 400,380 446,352 L450,362 C408,396 346,398 290,406"
        " C230,416 160,414 104,438 Z"
    )
    sheet.lift(shape(branch), 0.6)
    sheet.wash(shape(branch), "#8a5f41", "#5f6f4c", strength=1.0, wobble=2.4, pool=1.2)
    bark = "M110,430 C170,410 240,410 300,400 C350,396 404,392 440,364"
    sheet.wash(stroke(bark, 6), "#4a2f24", strength=0.6, wobble=2.5)
    feet = "M262,366 C258,376 262,386 256,396 M270,370 C272,380 270,390 274,398 M292,374 C290,384 296,390 292,400"
    sheet.wash(stroke(feet, 6), "#c4452a", strength=1.0, wobble=1)
    for leaf, one, two in (
        ("M150,404 C130,372 96,362 70,372 C84,400 118,414 150,404 Z", "#7fae4e", "#3f7f55"),
        ("M168,408 C176,378 164,352 140,340 C130,366 142,396 168,408 Z", "#4f9460", "#a9c24e"),
        ("M404,378 C420,352 448,338 474,342 C470,370 440,388 404,378 Z", "#7fae4e", "#3f7f55"),
        ("M196,410 C198,438 222,462 250,464 C250,438 230,414 196,410 Z", "#4f9460", "#8fb84a"),
    ):
        sheet.wash(shape(leaf), one, two, strength=0.95, wobble=3, pool=1.1)
    veins = "M148,403 C124,390 100,380 76,374 M166,404 C160,382 152,362 142,346 M408,376 C430,364 452,352 468,346"
    sheet.wash(stroke(veins, 1.8), "#2d5a40", strength=0.6, wobble=1.5)
    sheet.spatter("#1d4f97", 14, (300, 290), 85)
    sheet.spatter("#e5772c", 12, (190, 320), 80)
    return sheet.picture


# -- 3D rendering -----------------------------------------------------------------------------

SHELL_CENTRE, SHELL_OUT, SHELL_GROW, SHELL_TUBE, SHELL_CONE = (-0.30, 1.10), 0.74, 0.125, 0.46, 0.40


def _length(x: Array) -> Array:
    return np.sqrt(_dot(x, x))


def _unit(x: Array) -> Array:
    return x / np.maximum(_length(x), 1e-9)[..., None]


def _dot(a: Array, b: Array) -> Array:
    return np.asarray(np.einsum("...i,...i->...", a, b))


def _vector(*x: float) -> Array:
    return np.array(x, dtype=np.float32)


def _melt(a: Array, b: Array, k: float) -> Array:
    """The union of two distance fields, rounded where they meet."""
    h = np.maximum(k - np.abs(a - b), 0) / k
    return np.minimum(a, b) - h * h * (k / 4)


def _rod(p: Array, a: Vector, b: Vector, ra: float, rb: float) -> Array:
    """Distance to a rod from ``a`` to ``b`` whose radius goes from ``ra`` to ``rb``."""
    start, axis = _vector(*a), _vector(*b) - _vector(*a)
    from_a = p - start
    t = np.clip(from_a @ axis / float(axis @ axis), 0, 1)
    return _length(from_a - t[..., None] * axis) - (ra + (rb - ra) * t)


def _ball(p: Array, centre: Vector, radius: float) -> Array:
    return _length(p - _vector(*centre)) - radius


def _shell(p: Array) -> tuple[Array, Array, Array]:
    """Distance to a spiral shell, with the turn (radians, 0 outside, down inwards) and the side."""
    x, y = p[..., 0] - SHELL_CENTRE[0], p[..., 1] - SHELL_CENTRE[1]
    r = np.sqrt(x * x + y * y)
    angle = np.mod(np.arctan2(y, x) + 1.05, 2 * np.pi) - 2 * np.pi
    best, turn, side = np.full_like(r, 9), np.zeros_like(r), np.zeros_like(r)
    for k in range(5):
        theta = angle - 2 * np.pi * k
        ring = SHELL_OUT * np.exp(SHELL_GROW * theta)
        dz = p[..., 2] - SHELL_CONE * (1 - ring / SHELL_OUT)
        dr = r - ring
        d = np.sqrt(dr * dr + dz * dz) - SHELL_TUBE * ring
        near = d < best
        best = np.where(near, d, best)
        turn = np.where(near, theta, turn)
        side = np.where(near, np.arctan2(dz, dr), side)
    # The open end is rounded off; the body comes out of it.
    dr = r - SHELL_OUT
    mouth = SHELL_CENTRE[0] + SHELL_OUT * np.cos(-1.05), SHELL_CENTRE[1] + SHELL_OUT * np.sin(-1.05)
    end = _ball(p, (*mouth, 0.0), SHELL_TUBE * SHELL_OUT)
    near = end < best
    side = np.where(near, np.arctan2(p[..., 2], dr), side)
    return np.where(near, end, best), np.where(near, 0, turn), side


def _body(p: Array) -> Array:
    """Distance to the soft parts of the snail, without scorers."""
    low = p * _vector(1, 1, 0.8)
    d = _rod(low, (-1.50, 0.05, 0), (-0.6, 0.18, 0), 0.05, 0.22)
    d = _melt(d, _rod(low, (-0.6, 0.18, 0), (0.62, 0.20, 0), 0.22, 0.24), 0.1)
    d = _melt(d, _rod(p, (0.20, 0.40, 0), (0.62, 0.38, 0), 0.29, 0.28), 0.12)
    d = _melt(d, _rod(p, (0.62, 0.36, 0), (0.98, 0.74, 0.04), 0.27, 0.26), 0.25)
    d = _melt(d, _ball(p, (1.06, 0.90, 0.06), 0.33), 0.2)
    d = _melt(d, _rod(p, (1.10, 1.10, 0.18), (1.20, 1.50, 0.28), 0.07, 0.055), 0.14)
    d = _melt(d, _rod(p, (1.00, 1.10, -0.06), (0.98, 1.52, -0.14), 0.07, 0.055), 0.14)
    return np.maximum(d, -p[..., 1])


_EYES: tuple[Vector, ...] = ((1.21, 1.56, 0.30), (0.97, 1.58, -0.15))


def _scorers(p: Array) -> Array:
    return np.minimum(_ball(p, _EYES[0], 0.15), _ball(p, _EYES[1], 0.15))


def _snail(p: Array) -> Array:
    """Distance to all of the snail."""
    return np.minimum(np.minimum(_shell(p)[0], _body(p)), _scorers(p))


def _march(origin: Array, ray: Array, far: float, steps: int = 90) -> Array:
    """Distances along rays to the snail; ``far`` where they miss."""
    travelled = np.full(len(ray), 0.0, np.float32)
    hit = np.full(len(ray), far, np.float32)
    # Outside the sphere around the snail nothing can be met: start where the ray enters it.
    to_centre = _vector(0, 0.85, 0) - origin
    along = _dot(to_centre, ray)
    gap = 1.75**2 - (_dot(to_centre, to_centre) - along * along)
    half = np.sqrt(np.maximum(gap, 0))
    travelled = np.maximum(along - half, 0).astype(np.float32)
    end = along + half
    alive = np.flatnonzero((gap > 0) & (end > 0))
    for _ in range(steps):
        if not len(alive):
            break
        d = _snail(origin[alive] + travelled[alive, None] * ray[alive])
        done = d < 0.0012
        hit[alive[done]] = travelled[alive[done]]
        travelled[alive] += np.maximum(0.85 * d, 0.001)
        alive = alive[~done & (travelled[alive] < end[alive])]
    return hit


def _shadow(p: Array, light: Array, softness: float) -> Array:
    """How much of a wide light is seen from ``p``: 0 to 1."""
    seen = np.ones(len(p), np.float32)
    travelled = np.full(len(p), 0.02, np.float32)
    alive = np.arange(len(p))
    for _ in range(44):
        if not len(alive):
            break
        d = _snail(p[alive] + travelled[alive, None] * light)
        seen[alive] = np.minimum(seen[alive], softness * d / travelled[alive])
        travelled[alive] += np.clip(0.8 * d, 0.02, 0.2)
        alive = alive[(seen[alive] > -1) & (travelled[alive] < 3.6)]
    # From -1 (wholly behind) to 1: the light's disc is covered bit by bit, on both sides of the edge.
    seen = np.clip(seen, -1, 1)
    return (0.25 * (1 + seen) ** 2 * (2 - seen)).astype(np.float32)


def _occlusion(p: Array, normal: Array, ground: bool) -> Array:
    """How much of the sky above a point is open: 0 to 1."""
    closed, weight = np.zeros(len(p), np.float32), 1.0
    for step in (0.03, 0.08, 0.16, 0.3, 0.5):
        q = p + step * normal
        d = _snail(q) if ground else np.minimum(_snail(q), q[:, 1])
        closed += weight * np.maximum(step - d, 0)
        weight *= 0.66
    return np.asarray(np.clip(1 - 1.25 * closed, 0.08, 1))


def _studio(ray: Array) -> Array:
    """What is seen in a reflection: a pale room with two soft boxes, ``[N, 3]``."""
    up = ray[:, 1]
    room = 0.32 + 0.3 * smooth(up, -0.3, 0.9)[:, None] * _vector(0.95, 1.0, 1.1)
    room = room * (1 - smooth(-up, 0.0, 0.5)[:, None] * _vector(0.2, 0.35, 0.4))
    for centre, right, wide, high, power in (
        (_vector(-0.55, 0.7, 0.55), _vector(0.7, 0, 0.7), 0.24, 0.30, 8.0),
        (_vector(0.9, 0.35, 0.35), _vector(-0.36, 0, 0.93), 0.12, 0.45, 3.5),
    ):
        c = _unit(centre)
        across = _unit(right - (right @ c) * c)
        upward = np.cross(c, across)
        ahead = ray @ c
        u = np.abs(ray @ across) / np.maximum(ahead, 1e-3)
        v = np.abs(ray @ upward) / np.maximum(ahead, 1e-3)
        box = (ahead > 0) * smooth(-u, -wide - 0.05, -wide + 0.05) * smooth(-v, -high - 0.05, -high + 0.05)
        room = room + power * box[:, None]
    return room.astype(np.float32)


def _paint(p: Array) -> tuple[Array, Array, Array]:
    """Base colour ``[N, 3]``, gloss ``[N]`` and how waxy the stuff is ``[N]``."""
    shell, turn, side = _shell(p)
    body, scorers = _body(p), _scorers(p)
    inner = smooth(-turn, 0, 13)[:, None]
    coat = colour("#f0503c") ** 2.2 * (1 - inner) + colour("#ffae4a") ** 2.2 * inner
    band = smooth(np.cos(side * 1.0 - 0.55), 0.86, 0.90)[:, None]
    coat = coat * (1 - band) + colour("#fff0d2") ** 2.2 * band
    skin = colour("#8fd6c4") ** 2.2 * np.ones_like(p)
    belly = smooth(-p[:, 1], -0.16, -0.02)[:, None]
    skin = skin * (1 - belly) + colour("#5fb8ac") ** 2.2 * belly
    blush = np.exp(-(((_length(p - _vector(0.98, 0.82, 0.38))) / 0.085) ** 2))[:, None]
    skin = skin * (1 - 0.75 * blush) + colour("#ff7f7a") ** 2.2 * 0.75 * blush
    smile_x, smile_y = p[:, 0] - 1.19, p[:, 1] - 0.90
    smile = np.abs(np.hypot(smile_x, smile_y) - 0.085) + 0.2 * np.maximum(smile_y + 0.03, 0)
    skin = skin * (1 - 0.85 * (smooth(-smile, -0.016, -0.010) * (p[:, 2] > 0.1))[:, None])
    ball = np.full_like(p, 0.93)
    for centre in _EYES:
        looking = _unit(p - _vector(*centre)) @ _unit(_vector(0.45, 0.0, 0.9))
        near = _length(p - _vector(*centre)) < 0.19
        pupil = (smooth(looking, 0.70, 0.73) * near)[:, None]
        ball = ball * (1 - pupil) + _vector(0.012, 0.012, 0.02) * pupil
    is_shell, is_scorer = (shell < body) & (shell < scorers), (scorers < body) & (scorers < shell)
    base = np.where(is_shell[:, None], coat, np.where(is_scorer[:, None], ball, skin))
    gloss = np.where(is_shell, 0.85, np.where(is_scorer, 1.0, 0.4))
    return base.astype(np.float32), gloss.astype(np.float32), (~is_shell & ~is_scorer).astype(np.float32)


def _normals(p: Array) -> Array:
    e = 0.002
    corners = _vector(1, -1, -1), _vector(-1, -1, 1), _vector(-1, 1, -1), _vector(1, 1, 1)
    return _unit(sum((k * _snail(p + e * k)[:, None] for k in corners), np.zeros_like(p)))


def _shade(origin: Array, ray: Array) -> Array:
    """Linear light seen along rays, ``[N, 3]``."""
    key, rim = _unit(_vector(-0.52, 0.95, 0.62)), _unit(_vector(0.75, 0.45, -0.75))
    back = colour("#c9b6ff") ** 2.2
    far = 60.0
    hit = _march(origin, ray, far)
    # The floor runs into the wall behind without an edge: one paint, and light that fades.
    to_floor = np.where(ray[:, 1] < -1e-3, -origin[:, 1] / np.minimum(ray[:, 1], -1e-3), far)
    picture = np.zeros_like(ray)

    on = np.flatnonzero(hit >= far)
    p = origin[on] + np.minimum(to_floor[on], 30)[:, None] * ray[on]
    reach = np.sqrt(p[:, 0] ** 2 + p[:, 2] ** 2)
    close = np.flatnonzero(reach < 4.2)
    lit, open_sky = np.ones(len(on), np.float32), np.ones(len(on), np.float32)
    up = np.broadcast_to(_vector(0, 1, 0), (len(close), 3))
    lit[close] = _shadow(p[close], key, 7)
    open_sky[close] = _occlusion(p[close], up, ground=True)
    fade = smooth(reach, 1.5, 9.0)
    light = 0.62 * lit[:, None] * _vector(1.0, 0.96, 0.9) + 0.44 * open_sky[:, None] * _vector(0.94, 0.97, 1.06)
    picture[on] = back * (light * (1 - fade)[:, None] + 0.98 * fade[:, None])

    on = np.flatnonzero(hit < far)
    p, look = origin[on] + hit[on, None] * ray[on], ray[on]
    n = _normals(p)
    base, gloss, waxy = _paint(p)
    seen = _shadow(p + 0.01 * n, key, 9)
    open_sky = _occlusion(p, n, ground=False)[:, None]
    facing = n @ key
    # Waxy stuff lets light through: its shaded side starts later and glows in its own colour.
    soft = waxy[:, None]
    diffuse = np.clip(facing, 0, 1)[:, None] * seen[:, None]
    wrapped = np.clip((facing + 0.35) / 1.35, 0, 1)[:, None] * (0.35 + 0.65 * seen[:, None])
    direct = (1.55 * _vector(1.0, 0.95, 0.87)) * (diffuse * (1 - 0.6 * soft) + wrapped * 0.6 * soft)
    sky = (0.30 + 0.36 * np.clip(0.5 + 0.5 * n[:, 1:2], 0, 1)) * _vector(0.93, 0.97, 1.08) * open_sky
    bounce = 0.30 * np.clip(0.5 - 0.5 * n[:, 1:2], 0, 1) * back * open_sky
    # Light that has met the thing's own colour twice: deep folds turn warm instead of grey.
    folds = 0.22 * (1 - open_sky) * base
    edge = 0.35 * np.clip(n @ rim, 0, 1)[:, None] * open_sky
    cos = np.clip(-_dot(n, look), 0, 1)
    mirror = _unit(look + 2 * cos[:, None] * n)
    fresnel = (0.05 + 0.5 * (1 - cos) ** 5) * gloss
    reflected = _studio(mirror) * fresnel[:, None] * (0.3 + 0.7 * open_sky)
    half = _unit(key - look)
    glint = 0.25 * gloss * np.clip(_dot(n, half), 0, 1) ** 60 * seen
    picture[on] = base * (direct + sky + bounce + edge + folds) + reflected + glint[:, None]
    return picture


def rendering(size: int = SIZE) -> Array:
    """A snail, ray marched: four rays a pixel, soft key light, occlusion and studio reflections."""
    clip_scorer, target = _vector(1.25, 2.15, 8.2), _vector(-0.08, 0.84, 0)
    ahead = _unit(target - clip_scorer)
    right = _unit(np.cross(ahead, _vector(0, 1, 0)))
    above = np.cross(right, ahead)
    rays = 2 * size
    line = ((np.arange(rays, dtype=np.float32) + 0.5) / rays - 0.5) * 0.435
    light = np.zeros((rays, rays, 3), np.float32)
    for top in range(0, rays, 64):
        v, u = np.meshgrid(-line[top : top + 64], line, indexing="ij")
        ray = _unit(ahead + u.reshape(-1, 1) * right + v.reshape(-1, 1) * above).astype(np.float32)
        light[top : top + 64] = _shade(np.broadcast_to(clip_scorer, ray.shape), ray).reshape(-1, rays, 3)
    # A film's shoulder keeps the highlights from clipping; colours are averaged after it.
    film = np.clip(light * (1.7 * light + 0.06) / (light * (1.64 * light + 0.52) + 0.14), 0, 1)
    screen = film ** (1 / 2.2)
    small = screen.reshape(size, 2, size, 2, 3).mean((1, 3))
    return np.asarray(small, np.float32)


# -- logo -------------------------------------------------------------------------------------


def logo() -> Array:
    """An owl of circles and quarter circles, in two brand colours on white."""
    one, two = "#3a22b8", "#ff7a45"
    return flat(f"""
    <rect width="512" height="512" fill="#fff"/>
    <path d="M96,76 C120,108 150,124 184,124 H328 C362,124 392,108 416,76 V284
             A160,160 0 0 1 256,444 A160,160 0 0 1 96,284 Z" fill="{one}"/>
    <circle cx="180" cy="212" r="64" fill="#fff"/><circle cx="332" cy="212" r="64" fill="#fff"/>
    <circle cx="180" cy="212" r="34" fill="{one}"/><circle cx="332" cy="212" r="34" fill="{one}"/>
    <path d="M256,222 L288,254 L256,302 L224,254 Z" fill="{two}"/>
    <path d="M148,316 H212 A32,32 0 0 1 148,316 Z M224,316 H288 A32,32 0 0 1 224,316 Z
             M300,316 H364 A32,32 0 0 1 300,316 Z M186,358 H250 A32,32 0 0 1 186,358 Z
             M262,358 H326 A32,32 0 0 1 262,358 Z M224,400 H288 A32,32 0 0 1 224,400 Z" fill="{two}"/>
    """)


# -- pointillism ------------------------------------------------------------------------------


def pointillism() -> Array:
    """A hot-air balloon, in dots of pure colour."""
    gores = ""
    paints = ("#d6322e", "#f2b632", "#e8672c", "#f7dc6a", "#e8672c", "#f2b632", "#d6322e")
    edges = (-150, -128, -86, -32, 32, 86, 128, 150)
    for paint, a, b in zip(paints, edges, edges[1:], strict=False):
        gores += (
            f'<path d="M256,64 C{256 + 1.12 * a},64 {256 + 1.12 * a},250 {256 + 0.24 * a},338'
            f' H{256 + 0.24 * b} C{256 + 1.12 * b},250 {256 + 1.12 * b},64 256,64 Z" fill="{paint}"/>'
        )
    scene = flat(f"""
    <defs>
      <linearGradient id="sky" x1="0" y1="0" x2="0" y2="1">
        <stop offset="0" stop-color="#3f86cf"/><stop offset="0.6" stop-color="#a5d6ea"/>
        <stop offset="0.85" stop-color="#f9e3b4"/><stop offset="1" stop-color="#f6c795"/></linearGradient>
      <radialGradient id="turn" cx="0.36" cy="0.3" r="0.75">
        <stop offset="0" stop-color="#fff" stop-opacity="0.45"/><stop offset="0.4" stop-color="#fff" stop-opacity="0"/>
        <stop offset="0.62" stop-color="#3a1a6a" stop-opacity="0"/>
        <stop offset="1" stop-color="#3a1a6a" stop-opacity="0.75"/></radialGradient>
    </defs>
    <rect width="512" height="512" fill="url(#sky)"/>
    <path d="M0,452 C90,424 170,440 250,452 C340,466 430,430 512,446 V512 H0 Z" fill="#5fa05a"/>
    <path d="M0,482 C120,462 220,486 320,484 C400,480 460,470 512,476 V512 H0 Z" fill="#2f7f5c"/>
    {gores}
    <path d="M256,64 C88,64 88,250 220,338 H292 C424,250 424,64 256,64 Z" fill="url(#turn)"/>
    <path d="M222,338 L234,386 M290,338 L278,386" stroke="#4a2a2a" stroke-width="5"/>
    <path d="M230,384 H282 L276,426 H236 Z" fill="#8a4f2a"/><path d="M260,384 H282 L276,426 H260 Z" fill="#5a2f3a"/>
    """)
    rng = np.random.default_rng(3)
    dots = ['<rect width="512" height="512" fill="#f3ead6"/>']
    for step, radius, vary in ((10.0, 6.6, 0.07), (9.0, 4.9, 0.10), (10.0, 3.8, 0.17)):
        lattice = np.arange(-1, SIZE / step + 1)
        points = np.stack(np.meshgrid(lattice, lattice), -1).reshape(-1, 2) * step
        points = points + rng.uniform(-0.5, 0.5, points.shape) * step
        for x, y in points[rng.permutation(len(points))]:
            i, j = np.clip((int(y), int(x)), 0, SIZE - 1)
            seen = scene[i, j]
            # Pure colours side by side: the clip_scorer mixes them back into the one that was meant.
            grey = seen.mean()
            pure = grey + 1.25 * (seen - grey) + rng.normal(0, vary, 3) * (0.5, 0.35, 0.7) + rng.normal(0, 0.5 * vary)
            red, green, blue = (round(255 * float(c)) for c in np.clip(pure, 0, 1))
            r = radius * rng.uniform(0.8, 1.15)
            dots.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.2f}" fill="rgb({red},{green},{blue})"/>')
    return flat("".join(dots))


# -- Delft tile -------------------------------------------------------------------------------


def delft_tile() -> Array:
    """A sailing ship in cobalt blue under a white glaze."""
    rng = np.random.default_rng(11)
    density: Array = np.zeros((SIZE, SIZE), np.float32)

    def brush(mask: Array, strength: float, wobble: float = 2.0, soft: float = 0.9) -> None:
        dx, dy = (wobble * (2.2 * (noise(rng, 30) - 0.5) + 0.8 * (noise(rng, 7) - 0.5)) for _ in range(2))
        area = blur(warp(mask, dx, dy), soft)
        rim = np.clip(area - blur(area, 3), 0, 1)
        pools = 0.55 + 0.9 * fractal(rng, 26)
        nonlocal density
        density = density + strength * (area * pools + 0.6 * rim)

    sails = (
        "M158,176 C176,196 178,226 166,256 C190,248 212,248 232,256"
        " C238,228 236,198 222,176 C202,184 180,184 158,176 Z",
        "M170,116 C182,132 184,150 176,168 C192,162 206,162 220,168"
        " C226,150 224,132 214,116 C200,122 184,122 170,116 Z",
        "M254,156 C276,180 280,222 266,262 C292,252 320,252 344,262"
        " C354,224 350,184 332,156 C306,166 280,166 254,156 Z",
        "M266,96 C280,112 284,132 276,150 C294,144 314,144 330,150 C338,132 334,112 322,96 C304,104 284,104 266,96 Z",
        "M366,178 C376,206 378,234 368,266 C384,262 398,262 412,268 C406,232 392,200 366,178 Z",
    )
    for sail in sails:
        brush(shape(sail), 0.20)
        brush(stroke(sail, 3.4), 1.25)
    folds = (
        "M176,196 C186,220 186,236 180,250 M196,196 C202,220 202,236 198,248 M278,180 C290,210 290,236 284,254"
        " M304,178 C312,210 312,236 308,252 M186,130 C192,144 192,154 188,162 M288,112 C296,126 296,138 292,146"
    )
    brush(stroke(folds, 5), 0.4, soft=1.6)
    brush(stroke("M196,96 V300 M298,72 V300 M368,160 V296", 5), 1.5)
    brush(stroke("M152,176 H228 M164,116 H220 M248,156 H338 M260,96 H328", 4), 1.4)
    brush(stroke("M196,98 L120,284 M298,76 L196,170 M298,76 L370,162 M368,162 L428,286 M120,270 L196,150", 1.8), 0.9)
    for flag in (
        "M298,72 C318,60 330,80 354,66 C350,76 352,82 356,88 C334,98 320,78 298,90 Z",
        "M196,96 C210,86 218,100 236,92 V106 C218,114 210,100 196,110 Z",
        "M368,160 C382,150 390,164 408,156 V170 C390,178 382,164 368,174 Z",
    ):
        brush(shape(flag), 1.1)
    hull = (
        "M96,276 C130,296 150,298 180,298 H340 C372,298 396,288 424,268 C424,310 408,340 388,360"
        " C300,374 210,374 144,358 C124,336 108,306 96,276 Z"
    )
    brush(shape(hull), 0.75)
    brush(stroke(hull, 4), 1.2)
    keel = (
        "M112,318 C200,338 320,338 414,314 C408,336 398,350 388,360 C300,374 210,374 144,358 C130,344 120,332 112,318 Z"
    )
    brush(shape(keel), 0.8)
    brush(stroke("M104,298 C180,318 330,318 420,294", 4), 1.1)
    holes = ((160, 314), (196, 318), (232, 320), (268, 320), (304, 319), (340, 316), (374, 311))
    ports = "".join(f'<rect x="{x}" y="{y}" width="12" height="11"/>' for x, y in holes)
    brush(svg(ports)[..., 3], 1.6, wobble=1)
    brush(stroke("M96,276 L62,250", 5), 1.4)
    for y, x0, x1, strength in ((366, 72, 440, 1.0), (384, 92, 424, 0.7), (402, 130, 384, 0.5)):
        waves = f"M{x0},{y} " + " ".join("q11,-13 23,0 t23,0" for _ in range((x1 - x0) // 46))
        brush(stroke(waves, 5), strength, wobble=4)
    brush(shape("M70,366 C150,350 370,350 442,366 C400,408 120,408 70,366 Z"), 0.28, wobble=6, soft=3)
    gulls = "M84,150 q9,-11 16,0 q8,-11 17,-1 M112,120 q7,-9 13,0 q7,-9 14,-1 M404,110 q8,-10 15,0 q8,-10 16,-1"
    brush(stroke(gulls, 3), 1.2)

    corner = (
        "M34,34 C70,30 92,44 90,64 C88,80 70,80 68,66 C84,72 80,50 60,56 C56,76 50,84 64,70"
        " C80,70 80,88 64,90 C44,92 30,70 34,34 Z"
    )
    one = np.clip(shape(corner) + stroke("M48,104 C46,96 42,92 36,92 M104,48 C96,46 92,42 92,36", 5), 0, 1)
    for turned in (one, one[:, ::-1], one[::-1], one[::-1, ::-1]):
        brush(turned, 1.25)

    row, column = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    # Fine cracks in the glaze: where two of the nearest cell centres are equally far.
    seeds = rng.uniform(0, SIZE, (120, 2)).astype(np.float32)
    bend_y, bend_x = row + 14 * (noise(rng, 40) - 0.5), column + 14 * (noise(rng, 40) - 0.5)
    reach = np.stack([np.hypot(bend_y - y, bend_x - x) for y, x in seeds])
    reach.partition(1, axis=0)
    cracks = smooth(-(reach[1] - reach[0]), -1.3, -0.2) * smooth(fractal(rng, 120), 0.35, 0.6)
    # The rounded edge of the tile, lit from above left, in a bed of mortar.
    inset = np.minimum(np.minimum(row, SIZE - 1 - row), np.minimum(column, SIZE - 1 - column)) - 8
    inset = inset + 1.6 * (noise(rng, 50) - 0.5)
    height = 7 * np.sqrt(np.clip(1 - (1 - np.clip(inset / 11, 0, 1)) ** 2, 0, 1)) + 1.6 * fractal(rng, 90)
    slope = blur(height, 1.2)
    lit = np.roll(slope, 1, 0) - slope + np.roll(slope, 1, 1) - slope
    glaze = colour("#f3f4ef") * (1 - 0.03 * fractal(rng, 60)[..., None])
    cobalt = -np.log(colour("#27489f"))
    tile = glaze * np.exp(-np.clip(density, 0, 1.9)[..., None] * cobalt)
    bleed = blur(np.clip(density, 0, 1.5), 5)[..., None] * 0.10
    tile = tile * np.exp(-bleed * cobalt) * (1 - 0.16 * cracks)[..., None]
    tile = tile * (1 - 0.28 * lit)[..., None]
    shine = np.exp(-(((row + 0.8 * column - 230) / 60) ** 2)) * 0.05 * (0.5 + fractal(rng, 90))
    tile = tile + shine[..., None]
    mortar = colour("#b9b2a6") * (0.8 + 0.3 * fractal(rng, 5))[..., None]
    inside = smooth(inset, -0.8, 0.8)[..., None]
    return np.asarray(tile * inside + mortar * (1 - inside))


def hat_mask() -> Array:
    """White where the bird of the watercolor could wear a hat, on black: a mask for ``styledrop edit``."""
    return np.repeat(shape("M152 152 Q150 24 236 20 Q322 24 312 152 Q232 90 152 152 Z")[..., None], 3, 2).round()


PICTURES: dict[str, Callable[[], Array]] = {
    "flat_illustration": flat_illustration,
    "watercolor": watercolor,
    "3d_rendering": rendering,
    "logo": logo,
    "pointillism": pointillism,
    "delft_tile": delft_tile,
    "hat_mask": hat_mask,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the named pictures, or all of them."""
    parser = argparse.ArgumentParser(description="Draw the reference pictures.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(PICTURES)} (default: all)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(PICTURES))
    if unknown:
        parser.error(f"no such picture: {', '.join(unknown)}")
    for name in options.names or PICTURES:
        picture = np.clip(PICTURES[name](), 0, 1)
        path = options.out / f"{name}.png"
        Image.fromarray((255 * picture + 0.5).astype(np.uint8)).save(path, optimize=True)
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
