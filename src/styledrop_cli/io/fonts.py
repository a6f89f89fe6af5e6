"""Fonts for the words on sheets: one that has all letters of a text, else readable words for those that none has."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
PILLOWS = ""  # the font that comes with Pillow, which has little more than the letters of English
CHINESE = Path(__file__).with_name("chinese.woff")  # common Chinese signs and western letters: tools/font.py
# Fonts with many letters, by the names of their files, which Pillow looks for in the system's folders.
WIDE = (
    "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "SourceHanSans-Regular.ttc", "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf", "PingFang.ttc", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc", "msyh.ttc",
    "YuGothM.ttc", "malgun.ttf", "Arial Unicode.ttf", "arial.ttf",
)  # fmt: skip
# How Unicode calls the letters that are syllables, as they are spelt in Latin: Korean and Japanese ones.
SYLLABLE = re.compile(r"(?:HANGUL SYLLABLE|(?:HIRAGANA|KATAKANA) LETTER(?: SMALL)?) ([A-Z]+)")
_MATCHED: dict[str, None] = {}  # files that fontconfig has named, so that it is not asked for each line


def font_for(text: str, size: int) -> Font:
    """A font in which all letters of ``text`` can be seen; if there is none, the one with most of them."""
    font = _opened(_chosen(frozenset(text)), size)
    assert font is not None  # only fonts that can be opened are chosen
    return font


def spelt(text: str) -> str:
    """``text`` as it can be seen, where no font has a letter: by its sound, or else by its number, as U+9F98."""
    font = _chosen(frozenset(text))
    seen = (letter if _has(font, letter) else _instead(font, letter) for letter in text)
    return " ".join("".join(seen).split())


def _instead(font: str, letter: str) -> str:
    plain = unicodedata.normalize("NFKD", letter)[0]  # an accented letter without its accent
    if _has(font, plain):
        return plain
    syllable = SYLLABLE.fullmatch(unicodedata.name(letter, ""))
    return syllable[1].lower() if syllable else f" U+{ord(letter):04X} "


@lru_cache(maxsize=1024)
def _chosen(letters: frozenset[str]) -> str:
    best, most = PILLOWS, -1
    for file in _fonts(letters):
        if _opened(file, 16) and (count := sum(_has(file, letter) for letter in letters)) > most:
            best, most = file, count
        if most == len(letters):
            break
    return best


def _fonts(letters: frozenset[str]) -> Iterator[str]:
    """Files of fonts in the order in which they are tried."""
    yield PILLOWS
    if matplotlib := importlib.util.find_spec("matplotlib"):  # it brings a font for Latin, Greek, Cyrillic and more
        yield str(Path(matplotlib.origin or "").parent / "mpl-data/fonts/ttf/DejaVuSans.ttf")
    yield str(CHINESE)
    yield from tuple(_MATCHED)
    if fontconfig := shutil.which("fc-match"):
        wanted = " ".join(f"{ord(letter):x}" for letter in sorted(letters) if not letter.isspace())
        command = [fontconfig, "-f", "%{file}", f"sans:charset={wanted}"]
        _MATCHED[subprocess.run(command, capture_output=True, text=True, check=False).stdout] = None
        yield from tuple(_MATCHED)[-1:]
    yield from WIDE


@lru_cache(maxsize=64)
def _opened(file: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(file, size) if file else ImageFont.load_default(size)
    except OSError:
        return None


@lru_cache(maxsize=4096)
def _has(file: str, letter: str) -> bool:
    """Whether a font has a letter: what it lacks looks as the box that stands for U+10FFFF, which is no letter."""
    font = _opened(file, 16)
    if font is None or letter.isspace() or unicodedata.category(letter) == "Cf":  # which is not to be seen
        return font is not None
    mask, box = font.getmask(letter), font.getmask("\U0010ffff")
    return (mask.size, bytes(mask)) != (box.size, bytes(box))
