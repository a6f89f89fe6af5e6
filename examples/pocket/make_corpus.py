"""Make pocket's training corpus: openly licensed emoji art, drawn in many styles, with captions.

One command makes everything again (see README.md beside this file):

    python make_corpus.py --out corpus

It fetches the art by package name, renders it as cut-outs into ``corpus/art``, and has the package's generator
(``styledrop_cli.pretraining.drawings``, also ``styledrop pretrain corpus``) draw ``corpus/tok`` (every name anywhere,
for the image tokenizer) and ``corpus/train`` (what pocket is taught).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from styledrop_cli.pretraining.drawings import Recipe, write_corpus

HERE = Path(__file__).resolve().parent
SIZE = 256
MARGIN = 12  # pixels of air around each rendered picture
# How captions call each family's own look.
FAMILIES = {
    "fluent-emoji": ("3d rendering", "3d render", "glossy 3d"),
    "fluent-emoji-flat": ("flat design", "flat vector", "flat illustration"),
    "noto": ("cartoon", "cartoon illustration", "colorful cartoon"),
    "twemoji": ("flat icon", "simple icon", "emoji icon"),
}
LETTERS = "letters"  # a family of our own, beside those
# All styled pictures are redrawn from one family, so that a thing has one outline: in several at once a small model
# blurs them.
OUTLINES = ("fluent-emoji-flat", LETTERS)
SHOWN = "cat-face teapot house rocket red-apple guitar deciduous-tree automobile".split()
# Left out of what the base learns: these hide the thing.
NOT_TAUGHT = ("sunset", "glitch")
_LEFT_OUT = ("skin-tone", "oclock", "thirty", "flag")
# Mirrored writing would be wrong writing.
NEVER_MIRRORED = (
    "button letter digit latin keycap sign symbol mark clock number badge book blood note arrow question police "
    "ambulance fire-engine calendar news left right map globe"
).split()


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


def load_icons(folder: Path) -> dict[str, dict[str, Any]]:
    """The four ``icons.json`` files by family name."""
    icons = {}
    for family in FAMILIES:
        found = sorted(folder.glob(f"iconify-json-{family}-[0-9]*/icons.json"))
        if not found:
            raise SystemExit(f"no iconify-json-{family}-*/icons.json in {folder}")
        icons[family] = json.loads(found[-1].read_text(encoding="utf-8"))
    return icons


def listed(file: str) -> list[str]:
    """The names in a file beside this one: things.txt, the common ones, or taught.txt, what pocket is taught."""
    lines = (HERE / file).read_text(encoding="utf-8").splitlines()
    return [word for line in lines if not line.startswith("#") for word in line.split()]


def table(file: str) -> dict[str, list[str]]:
    """``name: a word; another`` of words.txt or kinds.txt, by name."""
    lines = (HERE / file).read_text(encoding="utf-8").splitlines()
    pairs = [line.partition(":") for line in lines if line and not line.startswith("#")]
    return {name: [word.strip() for word in words.split(";")] for name, _, words in pairs}


def common_names(icons: dict[str, dict[str, Any]]) -> list[str]:
    """Names drawn by all four families, the common things first, variants left out."""
    shared = set.intersection(*(set(pack["icons"]) for pack in icons.values()))
    names = sorted(n for n in shared if not any(part in n for part in _LEFT_OUT))
    first = [n for n in listed("things.txt") if n in shared]
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


def render(icons: dict[str, dict[str, Any]], out: Path, workers: int) -> None:
    """Render every common name of every family to ``out/<family>/<name>.webp`` (RGBA)."""
    jobs = []
    for name in common_names(icons):
        for family, pack in icons.items():
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
    _say("\n  ".join([f"art: {len(jobs) - len(problems)} pictures rendered", *problems]))


def write_letters(out: Path) -> dict[str, list[str]]:
    """A-Z and 0-9 as cut-outs, in the typeface that comes with Pillow (Aileron, CC0); their words by name."""
    from PIL import Image, ImageDraw, ImageFont

    ink = ("#e74856", "#0078d7", "#00a65a", "#f7630c", "#8e562e", "#744da9")
    words = {}
    out.mkdir(parents=True, exist_ok=True)
    for i, sign in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"):
        name = f"{'digit' if sign.isdigit() else 'letter'}-{sign.lower()}"
        words[name] = (
            [f"the number {sign}", f"a {sign}"] if sign.isdigit() else [f"the letter {sign}", f"a letter {sign}"]
        )
        image = Image.new("RGBA", (SIZE, SIZE))
        ImageDraw.Draw(image).text(
            (SIZE / 2, SIZE / 2), sign, fill=ink[i % len(ink)], font=ImageFont.load_default(250), anchor="mm",
            stroke_width=6, stroke_fill=ink[i % len(ink)],
        )  # fmt: skip
        left, top, right, bottom = image.getbbox() or (0, 0, SIZE, SIZE)
        centred = Image.new("RGBA", (SIZE, SIZE))
        drawn = image.crop((left, top, right, bottom))
        centred.paste(drawn, ((SIZE - drawn.width) // 2, (SIZE - drawn.height) // 2))
        centred.save(out / f"{name}.webp", "WEBP", lossless=True)
    return words


def describe(art: Path, names: list[str], letters: dict[str, list[str]]) -> dict[str, Any]:
    """What ``art.json`` says, for the things in ``names``."""
    from styledrop_cli.styles import STYLES

    words, kinds = table("words.txt"), table("kinds.txt")
    plain = {n: n.replace("-", " ") for n in names}
    things = {n: words.get(n, [f"{'an' if p[0] in 'aeio' else 'a'} {p}"]) for n, p in plain.items()}
    families = [*FAMILIES, LETTERS]
    return {
        "families": {family: list(FAMILIES.get(family, FAMILIES[OUTLINES[0]])) for family in families},
        "outlines": list(OUTLINES),
        "styles": [style for style in STYLES if style not in NOT_TAUGHT],
        "things": things | letters,
        "kinds": {n: kinds[n] for n in names if n in kinds},
        "never_mirrored": NEVER_MIRRORED,
    }


def write_sheet(art: Path, path: Path) -> None:
    """A contact sheet of every look: eight things in each family and each style, to look at before training."""
    from styledrop_cli.images import save_png, to_image
    from styledrop_cli.pretraining.drawings import Drawing, draw, read_art
    from styledrop_cli.sheets import contact_sheet
    from styledrop_cli.styles import STYLES

    known = read_art(art)
    names = [n for n in SHOWN if n in known.things]
    looks: list[tuple[str, str | None]] = [
        *((family, None) for family in FAMILIES),
        *((OUTLINES[0], s) for s in STYLES),
    ]
    images, labels = [], []
    for i, (family, style) in enumerate(looks):
        drawings = [Drawing("", (name,), family, style, seed=100 * i + j) for j, name in enumerate(names)]
        for drawing in drawings:  # one by one: together they would share line widths and tile sizes
            pictures, _ = draw([drawing], known, torch.device("cpu"))
            images.append(to_image(pictures[0].float() / 255))
            labels.append(style or family)
    save_png(contact_sheet(images, columns=2 * len(names), labels=labels, cell=64), path)


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description="Make pocket's training corpus.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--icons", type=Path, help="folder with the unpacked icon packages; else they are fetched")
    parser.add_argument("--parts", default="art,tok,train", help="which parts, comma separated")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="write a contact sheet of every style to this file")
    options = parser.parse_args()
    parts, art = options.parts.split(","), options.out / "art"
    if "art" in parts:
        folder = options.icons or options.out / "icons"
        if options.icons is None:
            fetch_art(folder)
        render(load_icons(folder), art, options.workers)
    letters = write_letters(art / LETTERS)

    def say_what(names: list[str]) -> None:
        text = json.dumps(describe(art, names, letters), indent=1)
        (art / "art.json").write_text(text, encoding="utf-8")

    say_what(listed("taught.txt"))
    if options.sheet:
        write_sheet(art, options.sheet)
    device = torch.device(options.device)
    every = sorted(path.stem for path in (art / OUTLINES[0]).glob("*.webp"))
    # The tokenizer sees everything, the base the taught things in every style.
    wide = Recipe(own=5, styled=1, mixed=0, coloured=0, placed=0, counted=0, paired=0, wide=True, pictures=8000)
    for part, names, recipe in (("tok", every, wide), ("train", listed("taught.txt"), Recipe())):
        if part in parts:
            say_what(names)

            def tell(done: int, total: int, part: str = part) -> None:
                if done % 2000 < 8 or done == total:
                    _say(f"{part}: {done} of {total}")

            write_corpus(
                art, options.out / part, recipe,
                seed=options.seed, device=device, workers=options.workers, on_picture=tell,
            )  # fmt: skip


if __name__ == "__main__":
    main()
