"""Files: other people's are read within bounds, our own are written whole or not at all.

Standard library only. No pipe is waited for, and there is a bound to the size of a file and to the depth of its JSON.
A file that cannot be read is an OSError or a ValueError, which whoever asked for the file puts in words.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

from styledrop_cli.errors import ModelError, StyledropError

LARGEST = 5_000_000  # bytes of what describes something: JSON, a header, a list, a vocabulary
LONGEST_NAME = 120  # bytes of a name that a temporary one takes over whole: some file systems take 143, most 255
DEEPEST = 50  # brackets in brackets
LONGEST_NUMBER = 40  # digits: nothing here counts further, and a float can hold it
MOST_TENSORS = 20_000  # in a safetensors file
# What tensors may be stored as; of the rest (8 bits of float, complex, packed) torch cannot even say what is finite.
STORED = {"BOOL", "U8", "I8", "I16", "I32", "I64", "F16", "BF16", "F32", "F64"}
DTYPE = re.compile(r"[FCUI]\d{1,3}(_E\d\w{1,10})?")  # how the format names the rest

# The suffixes of picture files that are read, and of others, which are named as not read.
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
NOT_READ = frozenset({
    ".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".psd", ".tga", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf",
})  # fmt: skip
OWN: set[Path] = (
    set()
)  # the folders in which this process keeps its work (``run_folder.alone_in``): no link there is ours

# ---- reading ----


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


def file_hash(path: Path) -> str:
    """sha256 of a file, as hex; raises OSError for what is no ordinary one."""
    refuse_irregular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def names_apart(paths: Sequence[Path]) -> list[str]:
    """The name of each file, with as many of its folders in front as tell it from the other files."""
    longest = max((len(path.parts) for path in paths), default=0)
    found: dict[Path, str] = {}
    for count in range(1, longest + 1):
        number = Counter(path.parts[-count:] for path in set(paths))
        for path in paths:
            if path not in found and (number[path.parts[-count:]] == 1 or count >= len(path.parts)):
                found[path] = Path(*path.parts[-count:]).as_posix()
    return [found[path] for path in paths]


def read_text(path: Path, most: int = LARGEST) -> str:
    """A text file whole, in UTF-8, with or without a mark of it in front.

    Raises OSError as ``read_bytes`` does, ValueError for another encoding.
    """
    return read_bytes(path, most).decode("utf-8-sig")


def read_json(path: Path, most: int = LARGEST) -> Any:
    """What a JSON file says; OSError as ``read_bytes`` raises it, ValueError as ``parse_json`` does."""
    return parse_json(read_text(path, most))


def parse_json(text: str) -> Any:
    """What a JSON text says, for people and for tensors to be made of.

    Raises ValueError for what is no JSON or no Unicode, for brackets nested more than ``DEEPEST`` deep, and for numbers
    of more than ``LONGEST_NUMBER`` digits.
    """
    try:
        found = json.loads(text, parse_int=_whole)
    except RecursionError:
        raise ValueError("its brackets are nested too deep") from None
    level, depth = [found], 0
    while level := [one for one in level if isinstance(one, dict | list)]:
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
        depth += 1
    if depth > DEEPEST:
        raise ValueError(f"its brackets are nested more than {DEEPEST} deep")
    if "\\u" in text:  # half a character can be written so, and nowhere shown
        json.dumps(found, ensure_ascii=False).encode()
    return found


def _whole(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise ValueError(f"it has a number of {len(digits):,} digits")
    return int(digits)


def read_metadata(path: Path, *, any_type: bool = False) -> dict[str, str]:
    """The metadata in the header of a safetensors file, of which nothing else is read.

    Raises OSError or ValueError if the header is damaged, larger than ``LARGEST`` bytes, or promises other tensors than
    the file has room for; ModelError for more than ``MOST_TENSORS``, and for types of numbers that are not ``STORED``,
    unless ``any_type`` will do.
    """
    refuse_irregular(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LARGEST:
            raise ValueError(f"its head says that it has {length:,} bytes itself")
        head = parse_json(file.read(length).decode())
        room = file.seek(0, 2) - 8 - length
    if not isinstance(head, dict):
        raise ValueError("its head is no JSON object")
    metadata = head.pop("__metadata__", None) or {}
    if len(head) > MOST_TENSORS and not any_type:
        raise ModelError(
            f"{path} is not read: it holds {len(head):,} tensors, and {MOST_TENSORS:,} are the most",
            "Give weights of one network alone.",
        )
    end = 0
    for name, about in head.items():
        stored = about.get("dtype") if isinstance(about, dict) else about
        if not isinstance(stored, str) or not (stored in STORED or DTYPE.fullmatch(stored)):
            raise ValueError(f"{name[:80]} is stored as {stored!r:.40}")
        if stored not in STORED and not any_type:
            raise ModelError(
                f"{path} stores {name[:80]} as {stored}{', 8 bits a number' * stored.startswith('F8')}, which is "
                "not read here",
                "Nothing is wrong with the file. Get it, or save it, as float16, bfloat16 or float32.",
            )
        offsets = about.get("data_offsets") if isinstance(about, dict) else None
        if not (isinstance(offsets, list) and len(offsets) == 2 and all(type(one) is int for one in offsets)):
            raise ValueError(f"{name[:80]} is nowhere in it")
        end = max(end, *offsets)
    if end != room:
        raise ValueError(f"its tensors take {end:,} bytes, and it has {room:,}")
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are no texts")
    return metadata


def why_cut(path: Path) -> str | None:
    """Why a safetensors file is not whole, by the lengths in its own header; None if it is."""
    try:
        read_metadata(path, any_type=True)
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None


# ---- writing ----

_FULL = ("the disk is full", "make room on it, or choose another place with -o")
_CLOSED = ("{folder} may not be written to", "choose another place with -o, or change the folder's permissions")
_BLOCKED = ("a file is in the way of the folder {folder}", "choose another place with -o")
# The ways in which writing fails, in words, and what a person can do about them.
_UNWRITABLE = {
    errno.ENOSPC: _FULL, errno.EDQUOT: _FULL,
    errno.EACCES: _CLOSED, errno.EPERM: _CLOSED, errno.EROFS: _CLOSED,
    errno.ENOTDIR: _BLOCKED, errno.EEXIST: _BLOCKED,
    errno.ENAMETOOLONG: ("its name is too long", "choose a shorter one with -o"),
}  # fmt: skip


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError of writing ``path``, or of making a folder for it, into a StyledropError in words."""
    try:
        yield
    except OSError as error:
        reason, hint = _UNWRITABLE.get(error.errno or 0, (error.strerror or str(error), "choose another place with -o"))
        raise StyledropError(f"cannot write {path}: {reason.format(folder=path.parent)}", hint) from None


def real_place(path: Path) -> Path:
    """Where a file is written: where its link leads, if it is one. Links in a folder of our own are not followed."""
    folder = path.parent.resolve()
    if not path.is_symlink() or not OWN.isdisjoint((folder, *folder.parents)):
        return path
    return Path(os.path.realpath(path))


def temporary_name(name: str) -> str:
    """What a file called ``name`` is called while it is written, but for the process: a name that is never too long."""
    whole = os.fsencode(name)
    if len(whole) <= LONGEST_NAME:
        return name
    return f"{whole[:90].decode(errors='ignore')}-{hashlib.sha256(whole).hexdigest()[:8]}{Path(name).suffix[-15:]}"


def atomic_write(path: Path, data: bytes, *, private: bool = False, new: bool = False) -> bool:
    """Write ``data`` to ``path`` whole or not at all, with its folder if need be; ``private``: for this user's eyes.

    A file that is there already keeps its permissions, and a link stays one: what it leads to is written. ``new``
    leaves such a file alone. Returns whether ``data`` was written; StyledropError if the folder or file cannot be.
    """
    named = Path(path)
    with writing(named):
        path = real_place(named)
        part = path.with_name(f".{temporary_name(path.name)}{_of_thread()}.{os.getpid()}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.unlink(missing_ok=True)  # a link that somebody left in its place would be followed
            if private:
                part.touch(mode=0o600)  # before there is anything in it
            part.write_bytes(data)
            with suppress(FileNotFoundError):
                if not private and not path.is_symlink():
                    part.chmod(stat.S_IMODE(path.stat().st_mode))
            with part.open("rb+") as file:  # or the new name could outlive a power cut, and what it names not
                os.fsync(file.fileno())
            if new:
                return named_anew(part, path)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    return True


def _of_thread() -> str:
    """What a temporary name has for a thread beside the main one: two may write the same file at a time."""
    return "" if threading.current_thread() is threading.main_thread() else f".{threading.get_native_id()}"


def named_anew(file: Path, path: Path) -> bool:
    """Give ``file`` the name ``path`` instead of its own, unless that is taken, also by another process meanwhile.

    Returns whether it has the name now. Raises OSError where the disk does not let it.
    """
    try:
        os.link(file, path)  # which never replaces what is there
    except OSError:  # it is there, or the disk has no hard links
        if os.path.lexists(path):
            return False
        file.replace(path)
    file.unlink(missing_ok=True)
    return True


def to_text(text: str) -> str:
    """A text that any file can hold, with "?" for the bytes of a file's name that are no text."""
    return text.encode(errors="replace").decode()


def to_json(value: object, indent: int | None = None) -> str:
    """JSON that people can read, and any file hold."""
    return to_text(json.dumps(value, indent=indent, ensure_ascii=False))


def write_json(path: Path, value: object) -> None:
    """Write readable JSON in one atomic step."""
    atomic_write(path, f"{to_json(value, indent=1)}\n".encode())


def remove_parts(folder: Path, name: str = "*", *, deep: bool = False, older: float = 0.0) -> None:
    """Remove what killed processes left half written in ``folder``, of files called ``name``, which is a pattern.

    ``deep`` goes into the folders in it. Where other machines write too, whose processes are not known here, only what
    is ``older`` than so many seconds is surely left behind.
    """
    for part in folder.glob(f"{'**/' if deep else ''}.{name}.*.part"):
        pid = re.fullmatch(r"\..+\.([1-9][0-9]{0,8})\.part", part.name)
        with suppress(OSError):  # it is gone by now, or it may stay
            if pid and not _alive(int(pid[1])) and time.time() - part.stat().st_mtime >= older:
                part.unlink()


def _alive(pid: int) -> bool:
    """Whether the process ``pid`` may be at work. Not this one: what bears its number was left by one before it."""
    if pid == os.getpid() or os.name != "posix":  # elsewhere asking would end it, and an open file cannot be removed
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
    return True


def did_you_mean(path: Path) -> str | None:
    """A hint at the file whose name is nearest to that of ``path``, which is not there; None if there is none."""
    with suppress(OSError):
        names = [one.name for one in islice(path.parent.iterdir(), 1000) if one.suffix == path.suffix]
        if near := get_close_matches(path.name[:100], names, 1):
            return f"Did you mean {path.parent / near[0]}?"
    return None
