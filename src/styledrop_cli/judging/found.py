"""Picture files to score: which there are, what each says of itself, and the adapter that drew it, if it is at hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from styledrop_cli.adapters import library
from styledrop_cli.adapters.header import load_adapter, read_header
from styledrop_cli.base.base import Base
from styledrop_cli.base.prompt_tokens import quoted
from styledrop_cli.corpus.folder import NOT_READ_HERE, told
from styledrop_cli.errors import PictureError, StyledropError, UsageError
from styledrop_cli.io.files import NOT_READ, SUFFIXES, file_hash
from styledrop_cli.io.images import read_png_settings
from styledrop_cli.io.text_files import plain
from styledrop_cli.judging.evaluate import References
from styledrop_cli.judging.picture_files import Picture, without_style

SHEET = re.compile(r"(sheet(-\d+)?|pool|step-\d+)\.png")  # what rounds and trainings call theirs; generate's say so
TOKENIZED = re.compile(r"(.+)-(?:original|reconstruction)\.png")
READERS = 2  # threads that look for what pictures say of themselves
Broken = list[tuple[Path, PictureError]]
OnMessage = Callable[[str], None]


@dataclass(frozen=True)
class Found:
    """A picture file, and what it says of itself."""

    path: Path
    settings: Mapping[str, Any]

    def says(self, name: str) -> str:
        """One of its settings, if it is a text."""
        value = self.settings.get(name)
        return plain(value) if isinstance(value, str) else ""


def find_pictures(places: Sequence[Path], on_message: OnMessage) -> tuple[list[Found], Broken]:
    """The pictures at ``places`` without contact sheets, and those that cannot be read.

    Raises StyledropError for a place where nothing is, UsageError if there are only contact sheets, or nothing at all.
    """
    files: dict[Path, tuple[Path, bool]] = {}
    others: list[Path] = []
    for place in places:
        if not place.exists():
            raise StyledropError(f"there is nothing at {place}", "check the spelling of the path")
        inside = place.is_dir()
        others += sorted(path for path in place.iterdir() if path.suffix.lower() in NOT_READ) if inside else []
        for path in sorted(filter(_is_picture, place.iterdir())) if inside else [place]:
            files.setdefault(path.resolve(), (path, inside))

    def read(path: Path) -> Mapping[str, Any] | PictureError:
        try:
            return read_png_settings(path) or {}
        except PictureError as error:
            return error

    if others:
        on_message(f"Warning: left out: {told({NOT_READ_HERE: others})}")
    found: list[Found] = []
    broken: Broken = []
    sheets = tokenized = 0
    with ThreadPoolExecutor(READERS) as pool:
        settings = list(pool.map(read, [path for path, _ in files.values()]))
    for (path, inside), about in zip(files.values(), settings, strict=True):
        if isinstance(about, PictureError):
            broken.append((path, about))
        elif inside and _by_tokenize(path):
            tokenized += 1
        elif "seed" not in about if about else inside and SHEET.fullmatch(path.name):
            sheets += 1
        else:
            found.append(Found(path, about))
    if tokenized:
        on_message(f"pictures that tokenize wrote left out: {tokenized}")
    if not found and not broken:
        said = f"{places[0]} and {len(places) - 1} more" if len(places) > 1 else str(places[0])
        raise UsageError(
            f"there are no pictures to score in {said}{', only contact sheets' if sheets else ''}",
            f"name pictures, or a folder in which they lie ({', '.join(sorted(SUFFIXES))})",
        )
    if sheets and found:
        on_message(f"contact sheets left out: {sheets}")
    return found, broken


def _by_tokenize(path: Path) -> bool:
    """Whether `tokenize` wrote this picture: what was given, or what came back, with the ids beside it."""
    named = TOKENIZED.fullmatch(path.name)
    return named is not None and path.with_name(f"{named[1]}-ids.json").is_file()


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def asked_of(found: Sequence[Found], prompt: str | None, references: References | None) -> list[Picture]:
    """What each was asked to show, or ``prompt``, without the style that was said behind it."""
    own = references.style if references else ""
    asked = []
    for one in found:
        style = one.says("style") if "style" in one.settings else own
        asked.append(Picture(one.path, without_style(without_style(prompt or one.says("prompt"), style), own), style))
    return asked


def by_adapter(
    base: Base, found: Sequence[Found], on_message: OnMessage
) -> list[tuple[References | None, list[Found]]]:
    """The pictures by the adapter that drew them, with its references; a warning names those whose adapter is not here.

    Raises ModelError for an adapter that lacks its references or is of another base.
    """
    members: dict[Path | None, list[Found]] = {}
    look = cache(_adapter_at_hand)  # pictures of a folder are mostly by one
    for one in found:
        members.setdefault(adapter_of(one, look), []).append(one)
    if without := members.get(None):
        absent = quoted(sorted({name for one in without if (name := one.says("adapter"))}))
        on_message(
            f"Warning: {len(without):,} of {len(found):,} pictures have no reference"
            f"{f' ({absent} was not found)' if absent else ''}: only text and object are measured; say which it is "
            "with --reference FILE"
        )
    return [(References.of_adapter(base, load_adapter(path)) if path else None, some) for path, some in members.items()]


def adapter_of(one: Found, look: Callable[[str, str, Path], Path | None] | None = None) -> Path | None:
    """The adapter that a picture says it was drawn with, if it is at hand."""
    wanted = one.says("adapter_hash").partition("+")[0]
    return (look or _adapter_at_hand)(one.says("adapter"), wanted, one.path.resolve().parent)


def _adapter_at_hand(name: str, wanted: str, own: Path) -> Path | None:
    """An adapter by its ``name`` and the hash that is ``wanted``: here, in the picture's ``own`` folder or above
    it, or in the library.

    A file of that name that has another hash is another adapter; the right one may be called otherwise by now. Pictures
    that say no hash are taken at their word.
    """
    if not name.endswith(".safetensors") or Path(name).name != name:
        return None
    folders = [Path(), own, own.parent]
    with suppress(UsageError):  # a user without a home has no library
        folders.append(library.folder())
    named = [path for folder in folders if (path := folder / name).is_file()]
    if not wanted:
        return named[0] if named else None
    others = (path for folder in folders for path in sorted(folder.glob("*.safetensors")) if _is_adapter(path))
    return next((path for path in chain(named, others) if file_hash(path).startswith(wanted)), None)


def _is_adapter(path: Path) -> bool:
    with suppress(StyledropError):
        return bool(read_header(path))
    return False
