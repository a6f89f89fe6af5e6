"""Records in ``.training``: with what each part of a model folder was made, whether it is finished, how it went.

``<part>.json`` is written before the first weights of a part and again after the last ones. It names the file of
the part and the parts that it was made with by their hashes, so that others are noticed. ``<part>.log.jsonl`` gets a
line each time the part is saved.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from styledrop_cli.base.folder import text_part
from styledrop_cli.errors import ModelError
from styledrop_cli.io.files import atomic_write, file_hash, read_bytes, read_json, to_json, write_json
from styledrop_cli.io.tensors import read_tensors, tensors_hash

WORK = ".training"  # the folder for work in progress
FILES = {"base": "transformer"}  # the parts whose file has another name
# Part -> the parts that it learns from, where a folder has them. See ``needed_parts``.
NEEDS = {
    "clip": ("text",),
    "scorer": ("clip", "text"),
    "base": ("tokenizer", "clip", "text"),
    "superres": ("tokenizer", "clip", "text"),
    "decoder": ("tokenizer",),
}
LARGEST_LOG = 100_000_000  # bytes


@dataclass(frozen=True)
class Record:
    """How a part was trained: pictures a step, the factor on its learning rates, and the hashes of its ``inputs``.

    Of a finished part, ``file`` is the sha256 of its file and ``result`` its ``Outcome``.
    """

    batch: int
    rate: float = 1.0
    inputs: dict[str, str] = field(default_factory=dict)
    finished: bool = False
    file: str = ""
    result: dict[str, Any] = field(default_factory=dict)


def part_file(folder: Path, part: str) -> Path:
    """Where a model folder keeps the weights of a part."""
    return folder / f"{FILES.get(part, part)}.safetensors"


def checkpoints(folder: Path, part: str) -> tuple[Path, Path]:
    """Where the newest state of a part's training lies, and the one before."""
    newest, before = (folder / WORK / f"{part}{one}.safetensors" for one in ("", "-before"))
    return newest, before


def needed_parts(folder: Path, part: str) -> list[str]:
    """The parts that this one learns from: a CLIP only where prompts are read by its text tower."""
    return [one for one in NEEDS.get(part, ()) if one != "clip" or text_part(folder) == "clip"]


def inputs(folder: Path, part: str) -> dict[str, str]:
    """A hash of each part that this one learns from.

    A CLIP is hashed without its picture tower, which may be trained further beside a base.
    """
    found = {}
    for needed in needed_parts(folder, part):
        if (path := part_file(folder, needed)).exists():
            tensors = {n: t for n, t in read_tensors(path)[0].items() if not n.startswith("visual.")}
            found[needed] = tensors_hash(tensors)
    return found


def read_record(folder: Path, part: str) -> Record | None:
    """What is known of a part, or None; raises ModelError for a damaged record."""
    path = folder / WORK / f"{part}.json"
    try:
        there = read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {error}", "Delete it, and the part is trained anew.") from error
    if not isinstance(there, dict) or set(there) != set(asdict(Record(0))):
        raise ModelError(f"{path} is damaged", "Delete it, and the part is trained anew.")
    return Record(**there)


def write_record(folder: Path, part: str, record: Record) -> None:
    """Write a record atomically; that of a finished part gets the hash of its file as it is now."""
    named = asdict(record)
    if record.finished and (path := part_file(folder, part)).exists():
        named["file"] = file_hash(path)
    write_json(folder / WORK / f"{part}.json", named)


def is_as_recorded(folder: Path, part: str, record: Record) -> bool:
    """Whether the file of a finished part is the one that was recorded."""
    path = part_file(folder, part)
    return not record.file or (path.exists() and file_hash(path) == record.file)


def log(folder: Path, part: str, line: dict[str, Any], *, fresh: bool) -> None:
    """Add a line to the log of a part, whole or not at all; a ``fresh`` training begins a new one."""
    path = folder / WORK / f"{part}.log.jsonl"
    before = b"" if fresh or not path.exists() else read_bytes(path, LARGEST_LOG)
    atomic_write(path, before + to_json(line).encode() + b"\n")
