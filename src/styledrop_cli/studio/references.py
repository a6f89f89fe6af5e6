"""The reference pictures of a studio: what was dropped on the page, as it came, and what is known of it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from styledrop_cli.errors import PictureError
from styledrop_cli.io.files import atomic_write, read_json, write_json
from styledrop_cli.io.images import load_picture, load_reference, png_bytes, square
from styledrop_cli.studio.missing import Missing
from styledrop_cli.web.serving import media_type

FOLDER, SEEN = "references", "references/seen"  # the second is where `tokenize` writes
SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}
ID = re.compile("[0-9a-f]{12}")  # the beginning of the file's sha256
LONGEST_NAME = 120  # characters
CROP = 512  # px


class References:
    """Those in ``folder``/references."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, data: bytes, name: str) -> dict[str, Any]:
        """Keep a picture that came with a ``name``; what is known of it. One that is there is not kept twice.

        PictureError for what is no PNG, JPEG or WebP file that can be learnt from.
        """
        try:
            suffix = SUFFIXES[media_type(data)]
        except ValueError:
            raise PictureError("this is not a PNG, JPEG or WebP picture", "save it as one of these") from None
        key = hashlib.sha256(data).hexdigest()[:12]
        path = self._folder / FOLDER / f"{key}{suffix}"
        if key not in self.files():
            atomic_write(path, data)
            try:
                image = load_reference(path)
            except PictureError as error:
                path.unlink()
                raise PictureError(error.message.replace(str(path), name or "it"), error.hint) from None
            said = {"name": name[:LONGEST_NAME], "width": image.width, "height": image.height}
            write_json(path.with_suffix(".json"), said)
        return self.about(key)

    def files(self) -> dict[str, Path]:
        """The file of each reference by its id, the newest first."""
        found = [
            path
            for path in (self._folder / FOLDER).glob("*")
            if path.suffix in SUFFIXES.values() and ID.fullmatch(path.stem) and path.is_file() and not path.is_symlink()
        ]
        return {path.stem: path for path in sorted(found, key=lambda path: -path.stat().st_mtime_ns)}

    def find(self, key: str) -> Path:
        """The file of a reference; Missing if there is none."""
        if (path := self.files().get(key)) is None:
            raise Missing(f"there is no reference {key[:20]}")
        return path

    def about(self, key: str) -> dict[str, Any]:
        """What is known of a reference, also what the base model makes of it (``looked``: null until it is known)."""
        path = self.find(key)
        try:
            said = read_json(path.with_suffix(".json"))
        except (OSError, ValueError):
            said = {}
        said = said if isinstance(said, dict) else {}
        return {"id": key, "name": "", "width": None, "height": None, "looked": None} | said

    def look(self, key: str) -> list[str]:
        """The command that finds out what the base model makes of a reference."""
        return ["tokenize", self.find(key).relative_to(self._folder).as_posix(), "-o", SEEN]

    def looked(self, key: str, found: dict[str, Any]) -> None:
        """Keep what that command found."""
        if key in self.files():
            shows = found.get("shows") or {}
            guess = {"content": shows["content"], "sure": shows["sure"]} if shows else None
            looked = {"guess": guess, "edges_kept": found.get("edges"), "warning": found.get("warning")}
            about = {name: value for name, value in self.about(key).items() if name != "id"}
            write_json(self.find(key).with_suffix(".json"), about | {"looked": looked})

    def crop(self, key: str) -> bytes:
        """The square of a reference that is learnt from, as PNG."""
        return png_bytes(square(load_picture(self.find(key)), CROP))

    def seen(self, key: str) -> bytes:
        """What comes back of it from the base model's tokens, as PNG; Missing until that is known."""
        path = self._folder / SEEN / f"{self.find(key).stem}-reconstruction.png"
        if not path.is_file() or path.is_symlink():
            raise Missing("this reference was not looked at yet", "wait for the job that does it")
        return path.read_bytes()

    def remove(self, key: str) -> None:
        """Remove a reference; what was learnt from it holds its own copy. Missing if there is none."""
        path = self.find(key)
        for one in (path, path.with_suffix(".json"), *(self._folder / SEEN).glob(f"{key}-*")):
            one.unlink(missing_ok=True)
