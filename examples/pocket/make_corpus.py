"""Make pocket's training corpus: openly licensed emoji art, drawn in many styles, with captions.

One command makes everything again (see README.md beside this file):

    python make_corpus.py --out corpus

Parts, in order: ``raw`` (the vector art rendered as RGBA pictures), ``tok`` (pictures of every
name, for the image tokenizer) and ``train`` (the common things in every style, with captions).
Everything is drawn from ``--seed``, so the same command gives the same folder.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import math
import os
import random
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FAMILIES = ("fluent-emoji", "fluent-emoji-flat", "noto", "twemoji")
SIZE = 256
MARGIN = 12  # pixels of air around each rendered picture
# What the base learns; the image tokenizer sees all styles. All are drawn from one family, so that a thing has one
# outline: in several at once a small model blurs them.
TAUGHT_STYLES = (
    "line-drawing",
    "outline",
    "watercolor",
    "oil",
    "crayon",
    "chalk",
    "neon",
    "duotone",
    "pixel-art",
    "paper-cut",
    "sticker",
    "clay",
    "pencil",
    "woodcut",
    "pop-art",
    "mosaic",
    "blueprint",
    "pastel",
    "low-poly",
)
TAUGHT_FROM = "fluent-emoji-flat"
_LEFT_OUT = ("skin-tone", "oclock", "thirty", "flag")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def fetch_art(folder: Path) -> None:
    """Download and unpack the four icon packages with ``npm pack`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for family in FAMILIES:
        if list(folder.glob(f"iconify-json-{family}-[0-9]*/icons.json")):
            continue
        done = subprocess.run(
            ["npm", "pack", "--silent", f"@iconify-json/{family}"],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
        )
        name = done.stdout.strip().splitlines()[-1]
        with tarfile.open(folder / name) as archive:
            member = archive.extractfile("package/icons.json")
            assert member is not None
            target = folder / name.removesuffix(".tgz") / "icons.json"
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(member.read())


def load_art(folder: Path) -> dict[str, dict[str, Any]]:
    """The four ``icons.json`` files by family name."""
    art = {}
    for family in FAMILIES:
        found = sorted(folder.glob(f"iconify-json-{family}-[0-9]*/icons.json"))
        if not found:
            raise SystemExit(f"no iconify-json-{family}-*/icons.json in {folder}")
        art[family] = json.loads(found[-1].read_text(encoding="utf-8"))
    return art


def common_things(file: str = "things.txt") -> list[str]:
    """Names of things: things.txt for the whole list, taught.txt for those that pocket is taught."""
    lines = (HERE / file).read_text(encoding="utf-8").splitlines()
    return [word for line in lines if not line.startswith("#") for word in line.split()]


def common_names(art: dict[str, dict[str, Any]]) -> list[str]:
    """Names drawn by all four families, the common things first, variants left out."""
    shared = set.intersection(*(set(pack["icons"]) for pack in art.values()))
    names = sorted(n for n in shared if not any(part in n for part in _LEFT_OUT))
    first = [n for n in common_things() if n in shared]
    return first + [n for n in names if n not in set(first)]


def _render(job: tuple[str, Path]) -> str | None:
    import resvg_py
    from PIL import Image

    svg, path = job
    try:
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE))
        image = Image.open(io.BytesIO(png)).convert("RGBA")
    except Exception as error:  # one bad drawing must not stop the other thousands
        return f"{path.stem}: {error}"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    image.save(temporary, "WEBP", lossless=True, quality=0, method=0, exact=False)
    os.replace(temporary, path)
    return None


def make_raw(art: dict[str, dict[str, Any]], out: Path, workers: int) -> None:
    """Render every common name of every family to ``out/<family>/<name>.webp`` (RGBA)."""
    jobs = []
    for name in common_names(art):
        for family, pack in art.items():
            path = out / family / f"{name}.webp"
            if path.exists():
                continue
            icon = pack["icons"][name]
            width = icon.get("width", pack.get("width", 16))
            height = icon.get("height", pack.get("height", 16))
            left, top = icon.get("left", 0), icon.get("top", 0)
            air = max(width, height) * MARGIN / (SIZE - 2 * MARGIN)
            side = max(width, height) + 2 * air
            box = (left + width / 2 - side / 2, top + height / 2 - side / 2, side, side)
            svg = (
                '<svg xmlns="http://www.w3.org/2000/svg" '
                'xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'width="{SIZE}" height="{SIZE}" viewBox="{" ".join(f"{v:g}" for v in box)}">'
                f"{icon['body']}</svg>"
            )
            jobs.append((svg, path))
    with ProcessPoolExecutor(workers) as pool:
        problems = [p for p in pool.map(_render, jobs, chunksize=16) if p]
    _say("\n  ".join([f"raw: {len(jobs) - len(problems)} pictures rendered", *problems]))


# -- captions -----------------------------------------------------------------------------

FAMILY_WORDS = {
    "fluent-emoji": ("3d rendering", "3d render", "glossy 3d"),
    "fluent-emoji-flat": ("flat design", "flat vector", "flat illustration"),
    "noto": ("cartoon", "cartoon illustration", "colorful cartoon"),
    "twemoji": ("flat icon", "simple icon", "emoji icon"),
}
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.88, 0.2, 0.2),
    "blue": (0.22, 0.42, 0.86),
    "light blue": (0.66, 0.84, 0.97),
    "green": (0.3, 0.68, 0.36),
    "light green": (0.75, 0.91, 0.7),
    "yellow": (0.99, 0.87, 0.3),
    "orange": (0.98, 0.62, 0.24),
    "pink": (0.98, 0.7, 0.8),
    "purple": (0.56, 0.36, 0.78),
    "grey": (0.68, 0.69, 0.71),
    "brown": (0.52, 0.36, 0.25),
    "teal": (0.2, 0.62, 0.62),
    "beige": (0.95, 0.89, 0.78),
    "black": (0.06, 0.06, 0.07),
    "dark blue": (0.1, 0.16, 0.38),
}
# Mirrored writing would be wrong writing.
_NEVER_FLIP = (
    "button",
    "letter",
    "latin",
    "keycap",
    "sign",
    "symbol",
    "mark",
    "clock",
    "number",
    "badge",
    "book",
    "blood",
    "note",
    "arrow",
    "question",
    "police",
    "ambulance",
    "fire-engine",
    "calendar",
    "news",
    "left",
    "right",
    "map",
    "globe",
)


def contents() -> dict[str, list[str]]:
    """What captions call each common thing, from words.txt."""
    table = {}
    for line in (HERE / "words.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, words = line.partition(":")
            table[name] = [w.strip() for w in words.split(";")]
    return table


def called(name: str, table: dict[str, list[str]]) -> list[str]:
    """Equivalent content phrases for a name."""
    plain = name.replace("-", " ")
    return table.get(name, [f"{'an' if plain[0] in 'aeio' else 'a'} {plain}"])


def captions(
    content: list[str], style: tuple[str, ...], ground: str, rng: random.Random, plain: bool = True
) -> list[str]:
    """Equivalent captions; where the look is ``plain``, about one in four leaves the style out.

    ``ground`` (" on a blue background" or nothing) is named in about half of them. The first
    caption is the plainest and always has the style.
    """
    out = [f"{content[0]} in {style[0]} style"]
    for i in range(10):
        # The plain word comes up as often as all the others together.
        word = content[0] if rng.random() < 0.5 else rng.choice(content)
        where = ground if rng.random() < 0.58 else ""
        look = style[0] if rng.random() < 0.5 else rng.choice(style)
        out.append(f"{word}{where}" if plain and i in (1, 6) else f"{word}{where} in {look} style")
    return list(dict.fromkeys(out))


# -- pictures -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One picture to draw."""

    path: str
    names: tuple[str, ...]
    family: str
    style: str | None  # None: the family's own look
    seed: int
    white: float  # how often the background is white
    small: float  # the smallest scale; 1 puts every view in the same place, unmirrored
    held_out: bool = False


def _background(rng: random.Random, white: float) -> tuple[Any, str]:
    """A background ``[1, 3, S, S]`` and how captions name it."""
    import torch

    def colour(name: str) -> Any:
        values = [min(1.0, max(0.0, v + rng.uniform(-0.05, 0.05))) for v in COLOURS[name]]
        return torch.tensor(values).view(1, 3, 1, 1)

    if rng.random() < white:
        ground = torch.ones(1, 3, SIZE, SIZE)
        return ground, " on a white background" if rng.random() < 0.2 else ""
    first, second = rng.sample(sorted(COLOURS), 2)
    if rng.random() < 0.7:
        article = "an" if first[0] in "aeiou" else "a"
        return colour(first).expand(1, 3, SIZE, SIZE).clone(), f" on {article} {first} background"
    angle = rng.uniform(0, 6.283)
    line = torch.linspace(-0.5, 0.5, SIZE)
    slope = line.view(1, 1, -1, 1) * math.sin(angle) + line.view(1, 1, 1, -1) * math.cos(angle)
    t = (slope + 0.5).clamp(0, 1)
    mixed = colour(first) * (1 - t) + colour(second) * t
    if rng.random() < 0.5:
        return mixed, f" on a {first} and {second} gradient background"
    return mixed, " on a gradient background"


@functools.lru_cache(maxsize=64)
def _load(path: Path) -> Any:
    """One raw picture, premultiplied, ``[1, 4, S, S]``."""
    import numpy as np
    import torch
    from PIL import Image

    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGBA")))
    rgba = pixels.permute(2, 0, 1)[None].float() / 255
    return torch.cat((rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]), 1)


def _place(rgba: Any, scale: float, x: float, y: float, flip: bool) -> Any:
    """The picture scaled, moved (in half widths) and perhaps mirrored."""
    import torch
    import torch.nn.functional as F

    if scale < 0.7:  # grid_sample alone would alias
        rgba = F.avg_pool2d(rgba, 2)
    turn = -1.0 if flip else 1.0
    theta = torch.tensor([[[turn / scale, 0, -x * turn / scale], [0, 1 / scale, -y / scale]]])
    grid = F.affine_grid(theta, [1, 4, SIZE, SIZE], align_corners=False)
    return F.grid_sample(rgba, grid, align_corners=False)


def _draw(out: Path, raw: Path, jobs: list[Job]) -> list[dict[str, Any]]:
    """Draw and save some pictures; their metadata lines."""
    import torch
    from PIL import Image

    from styledrop_cli.styles import STYLES, apply_style

    torch.set_num_threads(1)
    table = contents()
    lines = []
    for job in jobs:
        rng = random.Random(job.seed)
        ground, words = _background(rng, job.white)
        parts = []
        for i, name in enumerate(job.names):
            picture = _load(raw / job.family / f"{name}.webp")
            flip = rng.random() < 0.35 and not any(w in name for w in _NEVER_FLIP)
            if job.small == 1:
                scale, x, y, flip = 1.0, 0.0, 0.0, False
            elif len(job.names) == 1:
                scale = rng.uniform(job.small, 1.0)
                room = 1 - scale
                x, y = rng.uniform(-room, room) * 0.7, rng.uniform(-room, room) * 0.7
            else:
                scale = rng.uniform(0.44, 0.52)
                x, y = (-0.49, 0.49)[i] + rng.uniform(-0.02, 0.02), rng.uniform(-0.15, 0.15)
            parts.append(_place(picture, scale, x, y, flip))
        both = parts[0]
        for part in parts[1:]:
            both = part + both * (1 - part[:, 3:])
        if job.style is None:
            look: tuple[str, ...] = FAMILY_WORDS[job.family]
            keeps = True
            drawn = both[:, :3] + ground * (1 - both[:, 3:])
        else:
            family = STYLES[job.style]
            look, keeps = family.descriptions, family.keeps_background
            straight = torch.cat((both[:, :3] / both[:, 3:].clamp(min=1e-3), both[:, 3:]), 1)
            generator = torch.Generator().manual_seed(job.seed)
            drawn = apply_style(job.style, straight.clamp(0, 1), ground, generator)
        content = called(job.names[0], table)
        if len(job.names) == 2:
            other = called(job.names[1], table)
            content = [
                f"{content[0]} and {other[0]}",
                f"{content[-1]} and {other[-1]}",
                f"{content[0]} next to {other[0]}",
            ]
        # Without a style the words mean one look, not a draw among all.
        plain = job.style is None and (job.family == TAUGHT_FROM or job.small != 1)
        text = captions(content, look, words if keeps else "", rng, plain)
        path = out / job.path
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (drawn[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(path, "JPEG", quality=95, subsampling=0)
        line: dict[str, Any] = {
            "file_name": job.path,
            "text": text,
            "thing": "+".join(job.names),
            "style": job.style or job.family,
            "family": job.family,
        }
        if job.held_out:
            line["split"] = "held-out"
        lines.append(line)
    return lines


def _write(out: Path, raw: Path, jobs: list[Job], workers: int) -> None:
    """Draw all jobs and write ``metadata.jsonl`` last."""
    out.mkdir(parents=True, exist_ok=True)
    chunks = [jobs[i : i + 64] for i in range(0, len(jobs), 64)]
    lines = []
    with ProcessPoolExecutor(workers) as pool:
        for i, part in enumerate(pool.map(functools.partial(_draw, out, raw), chunks)):
            lines += part
            if i % 25 == 24:
                _say(f"{out.name}: {len(lines)} of {len(jobs)}")
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    temporary = out / "metadata.jsonl.tmp"
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, out / "metadata.jsonl")


def tok_jobs(raw: Path, count: int, seed: int) -> list[Job]:
    """Pictures for the image tokenizer: every name, family and style, many backgrounds."""
    from styledrop_cli.styles import STYLES

    rng = random.Random(f"tok {seed}")
    names = sorted(path.stem for path in (raw / FAMILIES[0]).glob("*.webp"))
    common = common_things()
    pool: list[str] = []
    while len(pool) < count:
        pool += rng.sample(names, len(names)) + common * 2
    jobs = []
    for i in range(count):
        style = None if rng.random() < 0.4 else rng.choice(list(STYLES))
        jobs.append(
            Job(
                f"{i // 1000:02d}/{i:05d}.jpg",
                (pool[i],),
                rng.choice(FAMILIES),
                style,
                rng.getrandbits(40),
                white=0.45,
                small=0.55,
                held_out=i % 50 == 49,
            )
        )
    return jobs


def train_jobs(own: int, styled: int, seed: int) -> list[Job]:
    """The things pocket is taught: ``own`` views per family, ``styled`` per style of ``TAUGHT_STYLES``.

    All in the same place and size: a shift by a pixel changes every id, and to draw well wherever it stands is more
    than so small a model learns in an hour.
    """
    rng = random.Random(f"train {seed}")
    jobs = []
    for name in common_things("taught.txt"):
        views: list[tuple[str, str | None]] = [(f, None) for f in FAMILIES for _ in range(own)]
        views += [(TAUGHT_FROM, s) for s in TAUGHT_STYLES for _ in range(styled)]
        for i, (family, style) in enumerate(views):
            jobs.append(
                Job(
                    f"{name}/{style or family}-{i:03d}.jpg",
                    (name,),
                    family,
                    style,
                    rng.getrandbits(40),
                    white=0.85,
                    small=1.0,
                    held_out=rng.random() < 0.025,
                )
            )
    return jobs


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description="Make pocket's training corpus.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--art", type=Path, help="folder with the unpacked icon packages")
    parser.add_argument("--parts", default="raw,tok,train", help="which parts, comma separated")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tok-count", type=int, default=8000)
    parser.add_argument("--own-views", type=int, default=3, help="views per thing and family")
    parser.add_argument("--style-views", type=int, default=4, help="views per thing and style")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    parts = options.parts.split(",")
    if "raw" in parts:
        start = time.time()
        folder = options.art or options.out / "art"
        if options.art is None:
            fetch_art(folder)
        make_raw(load_art(folder), options.out / "raw", options.workers)
        _say(f"raw: {time.time() - start:.0f} s")
    raw = options.out / "raw"
    if "tok" in parts:
        start = time.time()
        jobs = tok_jobs(raw, options.tok_count, options.seed)
        _write(options.out / "tok", raw, jobs, options.workers)
        _say(f"tok: {len(jobs)} pictures, {time.time() - start:.0f} s")
    if "train" in parts:
        start = time.time()
        jobs = train_jobs(options.own_views, options.style_views, options.seed)
        _write(options.out / "train", raw, jobs, options.workers)
        _say(f"train: {len(jobs)} pictures, {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
