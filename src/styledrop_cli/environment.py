"""Environment variables: read here, and refused in words only where they matter. Standard library only.

A variable that is set to nothing is not set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from styledrop_cli.errors import UsageError

LAUNCHED = ("WORLD_SIZE", "RANK", "LOCAL_RANK")  # what `accelerate launch` and `torchrun` set


def is_on(name: str) -> bool:
    """Whether a switch is on, as huggingface_hub reads its own."""
    return os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")


def whole_number(name: str, default: int) -> int:
    """A variable's value, 0 or more; UsageError if it is no such number."""
    value = os.environ.get(name, "").strip()
    if not value:
        return default
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise UsageError(f"{name} is '{value[:40]}', and no whole number", f"unset {name}, or set it to a whole number")
    return int(value)


def launched() -> tuple[int, int, int]:
    """The number of this process, of how many, and its number on this machine: (0, 1, 0) if it is alone.

    Raises UsageError if the variables that say so make no sense.
    """
    of = whole_number("WORLD_SIZE", 1)
    if of < 2:
        return 0, 1, 0
    number = whole_number("RANK", 0)
    if number >= of:
        raise UsageError(f"RANK is {number}, and WORLD_SIZE {of}", "ranks count from 0: unset both, or set them right")
    return number, of, whole_number("LOCAL_RANK", number)


@contextmanager
def read_by(library: str, prefix: str) -> Iterator[None]:
    """A value that a library trips over while it reads its variables, called ``prefix``..., is a UsageError."""
    try:
        yield
    except ValueError as error:
        said = str(error)
        for name, value in os.environ.items():
            if name.startswith(prefix) and value and value in said:
                raise UsageError(f"{name} is '{value[:40]}', which {library} cannot read", f"unset {name}") from error
        raise


def expanded(path: str, hint: str = "set HOME, or name it in full") -> str:
    """A path with its `~` replaced, where the shell left it as it was (--output=~/pictures).

    Raises UsageError, with ``hint``, if it is in this user's home folder, and that is not known.
    """
    found = os.path.expanduser(path)
    if found.startswith("~") and Path(found).parts[0] == "~":  # else there is no such user: a file ~backup.png
        raise UsageError(f"{path} is in the home folder, and this user has none", hint)
    return found
