"""The pictures of a studio: what lies in its folder, what their files say, small ones of them, hearts and the trash.

A picture's id is its path below pictures/, ``ink/a-cat-1.png``. An id that somebody sends is looked up among those that
the folder lists, and never made a path of; links are not followed.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from styledrop_cli.errors import PictureError, UsageError
from styledrop_cli.io.files import atomic_write, read_json, write_json, writing
from styledrop_cli.io.images import read_png_settings, size_of, webp_thumbnail
from styledrop_cli.studio.missing import Missing

FOLDER, TRASH, THUMBS, HEARTS = "pictures", "trash", "thumbs", "hearts.json"
SHEET = "sheet"  # how the names of contact sheets begin, which are no pictures here
SIDE = 256  # px of a small picture, at most
REMEMBERED = 5000  # pictures whose settings are kept in memory
NO_SETTINGS = {"prompt", "seed", "style", "styledrop"}  # what a picture says of itself beside them


@dataclass(frozen=True)
class Found:
    """A picture that is there: its id, the folder it lies in, and when it was last written (ns)."""

    id: str
    style: str
    modified: int

    @property
    def tag(self) -> str:
        """What its contents are known by."""
        return hashlib.blake2b(f"{self.id}\0{self.modified}".encode("utf-8", "replace"), digest_size=10).hexdigest()


def entries_in(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder, but for hidden things and names that are no text; nothing where it cannot be read."""
    with suppress(OSError), os.scandir(folder) as entries:
        for one in entries:
            with suppress(UnicodeEncodeError):
                one.name.encode()
                if not one.name.startswith("."):
                    yield one


def folders_in(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The folders in a folder, but for links, as ``entries_in``."""
    yield from (one for one in entries_in(folder) if one.is_dir(follow_symlinks=False))


class Pictures:
    """Those in ``folder``/pictures. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.RLock()
        self._listed: dict[str, tuple[int, list[Found]]] = {}  # of each style's folder: when it was changed
        self._all: dict[str, Found] = {}  # by their ids, the newest first
        self._said: dict[Found, dict[str, Any]] = {}
        self.hearts: list[str] = self._read_hearts()

    # ---- what is there ----

    def all(self) -> dict[str, Found]:
        """Every picture by its id, the newest first. Folders that have not changed are not read again."""
        with self._lock:
            there = {one.name: one.stat(follow_symlinks=False).st_mtime_ns for one in folders_in(self._folder / FOLDER)}
            if {name: changed for name, (changed, _) in self._listed.items()} != there:
                for name, changed in there.items():
                    if self._listed.get(name, (0, []))[0] != changed:
                        self._listed[name] = (changed, list(self._in(name)))
                self._listed = {name: self._listed[name] for name in there}
                found = [one for _, listed in self._listed.values() for one in listed]
                self._all = {one.id: one for one in sorted(found, key=lambda one: (-one.modified, one.id))}
            return self._all

    def find(self, name: str) -> tuple[Found, Path]:
        """The picture with an id, and its file; Missing if there is none."""
        found = self.all().get(name)
        if found is None:
            raise Missing(f"there is no picture {name[:100]}")
        return found, self._folder / FOLDER / found.id

    @property
    def stamp(self) -> str:
        """What is another one whenever a picture has come, gone or changed."""
        with self._lock:
            self.all()
            said = repr(sorted((name, changed) for name, (changed, _) in self._listed.items()))
            return hashlib.blake2b(said.encode("utf-8", "replace"), digest_size=8).hexdigest()

    def said(self, found: Found) -> dict[str, Any]:
        """What a picture's file says, with its ``width`` and ``height``; nothing where it cannot be read."""
        with self._lock:
            if found in self._said:
                return self._said[found]
        path = self._folder / FOLDER / found.id
        try:
            width, height = size_of(path)
            said: dict[str, Any] = json.loads(
                json.dumps(read_png_settings(path) or {}), parse_constant=lambda name: None
            )
            said |= {"width": width, "height": height}
        except PictureError:
            said = {}
        with self._lock:
            while len(self._said) >= REMEMBERED:
                del self._said[next(iter(self._said))]
            self._said[found] = said
        return said

    def about(self, found: Found) -> dict[str, Any]:
        """What the page shows of a picture."""
        said = self.said(found)
        return {
            "id": found.id,
            "style": found.style,
            "tag": found.tag,
            "prompt": str(said.get("prompt", "")),
            "seed": said.get("seed"),
            "size": said.get("size"),
            "width": said.get("width"),
            "height": said.get("height"),
            "settings": {name: value for name, value in said.items() if name not in NO_SETTINGS},
            "hearted": found.id in self.hearts,
            "svg": self.svg(found) is not None,
            "modified": found.modified / 1e9,
            "made": {None: "generate", "vary": "vary"}.get(said.get("edit"), "edit"),
        }

    def page(
        self, style: str | None, after: str | None, limit: int, hearted: bool = False
    ) -> tuple[list[dict[str, Any]], str | None, int]:
        """``limit`` pictures that come behind the id ``after``; the id to go on behind; how many there are.

        They are of one style or of all, or only those ``hearted`` of them. What cannot be read is left out.
        """
        listed = [one for one in self.all().values() if style in (None, one.style)]
        if hearted:
            hearts = set(self.hearts)
            listed = [one for one in listed if one.id in hearts]
        start = next((place + 1 for place, one in enumerate(listed) if one.id == after), 0)
        shown = listed[start : start + limit]
        more = shown[-1].id if start + limit < len(listed) else None
        return [self.about(one) for one in shown if self.said(one)], more, len(listed)

    def _in(self, style: str) -> Iterator[Found]:
        for one in entries_in(self._folder / FOLDER / style):
            with suppress(FileNotFoundError):  # it is gone by now
                if one.name.endswith(".png") and one.is_file(follow_symlinks=False):
                    found = Found(f"{style}/{one.name}", style, one.stat(follow_symlinks=False).st_mtime_ns)
                    if not one.name.startswith(SHEET) or "sheet_of" not in self.said(found):
                        yield found

    def svg(self, found: Found) -> Path | None:
        """The SVG file beside a picture; None if it has none."""
        path = (self._folder / FOLDER / found.id).with_suffix(".svg")
        return path if path.is_file() and not path.is_symlink() else None

    # ---- small ones ----

    def thumbnail(self, found: Found) -> bytes:
        """A small WebP of a picture, made once; PictureError if it cannot be read."""
        path = self._folder / THUMBS / f"{found.tag}.webp"
        if path.is_file() and not path.is_symlink():
            return path.read_bytes()
        made = webp_thumbnail(self._folder / FOLDER / found.id, SIDE)
        atomic_write(path, made)
        return made

    def drop_old_thumbnails(self) -> None:
        """Remove those of pictures that are not there any more, or not as they were."""
        tags = {one.tag for one in self.all().values()}
        for path in (self._folder / THUMBS).glob("*.webp"):
            if path.stem not in tags:
                path.unlink(missing_ok=True)

    # ---- hearts, and the trash ----

    def like(self, name: str, on: bool) -> None:
        """Give a picture a heart, or take it; Missing if there is no such picture."""
        found, _ = self.find(name)
        with self._lock:
            hearts = [one for one in self.hearts if one != found.id] + [found.id] * on
            write_json(self._folder / HEARTS, {"pictures": hearts})
            self.hearts = hearts

    def liked(self, style: str | None = None) -> list[str]:
        """The ids with a heart, of one style or of all, the first one first; of those that are there."""
        there = self.all()
        return [one for one in self.hearts if one in there and style in (None, there[one].style)]

    def rename(self, old: str, new: str) -> None:
        """Let the pictures of a style that is called ``new`` now go with it, unless there are such already."""
        if any(one.style == old for one in self.all().values()) and not (self._folder / FOLDER / new).exists():
            self._move(self._folder / FOLDER / old, self._folder / FOLDER / new)
            with self._lock:
                hearts = [f"{new}/{one.partition('/')[2]}" if one.startswith(f"{old}/") else one for one in self.hearts]
                write_json(self._folder / HEARTS, {"pictures": hearts})
                self.hearts = hearts

    def delete(self, name: str) -> None:
        """Move a picture to the trash; Missing if there is none."""
        found, path = self.find(name)
        self._move(path, self._folder / TRASH / found.id)

    def restore(self, name: str) -> None:
        """Take a picture from the trash; Missing if it is not there, UsageError if its name is taken by now."""
        trash = {
            f"{one.name}/{file.name}" for one in folders_in(self._folder / TRASH) for file in entries_in(Path(one.path))
        }
        if name not in trash:
            raise Missing(f"{name[:100]} is not in the trash", "it is emptied when the studio ends")
        if (self._folder / FOLDER / name).exists():
            raise UsageError(f"there is another picture {name[:100]} by now", "rename or delete that one first")
        self._move(self._folder / TRASH / name, self._folder / FOLDER / name)

    def _move(self, source: Path, target: Path) -> None:
        with self._lock, writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)

    def _read_hearts(self) -> list[str]:
        try:
            said = read_json(self._folder / HEARTS)
        except (OSError, ValueError):
            return []
        listed = said.get("pictures") if isinstance(said, Mapping) else None
        return [one for one in listed if isinstance(one, str)] if isinstance(listed, list) else []
