"""Files from anywhere, read within bounds: no pipe that is waited for, no more than was meant, no JSON without end.

Standard library only. What is wrong is an OSError or a ValueError, which whoever asked for the file puts in words.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

LARGEST = 5_000_000  # bytes of what describes something: JSON, a header, a list, a vocabulary
DEEPEST = 50  # brackets in brackets
LONGEST_NUMBER = 40  # digits: nothing here counts further, and a float can hold it


def refuse_irregular(path: Path) -> None:
    """Raise OSError for what is no ordinary file: a pipe is waited for, and a device may have no end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is a folder" if path.is_dir() else "it is no ordinary file", str(path))


def read_bytes(path: Path, most: int | None = LARGEST) -> bytes:
    """A file whole; OSError if it is no ordinary one, or has more than ``most`` bytes."""
    refuse_irregular(path)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
        return file.read(size)  # and not what is added meanwhile


def read_text(path: Path, most: int = LARGEST) -> str:
    """A text file whole, in UTF-8; OSError as ``read_bytes`` raises it, ValueError for another encoding."""
    return read_bytes(path, most).decode("utf-8")


def read_json(path: Path, most: int = LARGEST) -> Any:
    """What a JSON file says; OSError as ``read_bytes`` raises it, ValueError as ``parse_json`` does."""
    return parse_json(read_text(path, most))


def parse_json(text: str) -> Any:
    """What a JSON text says, for people and for tensors to be made of.

    Raises ValueError for what is no JSON or no Unicode, for brackets more than ``DEEPEST`` deep, and for numbers of
    more than ``LONGEST_NUMBER`` digits.
    """
    try:
        found = json.loads(text, parse_int=_whole)
    except RecursionError:
        raise ValueError("its brackets are too deep in brackets") from None
    level = [found]
    for _ in range(DEEPEST):
        level = [inner for one in level if isinstance(one, dict | list) for inner in _inside(one)]
        if not level:
            break
    else:
        raise ValueError(f"its brackets are more than {DEEPEST} deep in brackets")
    if "\\u" in text:  # half a character can be written so, and nowhere shown
        json.dumps(found, ensure_ascii=False).encode()
    return found


def _inside(one: dict[str, Any] | list[Any]) -> list[Any]:
    return list(one.values()) if isinstance(one, dict) else one


def _whole(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise ValueError(f"it has a number of {len(digits):,} digits")
    return int(digits)
