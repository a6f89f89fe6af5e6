"""How near the colours of pictures are to a palette."""

from __future__ import annotations

import torch
from torch import Tensor

from styledrop_cli.io.colour import cielab, delta_e
from styledrop_cli.io.palette import Palette

TOLERANCE = 5.0  # CIEDE2000: colours so near are one to the eye, unless they lie side by side
ABOUT = (
    "how far colours are from the palette on average (CIEDE2000: 1 is just seen, 10 another shade); on_palette is the "
    f"share of the picture within {TOLERANCE:g}"
)
LARGEST = 512  # pixels of a side: of larger pictures every second, third, ... is looked at
ROWS = 64  # of pixels that are compared at once


def fit(picture: Tensor, palette: Palette) -> tuple[float, float]:
    """Of a picture ``[3,H,W]`` in [0,1], the mean CIEDE2000 from each pixel to the nearest colour of the palette.

    And the share of its pixels, in [0,1], for which that is ``TOLERANCE`` or less.
    """
    colours = cielab(torch.tensor(palette.colours, dtype=torch.float32) / 255)
    step = -(-max(picture.shape[1:]) // LARGEST)  # mixtures of pixels would be other colours
    pixels = cielab(picture[:, ::step, ::step].permute(1, 2, 0))
    far = torch.cat([delta_e(rows[:, :, None], colours).amin(-1) for rows in pixels.split(ROWS)])
    return float(far.mean()), float((far <= TOLERANCE).float().mean())
