"""Draw the bank of other styles that `score` calibrates its likeness by.

    python make_bank.py corpus/art src/styledrop_cli/judging/bank.webp

A row for each style that pocket was trained on, four art families and 28 procedural ones, a column for each of 32
things. None of the things is one that the paired benchmark draws or learns from, and none of the styles is held out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image

from paired.art import FAMILIES
from styledrop_cli.corpus.styles import STYLES, apply_style
from styledrop_cli.devices import generator
from styledrop_cli.io.images import load_cutout, to_image

THINGS = (
    "alien", "horse-face", "envelope", "spider", "bear", "open-book", "grapes", "cookie", "trumpet", "axe", "giraffe",
    "ring", "maple-leaf", "violin", "globe-showing-europe-africa", "volcano", "mango", "rooster", "wrench", "hammer",
    "locked", "fire", "wrapped-gift", "cheese-wedge", "peach", "candle", "man", "delivery-truck", "ear-of-corn", "tent",
    "scissors", "egg",
)  # fmt: skip
SIDE, DRAWN, QUALITY = 64, 256, 75


def tile(art: Path, row: int, column: int) -> Image.Image:
    """One picture of the bank; procedural styles draw the outlines of all families in turn."""
    families = list(FAMILIES)
    family = families[row] if row < len(families) else families[column % len(families)]
    thing = load_cutout(art / family / f"{THINGS[column]}.webp", DRAWN)[None]
    ground = torch.ones(1, 3, DRAWN, DRAWN)
    if row < len(families):
        drawn = thing[:, :3] * thing[:, 3:] + ground * (1 - thing[:, 3:])
    else:
        style = list(STYLES)[row - len(families)]
        drawn = apply_style(style, thing, ground, generator(1000 * row + column))
    return to_image(drawn[0]).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("art", type=Path, help="folder of rendered art, as make_corpus.py --parts art makes it")
    parser.add_argument("sheet", type=Path)
    options = parser.parse_args()
    rows = len(FAMILIES) + len(STYLES)
    sheet = Image.new("RGB", (len(THINGS) * SIDE, rows * SIDE))
    for row in range(rows):
        for column in range(len(THINGS)):
            sheet.paste(tile(options.art, row, column), (column * SIDE, row * SIDE))
    sheet.save(options.sheet, "WEBP", quality=QUALITY, method=6)


if __name__ == "__main__":
    main()
