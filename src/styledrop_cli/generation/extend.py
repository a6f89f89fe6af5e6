"""How the square that a base draws becomes another shape."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Pixels = NDArray[np.float32]  # [H,W,3] in [0,255]


def shaped(square: Image.Image, width: int, height: int, fit: str = "contain") -> Image.Image:
    """A square picture as one of ``width`` x ``height`` pixels; the same from the same, always.

    "contain" scales it to the shorter side and goes on with its ground at both ends; all of it is in the middle, as it
    was. "cover" scales it to the longer side and cuts off what is too much at both ends. Larger than it was drawn, it
    is interpolated.
    """
    if fit == "cover":
        return ImageOps.fit(square, (width, height), Image.Resampling.LANCZOS)
    side = min(width, height)
    middle = square.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    pixels = np.asarray(middle, dtype=np.float32)
    if height > width:
        pixels = pixels.swapaxes(0, 1)
    missing = max(width, height) - side
    ground = _ground(pixels)
    before = _onward(pixels[:, ::-1], ground, missing // 2)[:, ::-1]
    behind = _onward(pixels, ground, missing - missing // 2)
    whole = np.concatenate([before, pixels, behind], 1).round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(whole.swapaxes(0, 1)) if height > width else whole)


def _ground(pixels: Pixels) -> Pixels:
    """What lies behind the thing, for each row ``[H,3]``: a sky above a meadow, or one colour.

    The median over a sixteenth at both ends, so that what touches one of them does not count, and blurred, so that no
    stripes are seen.
    """
    side = len(pixels)
    ends = max(1, side // 16)
    rows = np.median(np.concatenate([pixels[:, :ends], pixels[:, -ends:]], 1), 1)
    return _blurred(rows.astype(np.float32), side / 12)


def _onward(pixels: Pixels, ground: Pixels, count: int) -> Pixels:
    """``count`` columns more at the right end, ``[H,count,3]``: its last column, ever softer, becomes the ground."""
    side = len(pixels)
    edge = pixels[:, -max(1, side // 128) :].mean(1)
    away = (np.arange(count, dtype=np.float32)[None, :, None] + 1) / side  # from the edge, in sides
    soft, far = np.clip(12 * away, 0, 1), np.clip(3 * away, 0, 1)
    far = far * far * (3 - 2 * far)
    near = edge[:, None] * (1 - soft) + _blurred(edge, side / 24)[:, None] * soft
    made: Pixels = near * (1 - far) + ground[:, None] * far
    return made


def _blurred(rows: Pixels, sigma: float) -> Pixels:
    """Values ``[H,3]`` blurred along H; beyond the ends, the last one goes on."""
    reach = int(np.ceil(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.pad(rows, ((reach, reach), (0, 0)), mode="edge")
    columns = [np.convolve(padded[:, channel], weights / weights.sum(), "valid") for channel in range(3)]
    return np.stack(columns, 1).astype(np.float32)
