"""The rounds that a studio has made of a style, side by side: what each drew of the same prompts.

Each lies in a folder of its own, rounds/STYLE-N, as ``iterate`` left it: the style that it began with, and the one that
was learnt from what a person liked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from styledrop_cli.adapters import library
from styledrop_cli.io.files import file_hash, read_json
from styledrop_cli.io.run_names import ROUND, ROUND_ADAPTER, ROUND_PICTURE, TABLE
from styledrop_cli.studio.missing import Missing


@dataclass(frozen=True)
class Stage:
    """A style as it was at one time: the folder and the number in it that its adapter has, and what ``iterate`` said.

    ``learnt`` is whether that folder's round made it, or began with it.
    """

    folder: Path
    number: int
    table: dict[str, Any]
    learnt: bool

    @property
    def file(self) -> Path:
        """Its adapter."""
        return self.folder / ROUND.format(self.number) / ROUND_ADAPTER

    @property
    def pictures(self) -> list[dict[str, str]]:
        """What it drew of each prompt, and where that is served."""
        shown = enumerate(self.table["prompts"], 1)
        there = [(place, prompt) for place, prompt in shown if picture(self.folder, str(self.number), str(place))]
        root = f"api/rounds/{quote(self.folder.name)}/{self.number}"
        return [{"prompt": str(prompt), "url": f"{root}/{place}"} for place, prompt in there]


def stages(folders: Sequence[Path]) -> list[Stage]:
    """The style that the first of ``folders`` began with, and what the round of each made; unfinished ones left out."""
    found: list[Stage] = []
    for folder in folders:
        try:
            table = read_json(folder / TABLE)
            numbers = sorted(row["round"] for row in table["rounds"] if row["round"] > 0)
            sound = all(isinstance(table[name], kind) for name, kind in (("prompts", list), ("verdict", str)))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if sound and numbers:
            start = [] if found else [Stage(folder, numbers[0], table, learnt=False)]
            found += start + [Stage(folder, number, table, learnt=True) for number in numbers[1:]]
    return found


def listed(style: str, folders: Sequence[Path]) -> list[dict[str, Any]]:
    """What the page shows of them; ``current`` is the one that the style of the library is."""
    now = file_hash(library.file_of(style)) if library.is_saved(style) else ""
    return [
        {
            "round": place,
            "name": f"round {place}" if place else "start",
            "verdict": stage.table["verdict"] if stage.learnt else "",
            "best": stage.number == stage.table.get("best"),
            "current": stage.file.is_file() and file_hash(stage.file) == now,
            "pictures": stage.pictures,
        }
        for place, stage in enumerate(stages(folders))
    ]


def adapter_of(place: int, folders: Sequence[Path]) -> Path:
    """The adapter of a round, as ``listed`` counts them; Missing if there is none."""
    found = stages(folders)
    if not 0 <= place < len(found) or not found[place].file.is_file() or found[place].file.is_symlink():
        raise Missing(f"there is no round {place}")
    return found[place].file


def picture(folder: Path, number: str, place: str) -> Path | None:
    """The file of what the adapter with a ``number`` drew of the prompt at a ``place``, from 1; None if not there."""
    if not (re.fullmatch("[0-9]{1,6}", number) and re.fullmatch("[0-9]{1,6}", place)):
        return None
    path = folder / ROUND.format(int(number)) / ROUND_PICTURE.format(int(place))
    return path if path.is_file() and not path.is_symlink() else None
