"""A folder of cut-outs to draw a corpus from: which there are, what they show, and what captions call it.

``art.json`` in it has the words of captions; everything but ``families`` may be left out::

    {"families": {"flat": ["flat design", "flat vector"]},  how captions call the look of a family of cut-outs
     "outlines": ["flat"],                                  families that the procedural styles redraw, the best first
     "styles": ["watercolor", "neon"],                      which styles; all if left out
     "things": {"cat-face": ["a cat", "a kitty"]},          what is taught, and its words, the plainest first
     "kinds": {"cat-face": ["a tabby"]},                    rarer words for kinds of it
     "never_mirrored": ["clock"]}                           parts of names of what would be wrong mirrored

Without an index, the cut-outs are ``<family>/<thing>.png`` or ``.webp`` (square, transparent around the thing). An
``index.jsonl`` beside it names them one by one instead, a JSON object a line::

    {"file": "noto/dog-face.webp", "thing": "dog", "name": "dog face", "hand": "google-noto", "kind": "animal",
     "zh": "狗脸", "mono": true, "outline": true, "look": "noto"}

Only ``file`` and ``thing`` are required. ``name`` is a more specific name of this drawing; ``look`` the family whose
words captions use, if it is not the folder; ``mono`` means black and white, ``outline`` the one that styles redraw;
``zh`` are Chinese names, separated by semicolons.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from styledrop_cli.corpus.folder import told
from styledrop_cli.corpus.styles import STYLES
from styledrop_cli.errors import UsageError
from styledrop_cli.io.files import parse_json, read_json, read_text

ART, INDEX = "art.json", "index.jsonl"
LONGEST = 100  # characters of a name
NAME = re.compile(rf"[^./\\:\x00-\x1f][^/\\:\x00-\x1f]{{0,{LONGEST - 1}}}")  # of a family or a thing that names a file
LARGEST = 50_000_000  # bytes of an index
SUFFIXES = (".webp", ".png")


@dataclass(frozen=True)
class Cutout:
    """One drawing of a thing with its transparency; ``file`` is its path in the art folder."""

    file: str
    thing: str
    name: str
    look: str
    hand: str
    kind: str = ""
    zh: tuple[str, ...] = ()
    mono: bool = False
    outline: bool = False
    source: str = ""
    original: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Thing:
    """What is taught under one plain noun.

    ``words`` are equivalent, the plainest first; ``kinds`` are rarer words. ``outlines`` are what styles redraw: one in
    an index. ``own`` has one drawing of each look, which the noun means there; ``others`` have names of their own.
    """

    words: list[str]
    kinds: list[str]
    zh: list[str]
    outlines: list[Cutout]
    own: list[Cutout]
    others: list[Cutout]


@dataclass(frozen=True)
class Art:
    """What an art folder holds and how captions call it."""

    folder: Path
    families: dict[str, tuple[str, ...]]
    styles: tuple[str, ...]
    things: dict[str, Thing]
    cutouts: list[Cutout]
    never_mirrored: tuple[str, ...]

    def path(self, cutout: Cutout) -> Path:
        """Where it lies."""
        return self.folder / cutout.file

    def words(self, cutout: Cutout) -> list[str]:
        """What captions call what it shows, the plainest first."""
        thing = self.things.get(cutout.thing)
        if thing is None:
            return [with_article(cutout.name)]
        return [with_article(cutout.name)] if cutout in thing.others and cutout.name != cutout.thing else thing.words


def with_article(name: str) -> str:
    """``owl`` to ``an owl``."""
    return f"{'an' if name[0] in 'aeioAEIO' else 'a'} {name}"


def read_art(folder: Path, on_message: Callable[[str], None] = lambda message: None) -> Art:
    """The art folder. What an index names and is not there is left out, of which ``on_message`` is told.

    Raises UsageError for a folder without ``art.json``, or with one that is not as described above.
    """
    path = folder / ART
    if not path.is_file():
        raise UsageError(f"{folder} holds no {ART}", "It says what the cut-outs show; see examples/pocket.")
    try:
        said = read_json(path)
        families = {family: tuple(_texts(words)) for family, words in said["families"].items()}
        outlines = _texts(said.get("outlines", []), none=True)
        styles = tuple(_texts(said.get("styles", list(STYLES)), none=True))
        words = {name: _texts(given) for name, given in said.get("things", {}).items()}
        kinds = {name: _texts(given, none=True) for name, given in said.get("kinds", {}).items()}
        never = tuple(_texts(said.get("never_mirrored", []), none=True))
        if odd := [name for name in (*families, *words) if not NAME.fullmatch(name)]:
            raise ValueError(f"{odd[0]!r:.80} cannot be the name of a file")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is not as it should be: {error!r}", "Compare it with examples/pocket.") from error
    if unknown := [style for style in styles if style not in STYLES]:
        raise UsageError(f"{path}: unknown styles {', '.join(unknown)}", f"There are {', '.join(STYLES)}.")
    index = folder / INDEX
    cutouts = read_index(index) if index.exists() else _in_families(folder, families, words)
    if index.exists():
        gone = {c.file for c in cutouts if not (folder / c.file).is_file()}  # a package may hold a drawing no longer
        if said := told({f"named in {INDEX} and not there": [folder / file for file in sorted(gone)]}):
            on_message(f"Warning: left out of {folder}: {said}")
        cutouts = [c for c in cutouts if c.file not in gone]
        for cutout in cutouts:
            families.setdefault(cutout.look, (re.sub(r"[-_]+", " ", cutout.look),))
        words = words or {c.thing: [with_article(c.thing)] for c in cutouts}
    things = _things(words, kinds, cutouts, outlines)
    if missing := [name for name in words if name not in things]:
        raise UsageError(f"{path}: no family draws {', '.join(missing[:5])}")
    if not things:
        raise UsageError(f"{path}: no family draws anything")
    return Art(folder, families, styles, things, cutouts, never)


def read_index(path: Path, licences: Collection[str] = ()) -> list[Cutout]:
    """The cut-outs of an index; where ``licences`` are given, each must have one of them.

    Raises UsageError, which names the line, for what is no JSON object with ``file`` and ``thing``, a file that leads
    out of the folder or is named twice, a name that is empty or too long, and another licence.
    """
    try:
        lines = read_text(path, LARGEST).split("\n")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    found: dict[str, Cutout] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            cutout = _cutout(parse_json(line))
            if licences and cutout.licence not in licences:
                raise ValueError(f"'licence' is {cutout.licence!r:.80}, and none of {', '.join(licences)}")
            if cutout.file in found:
                raise ValueError(f"{cutout.file} is named a second time")
        except (ValueError, TypeError) as error:
            raise UsageError(f"{path}, line {number}: {error}", "Mend the line, or take it out.") from error
        found[cutout.file] = cutout
    return list(found.values())


def _cutout(said: Any) -> Cutout:
    """The cut-out in a line of an index; raises ValueError or TypeError for values that are not allowed."""
    if not isinstance(said, dict):
        raise TypeError("it is no JSON object")

    def text(key: str, default: str | None = None, longest: int = LONGEST) -> str:
        value = said.get(key, default)
        if value is None:
            raise ValueError(f"it has no {key!r}")
        if not isinstance(value, str) or not (value.strip() or value == default):
            raise TypeError(f"{key!r} is {value!r:.80}, and should be a text")
        if len(value) > longest or any(ord(letter) < 32 for letter in value):
            raise ValueError(f"{key!r} is {value!r:.80}, and may have {longest} characters in one line")
        return value

    file, thing = text("file", longest=2 * LONGEST), text("thing")
    file = file.replace("\\", "/")  # as Windows writes it
    parts = file.split("/")
    if len(parts) < 2 or not all(NAME.fullmatch(part) for part in parts) or not file.lower().endswith(SUFFIXES):
        raise ValueError(f"'file' is {file!r:.80}, and should be like 'family/name.webp' or '.png'")
    for key in ("mono", "outline"):
        if not isinstance(said.get(key, False), bool):
            raise TypeError(f"{key!r} is {said[key]!r:.80}, and should be true or false")
    zh = tuple(name.strip() for name in text("zh", "").split(";") if name.strip())
    return Cutout(
        file, thing, text("name", thing), text("look", parts[0]), text("hand", parts[0]), text("kind", ""), zh,
        said.get("mono", False), said.get("outline", False), text("source", ""), text("original", "", 500),
        text("licence", ""),
    )  # fmt: skip


def _in_families(folder: Path, families: Collection[str], things: Collection[str]) -> list[Cutout]:
    """The cut-outs of a folder without an index."""
    found = []
    for thing in things:
        for family in families:
            suffixes = (one for suffix in SUFFIXES for one in (suffix, suffix.upper()))
            files = [PurePosixPath(family, f"{thing}{suffix}") for suffix in suffixes]
            if file := next((str(f) for f in files if (folder / f).exists()), None):
                found.append(Cutout(file, thing, thing, family, family))
    return found


def _things(
    words: dict[str, list[str]], kinds: dict[str, list[str]], cutouts: list[Cutout], outlines: list[str]
) -> dict[str, Thing]:
    """What is taught, in the order of ``words``; things without a drawing in colour are left out."""
    shown: dict[str, list[Cutout]] = {name: [] for name in words}
    for cutout in cutouts:
        if cutout.thing in shown and not cutout.mono:
            shown[cutout.thing].append(cutout)
    things = {}
    for name, drawings in shown.items():
        if not drawings:
            continue
        chosen = [c for c in drawings if c.outline]
        if not chosen:  # of each family the one that has the name of the thing
            plainest = sorted(drawings, key=lambda c: c.name != name)
            by_family = {c.look: c for c in reversed(plainest)}
            chosen = [by_family[family] for family in outlines if family in by_family] or plainest[:1]
        # By look: the outline itself or, where there is none, what has the name of the outline or of the thing.
        meant: dict[str, Cutout] = {}
        for cutout in sorted(drawings, key=lambda c: (c not in chosen, c.name != chosen[0].name, c.name != name)):
            meant.setdefault(cutout.look, cutout)
        own = [c for c in drawings if meant[c.look] is c]
        named = list(dict.fromkeys(zh for c in (*chosen, *drawings) if c in chosen or c.name == name for zh in c.zh))
        others = [c for c in drawings if meant[c.look] is not c]
        things[name] = Thing(words[name], kinds.get(name, []), named, chosen, own, others)
    return things


def _texts(words: Any, none: bool = False) -> list[str]:
    """``words`` if it is a list of texts, which may only be empty if ``none``; raises TypeError."""
    if not isinstance(words, list) or not (words or none) or not all(isinstance(w, str) and w.strip() for w in words):
        raise TypeError(f"{words!r:.80} is no list of words")
    return words
