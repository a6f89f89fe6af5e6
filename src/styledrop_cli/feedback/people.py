"""Pickers that a person is behind: the page in the browser, and a file of numbers. The terminal is ``cli/picking.py``.

What was picked is saved at once, so that a killed program loses nothing of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from styledrop_cli.errors import UsageError
from styledrop_cli.feedback.page import Candidate, Choices, Gallery
from styledrop_cli.feedback.pickers import Candidates
from styledrop_cli.io.files import read_bytes
from styledrop_cli.io.images import png_bytes, to_image
from styledrop_cli.io.text_files import decoded

ENOUGH = 10  # picks of a person (StyleDrop, App. B.2: 10 pictures, about 3 minutes)
CHOICES = "choices.json"


class PagePicker:
    """A person, on a page in the browser."""

    name = "human"

    def __init__(self, gallery: Gallery, on_message: Callable[[str], None]) -> None:
        self._gallery, self._say = gallery, on_message

    def pick(self, candidates: Candidates, keep: int, folder: Path) -> list[int]:
        shown = [
            Candidate(
                prompt,
                png_bytes(to_image(picture.float() / 255)),
                asdict(score) | {"total": score.total},
                flaw,
            )
            for prompt, picture, score, flaw in zip(
                candidates.prompts, candidates.pictures, candidates.scores, candidates.flaws, strict=True
            )
        ]
        self._say(f"pick pictures on the page {self._gallery.url}; {ENOUGH} are enough")
        choices = Choices(len(shown), folder / CHOICES)
        # The adapter that is made from these picks has the folder's number; the one without any feedback has 1.
        number = int(folder.name.rpartition("-")[2]) - 1
        return self._gallery.pick(shown, choices, number, ENOUGH)


class FilePicker:
    """Whoever wrote the numbers into a file."""

    name = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    def pick(self, candidates: Candidates, keep: int, folder: Path) -> list[int]:
        hint = (
            f"Look at {folder / 'pool.png'}, write the numbers there into {self._path}, and run the same command again."
        )
        try:
            text = decoded(read_bytes(self._path), str(self._path), "list of numbers")
        except FileNotFoundError:
            raise UsageError(
                f"the pictures are drawn, and there is no {self._path} yet that says which to pick", hint
            ) from None
        except (OSError, ValueError) as error:
            raise UsageError(f"{self._path} cannot be read: {error}", hint) from None
        wanted = numbers("\n".join(line.partition("#")[0] for line in text.splitlines()))
        if not wanted:
            raise UsageError(f"{self._path} names no pictures by their numbers: '{text.strip()[:40]}'", hint)
        if wrong := [n for n in wanted if not 1 <= n <= len(candidates.prompts)]:
            raise UsageError(f"{self._path} picks {wrong[0]}, of {len(candidates.prompts)} pictures", hint)
        return [n - 1 for n in wanted]


def numbers(text: str) -> list[int] | None:
    """The whole numbers in ``text``, with blanks or commas between them, each once; None if there is anything else."""
    parts = [part for part in re.split(r"[\s,;]+", text) if part]
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        return None
    return list(dict.fromkeys(map(int, parts)))
