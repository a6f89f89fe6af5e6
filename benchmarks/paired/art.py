"""The art that everything here is drawn from: what there is, what captions call it, and how it looks in each style.

An art folder is what ``examples/pocket/make_corpus.py --parts art`` makes: icons rendered to RGBA,
``FOLDER/<family>/<name>.webp``, and ``art.json``, which says what captions call them. OpenMoji is rendered into the
work folder and never beside the training art, so that no corpus can pick it up by accident.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from paired.families import HELD_OUT
from paired.openmoji import OPENMOJI, fetch, icons_of, render
from styledrop_cli.corpus.cutouts import ART, read_art
from styledrop_cli.corpus.styles import STYLES
from styledrop_cli.corpus.styles.canvas import Canvas
from styledrop_cli.errors import UsageError
from styledrop_cli.io.files import atomic_write
from styledrop_cli.io.images import load_cutout

# The families pocket is trained on, and what its captions call them.
FAMILIES = {
    "fluent-emoji": "3d rendering",
    "fluent-emoji-flat": "flat design",
    "noto": "cartoon",
    "twemoji": "flat icon",
}


@dataclass(frozen=True)
class Look:
    """One of the styles the judges tell apart: an art family as it is, or outlines of any family drawn over."""

    name: str
    text: str
    family: str | None
    draw: Callable[[Canvas], Tensor] | None = None

    def __call__(self, rgba: Tensor, ground: Tensor, generator: torch.Generator) -> Tensor:
        """Things ``[B,4,S,S]`` on ``ground`` ``[B,3,S,S]``, all in [0,1], as pictures ``[B,3,S,S]``."""
        with torch.no_grad():
            canvas = Canvas(rgba, ground, generator)
            drawn = canvas.flat(ground) if self.draw is None else self.draw(canvas)
            return drawn.expand(len(rgba), 3, *rgba.shape[2:]).clamp(0, 1)


def looks() -> list[Look]:
    """Every style there is: the art families, the training styles, and those held out."""
    return [
        *(Look(name, text, name) for name, text in FAMILIES.items()),
        *(Look(name, family.descriptions[0], None, family.draw) for name, family in STYLES.items()),
        *(Look(h.name, h.text, OPENMOJI if h.draw is None else None, h.draw) for h in HELD_OUT.values()),
    ]


@dataclass(frozen=True)
class Art:
    """Rendered things. ``words`` is what captions call each, ``folders`` where each family's pictures are."""

    things: list[str]
    words: dict[str, str]
    folders: dict[str, Path]

    @property
    def hash(self) -> str:
        """sha256 of which pictures there are and how many bytes each has."""
        digest = hashlib.sha256()
        for family, folder in self.folders.items():
            for thing in self.things:
                digest.update(f"{family}/{thing} {cutout(folder, thing).stat().st_size}\n".encode())
        return digest.hexdigest()

    def with_few(self, needed: Collection[str], count: int) -> Art:
        """The same with about ``count`` things: those ``needed``, and others from all over the list."""
        rest = [thing for thing in self.things if thing not in needed]
        others = rest[:: max(1, len(rest) // max(1, count - len(needed)))]
        kept = [thing for thing in self.things if thing in {*needed, *others}]
        return replace(self, things=kept, words={thing: self.words[thing] for thing in kept})

    def rgba(self, pairs: Sequence[tuple[str, str]], size: int) -> Tensor:
        """The things of ``(family, thing)`` pairs, ``[B,4,size,size]`` in [0,1], colours not multiplied by alpha."""
        return torch.stack([_read(cutout(self.folders[family], thing), size) for family, thing in pairs]) / 255


def cutout(folder: Path, thing: str) -> Path:
    """Where a family's picture of a thing lies."""
    webp = folder / f"{thing}.webp"
    return webp if webp.exists() else webp.with_suffix(".png")


@cache
def _read(path: Path, size: int) -> Tensor:
    """uint8 ``[4,size,size]``: all of a run's are kept."""
    return (load_cutout(path, size) * 255).round().to(torch.uint8)


def check_art(folder: Path) -> None:
    """Raise UsageError, which says how to make it, where ``folder`` holds no rendered art."""
    missing = [family for family in FAMILIES if not (folder / family).is_dir()]
    missing += [] if (folder / ART).is_file() else [ART]
    if missing:
        raise UsageError(
            f"there is no art in {folder}: it has no {', '.join(missing)}",
            "In styledrop's repository, 'python examples/pocket/make_corpus.py --out corpus --parts art' makes it (it "
            "needs npm and resvg-py); name another place with --art.",
        )


def load_art(folder: Path, openmoji: Path | None, work: Path) -> Art:
    """The things of an art folder that all families and OpenMoji draw.

    ``openmoji`` is an icon package or its folder; without it one is taken from the art or the work folder, else
    fetched. Raises UsageError where there is no art.
    """
    check_art(folder)
    # A thing goes by the file of the drawing that styles redraw: that is what emoji families call it alike.
    things = read_art(folder).things.values()
    described = {Path(thing.outlines[0].file).stem: thing.words[0] for thing in things}
    folders = {family: folder / family for family in (*FAMILIES, OPENMOJI)}
    if openmoji is not None or not folders[OPENMOJI].is_dir():
        folders[OPENMOJI] = work / OPENMOJI
        done, asked = folders[OPENMOJI] / "done", "\n".join(described)
        if openmoji is not None or not done.exists() or done.read_text(encoding="utf-8") != asked:
            render(icons_of(openmoji or fetch(work)), list(described), folders[OPENMOJI])
            atomic_write(done, asked.encode())
    words = {
        thing: called
        for thing, called in described.items()
        if all(cutout(of_family, thing).exists() for of_family in folders.values())
    }
    if len(words) < 2:
        raise UsageError(f"the families in {folder} have fewer than two things in common with OpenMoji")
    return Art(list(words), words, folders)
