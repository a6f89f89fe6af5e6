"""Many pictures into one folder: each under a name of its own, none drawn twice, sheets of all.

What is on disk is the state: every picture holds the settings it was drawn with, so one that is there and has the
``identity`` of what is wanted is not drawn again, whoever drew it. The same command goes on where it was stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from styledrop_cli import __version__
from styledrop_cli.base.base import Base
from styledrop_cli.errors import PictureError
from styledrop_cli.generation.lists.file_names import LONGEST_SLUG, word_slug
from styledrop_cli.generation.pipeline import PictureRequest, StyleMix, drawn_size
from styledrop_cli.io.contact_sheet import contact_sheet
from styledrop_cli.io.files import file_hash, names_apart
from styledrop_cli.io.images import load_shown, read_png_settings, save_png
from styledrop_cli.settings import SampleSettings

if TYPE_CHECKING:
    from PIL.Image import Image

PAGE = 120  # pictures on a sheet
# What has no part in a picture's identity: names of files, which have hashes beside them, the version, and what follows
# from settings.
NAMES = {"adapter", "mix", "object", "model", "picture", "resampled", "ground", "styledrop"}
DEFAULTS = SampleSettings.defaults()
SETTINGS = {name: value for name, value in DEFAULTS.items() if name != "seed"}
NO_GROUND = "none found: the picture is opaque"
MOST_SAID = 3  # settings in a file's name


def about_mixture(base: Base, mixture: StyleMix) -> dict[str, Any]:
    """What a picture's file says of the adapters and the base: names, and hashes that tell files of one name apart."""
    files = [file for file, _ in mixture.styles] + ([mixture.thing] if mixture.thing is not None else [])
    names = names_apart([file.path for file in files])
    said: dict[str, Any] = {"adapter": mixture.styles[0][0].path.name if mixture.styles else None}
    if len(mixture.styles) > 1:
        said["mix"] = {}
        for name, (_, share) in zip(names, mixture.styles, strict=False):
            said["mix"][name] = said["mix"].get(name, 0.0) + share
        said["shares"] = [float(share) for _, share in mixture.styles]  # in the order of the hashes
    if mixture.thing is not None:
        said |= {"object": names[-1], "gamma": float(mixture.gamma)}
    if files:
        said["adapter_hash"] = "+".join(file_hash(file.path)[:12] for file in files)
    read = {"text_encoder": base.text_encoder} if base.text_encoder else {}
    return said | {"model": base.name, "model_hash": base.hash[:12]} | read


def about(base: Base, wanted: PictureRequest, mixture: StyleMix, drawn_by: Mapping[str, Any]) -> dict[str, Any]:
    """What a picture's file says: everything it takes to draw it again. ``drawn_by`` is from ``about_mixture``."""
    drawn, size = drawn_size(base, wanted.settings), wanted.settings.size
    return {
        "prompt": wanted.prompt,
        "seed": wanted.seed,
        "style": mixture.style if wanted.style is None else wanted.style,
        **drawn_by,
        **{name: value for name, value in vars(wanted.settings).items() if name != "seed"},
        **({"resampled": f"drawn at {drawn} px, resampled to {size}"} if drawn != size else {}),
        "styledrop": __version__,
    }


def identity(said: Mapping[str, Any]) -> bytes:
    """A hash of what decides how a picture looks, by what its file says: prompt, seed, settings, hashes and shares.

    A setting at its default counts as not said: the picture may be older than the setting.
    """
    kept = {
        name: value
        for name, value in said.items()
        if name not in NAMES and (name not in DEFAULTS or value != DEFAULTS[name])
    }
    if "shares" not in said and isinstance(mix := said.get("mix"), dict):  # as they were written before they had a list
        number = len(str(said.get("adapter_hash")).split("+")) - ("object" in said)
        kept["shares"] = list(mix.values()) if len(mix) == number else mix
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).digest()


class Batch:
    """The pictures that are to lie in ``folder``, by number.

    ``stems`` are their files' names, ``about`` says what each file is to say. ``paths`` has a path for each: its stem
    with .png or, where another picture has that name, with what is set otherwise than there (-lambda-b-3.png) or a
    number (-2.png) behind it. Those of one identity under one stem are one.
    """

    def __init__(self, folder: Path, stems: Sequence[str], about: Callable[[int], dict[str, Any]]) -> None:
        self.folder, self.stems, self.about = folder, stems, about
        self._files: dict[tuple[str, bytes], Path] = {}  # by stem and identity
        self._names: dict[str, Iterator[Path]] = {}  # those of each name that were not looked at yet
        self._free: dict[str, Path] = {}  # of each name, the one that was looked at last
        self._said: dict[Path, dict[str, Any]] = {}  # what files say that are there
        self._planned: dict[Path, int] = {}  # and for which of the pictures others are planned
        self._there: set[Path] = set()
        self.paths = [self._place(index) for index in range(len(stems))]

    @property
    def missing(self) -> list[int]:
        """Those that are yet to be drawn, each file once."""
        first: dict[Path, int] = {}
        for index, path in enumerate(self.paths):
            first.setdefault(path, index)
        return [index for path, index in first.items() if path not in self._there]

    def has_come(self, index: int) -> bool:
        """Whether a picture is there now: another process may have drawn it since."""
        path = self.paths[index]
        if path not in self._there and path.exists() and identity(said_in(path)) == identity(self.about(index)):
            self._there.add(path)
        return path in self._there

    def save(self, index: int, image: Image) -> Path:
        """Write a picture, atomically, unless it is there by now; its path, another one if the name was taken since."""
        if not self.has_come(index):
            path = self.paths[index]
            if path.exists():
                del self._files[self.stems[index], identity(self.about(index))]
                new = self._place(index)
                self.paths = [new if other == path else other for other in self.paths]
        path = self.paths[index]
        if path not in self._there:
            said = self.about(index)
            if said.get("transparent") and "sheet_of" not in said and image.mode != "RGBA":
                said = {**said, "ground": NO_GROUND}
            save_png(image, path, said)
            self._there.add(path)
        return path

    def _place(self, index: int) -> Path:
        stem, said = self.stems[index], self.about(index)
        key, plain = (stem, identity(said)), self.folder / f"{stem}.png"
        free = self._look(stem, stem)
        if key not in self._files and free != plain:
            there = self.about(self._planned[plain]) if plain in self._planned else self._said.get(plain, {})
            if other := set_otherwise(said, there):
                free = self._look(f"{stem}-{other}", stem)
        if key not in self._files:
            self._files[key] = free
            self._planned[free] = index
        return self._files[key]

    def _look(self, called: str, stem: str) -> Path:
        """The first path of a name that is free; what lies at those before it is known from now on as the stem's."""
        names = self._names.setdefault(called, paths_called(self.folder, called))
        path = self._free.get(called) or next(names)
        while path in self._planned or path.exists():  # planned under another stem: x-2 may be x's second, too
            if path not in self._planned and (said := said_in(path)):
                self._files.setdefault((stem, identity(said)), path)
                self._said[path] = said
                self._there.add(path)
            path = next(names)
        self._free[called] = path
        return path


def paths_called(folder: Path, stem: str) -> Iterator[Path]:
    """Where pictures of one name lie: stem.png, stem-2.png, stem-3.png, ..."""
    yield folder / f"{stem}.png"
    yield from (folder / f"{stem}-{number}.png" for number in count(2))


def paths_there(folder: Path, stem: str, said: Mapping[str, Any]) -> Iterator[Path]:
    """The pictures of one name that are there, as ``Batch`` may have named what is ``said``."""
    yield from takewhile(Path.exists, paths_called(folder, stem))
    if other := set_otherwise(said, said_in(folder / f"{stem}.png")):
        yield from takewhile(Path.exists, paths_called(folder, f"{stem}-{other}"))


def set_otherwise(said: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    """How a picture is set otherwise than one that is ``there``, for its name: "lambda-b-3"; nothing for other reasons.

    Nor for another prompt, for more than ``MOST_SAID`` settings, or for such as make a long name.
    """
    if not there or there.get("prompt") != said.get("prompt"):
        return ""
    own, others = ({name: _as_words(one.get(name, usual)) for name, usual in SETTINGS.items()} for one in (said, there))
    words = [
        f"{name.replace('_', '-')}-{word_slug(value) if isinstance(SETTINGS[name], str) else value}"
        for name, value in own.items()
        if value != others[name]
    ]
    made = "-".join(words)
    return made if 0 < len(words) <= MOST_SAID and len(made) <= LONGEST_SLUG else ""


def said_in(path: Path) -> dict[str, Any]:
    """What a file says of itself; nothing, if it is no picture of ours."""
    try:
        return read_png_settings(path) or {}
    except PictureError:
        return {}


def write_sheets(
    base: Base,
    folder: Path,
    name: str,
    paths: Sequence[Path],
    about: Callable[[int], dict[str, Any]],
    labels: Sequence[str],
    title: str,
    columns: int,
    original: Path | None = None,
) -> Iterator[Path]:
    """Write sheets called ``name`` of the pictures at ``paths``, ``PAGE`` on each, and say where they are.

    ``about`` is what each picture says. The settings in it that differ from the defaults of the ``base`` stand behind
    the title if all pictures have them, otherwise behind the labels. The ``original`` of edits is shown before them.
    One sheet at a time is in memory.
    """
    usual = vars(base.sampling(size=base.sizes[-1]))
    settings = [_differing(about(index), usual) for index in range(len(paths))]
    common = [one for one in settings[0] if all(one in others for others in settings)]
    alike = {name: value for name, value in about(0).items() if name in SETTINGS and value != usual[name]}
    alike = {n: v for n, v in alike.items() if all(about(index).get(n) == v for index in range(len(paths)))}
    title = _joined(title, common)
    labels = [
        _joined(label, [one for one in own if one not in common]) for label, own in zip(labels, settings, strict=True)
    ]
    pages = [range(start, min(start + PAGE, len(paths))) for start in range(0, len(paths), PAGE)]
    cell = 256 if len(paths) <= 24 else 128
    for number, page in enumerate(pages, 1):
        before = [original] if original is not None and number == 1 else []
        images = []
        for path in [*before, *(paths[index] for index in page)]:
            images.append(load_shown(path))
            images[-1].thumbnail((cell, cell))  # in memory only as large as it is shown
        below = [path.name for path in before] + [labels[index] for index in page]
        shown = b"".join(identity(about(index)) for index in page)
        said = {
            "prompt": " | ".join(dict.fromkeys(str(about(index)["prompt"]) for index in page)),
            "sheet_of": [paths[index].name for index in page],
            "settings_hash": hashlib.sha256(shown).hexdigest()[:12],  # what has a name may be drawn otherwise
            **alike,
            "styledrop": __version__,
        }
        stem = name if len(pages) == 1 else f"{name}-{number}-of-{len(pages)}"
        yield Batch(folder, [stem], [said].__getitem__).save(0, contact_sheet(images, columns, below, title, cell))


def _differing(said: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    """The settings of a picture, but for its seed, that are not the ``usual`` ones: ["lambda_b 3", "ramp off"]."""
    own = {name: said[name] for name in usual if name != "seed" and name in said and said[name] != usual[name]}
    return [f"{name} {_as_words(value)}" for name, value in own.items()]


def _as_words(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value) or "empty"


def _joined(text: str, settings: Sequence[str]) -> str:
    return " · ".join(filter(None, (text, ", ".join(settings))))
