"""What the SVG of a picture is like: how many colours and outlines, how large the file, how far from the picture.

    python benchmarks/svg.py examples/logo.png examples/watercolor.png

Each picture is taken at ``--size`` px, traced, drawn again by resvg at twice that, and compared with the picture at
that size: the mean difference of all channels, in [0,255], both on red where they are transparent. Needs the extras
``svg`` and ``pocket``.
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

from script import run_in_words
from styledrop_cli.generation.svg import COLOURS, traced
from styledrop_cli.io.images import load_whole, square


def on_red(image: Image.Image) -> np.ndarray:
    """A picture on red, ``[H,W,3]``."""
    whole = image.convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", whole.size, "red"), whole).convert("RGB"), float)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--colours", type=int, default=COLOURS)
    options = parser.parse_args()
    for path in options.pictures:
        picture, began = square(load_whole(path), options.size), time.process_time()
        made = traced(picture, path.stem, {}, options.colours)
        seconds, side = time.process_time() - began, 2 * options.size
        drawn = bytes(resvg_py.svg_to_bytes(svg_string=made.text, width=side, height=side))
        wanted = picture.resize((side, side), Image.Resampling.LANCZOS)
        apart = np.abs(on_red(Image.open(io.BytesIO(drawn))) - on_red(wanted)).mean()
        print(
            f"{path.name:24} {made.colours:3} colours  {made.outlines:4} outlines  {len(made.text) / 1000:6.1f} KB  "
            f"difference {apart:.1f}  lost {made.lost:.1f}  {seconds:.1f} s of processor",
            flush=True,
        )


if __name__ == "__main__":
    run_in_words(main)
