"""What a palette makes of pictures, in figures: ``python benchmarks/palette.py styledrop-out -o sheet.png``.

Pictures as ``generate`` draws them without a palette, or any others, are moved to palettes of two, four and six
colours, or those given, by half and by all of the way. Beside that each pixel is replaced by the nearest colour, for
comparison. What is measured: the mean CIEDE2000 to the palette and the share within ``judging/palette.py:TOLERANCE``,
how much of the edges is left, and, where a file says its prompt, how surely the base's CLIP sees it, in colour and in
grey.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from paired.measures import markdown
from parts import CPU, pictures_in
from script import run_in_words
from styledrop_cli.base.base import load_base
from styledrop_cli.base.registry import BUNDLED
from styledrop_cli.generation.palette import moved
from styledrop_cli.io.colour import oklab
from styledrop_cli.io.contact_sheet import contact_sheet
from styledrop_cli.io.images import load_picture, read_png_settings, save_png, square, to_image, to_tensor
from styledrop_cli.io.palette import Palette
from styledrop_cli.judging.palette import TOLERANCE, fit
from styledrop_cli.models.tokenizer import edges_kept

PALETTES = (
    "#0b3d91,#f2c14e",
    "#1d3557,#457b9d,#f1faee,#e63946",
    "#264653,#2a9d8f,#e9c46a,#f4a261,#e76f51,#fffaf0",
)
SIZE = 256
Seen = Callable[[Sequence[Tensor]], list[str]]


def nearest(picture: Tensor, palette: Palette) -> Tensor:
    """A picture ``[3,H,W]`` in [0,1], each pixel the nearest colour of the palette in OKLab."""
    colours = torch.tensor(palette.colours, dtype=torch.float32) / 255
    which = torch.cdist(oklab(picture.flatten(1).T), oklab(colours)).argmin(1)
    return colours[which].T.view(picture.shape)


def seen_in(model: str, prompts: Sequence[str]) -> Seen:
    """How surely a base's CLIP sees in each picture what its prompt says, in colour and in grey: means, as cells."""
    base = load_base(model, CPU)
    known = list(dict.fromkeys([*prompts, *base.contents]))
    texts, wanted = base.text_embeds(known), torch.tensor([[known.index(prompt)] for prompt in prompts])

    def cells(pictures: Sequence[Tensor]) -> list[str]:
        shown = torch.stack(list(pictures))
        both = (shown, shown.mean(1, keepdim=True).expand_as(shown))
        chances = [base.chances(base.picture_embeds(one), texts).gather(1, wanted).mean() for one in both]
        return [f"{float(chance):.2f}" for chance in chances]

    return cells


def run() -> None:
    """Everything the command does; raises StyledropError."""
    made = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = made.add_argument
    add("places", nargs="+", type=Path, help="pictures, or folders of them", metavar="PICTURE|FOLDER")
    add("--palette", action="append", help="a palette in place of the usual three; repeat it")
    add("--model", default=BUNDLED, help="whose CLIP looks at what is shown")
    add("-o", "--output", type=Path, help="file for a sheet of all pictures")
    options = made.parse_args()
    every = [path for place in options.places for path in (pictures_in(place) if place.is_dir() else [place])]
    told = {path: read_png_settings(path) or {} for path in every}
    paths = [path for path in every if "sheet_of" not in told[path]]
    plain = [to_tensor(square(load_picture(path), SIZE)) for path in paths]
    prompts = [str(told[path].get("prompt", "")) for path in paths]
    seen = seen_in(options.model, prompts) if all(prompts) else lambda pictures: []
    ways: dict[str, Callable[[Tensor, Palette], Tensor]] = {
        "as drawn": lambda picture, palette: picture,
        "strength 0.5": partial(moved, strength=0.5),
        "strength 1": partial(moved, strength=1.0),
        "nearest colour": nearest,
    }
    rows, shown, labels = [], [], []
    for said in options.palette or PALETTES:
        palette = Palette.read(said)
        for name, way in ways.items():
            pictures = [to_tensor(to_image(way(one, palette))) for one in plain]
            fits = [fit(one, palette) for one in pictures]
            far, share = (sum(values) / len(fits) for values in zip(*fits, strict=True))
            edges = sum(edges_kept(a[None], b[None]) for a, b in zip(pictures, plain, strict=True)) / len(plain)
            numbers = [f"{far:.1f}", f"{share:.0%}", f"{edges:.2f}", *seen(pictures)]
            rows.append([str(len(palette.colours)), name, *numbers])
            shown += map(to_image, pictures)
            labels += [f"{len(palette.colours)}, {name}"] * len(pictures)
    heads = ["colours", "", "CIEDE2000", f"within {TOLERANCE:g}", "edges kept"]
    print(markdown(heads + (["object", "in grey"] if all(prompts) else []), rows))
    if options.output:
        save_png(contact_sheet(shown, len(plain), labels, "palettes", 128), options.output)


if __name__ == "__main__":
    run_in_words(run)
