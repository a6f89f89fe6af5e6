"""Kits: a brand's list of assets, a TOML file with an ``[[asset]]`` for each, above them what holds for all."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from styledrop_cli.errors import UsageError
from styledrop_cli.generation.lists.file_names import stem
from styledrop_cli.generation.lists.foreign import as_typed
from styledrop_cli.io.text_files import (
    MOST,
    NUMBERS,
    Problems,
    Reader,
    as_text,
    key_places,
    number_between,
    read_text,
    read_toml,
    says_something,
    short,
    table_rows,
)
from styledrop_cli.settings import seeds_from

SIDES = (16, 4096)  # pixels of an asset's side, least and most
MOST_CANDIDATES = 100  # of which one is kept
MOST_PICTURES = 200_000  # candidates among them, that a file asks for
FITS = ("contain", "cover")
LISTED = "write [[asset]] above each asset"


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
    text = read_text(path, "list of assets", "name a list of assets: brand.toml")
    data = read_toml(text, str(path), "an [[asset]] for each picture", 'prompt = "a rocket"')
    return _Reading(str(path), text.split("\n")).assets(data)


class _Reading(Problems):
    """What is wrong with a file so far, and where its assets and their keys stand."""

    def __init__(self, source: str, rows: list[str]) -> None:
        super().__init__(source)
        self._rows = rows

    def assets(self, data: Mapping[str, Any]) -> list[Asset]:
        """The assets in the file's ``data``, if nothing is wrong with them; UsageError otherwise."""
        places = key_places(self._rows, range(len(self._rows)))
        defaults = self._values({key: data[key] for key in data if key != "asset"}, places, "above the assets", OF_ALL)
        entries = data.get("asset", [])
        if not isinstance(entries, list):
            self.wrong(places.get("asset", "line 1"), "asset is no list", LISTED)
            entries = []
        if len(entries) > MOST:
            raise UsageError(f"{self.source} lists more than {MOST:,} assets", "make several files of it")
        found: list[Asset] = []
        everywhere = table_rows(self._rows, "asset", len(entries))
        for number, (entry, where) in enumerate(zip(entries, everywhere, strict=True), 1):
            place = f"line {where.start + 1}" if where else f"asset {number}"
            if isinstance(entry, dict):
                self._add(found, entry, defaults, place, key_places(self._rows, where))
            else:
                self.wrong(place, "this is no asset", LISTED)
        pictures = sum((asset.number or 1) * asset.best for asset in found)
        if pictures > MOST_PICTURES:
            what = f"{self.source} asks for {pictures:,} pictures: at most {MOST_PICTURES:,}"
            raise UsageError(what, "make several files of it")
        self._refuse_twins(found)
        self.refuse()
        if not found:
            raise UsageError(f"{self.source} lists no assets", 'write [[asset]], name = "hero", prompt = "a rocket"')
        return found

    def _add(
        self,
        found: list[Asset],
        entry: Mapping[str, Any],
        defaults: Mapping[str, Any],
        place: str,
        places: Mapping[str, str],
    ) -> None:
        name = entry.get("name")
        who = f"asset '{short(name)}'" if isinstance(name, str) and name.strip() else "this asset"
        for key, example in (("name", "hero"), ("prompt", "a rocket")):
            if key not in entry:
                self.wrong(place, f"{who}: there is no {key}", f'write {key} = "{example}"')
        values = {**defaults, **self._values(entry, places, place, KEYS, f"{who}: ")}
        own = {key: values.pop(key) for key in list(values) if key in Asset.__dataclass_fields__}
        if {"name", "prompt"} <= own.keys():
            asset = Asset(**own, options=values, where=f"{self.source}, {place}")
            found.append(asset)
            try:
                seeds_from(values.get("seed", 0), (asset.number or 1) * asset.best)
            except UsageError as error:
                self.wrong(places.get("seed", place), f"{who}: {error.message}", error.hint or "")

    def _values(
        self,
        table: Mapping[str, Any],
        places: Mapping[str, str],
        place: str,
        keys: Mapping[str, Reader],
        who: str = "",
    ) -> dict[str, Any]:
        """What the keys of a table set, by their names with underscores; ``places`` are theirs, ``place`` its own."""
        values: dict[str, Any] = {}
        for name, value in table.items():
            key = name.replace("-", "_")
            at = places.get(name, place)
            if key not in keys:
                known = keys if who else [*keys, "asset"]
                what = f"{who}there is no key '{short(name)}'{self.similar(key, known)}"
                self.wrong(at, what, f"keys: {', '.join(keys)}")
            elif key in values:
                self.wrong(at, f"{who}{name} is given twice", "leave one of them out")
            else:
                try:
                    values[key] = keys[key](value)
                except ValueError as error:
                    self.wrong(at, f"{who}{name} {error}", "give it another value, or leave it out")
        return values

    def _refuse_twins(self, found: list[Asset]) -> None:
        """Two assets whose files would be one: many systems do not tell capitals from small letters."""
        owners: dict[str, Asset] = {}
        for asset in found:
            for name in asset.stems:
                other = owners.setdefault(name.casefold(), asset)
                if other is not asset:
                    place, first = (one.where.removeprefix(f"{self.source}, ") for one in (asset, other))
                    what = f"{name}.png is also a file of asset '{short(other.name)}', {first}"
                    self.wrong(place, f"asset '{short(asset.name)}': {what}", "give each a name of its own")
                    break


# ---- values ----


def _saying(value: object) -> str:
    """A text that says something."""
    text = as_typed(value)
    if not says_something(text):
        raise ValueError(f"says nothing: '{short(text)}'" if text else "is empty")
    return text


def _file_name(value: object) -> str:
    """The name of a file on every system, never a path; a .png behind it is taken off."""
    text = as_text(value).removesuffix(".png")
    if not text:
        raise ValueError("is empty")
    good = stem("{name}", prompt="", seed=0, index=0, name=text)
    if good != unicodedata.normalize("NFC", text):
        raise ValueError(f"cannot be the name of a file: '{short(text)}'; '{short(good)}' can")
    return good


def _fit(value: object) -> str:
    if value not in FITS:
        raise ValueError(f"must be {' or '.join(map(repr, FITS))}, not '{short(value)}'")
    return str(value)


def _size(value: object) -> tuple[int, int]:
    """``512``, ``"1024x512"`` or ``[1024, 512]`` as width and height."""
    sides: list[Any] = [value, value] if isinstance(value, int) else []
    if isinstance(value, str):
        found = re.fullmatch(r"(\d{1,9})(?: ?[x×] ?(\d{1,9}))?(?: ?px)?", as_text(value).lower(), re.ASCII)
        sides = [int(found[1]), int(found[2] or found[1])] if found else []
    elif isinstance(value, list):
        sides = value
    if len(sides) != 2 or not all(type(side) is int for side in sides):
        raise ValueError(f"must be as in \"1024x512\", 512 or [1024, 512], not '{short(value)}'")
    least, most = SIDES
    if not all(least <= side <= most for side in sides):
        raise ValueError(f"must be between {least} and {most:,} px on each side, not {short(value)}")
    return sides[0], sides[1]


KEYS: dict[str, Reader] = {
    "name": _file_name,
    "prompt": _saying,
    "size": _size,
    "best": number_between(int, 1, MOST_CANDIDATES),
    "fit": _fit,
    "style": as_typed,
    "negative": as_typed,
} | NUMBERS
OF_ALL = {key: read for key, read in KEYS.items() if key not in ("name", "prompt")}
