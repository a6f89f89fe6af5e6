"""The styles that a studio offers: those of the user's library, by what their files say."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from styledrop_cli.adapters import library
from styledrop_cli.adapters.header import read_header
from styledrop_cli.errors import StyledropError

_known: dict[tuple[Path, int, int], dict[str, Any]] = {}  # by file, time and size
_lock = threading.Lock()


def listed() -> list[dict[str, Any]]:
    """Every style of the library, in the order of their names; one that cannot be read has an ``error``."""
    return [one for one in (_about(name) for name in library.names()) if one is not None]


def stamp() -> str:
    """What is another one whenever a style has come, gone or changed."""
    return "".join(f"{name}\0{_state(name)}" for name in library.names())


def _state(name: str) -> tuple[Path, int, int] | None:
    path = library.file_of(name)
    try:
        there = path.stat()
    except OSError:
        return None
    return path, there.st_mtime_ns, there.st_size


def _about(name: str) -> dict[str, Any] | None:
    if (state := _state(name)) is None:
        return None
    with _lock:
        if state in _known:
            return _known[state]
    path, _, size = state
    try:
        header = read_header(path)
        said = {
            "learns": header.learns,
            "style": header.name,
            "contents": header.contents[: len(header.pictures) or None],
            "base": header.base.get("name"),
            "kind": header.kind,
            "recommended": header.recommended,
            "created": header.created,
            "thumbnail": header.thumbnail if header.thumbnail.startswith("data:image/") else "",
            "superres": header.superres is not None,
            "round": header.number - 1,
        }
    except StyledropError as error:
        said = {"error": error.message, "hint": error.hint}
    made = {"name": name, "bytes": size, **said}
    with _lock:
        _known[state] = made
    return made
