"""What the base and its tokenizer can do, in figures: ``python benchmarks/bars.py``.

Five things, on data that nothing was trained on: how well the tokenizer shows OpenMoji; how it does against WebP of the
same number of bytes, on a folder of pictures; how many of the taught things are recognised in what the base draws,
beside what is recognised in real pictures after the tokenizer's round trip; whether super-resolution keeps what is
recognised; and whether words that no thing is called
by land on the things they are a kind of.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from styledrop_cli.base import Base, load_base
from styledrop_cli.bench.art import FAMILIES, Art, Look, load_art, looks
from styledrop_cli.bench.judges import Judges, JudgeSettings, load_judges
from styledrop_cli.bench.measures import markdown
from styledrop_cli.bench.openmoji import OPENMOJI, SIZE
from styledrop_cli.bench.renders import round_trip
from styledrop_cli.bench.rows import drawn
from styledrop_cli.devices import autocast, generator, pick_device
from styledrop_cli.errors import StyledropError, UsageError
from styledrop_cli.files import write_json
from styledrop_cli.images import load_picture, save_png, square, to_image, to_tensor
from styledrop_cli.models.tokenizer import psnr
from styledrop_cli.settings import SampleSettings
from styledrop_cli.sheets import contact_sheet
from styledrop_cli.text import with_style

WORDS = Path(__file__).parent / "outside_words.txt"
# Where the base is asked for things: two of its families and some of its styles.
STYLES = ("fluent-emoji", "fluent-emoji-flat", "watercolor", "line-drawing")
OUTLINES = "fluent-emoji-flat"  # of procedural styles
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
SIDES = (256, 224, 192, 160, 128, 96, 64)  # px, at which WebP may store a picture

Figures = dict[str, float]


# ---- the tokenizer --------------------------------------------------------------------------------


def openmoji_psnr(base: Base, art: Art) -> Figures:
    """DB on OpenMoji's things on white, at the tokenizer's own size and at twice that."""
    small = base.sizes[0]
    found = {}
    for size in (small, 2 * small):
        rgba = art.rgba([(OPENMOJI, thing) for thing in art.things], size)
        pictures = rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]
        found[f"tokenizer, OpenMoji at {size} px, dB"] = psnr(round_trip(base, pictures, exact=True), pictures)
    return found


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder; raises UsageError if there are none."""
    found = sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES)
    if not found:
        raise UsageError(f"there are no pictures in {folder}", "Name a folder of PNG, JPEG or WebP files.")
    return found


def against_webp(base: Base, paths: Sequence[Path]) -> Figures:
    """Mean dB at 256 px of the tokenizer, and of WebP in at most as many bytes as its ids take."""
    side = SIZE // base.tokenizer.config.factor
    allowed = math.floor(side**2 * math.log2(base.tokenizer.config.num_vq_embeddings) / 8)
    ours, theirs = [], []
    for path in paths:
        image = square(load_picture(path), SIZE)
        picture = to_tensor(image)[None]
        ours.append(psnr(round_trip(base, picture, exact=True), picture))
        theirs.append(best_webp(image, allowed))
        print(f"  {path.name}: {ours[-1]:.2f} dB, WebP {theirs[-1]:.2f} dB")
    return {
        "bytes of a picture's ids at 256 px": allowed,
        "tokenizer, pictures at 256 px, dB": float(np.mean(ours)),
        "WebP at equal bytes, dB": float(np.mean(theirs)),
    }


def best_webp(image: Image.Image, allowed: int) -> float:
    """The best PSNR of a WebP of at most ``allowed`` bytes: of any quality, stored at full size or smaller."""
    wanted = to_tensor(image)[None]
    best = -math.inf
    for side in SIDES:
        small = image if side == image.width else image.resize((side, side), Image.Resampling.LANCZOS)
        low, high, found = 0, 100, None
        while low <= high:  # bytes grow with the quality
            quality = (low + high) // 2
            data = webp(small, quality)
            if len(data) <= allowed:
                low, found = quality + 1, data
            else:
                high = quality - 1
        if found is not None:
            with Image.open(io.BytesIO(found)) as stored:
                shown = stored.convert("RGB").resize(image.size, Image.Resampling.BICUBIC)
            best = max(best, psnr(to_tensor(shown)[None], wanted))
    return best


def webp(image: Image.Image, quality: int) -> bytes:
    """``image`` as WebP, with the most effort."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=6)
    return buffer.getvalue()


# ---- the base -------------------------------------------------------------------------------------


def recognised(judges: Judges, pictures: Tensor, things: Sequence[str]) -> Tensor:
    """Of each picture ``[B,3,S,S]``: whether the content judge's first guess is its thing, ``[B]``."""
    first = judges.see(pictures).content.argmax(-1)
    return (first == torch.tensor([judges.things.index(t) for t in things])).float()


def taught_things(base: Base, judges: Judges, art: Art, all_looks: dict[str, Look], things: list[str]) -> Figures:
    """Shares recognised in what the base draws, and in real pictures after the round trip, in ``STYLES``."""
    sampling, found = SampleSettings(size=base.sizes[0]), {}
    shares = []
    for style in STYLES:
        look = all_looks[style]
        made = drawn(base, [with_style(art.words[t], look.text) for t in things], [0] * len(things), sampling)
        rgba = art.rgba([(look.family or OUTLINES, t) for t in things], sampling.size)
        white, draws = torch.ones(1, 3, sampling.size, sampling.size), generator(0)
        real = torch.cat([look(part, white.expand(len(part), -1, -1, -1), draws) for part in rgba.split(16)])
        shares.append([float(recognised(judges, p, things).mean()) for p in (made, round_trip(base, real))])
        found[f"base, {look.text}: top-1"], found[f"real, tokenized, {look.text}: top-1"] = shares[-1]
        print(f"  {look.text}: drawn {shares[-1][0]:.1%}, real after the tokenizer {shares[-1][1]:.1%}")
    ours, ceiling = np.mean(shares, 0)
    return found | {"base: top-1 as a share of the ceiling": float(ours / max(ceiling, 1e-6))}


@torch.no_grad()
def enlarged(base: Base, judges: Judges, art: Art, all_looks: dict[str, Look], things: list[str]) -> Figures:
    """Shares recognised at the larger size, the same ids enlarged by super-resolution and without it."""
    if base.superres is None:
        return {}
    settings, side = SampleSettings(superres_steps=8), base.sizes[1]
    shares = []
    for style in STYLES:
        prompts = [with_style(art.words[t], all_looks[style].text) for t in things]
        made: list[list[Tensor]] = [[], []]
        for start in range(0, len(prompts), 16):
            chunk = prompts[start : start + 16]
            seeds = [0] * len(chunk)
            with autocast(base.device):
                ids = base.sample(chunk, seeds, settings)
                for way, grid in enumerate((base.refine(ids, chunk, seeds, settings), ids)):
                    made[way].append(base.pictures(grid, side).float())
        shares.append([float(recognised(judges, torch.cat(parts), things).mean()) for parts in made])
    refined, plain = np.mean(shares, 0)
    return {"by super-resolution: top-1": float(refined), "the same ids enlarged plainly: top-1": float(plain)}


def read_outside(path: Path) -> list[tuple[str, list[str]]]:
    """Lines ``a corgi: dog-face`` as words and the things accepted for them."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return [(words.strip(), things.split()) for words, _, things in (line.partition(":") for line in lines)]


def outside_words(base: Base, judges: Judges, seeds: int, output: Path | None) -> Figures:
    """The share of pictures, asked for by a word outside the names, that are taken for an accepted thing."""
    asked = read_outside(WORDS)
    style = FAMILIES[OUTLINES]
    prompts = [with_style(words, style) for words, _ in asked for _ in range(seeds)]
    pictures = drawn(base, prompts, [*range(seeds)] * len(asked), SampleSettings(size=base.sizes[0]))
    guesses = [judges.things[i] for i in judges.see(pictures).content.argmax(-1).tolist()]
    right = np.array([[g in accepted for g in guesses[i * seeds :][:seeds]] for i, (_, accepted) in enumerate(asked)])
    known = np.array([not base.unknown_words(words) for words, _ in asked])
    if output is not None:
        labels = [f"{words}: {guesses[i * seeds]}" for i, (words, _) in enumerate(asked)]
        images = [to_image(p) for p in pictures[::seeds]]
        save_png(contact_sheet(images, 10, labels, "words outside the names", cell=112), output / "outside-words.png")
    found = {"words outside the names: top-1 accepted": float(right.mean())}
    # A kind that stood in some caption is one thing, a word that the base has never met another.
    for what, rows in (("met in a caption", known), ("never met", ~known)):
        if rows.any():
            found[f"  {rows.sum()} of them {what}: top-1 accepted"] = float(right[rows].mean())
    return found


def run() -> None:
    """Everything the command does; raises StyledropError."""
    made = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = made.add_argument
    add("--model", default="pocket", help="pocket, or a model folder")
    add("--art", type=Path, default=Path("corpus/art"), help="folder of rendered art (default corpus/art)")
    add("--openmoji", type=Path, help="OpenMoji's icon package; without it, it is fetched with npm")
    add("--work", type=Path, default=Path("styledrop-bench"), help="judges are kept here")
    add("--pictures", type=Path, help="folder of pictures to compare with WebP on")
    add("--every", type=int, default=1, help="draw only every so-manieth thing")
    add("--seeds", type=int, default=2, help="pictures of each word outside the names (default 2)")
    add("-o", "--output", type=Path, help="folder for the figures and a sheet")
    options = made.parse_args()
    for name in ("every", "seeds"):
        if not 1 <= getattr(options, name) <= 100:
            raise UsageError(f"--{name} must be between 1 and 100, not {getattr(options, name)}")
    paths = pictures_in(options.pictures) if options.pictures else []
    base = load_base(options.model, pick_device("cpu"))
    art, everything = load_art(options.art, options.openmoji, options.work), looks()
    judges = load_judges(art, everything, base, options.work, 0, JudgeSettings(), print)
    figures = openmoji_psnr(base, art)
    if paths:
        figures |= against_webp(base, paths)
    by_name = {look.name: look for look in everything}
    figures |= taught_things(base, judges, art, by_name, art.things[:: options.every])
    figures |= enlarged(base, judges, art, by_name, art.things[:: 2 * options.every])
    figures |= outside_words(base, judges, options.seeds, options.output)
    lines = [[name, f"{value:.1%}" if "top-1" in name else f"{value:.2f}"] for name, value in figures.items()]
    print(f"\n{markdown(['what', 'figure'], lines)}")
    if options.output:
        write_json(options.output / "bars.json", {"model": base.name, "base": base.hash, "figures": figures})


if __name__ == "__main__":
    try:
        run()
    except StyledropError as error:
        print(f"Error: {error.message}" + (f"\n{error.hint}" if error.hint else ""), file=sys.stderr)
        raise SystemExit(error.exit_code) from None
