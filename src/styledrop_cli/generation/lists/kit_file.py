"""Kits: a brand's list of assets, a TOML file with an ``[[asset]]`` for each, above them what holds for all."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from styledrop_cli.errors import UsageError
from styledrop_cli.generation.lists import entries, options
from styledrop_cli.generation.lists.entries import Entries, filled_text, typed_text
from styledrop_cli.generation.lists.file_names import stem
from styledrop_cli.generation.lists.options import Reader, number_between
from styledrop_cli.io.text_files import plain, read_text, says_something, short
from styledrop_cli.settings import seeds_from

SIDES = (16, 4096)  # pixels of an asset's side, least and most
MOST_CANDIDATES = 100  # of which one is kept
MOST_PICTURES = 200_000  # candidates among them, that a file asks for
FITS = ("contain", "cover")


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
    reading = Entries[Asset](str(path), "asset", "key", READERS)
    defaults, listed = reading.toml(text, ("asset",), OF_ALL, 'prompt = "a rocket"')
    for entry, place, places in listed:
        if isinstance(entry, dict):
            _add(reading, entry, defaults, place, places)
        else:
            reading.wrong(place, "this is no asset", "write [[asset]] above each asset")
    pictures = sum((asset.number or 1) * asset.best for asset in reading.found)
    if pictures > MOST_PICTURES:
        what = f"{path} asks for {pictures:,} pictures: at most {MOST_PICTURES:,}"
        raise UsageError(what, "make several files of it")
    _refuse_twins(reading)
    return reading.all('write [[asset]], name = "hero", prompt = "a rocket"')


def _add(
    reading: Entries[Asset],
    entry: Mapping[str, Any],
    defaults: Mapping[str, Any],
    place: str,
    places: Mapping[str, str],
) -> None:
    name = entry.get("name")
    who = f"asset '{short(name)}': " if isinstance(name, str) and name.strip() else "this asset: "
    for key, example in (("name", "hero"), ("prompt", "a rocket")):
        if key not in entry:
            reading.wrong(place, f"{who}there is no {key}", f'write {key} = "{example}"')
    values = {**defaults, **reading.table(entry, KEYS, place, places, who)}
    if {"name", "prompt"} <= values.keys():
        own = {one.name: values.pop(one.name) for one in fields(Asset) if one.name in values}
        asset = Asset(**own, options=values, where=f"{reading.source}, {place}")
        reading.add(asset)
        try:
            seeds_from(values.get("seed", 0), (asset.number or 1) * asset.best)
        except UsageError as error:
            reading.wrong(places.get("seed", place), f"{who}{error.message}", error.hint or "")


def _refuse_twins(reading: Entries[Asset]) -> None:
    """Two assets whose files would be one: many systems do not tell capitals from small letters."""
    owners: dict[str, Asset] = {}
    for asset in reading.found:
        for name in asset.stems:
            other = owners.setdefault(name.casefold(), asset)
            if other is not asset:
                place, first = (one.where.removeprefix(f"{reading.source}, ") for one in (asset, other))
                what = f"{name}.png is also a file of asset '{short(other.name)}', {first}"
                reading.wrong(place, f"asset '{short(asset.name)}': {what}", "give each a name of its own")
                break


# ---- values ----


def _saying(value: object) -> str:
    """A text that says something."""
    text = typed_text(value)
    if not says_something(text):
        raise ValueError(f"says nothing: '{short(text)}'" if text else "is empty")
    return text


def _file_name(value: object) -> str:
    """The name of a file on every system, never a path; a .png behind it is taken off."""
    text = filled_text(value).removesuffix(".png")
    good = stem("{name}", prompt="", seed=0, index=0, name=text)
    if good != unicodedata.normalize("NFC", text):
        raise ValueError(f"cannot be the name of a file: '{short(text)}'; '{short(good)}' can")
    return good


def _fit(value: object) -> str:
    if value not in FITS:
        raise ValueError(f"must be {' or '.join(map(repr, FITS))}, not '{short(value)}'")
    return str(value)


def _yes_or_no(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not '{short(value)}'")
    return value


def _size(value: object) -> tuple[int, int]:
    """``512``, ``"1024x512"`` or ``[1024, 512]`` as width and height."""
    sides: list[Any] = [value, value] if isinstance(value, int) else []
    if isinstance(value, str):
        found = re.fullmatch(r"(\d{1,9})(?: ?[x×] ?(\d{1,9}))?(?: ?px)?", plain(value).lower(), re.ASCII)
        sides = [int(found[1]), int(found[2] or found[1])] if found else []
    elif isinstance(value, list):
        sides = value
    if len(sides) != 2 or not all(type(side) is int for side in sides):
        raise ValueError(f"must be as in \"1024x512\", 512 or [1024, 512], not '{short(value)}'")
    least, most = SIDES
    if not all(least <= side <= most for side in sides):
        raise ValueError(f"must be between {least} and {most:,} px on each side, not {short(value)}")
    return sides[0], sides[1]


READERS: dict[str, Reader] = entries.READERS | {
    "name": _file_name,
    "prompt": _saying,
    "size": _size,
    "best": number_between(int, 1, MOST_CANDIDATES),
    "fit": _fit,
    "transparent": _yes_or_no,
}
OF_ALL = {"size": "size", "best": "best", "fit": "fit", "transparent": "transparent"} | {
    k: v for k, v in options.KEYS.items() if v != "name"
}
KEYS = {"name": "name", "prompt": "prompt"} | OF_ALL
