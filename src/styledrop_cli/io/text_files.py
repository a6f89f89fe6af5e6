"""What lists of every kind are read with: their text, their TOML, and what is wrong with them.

All that is wrong with a list is one UsageError, with a place and a sentence for each of the first problems.
"""

from __future__ import annotations

import codecs
import re
import sys
import tomllib
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

from styledrop_cli.errors import UsageError

LARGEST = 5_000_000  # bytes of a file
MOST = 100_000  # entries in it
LONGEST = 10_000  # characters of a text
SHOWN = 5  # problems that one error tells of

# What a text may begin with to say how it is encoded; the longer ones first, which begin as others do.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
TABLE = re.compile(r"""\s*\[\[\s*["']?([\w-]+)["']?\s*\]\]""")
TABLE_KEY = re.compile(r"""\s*\[*\s*(?:"([^"]*)"|'([^']*)'|([\w-]+))\s*[.=\]]""")
TOML_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


# ---- texts ----


def read_text(path: Path, kind: str, hint: str) -> str:
    """What is in a file; in messages it is a ``kind``: "list of prompts".

    Raises UsageError if it cannot be read (with ``hint``), and as ``decoded`` does.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)  # a pipe has no size to ask for
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path} cannot be read: {reason}", hint) from None
    return decoded(data, str(path), kind)


def read_stdin(kind: str) -> str:
    """What comes by standard input, read as a file is; raises UsageError as ``decoded`` does."""
    return decoded(sys.stdin.buffer.read(LARGEST + 1), "standard input", kind)


def decoded(data: bytes, source: str, kind: str) -> str:
    """The text in what a ``source`` holds: in UTF-8 or, by the mark in front of it, in UTF-16 or UTF-32.

    Raises UsageError for more than ``LARGEST`` bytes, and with the place of bytes that are no such text.
    """
    refuse_large(len(data), source, kind)
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    try:
        if encoding == "utf-8" and 4 * data.count(b"\0") > len(data):  # UTF-16 without a mark would be read as UTF-8
            zero = data.index(b"\0")
            raise UnicodeDecodeError(encoding, data, zero, zero + 1, "a zero byte")
        return unix(data.decode(encoding))
    except UnicodeDecodeError as error:
        rows = unix(error.object[: error.start].decode(encoding, "replace")).split("\n")
        place = f"{source}, line {len(rows)}, column {len(rows[-1]) + 1}"
        raise UsageError(f"{place}: these bytes are no text in {encoding.upper()}", "save it as UTF-8") from None


def refuse_large(size: int, source: str, kind: str) -> None:
    """UsageError for more than ``LARGEST`` bytes."""
    if size > LARGEST:
        raise UsageError(f"{source} is too large for a {kind}: more than {LARGEST:,} bytes", "make it several")


def unix(text: str) -> str:
    """A text without a byte order mark, its lines ended alike: those that an editor counts."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def plain(text: str) -> str:
    """A text in one line, without control characters and with single blanks."""
    return " ".join(CONTROLS.sub(" ", text).split())


def says_something(text: str) -> bool:
    """Whether there is a letter, a digit or a symbol, such as an emoji, in a text."""
    return any(letter.isalnum() or unicodedata.category(letter) == "So" for letter in text)


def short(value: object) -> str:
    """A value as a message quotes it."""
    try:
        text = plain(str(value))
    except ValueError:  # Python writes no integer of thousands of digits
        return "a very long number"
    return text if len(text) <= 40 else f"{text[:40]}..."


# ---- values ----


def as_text(value: object) -> str:
    """A text in one line, which may be empty. Raises ValueError, which says what it must be."""
    if not isinstance(value, str):
        raise ValueError(f"must be text, in quotes, not {short(value)}")
    text = plain(value)
    if len(text) > LONGEST:
        raise ValueError(f"has more than {LONGEST:,} characters")
    return text


# ---- TOML ----


def read_toml(text: str, source: str, entry: str, example: str) -> dict[str, Any]:
    """The data in a TOML file; ``entry`` and ``example`` are for hints: "[[prompt]] for each prompt", 'text = "a cat"'.

    Raises UsageError with the place of what is no TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found, rows = TOML_PLACE.search(str(error)), text.split("\n")
        line, column = (found[1], found[2]) if found and found[1] else (len(rows), len(rows[-1]) + 1)
        what = TOML_PLACE.sub("", str(error))
        what = f"{source}, line {line}, column {column}: {what[:1].lower()}{what[1:]}"
        raise UsageError(what, f"write texts in quotes, a key a line: {example}") from None
    except (RecursionError, ValueError):  # what the reader itself does not take
        what = f"{source} has brackets too deep in brackets, or a number of thousands of digits"
        raise UsageError(what, f"write {entry}") from None


def table_rows(rows: list[str], name: str, number: int) -> list[range]:
    """Which rows each of the ``number`` tables [[``name``]] takes; none at all, where that cannot be told."""
    heads = [(at, found[1]) for at, row in enumerate(rows) if (found := TABLE.match(row))]
    spans = pairwise([*heads, (len(rows), "")])
    found_rows = [range(at, end) for (at, head), (end, _) in spans if head == name]
    # A head may also stand inside a text: then none is trusted.
    return found_rows if len(found_rows) == number else [range(0)] * number


def key_places(rows: list[str], where: Iterable[int]) -> dict[str, str]:
    """The place of each key, or table, that begins one of these rows: "line 3, column 1"."""
    places: dict[str, str] = {}
    for at in where:
        if found := TABLE_KEY.match(rows[at]):
            key = found.lastindex or 0
            places.setdefault(found[key], f"line {at + 1}, column {found.start(key) + 1}")
    return places


# ---- what is wrong ----


class Problems:
    """What is wrong with a list so far; ``source`` names it. A place is one in it: "line 3, column 12"."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.count = 0
        self._said: list[str] = []
        self._hints: list[str] = []

    def wrong(self, place: str, what: str, hint: str) -> None:
        """Something is wrong at a place; only the first few are kept in words."""
        self.count += 1
        if self.count <= SHOWN:
            self._said.append(f"{self.source}, {place}: {what}")
            self._hints.append(hint)

    def similar(self, name: str, known: Iterable[str]) -> str:
        """A question behind what is wrong with a name, if one that is ``known`` is like it."""
        near = get_close_matches(name[:40], known, 1) if self.count < SHOWN else []  # slow
        return f"; did you mean '{near[0]}'?" if near else ""

    def refuse(self) -> None:
        """UsageError if anything is wrong."""
        if self.count:
            more = [f"and {self.count - SHOWN:,} more"] if self.count > SHOWN else []
            raise UsageError("\n".join(self._said + more), "; ".join(dict.fromkeys(self._hints)))
