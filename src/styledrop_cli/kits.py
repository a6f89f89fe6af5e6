"""Kits: what a brand's list of assets says, and how the square that a base draws becomes another shape.

A list is a TOML file: an ``[[asset]]`` for each picture, above them what holds for all. Whatever is wrong with it is
said in one UsageError: line, asset and a sentence for each of the first ``SHOWN`` problems.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from styledrop_cli.errors import UsageError
from styledrop_cli.prompts import CONTROLS, LARGEST, LONGEST, MOST, OPTIONS, RANGES, SHOWN, TOML_PLACE, stem

SIDES = (16, 4096)  # pixels of an asset's side, least and most
MOST_CANDIDATES = 100  # of which one is kept
MOST_PICTURES = 200_000  # candidates among them, that a file asks for
FITS = ("contain", "cover")
LISTED = "write [[asset]] above each asset"

Pixels = NDArray[np.float32]  # [H,W,3] in [0,255]


# ---- lists of assets ----


@dataclass(frozen=True)
class Asset:
    """One entry of a list: ``number`` pictures of ``prompt``, each the likeliest of ``best`` candidates.

    ``size`` is width and height in pixels, None the base's own. ``style`` is said in place of the adapter's own;
    ``options`` are fields of SampleSettings. ``where`` is its place for messages: "brand.toml, line 3".
    """

    name: str
    prompt: str
    where: str
    size: tuple[int, int] | None = None
    number: int | None = None
    best: int = 1
    fit: str = FITS[0]
    style: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stems(self) -> list[str]:
        """The names of its files, without their suffix: its own, or with -1, -2, ... if it has a ``number``."""
        return [self.name] if self.number is None else [f"{self.name}-{i + 1}" for i in range(self.number)]


def read_kit(path: Path) -> list[Asset]:
    """The assets that a file lists, in its order.

    What stands above the first of them holds for all that do not say otherwise. Raises UsageError if the file cannot be
    read, is larger than ``LARGEST`` bytes, holds none or more than ``MOST`` assets or ``MOST_PICTURES`` pictures, or if
    anything in it is wrong: an unknown key, a value that it cannot have, two files of one name (whatever their case).
    """
    text = _text_of(path)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found, rows = TOML_PLACE.search(str(error)), text.split("\n")
        line, column = (found[1], found[2]) if found and found[1] else (len(rows), len(rows[-1]) + 1)
        what = TOML_PLACE.sub("", str(error))
        what = f"{path}, line {line}, column {column}: {what[:1].lower()}{what[1:]}"
        raise UsageError(what, 'write texts in quotes, a key a line: prompt = "a rocket"') from None
    except (RecursionError, ValueError):  # what the reader itself does not take
        what = f"{path} has brackets too deep in brackets, or a number of thousands of digits"
        raise UsageError(what, "write an [[asset]] for each picture") from None
    return _Reading(str(path), text.split("\n")).assets(data)


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path} cannot be read: {reason}", "name a list of assets: brand.toml") from None
    if len(raw) > LARGEST:
        raise UsageError(f"{path} is too large for a list of assets: more than {LARGEST:,} bytes", "make it several")
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UsageError(f"{path}, line {line}: these bytes are no text in UTF-8", "save the file as UTF-8") from None


class _Reading:
    """What is wrong with a file so far, and where its assets and their keys stand."""

    HEAD = re.compile(r"""\s*\[\[\s*(?:asset|"asset"|'asset')\s*\]\]""")
    KEY = re.compile(r"""\s*["']?([\w-]+)["']?\s*[.=]""")

    def __init__(self, source: str, rows: list[str]) -> None:
        self._source, self._rows = source, rows
        self._heads = [at for at, row in enumerate(rows) if self.HEAD.match(row)]
        self._problems: list[tuple[str, str]] = []  # each with a hint

    def assets(self, data: Mapping[str, Any]) -> list[Asset]:
        """The assets in the file's ``data``, if nothing is wrong with them; UsageError otherwise."""
        entries = data.get("asset", [])
        above = (0, self._heads[0] if self._heads else len(self._rows))
        defaults = self._values({key: data[key] for key in data if key != "asset"}, above, "", OF_ALL)
        found: list[Asset] = []
        if not isinstance(entries, list):
            self._wrong(self._line_of("asset", above) or "line 1", "", "asset is no list", LISTED)
            entries = []
        if len(entries) > MOST:
            raise UsageError(f"{self._source} lists more than {MOST:,} assets", "make several files of it")
        # A head may also stand inside a text: then none is trusted.
        trusted = len(self._heads) == len(entries)
        spans = list(pairwise([*self._heads, len(self._rows)])) if trusted else [(0, 0)] * len(entries)
        for number, (entry, span) in enumerate(zip(entries, spans, strict=True), 1):
            place = f"line {span[0] + 1}" if trusted else f"asset {number}"
            if isinstance(entry, dict):
                self._add(found, entry, defaults, place, span)
            else:
                self._wrong(place, "", "this is no asset", LISTED)
        pictures = sum((asset.number or 1) * asset.best for asset in found)
        if pictures > MOST_PICTURES:
            what = f"{self._source} asks for {pictures:,} pictures: at most {MOST_PICTURES:,}"
            raise UsageError(what, "make several files of it")
        self._refuse_twins(found)
        if self._problems:
            said = [what for what, _ in self._problems[:SHOWN]]
            more = len(self._problems) - SHOWN
            raise UsageError(
                "\n".join(said + ([f"and {more:,} more"] if more > 0 else [])),
                "; ".join(dict.fromkeys(hint for _, hint in self._problems[:SHOWN])),
            )
        if not found:
            raise UsageError(f"{self._source} lists no assets", 'write [[asset]], name = "hero", prompt = "a rocket"')
        return found

    def _add(
        self,
        found: list[Asset],
        entry: Mapping[str, Any],
        defaults: Mapping[str, Any],
        place: str,
        span: tuple[int, int],
    ) -> None:
        who = entry.get("name")
        who = f"asset '{_short(who)}'" if isinstance(who, str) and who.strip() else "this asset"
        for key, example in (("name", "hero"), ("prompt", "a rocket")):
            if key not in entry:
                self._wrong(place, who, f"there is no {key}", f'write {key} = "{example}"')
        values = {**defaults, **self._values(entry, span, place, KEYS, who)}
        own = {key: values.pop(key) for key in list(values) if key in Asset.__dataclass_fields__}
        if {"name", "prompt"} <= own.keys():
            found.append(Asset(**own, options=values, where=f"{self._source}, {place}"))

    def _values(
        self, table: Mapping[str, Any], span: tuple[int, int], place: str, keys: Mapping[str, Reader], who: str = ""
    ) -> dict[str, Any]:
        """What the keys of a table set, by their names with underscores."""
        values: dict[str, Any] = {}
        for name, value in table.items():
            key = name.replace("-", "_")
            at = self._line_of(name, span) or place or "above the assets"
            if key not in keys:
                known = keys if who else [*keys, "asset"]
                near = get_close_matches(key[:40], known, 1) if len(self._problems) < SHOWN else []  # slow
                what = f"there is no key '{_short(name)}'" + "".join(f"; did you mean '{one}'?" for one in near)
                self._wrong(at, who, what, f"keys: {', '.join(keys)}")
            elif key in values:
                self._wrong(at, who, f"{name} is given twice", "leave one of them out")
            else:
                try:
                    values[key] = keys[key](value)
                except ValueError as error:
                    self._wrong(at, who, f"{name} {error}", "give it another value, or leave it out")
        return values

    def _refuse_twins(self, found: list[Asset]) -> None:
        """Two assets whose files would be one: many systems do not tell capitals from small letters."""
        owners: dict[str, Asset] = {}
        for asset in found:
            for name in asset.stems:
                other = owners.setdefault(name.casefold(), asset)
                if other is not asset:
                    place = asset.where.removeprefix(f"{self._source}, ")
                    first = other.where.removeprefix(f"{self._source}, ")
                    what = f"{name}.png is also a file of asset '{_short(other.name)}', {first}"
                    self._wrong(place, f"asset '{_short(asset.name)}'", what, "give each a name of its own")
                    break

    def _line_of(self, key: str, span: tuple[int, int]) -> str:
        """Where a key stands within these rows; empty if it begins none of them."""
        for at in range(*span):
            found = self.KEY.match(self._rows[at])
            if found and found[1] == key:
                return f"line {at + 1}"
        return ""

    def _wrong(self, place: str, who: str, what: str, hint: str) -> None:
        said = f"{who}: {what}" if who else what
        self._problems.append((f"{self._source}, {place}: {said}", hint))


# ---- values ----

Reader = Callable[[Any], Any]  # raises ValueError, which says what the value must be


def _short(value: object) -> str:
    """A value as a message quotes it."""
    try:
        text = " ".join(CONTROLS.sub(" ", str(value)).split())
    except ValueError:  # Python writes no integer of thousands of digits
        return "a very long number"
    return text if len(text) <= 40 else f"{text[:40]}..."


def _text(value: object) -> str:
    """A text in one line, which may be empty."""
    if not isinstance(value, str):
        raise ValueError(f"must be text, in quotes, not {_short(value)}")
    plain = " ".join(CONTROLS.sub(" ", value).split())
    if len(plain) > LONGEST:
        raise ValueError(f"has more than {LONGEST:,} characters")
    return plain


def _saying(value: object) -> str:
    """A text that says something."""
    plain = _text(value)
    if not any(letter.isalnum() or unicodedata.category(letter) == "So" for letter in plain):
        raise ValueError(f"says nothing: '{_short(plain)}'" if plain else "is empty")
    return plain


def _file_name(value: object) -> str:
    """The name of a file on every system, never a path; a .png behind it is taken off."""
    plain = _text(value).removesuffix(".png")
    if not plain:
        raise ValueError("is empty")
    good = stem("{name}", prompt="", seed=0, index=0, name=plain)
    if good != unicodedata.normalize("NFC", plain):
        raise ValueError(f"cannot be the name of a file: '{_short(plain)}'; '{_short(good)}' can")
    return good


def _number(kind: type, least: float, most: float) -> Reader:
    def read(value: object) -> Any:
        if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
            raise ValueError(f"must be a {'whole ' if kind is int else ''}number, not '{_short(value)}'")
        if not least <= value <= most:  # nor is NaN
            raise ValueError(f"must be between {least:,} and {most:,}, not {_short(value)}")
        return kind(value)

    return read


def _fit(value: object) -> str:
    if value not in FITS:
        raise ValueError(f"must be {' or '.join(map(repr, FITS))}, not '{_short(value)}'")
    return str(value)


def _size(value: object) -> tuple[int, int]:
    """``512``, ``"1024x512"`` or ``[1024, 512]`` as width and height."""
    sides: list[Any] = [value, value] if isinstance(value, int) else []
    if isinstance(value, str):
        found = re.fullmatch(r"(\d{1,9})(?: ?[x×] ?(\d{1,9}))?(?: ?px)?", _text(value).lower(), re.ASCII)
        sides = [int(found[1]), int(found[2] or found[1])] if found else []
    elif isinstance(value, list):
        sides = value
    if len(sides) != 2 or not all(type(side) is int for side in sides):
        raise ValueError(f"must be as in \"1024x512\", 512 or [1024, 512], not '{_short(value)}'")
    least, most = SIDES
    if not all(least <= side <= most for side in sides):
        raise ValueError(f"must be between {least} and {most:,} px on each side, not {_short(value)}")
    return sides[0], sides[1]


KEYS: dict[str, Reader] = {
    "name": _file_name,
    "prompt": _saying,
    "size": _size,
    "number": _number(int, *RANGES["number"]),
    "best": _number(int, 1, MOST_CANDIDATES),
    "fit": _fit,
    "style": _text,
    "negative": _text,
} | {name: _number(kind, *RANGES[name]) for name, kind in OPTIONS.items() if name in RANGES and name != "number"}
OF_ALL = {key: read for key, read in KEYS.items() if key not in ("name", "prompt")}


# ---- shapes ----


def shaped(square: Image.Image, width: int, height: int, fit: str = FITS[0]) -> Image.Image:
    """A square picture as one of ``width`` x ``height`` pixels; the same from the same, always.

    "contain" scales it to the shorter side and goes on with its ground at both ends; all of it is in the middle, as it
    was. "cover" scales it to the longer side and cuts off what is too much at both ends. Larger than it was drawn, it
    is interpolated.
    """
    if fit == "cover":
        return ImageOps.fit(square, (width, height), Image.Resampling.LANCZOS)
    side = min(width, height)
    middle = square.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    pixels = np.asarray(middle, dtype=np.float32)
    if height > width:
        pixels = pixels.swapaxes(0, 1)
    missing = max(width, height) - side
    ground = _ground(pixels)
    before = _onward(pixels[:, ::-1], ground, missing // 2)[:, ::-1]
    behind = _onward(pixels, ground, missing - missing // 2)
    whole = np.concatenate([before, pixels, behind], 1).round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(whole.swapaxes(0, 1)) if height > width else whole)


def _ground(pixels: Pixels) -> Pixels:
    """What lies behind the thing, for each row ``[H,3]``: a sky above a meadow, or one colour.

    The median over a sixteenth at both ends, so that what touches one of them does not count, and blurred, so that no
    stripes are seen.
    """
    side = len(pixels)
    ends = max(1, side // 16)
    rows = np.median(np.concatenate([pixels[:, :ends], pixels[:, -ends:]], 1), 1)
    return _blurred(rows.astype(np.float32), side / 12)


def _onward(pixels: Pixels, ground: Pixels, count: int) -> Pixels:
    """``count`` columns more at the right end, ``[H,count,3]``: its last column, ever softer, becomes the ground."""
    side = len(pixels)
    edge = pixels[:, -max(1, side // 128) :].mean(1)
    away = (np.arange(count, dtype=np.float32)[None, :, None] + 1) / side  # from the edge, in sides
    soft, far = np.clip(12 * away, 0, 1), np.clip(3 * away, 0, 1)
    far = far * far * (3 - 2 * far)
    near = edge[:, None] * (1 - soft) + _blurred(edge, side / 24)[:, None] * soft
    made: Pixels = near * (1 - far) + ground[:, None] * far
    return made


def _blurred(rows: Pixels, sigma: float) -> Pixels:
    """Values ``[H,3]`` blurred along H; beyond the ends, the last one goes on."""
    reach = int(np.ceil(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.pad(rows, ((reach, reach), (0, 0)), mode="edge")
    columns = [np.convolve(padded[:, channel], weights / weights.sum(), "valid") for channel in range(3)]
    return np.stack(columns, 1).astype(np.float32)
