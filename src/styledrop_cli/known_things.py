"""The things a base was taught, by all their names: ``things.jsonl`` of its folder.

A line is ``{"thing": "dog", "words": ["a dog", "a puppy"], "zh": ["狗"]}``: what it is called in captions, the usual
name first, and its Chinese names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from styledrop_cli.errors import ModelError
from styledrop_cli.files import atomic_write, parse_json, read_text

THINGS = "things.jsonl"
MOST_THINGS = 20_000
LONGEST_NAME = 200  # characters


@dataclass(frozen=True)
class Thing:
    """Something that a base draws: what it is, its names in captions ("a dog"), its Chinese names."""

    thing: str
    words: tuple[str, ...]
    zh: tuple[str, ...] = ()


def read_things(path: Path) -> list[Thing]:
    """The things of a file, none where there is none; raises ModelError for a file that is not as it should be."""
    try:
        lines = read_text(path).splitlines() if path.exists() else []
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    if len(lines) > MOST_THINGS:
        raise ModelError(f"{path} has {len(lines):,} lines, and at most {MOST_THINGS:,} are read")
    return [_thing(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _thing(line: str, where: str) -> Thing:
    try:
        entry = parse_json(line)
        thing, said, zh = entry["thing"], entry["words"], entry.get("zh", [])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{where}: needs a JSON object with 'thing' and 'words' ({error})") from error
    texts = [thing, *said, *zh] if isinstance(said, list) and isinstance(zh, list) and said else [None]
    if not all(isinstance(text, str) and text.strip() and len(text) <= LONGEST_NAME for text in texts):
        raise ModelError(f"{where}: 'thing' must be a name, 'words' a list of at least one, 'zh' a list of names")
    return Thing(thing, tuple(said), tuple(zh))


def write_things(path: Path, things: Iterable[Thing]) -> None:
    """Write what ``read_things`` reads."""
    atomic_write(path, "".join(f"{json.dumps(asdict(thing), ensure_ascii=False)}\n" for thing in things).encode())
