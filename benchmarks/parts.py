"""What the parts of a base can do, in figures, side by side: ``python benchmarks/parts.py pocket my-model/``.

On data that nothing was trained on. Tokenizer: how well it shows OpenMoji, and a folder of pictures beside WebP of as
many bytes as the ids take. CLIP: how often it names what a family of icons shows that it has never seen. Text: how many
words that no caption has are read as a thing accepted for them. A model folder may hold only some of its parts.
"""

from __future__ import annotations

import argparse
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from outside_words import read_as
from paired.measures import markdown
from paired.openmoji import OPENMOJI, SIZE, fetch, icons_of, render
from script import run_in_words
from styledrop_cli.base.folder import load_module, text_part
from styledrop_cli.base.known_things import THINGS, read_things
from styledrop_cli.base.registry import BUNDLED, POCKET
from styledrop_cli.errors import UsageError
from styledrop_cli.io.files import write_json
from styledrop_cli.io.images import load_cutout, load_picture, square, to_tensor
from styledrop_cli.judging.clip_scorer import load_scorer
from styledrop_cli.models.efficientnet import EfficientNet
from styledrop_cli.models.tokenizer import ImageTokenizer, psnr
from styledrop_cli.training.pretrain.features import published_features
from styledrop_cli.training.pretrain.tokenizer import FEATURE_STAGES, feature_loss

ROOT = Path(__file__).parents[1]
INDEX = ROOT / "examples" / "pocket" / "index.jsonl"
UNSEEN = (OPENMOJI, "fxemoji", "emojione", "noto-v1")  # families that no base of ours is trained on
MOST = 256  # things that a CLIP chooses among
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
SIDES = (256, 224, 192, 160, 128, 96, 64)  # px, at which WebP may store a picture
CPU = torch.device("cpu")

Figures = dict[str, str]


# ---- the tokenizer --------------------------------------------------------------------------------


@torch.no_grad()
def tripped(tokenizer: ImageTokenizer, pictures: Tensor) -> Tensor:
    """Pictures ``[B,3,S,S]`` in [0,1] after the tokenizer's round trip, in fp32."""
    return torch.cat([tokenizer.decode(tokenizer.encode(part)) for part in pictures.split(16)])


@torch.no_grad()
def of_openmoji(tokenizer: ImageTokenizer, paths: Sequence[Path], features: EfficientNet) -> Figures:
    """DB, and distance in EfficientNet's features, of cut-outs on white, at the usual size and at twice that."""
    found = {}
    for size in (128, 256):
        rgba = torch.stack([load_cutout(path, size) for path in paths])
        pictures = rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]
        made = tripped(tokenizer, pictures)
        pairs = zip(made.split(16), pictures.split(16), strict=True)
        far = np.mean([float(feature_loss(features, a, b)) for a, b in pairs])
        found[f"tokenizer, OpenMoji at {size} px"] = f"{psnr(made, pictures):.2f} dB, features {far:.3f}"
    return found


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder; raises UsageError if there are none."""
    found = sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES)
    if not found:
        raise UsageError(f"there are no pictures in {folder}", "Name a folder of PNG, JPEG or WebP files.")
    return found


def against_webp(tokenizer: ImageTokenizer, paths: Sequence[Path]) -> Figures:
    """Mean dB at 256 px of the tokenizer, and of WebP in at most as many bytes as its ids take."""
    config = tokenizer.config
    allowed = math.floor((SIZE // config.factor) ** 2 * math.log2(config.num_vq_embeddings) / 8)
    ours, theirs = [], []
    for path in paths:
        image = square(load_picture(path), SIZE)
        picture = to_tensor(image)[None]
        ours.append(psnr(tripped(tokenizer, picture), picture))
        theirs.append(best_webp(image, allowed))
    return {
        f"tokenizer, {len(paths)} pictures at {SIZE} px": f"{np.mean(ours):.2f} dB",
        "WebP of as many bytes": f"{np.mean(theirs):.2f} dB in {allowed:,}",
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


# ---- the CLIP -------------------------------------------------------------------------------------


def names_of(folder: Path) -> dict[str, str]:
    """What a base calls each thing that it was taught."""
    things = {thing.thing: thing.words[0] for thing in read_things(folder / THINGS)}
    if things or not (folder / "contents.txt").exists():
        return things
    listed = (folder / "contents.txt").read_text(encoding="utf-8").splitlines()
    return {name.removeprefix("a ").removeprefix("an "): name for name in listed}


def icons_by_thing(path: Path) -> dict[str, list[str]]:
    """What emoji families call the icons of each thing of an index, the thing's own name first."""
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        icons, icon = found.setdefault(entry["thing"], []), Path(entry["file"]).stem
        if icon not in icons:
            icons.append(icon)
    own = {thing: (thing.replace(" ", "-"), f"{thing.replace(' ', '-')}-face") for thing in found}
    return {thing: sorted(icons, key=lambda icon: icon not in own[thing]) for thing, icons in found.items()}


@torch.no_grad()
def named(part: str, folder: Path, icons: dict[str, list[str]], work: Path) -> Figures:
    """How often a ``part`` that scores finds the right name first, of one picture of each of at most 256 things."""
    clip_scorer, names, found = load_scorer(part, folder, CPU), names_of(folder), {}
    for family in UNSEEN:
        drawn = icons_of(fetch(work, family))
        chosen = {t: icon for t in names for icon in icons.get(t, [])[:1] if icon in drawn}
        every = max(1, math.ceil(len(chosen) / MOST))
        things = list(chosen)[::every]
        missing = [chosen[t] for t in things if not (work / family / f"{chosen[t]}.png").exists()]
        render(drawn, missing, work / family)
        rgba = torch.stack([load_cutout(work / family / f"{chosen[t]}.png", 128) for t in things])
        pictures = rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]
        seen = torch.cat([clip_scorer.picture_embeds(p) for p in pictures.split(32)])
        first = (seen @ clip_scorer.text_embeds([names[t] for t in things]).T).argmax(-1)
        right = float((first == torch.arange(len(things))).float().mean())
        found[f"{part}, right name first, {family}"] = f"{right:.1%} of {len(things)}"
    return found


# ---- all ------------------------------------------------------------------------------------------


def measured(folder: Path, paths: list[Path], work: Path, index: Path) -> Figures:
    """The figures of the parts that a model folder holds."""
    icons = icons_by_thing(index)
    found: Figures = {}
    if (folder / "tokenizer.safetensors").exists():
        drawn, names = icons_of(fetch(work)), [icon for some in icons.values() for icon in some[:1]]
        wanted = [name for name in names if name in drawn]
        render(drawn, [name for name in wanted if not (work / OPENMOJI / f"{name}.png").exists()], work / OPENMOJI)
        cutouts = [work / OPENMOJI / f"{name}.png" for name in wanted][:: max(1, len(wanted) // MOST)]
        tokenizer = load_module(folder, "tokenizer")
        found |= of_openmoji(tokenizer, cutouts, published_features(FEATURE_STAGES))
        found |= against_webp(tokenizer, paths) if paths else {}
    for part in ("clip", "scorer"):
        if (folder / f"{part}.safetensors").exists():
            found |= named(part, folder, icons, work)
    if text_part(folder) == "text":
        counts = read_as(folder, index)
        good, asked = len(counts["right"]), sum(map(len, counts.values())) - len(counts["taught"])
        found["text, words outside the names"] = f"{good / asked:.1%} of {asked}"
    return found


def run() -> None:
    """Everything the command does; raises StyledropError."""
    made = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = made.add_argument
    add("models", nargs="+", help="pocket, or model folders")
    add("--index", type=Path, default=INDEX, help="which drawings show what (default: pocket's list)")
    add("--work", type=Path, default=Path("styledrop-bench"), help="icons are kept here")
    add("--pictures", type=Path, help="folder of pictures to compare with WebP on")
    add("-o", "--output", type=Path, help="file for the figures")
    options = made.parse_args()
    paths = pictures_in(options.pictures) if options.pictures else []
    figures = {
        model: measured(POCKET if model == BUNDLED else Path(model), paths, options.work, options.index)
        for model in options.models
    }
    rows = dict.fromkeys(what for found in figures.values() for what in found)
    print(markdown(["what", *figures], [[what, *(found.get(what, "") for found in figures.values())] for what in rows]))
    if options.output:
        write_json(options.output, figures)


if __name__ == "__main__":
    run_in_words(run)
