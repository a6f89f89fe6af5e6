"""Patterns for the names of files, as in ``{prompt}-{seed}``."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from string import Formatter
from typing import Any

from styledrop_cli.errors import UsageError
from styledrop_cli.io.files import SUFFIXES
from styledrop_cli.io.text_files import MOST, short
from styledrop_cli.settings import LARGEST_SEED

FIELDS = ("prompt", "seed", "index", "name", "style")
LONGEST_SLUG = 48  # characters
LONGEST_STEM = 120  # bytes: every file system takes these with a suffix and a number
SIGNS = re.compile("[\u2190-\u21ff\u2300-\u2bff\U0001f000-\U0001faff]")  # arrows, dingbats and emoji
JOINERS = "\u200c\u200d"
# What no file's name may hold somewhere, and what turns the direction of writing around.
FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*\u2028-\u202e\u2066-\u2069\ud800-\udfff]+')
RESERVED = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])\s*(?:\.|$)", re.IGNORECASE)


def stem(pattern: str, *, prompt: str, seed: int, index: int, name: str | None = None, style: str = "") -> str:
    """A file's name without its suffix: ``pattern`` with its fields filled in, for example "{prompt}-{seed}".

    ``prompt`` and ``style`` become words joined by "-"; without a ``name`` the prompt's words stand for it. Texts are
    cut so that numbers are whole. The result is a name on every system: never a path, hidden, empty or longer than
    ``LONGEST_STEM`` bytes. Raises UsageError for a pattern that cannot be filled in.
    """
    parts = _parts(pattern)
    slug = word_slug(prompt)
    values = {"prompt": slug, "name": name or slug, "style": word_slug(style), "seed": seed, "index": index}
    made = ""
    for room in range(LONGEST_STEM, 0, -1):
        made = _file_name(_filled(parts, values, room))
        if len(made.encode()) <= LONGEST_STEM:
            return made
    return made.encode()[:LONGEST_STEM].decode(errors="ignore").rstrip(" .-")


def check_pattern(pattern: str) -> None:
    """Raise UsageError for a pattern that ``stem`` cannot fill in, that is too long, or whose names are all alike."""
    parts = _parts(pattern)
    fields = {field for _, field, _ in parts}
    missing = {}
    if not fields & {"prompt", "name", "index"}:
        missing["prompts"] = "{prompt}, {name} or {index}"
    if not fields & {"seed", "index"}:
        missing["the pictures of one prompt"] = "{seed} or {index}"
    if missing:
        what = f"the pattern '{short(pattern)}' does not tell {' and '.join(missing)} apart"
        raise UsageError(what, f"add {' and '.join(missing.values())}")
    largest = {**dict.fromkeys(FIELDS, "x"), "seed": LARGEST_SEED, "index": MOST * 1000}
    if len(_filled(parts, largest, 1).encode("utf-8", "replace")) > LONGEST_STEM:
        what = f"the pattern '{short(pattern)}' makes names of more than {LONGEST_STEM} bytes"
        raise UsageError(what, "leave out some of its text")


def folder_or_picture(output: Path, number: int) -> tuple[Path, str]:
    """The folder that ``output`` names; if it names a picture, cat.png, the folder of that and its stem, otherwise "".

    Raises UsageError if it names a picture and ``number``, how many are drawn, is not 1, or one that is no PNG.
    """
    if output.suffix.lower() not in SUFFIXES or output.is_dir():
        return output, ""
    if output.suffix.lower() != ".png":
        raise UsageError(f"{output} names no PNG, and pictures are written as PNG", f"say {output.with_suffix('.png')}")
    if number != 1:
        what = f"{output} names one picture, and {number:,} are to be drawn"
        raise UsageError(what, "name a folder for them, or draw one: -n 1 and one prompt")
    return output.parent, output.stem


@lru_cache
def _parts(pattern: str) -> tuple[tuple[str, str, str], ...]:
    """A pattern as texts, each with the field behind it (empty for none) and its format."""
    hint = "fields: {prompt}, {seed}, {index}, {name}, {style}; {index:04} puts zeros in front, {{ is a brace itself"
    try:
        parsed = [(text, field, spec or "", kind) for text, field, spec, kind in Formatter().parse(pattern)]
    except ValueError as error:
        raise UsageError(f"the pattern '{short(pattern)}' has a wrong brace: {error}", hint) from None
    parts = []
    for text, field, spec, conversion in parsed:
        if field is not None and field not in FIELDS:
            base = re.split(r"[.\[]", field)[0]
            what = f"only {{{base}}} alone" if base in FIELDS else f"no field {{{short(field)}}}"
            raise UsageError(f"in the pattern '{short(pattern)}' there can be {what}", hint)
        if conversion or not re.fullmatch(r"(?:0\d{1,2})?" if field in ("seed", "index") else "", spec):
            raise UsageError(f"in the pattern '{short(pattern)}' {{{field}}} cannot have this format", hint)
        parts.append((text, field or "", spec))
    return tuple(parts)


def _filled(parts: tuple[tuple[str, str, str], ...], values: Mapping[str, Any], room: int) -> str:
    """A pattern's text with ``values`` in it, of each text at most ``room`` characters."""
    made = []
    for text, field, spec in parts:
        value = values[field] if field else ""
        made += [text, value[:room].rstrip("-") if isinstance(value, str) else format(value, spec)]
    return "".join(made)


def word_slug(text: str) -> str:
    """The words of a text in lower case, with "-" between; "picture" if there are none."""

    def speaks(letter: str) -> bool:
        return letter.isalnum() or bool(SIGNS.match(letter))

    # Marks are a part of the letters that they stand above, below or behind; Python's \w leaves them out.
    kept = (
        letter if speaks(letter) or letter in JOINERS or unicodedata.category(letter)[0] == "M" else " "
        for letter in unicodedata.normalize("NFC", text).lower()
    )
    words = (word for word in "".join(kept).split() if any(map(speaks, word)))
    return "-".join(words)[:LONGEST_SLUG].strip("-") or "picture"


def _file_name(text: str) -> str:
    """A text as a name that every system takes, however long."""
    here = sys.getfilesystemencoding()  # in which some systems have few letters
    text = FORBIDDEN.sub("-", unicodedata.normalize("NFC", text).encode(here, "replace").decode(here))
    text = " ".join(re.sub(r"\.{2,}", ".", text).split()).strip(" .-")
    if RESERVED.match(text):  # Windows reads these as devices, whatever their suffix
        text = f"_{text}"
    return text or "picture"
