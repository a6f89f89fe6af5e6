"""A folder of captioned pictures, as training data.

Captions are in ``metadata.jsonl`` or in a text file of the same name beside each picture. A line of ``metadata.jsonl``
is an object of ``file_name`` and ``text`` or ``caption``: one caption, or a list that all say the same. Records with
``"split": "held-out"`` are not trained on, only measured.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from styledrop_cli.base.prompt_tokens import quoted, words
from styledrop_cli.errors import StyledropError, UsageError
from styledrop_cli.io.files import NOT_READ, SUFFIXES, parse_json, refuse_irregular
from styledrop_cli.io.images import OnMessage, load_picture, quietly, square
from styledrop_cli.io.text_files import read_text, unix

METADATA = "metadata.jsonl"
CAPTIONS = ("text", "caption")  # keys of captions; where both are there, both say the same
LONGEST = 1_000_000  # bytes of a caption, or of a line that has several
READERS = 16  # threads that read pictures, where there are as many cores
HELD_OUT_EVERY = 64  # in a folder that names no held-out records, every 64th is one
NOT_READ_HERE = "in a format that is not read"
LeftOut = dict[str, list[Path]]  # the files of a folder that are left out, by the reason


@dataclass(frozen=True)
class Record:
    """One picture and its captions, which all say the same."""

    path: Path
    captions: tuple[str, ...]
    held_out: bool = False


def read_corpus(
    folder: Path, *, captions: bool = True, on_message: Callable[[str], None] = lambda message: None
) -> list[Record]:
    """All records of a folder to train a base on, some of them held out; ``on_message`` as in ``records_in``.

    Raises UsageError as that does, if there are fewer than two, all are held out, or a picture has no caption where
    ``captions`` are needed.
    """
    records = records_in(folder, on_message)
    without = [r.path for r in records if not r.captions]
    if captions and without:
        raise UsageError(
            f"{len(without)} of {len(records)} pictures have no caption, the first is {without[0]}",
            f"Name it in {METADATA}, or put a .txt of the same name beside it.",
        )
    if len(records) < 2 or all(r.held_out for r in records):
        raise UsageError(f"{folder} needs at least 2 pictures, of which some are not held out")
    if not any(r.held_out for r in records):
        every = min(HELD_OUT_EVERY, len(records))
        records = [Record(r.path, r.captions, i % every == every - 1) for i, r in enumerate(records)]
    return records


def records_in(folder: Path, on_message: Callable[[str], None] = lambda message: None) -> list[Record]:
    """The pictures of a folder and what is said of each, in the order of their names or of ``METADATA``.

    ``on_message`` gets one warning that names the files that are left out. Raises UsageError for no pictures, a
    malformed line, and a picture that is missing or named twice.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    left_out: LeftOut = {}
    files = {path for path in folder.rglob("*") if not path.name.startswith(".")}  # macOS leaves ._a.png beside a.png
    pictures = sorted(path for path in files if path.suffix.lower() in SUFFIXES)
    left_out[NOT_READ_HERE] = sorted(path for path in files if path.suffix.lower() in NOT_READ)
    if (folder / METADATA).exists():
        records = _from_metadata(folder, left_out)
        named = {os.path.normpath(record.path) for record in records}
        left_out[f"not named in {METADATA}"] = [path for path in pictures if os.path.normpath(path) not in named]
    else:
        records = _from_text_files(folder, pictures, files)
    if said := told(left_out):
        on_message(f"Warning: left out of {folder}: {said}")
    if not records:
        raise UsageError(
            f"{folder} holds no pictures{' that can be read: ' + said if said else ''}",
            f"Put pictures in it, with {METADATA} or text files beside them.",
        )
    return records


def told(left_out: LeftOut) -> str:
    """What is left out and why, in words: how many, and the names of the first."""
    return "; ".join(
        f"{len(paths):,} {why} ({quoted([path.name for path in paths], 3)})" for why, paths in left_out.items() if paths
    )


def _from_metadata(folder: Path, left_out: LeftOut) -> list[Record]:
    records, seen = [], set()
    for number, line in enumerate(_lines(folder / METADATA), 1):
        where = f"{folder / METADATA}, line {number}"
        if not line.strip():
            continue
        try:
            entry = parse_json(line)
            name, texts = entry["file_name"], [entry[key] for key in CAPTIONS if key in entry]
            if not isinstance(name, str) or not all(isinstance(text, str | list) for text in texts):
                raise TypeError(f"'file_name' is a text, {' and '.join(map(repr, CAPTIONS))} one or a list of them")
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{where}: needs a JSON object with 'file_name' ({error})") from error
        path = folder / name
        if not os.path.isfile(path) and "\\" in name:  # as Windows writes it
            path = folder / name.replace("\\", "/")
        if not os.path.isfile(path):  # nor is there one of too long a name
            raise UsageError(f"{where}: there is no picture {path!s:.200}")
        _refuse_outside(path, folder, f"{where}: {name}")
        if (real := path.resolve()) in seen:
            raise UsageError(f"{where}: {name} is named a second time")
        seen.add(real)
        if path.suffix.lower() in NOT_READ:  # it is among those already
            continue
        said = [one for text in texts for one in ([text] if isinstance(text, str) else text)]
        captions = dict.fromkeys(caption for one in said if (caption := str(one).strip()))
        if captions and (empty := sum(not str(one).strip() for one in said)):
            left_out.setdefault("empty captions, of pictures with others", []).extend([path] * empty)
        records.append(Record(path, tuple(captions), entry.get("split") == "held-out"))
    return records


def _from_text_files(folder: Path, pictures: list[Path], files: set[Path]) -> list[Record]:
    texts = {path.with_suffix(""): path for path in files if path.suffix.lower() == ".txt"}
    records = []
    for path in pictures:
        text = texts.get(path.with_suffix(""))
        for file in filter(None, (path, text)):
            _refuse_outside(file, folder, str(file))
        caption = _caption(text) if text else ""
        records.append(Record(path, (caption,) if caption else ()))
    return records


def _refuse_outside(path: Path, folder: Path, named: str) -> None:
    """Raise UsageError for a name or a link that leads out of the folder, which a stranger may have made."""
    if folder.resolve() not in Path(os.path.realpath(path)).parents:
        raise UsageError(f"{named} lies outside the folder", "Copy it there; a link is not followed.")


def _caption(path: Path) -> str:
    with _reading(path):
        refuse_irregular(path)  # a pipe would be waited for
        if path.stat().st_size > LONGEST:
            raise OSError(errno.EFBIG, f"it has more than {LONGEST:,} bytes", str(path))
    return read_text(path, "caption", "check the file's permissions").strip()


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text, one at a time."""
    with _reading(path):
        refuse_irregular(path)
        with path.open("rb") as file:
            while line := file.readline(LONGEST + 1):
                if len(line) > LONGEST:
                    raise OSError(errno.EFBIG, f"it has a line of more than {LONGEST:,} bytes", str(path))
                yield unix(line.decode())


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong with reading a text into a UsageError."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text", "Save it again with that encoding.") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def read_pictures(records: Sequence[Record], size: int, on_message: OnMessage = quietly) -> Tensor:
    """The pictures, cropped square, as uint8 ``[R,3,size,size]``; raises UsageError if some cannot be read.

    ``on_message`` gets the first remark on how one was read, and how many more there were.
    """
    pictures = torch.empty(len(records), 3, size, size, dtype=torch.uint8)
    broken: list[str] = []
    remarks: list[str] = []

    def read(index: int) -> None:
        try:
            image = square(load_picture(records[index].path, remarks.append), size)
        except StyledropError as error:
            broken.append(error.message)
            return
        pictures[index] = torch.from_numpy(np.array(image)).permute(2, 0, 1)

    with ThreadPoolExecutor(max(2, min(READERS, os.cpu_count() or 1))) as pool:
        list(pool.map(read, range(len(records))))
    if broken:
        raise UsageError(f"{len(broken)} of {len(records)} pictures cannot be read, the first: {broken[0]}")
    if remarks:
        on_message(min(remarks) + (f" (and {len(remarks) - 1:,} more of the kind)" if len(remarks) > 1 else ""))
    return pictures


def vocabulary(records: Sequence[Record]) -> list[str]:
    """Every word of the captions, sorted."""
    return sorted({word for r in records for caption in r.captions for word in words(caption)})


def plain_contents(records: Sequence[Record]) -> list[str]:
    """What the pictures show: the names a picture can be given, sorted.

    A name is what stands before the style ("a cat" of "a cat in crayon style") in the first caption of more than two
    pictures and of more than a tenth of the median: a few pictures of "a blue cat" do not make it a name. Nor is a name
    with a place added ("a cat on a blue background") one.
    """
    shown = Counter(r.captions[0].partition(" in ")[0] for r in records)
    often = [times for times in shown.values() if times > 2]
    least = max(2, median(often) / 10) if often else 2
    names = {name for name, times in shown.items() if times > least}
    return sorted(name for name in names if name.partition(" on ")[0] not in names - {name})


def draw_captions(records: list[Record], rows: Tensor, generator: torch.Generator) -> list[str]:
    """One caption, at random, of each record at ``rows``."""
    choice = torch.rand(len(rows), generator=generator)
    picked = [records[row].captions for row in rows.tolist()]
    return [captions[int(c * len(captions))] for captions, c in zip(picked, choice.tolist(), strict=True)]


def in_unknown_style(caption: str, strange: Sequence[str], generator: torch.Generator) -> str:
    """The caption with one or two ``strange`` words for its style; unchanged if it does not end with a style."""
    content, named, style = caption.rpartition(" in ")
    if not named or not style.endswith(" style"):
        return caption
    count = int(torch.randint(1, 3, (), generator=generator))
    picked = torch.randint(len(strange), (count,), generator=generator).tolist()
    return f"{content} in {' '.join(strange[i] for i in picked)} style"
