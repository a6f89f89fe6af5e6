"""Where pocket's art comes from, and how it is rendered: packages of npm and of Debian, as index.jsonl names them."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from styledrop_cli.files import atomic_write
from styledrop_cli.pretraining.cutouts import Cutout

SIZE = 256
LICENCES = ("public-domain", "MIT", "Apache-2.0", "CC-BY-4.0")
LETTERS = "letters"  # a family of our own, beside those
# How captions call each look, the plainest first.
LOOKS = {
    "fluent-emoji": ("3d rendering", "3d render", "glossy 3d"),
    "fluent-emoji-flat": ("flat design", "flat vector", "flat illustration"),
    "noto": ("cartoon", "cartoon illustration", "colorful cartoon"),
    "twemoji": ("flat icon", "simple icon", "emoji icon"),
    "openclipart": ("clip art", "vector clip art", "clip art illustration"),
    "streamline-emojis": ("outlined emoji", "emoji with thin outlines", "outlined colorful emoji"),
    "streamline-duotone": ("two-tone blue icon", "blue icon", "flat blue glyph"),
    "streamline-line": ("blue line icon", "blue outline icon"),
    "icon-park": ("bold black and blue icon", "bold blue icon", "thick line icon"),
    "glyphs-poly": ("simple two-colour icon", "soft two-colour glyph"),
    "streamline-kameleon-color": ("round badge icon", "icon in a circle", "flat round icon"),
    "streamline-cyber-color": ("angular line icon", "angular blue outline icon"),
    "streamline-ultimate-color": ("pale coloured line icon", "line icon with pale colours"),
    "streamline-stickies-color": ("chunky bright icon", "chunky icon with thick lines"),
    "streamline-freehand-color": ("doodle", "hand-drawn doodle"),
    "fluent-color": ("gradient icon", "smooth gradient icon"),
    "flat-ui": ("web icon", "rounded web icon"),
    "flat-color-icons": ("office icon", "plain office icon"),
    "tango": ("desktop icon", "old desktop icon"),
    LETTERS: ("flat design", "flat vector", "flat illustration"),
}


def take_art(tar: Path, cutouts: Sequence[Cutout], out: Path) -> list[str]:
    """Take ready cut-outs from a tar laid out like the index; what it lacks, named."""
    wanted = {cutout.file for cutout in cutouts}
    with tarfile.open(tar) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            name = "openclipart/" + name.removeprefix("oc/") if name.startswith("oc/") else name
            if name in wanted and member.isfile():
                path = out / name
                file = archive.extractfile(member)
                if file is not None and not (path.exists() and path.stat().st_size == member.size):
                    atomic_write(path, file.read())
                wanted.remove(name)
    return [f"{name} is not in {tar}" for name in sorted(wanted)]


def fetch_art(
    cutouts: Sequence[Cutout], packages: Path, out: Path, workers: int, move: Callable[[float, str], None]
) -> list[str]:
    raise NotImplementedError


def write_letters(out: Path) -> tuple[dict[str, list[str]], list[dict[str, Any]]]:
    """A-Z and 0-9 as cut-outs, in the typeface that comes with Pillow (Aileron, CC0); their words and index lines."""
    from PIL import Image, ImageDraw, ImageFont

    from styledrop_cli.images import png_bytes

    ink = ("#e74856", "#0078d7", "#00a65a", "#f7630c", "#8e562e", "#744da9")
    words, lines = {}, []
    for i, sign in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"):
        kind = "number" if sign.isdigit() else "letter"
        thing, file = f"{kind} {sign}", f"{kind}-{sign.lower()}.png"
        words[thing] = [f"the {thing}", f"a {sign}" if sign.isdigit() else f"a {thing}"]
        chinese = f"数字{sign}" if sign.isdigit() else f"字母{sign}"
        about = {"thing": thing, "kind": "letter", "zh": chinese, "licence": "CC0-1.0", "outline": True}
        lines.append({"file": f"{LETTERS}/{file}"} | about)
        if (out / file).exists():
            continue
        image = Image.new("RGBA", (SIZE, SIZE))
        ImageDraw.Draw(image).text(
            (SIZE / 2, SIZE / 2), sign, fill=ink[i % len(ink)], font=ImageFont.load_default(250), anchor="mm",
            stroke_width=6, stroke_fill=ink[i % len(ink)],
        )  # fmt: skip
        drawn = image.crop(image.getbbox() or (0, 0, SIZE, SIZE))
        centred = Image.new("RGBA", (SIZE, SIZE))
        centred.paste(drawn, ((SIZE - drawn.width) // 2, (SIZE - drawn.height) // 2))
        atomic_write(out / file, png_bytes(centred))
    return words, lines
