"""How much of pictures a base's tokens keep: ``python benchmarks/fidelity.py examples -o sheet.png``.

Prints how much of each picture's edges is left, its PSNR and the verdict of ``base/fidelity.py``, and writes a sheet of
every picture beside what the tokens show of it, to look at: by that the verdicts' bars were chosen
(``docs/lab/tokenizer.md``). ``--drawn`` adds four pictures that are hard for tokens: lines, thin and bold, and letters,
small and large.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

from paired.measures import markdown
from script import run_in_words
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.base.fidelity import verdict
from styledrop_cli.devices import pick_device
from styledrop_cli.io.contact_sheet import contact_sheet
from styledrop_cli.io.files import SUFFIXES
from styledrop_cli.io.fonts import font_for
from styledrop_cli.io.images import load_reference, quietly, save_png

SIDE = 1024  # pixels of what is drawn
CELL = 170  # pixels of a picture on the sheet
ACROSS = 6  # pictures in a row of the sheet: three, each beside what is left of it
Named = tuple[str, Image.Image]


def hard_pictures() -> list[Named]:
    """A cat in thin and in bold lines, a page of small text, and a word in large letters, black on white."""
    sentence = "The quick brown fox jumps over the lazy dog. "
    page, word = Image.new("RGB", (SIDE, SIDE), "white"), Image.new("RGB", (SIDE, SIDE), "white")
    for line in range(20):
        ImageDraw.Draw(page).text((40, 30 + 48 * line), sentence + sentence[:20], "black", font_for(sentence, 40))
    ImageDraw.Draw(word).text((120, 360), "CAFE", "black", font_for("CAFE", 280))
    return [("thin lines", line_cat(5)), ("bold lines", line_cat(14)), ("small text", page), ("large letters", word)]


def line_cat(width: int) -> Image.Image:
    """A cat of circles and lines of this width in pixels."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    pen = ImageDraw.Draw(image)
    for x, y, across, down in ((512, 430, 200, 180), (512, 780, 230, 200), (440, 400, 30, 40), (584, 400, 30, 40)):
        pen.ellipse((x - across, y - down, x + across, y + down), outline="black", width=width)
    for side in (-1, 1):
        ear = [(512 + side * x, y) for x, y in ((172, 340), (182, 150), (72, 270))]
        pen.line(ear, "black", width)
        for slope in (-60, 0, 60):
            pen.line([(512 + side * 60, 500), (512 + side * 280, 500 + slope)], "black", width)
    return image


def measured(base: Base, pictures: list[Named]) -> tuple[list[list[str]], Image.Image]:
    """A row of each picture, the one with the fewest edges left first, and the sheet in that order."""
    seen = sorted(((name, base.reconstruct(image)) for name, image in pictures), key=lambda one: one[1].edges)
    rows = [[name, f"{one.edges:.2f}", f"{one.psnr:.1f}", verdict(one.edges)[0]] for name, one in seen]
    images = [image for _, one in seen for image in (one.original, one.shown)]
    labels = [text for name, edges, _, word in rows for text in (name, f"{edges} of the edges: {word}")]
    return rows, contact_sheet(images, ACROSS, labels, f"as {base.name} sees them", CELL)


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description="how much of pictures a base's tokens keep")
    parser.add_argument("pictures", type=Path, nargs="+", help="pictures, or folders of them")
    parser.add_argument("--drawn", action="store_true", help="also four pictures of lines and letters")
    parser.add_argument("-o", "--output", type=Path, help="a sheet of all of them, to look at")
    parser.add_argument("--model", default="pocket")
    given = parser.parse_args()
    files = [
        file
        for place in given.pictures
        for file in (sorted(place.iterdir()) if place.is_dir() else [place])
        if file.suffix.lower() in SUFFIXES
    ]
    pictures = [(file.stem, load_reference(file, quietly)) for file in files]
    rows, sheet = measured(load_base(given.model, pick_device("auto")), pictures + hard_pictures() * given.drawn)
    print(markdown(["picture", "edges", "dB", "verdict"], rows))
    if given.output:
        save_png(sheet, given.output)


if __name__ == "__main__":
    run_in_words(main)
