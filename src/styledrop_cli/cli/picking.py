"""Pickers that a person is behind: the page in the browser, the terminal, and a file with numbers in it.

They are `pickers.Picker`s. What was picked is saved at once, so that a killed program loses nothing of it.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.columns import Columns
from rich.text import Text

from styledrop_cli.cli.console import Screen, in_blocks
from styledrop_cli.errors import UsageError
from styledrop_cli.io.files import read_bytes
from styledrop_cli.io.text_files import decoded

if TYPE_CHECKING:
    from styledrop_cli.feedback.page import Choices, Gallery
    from styledrop_cli.feedback.pickers import Candidates

ENOUGH = 10  # picks of a person (StyleDrop, App. B.2: 10 pictures, about 3 minutes)
CHOICES = "choices.json"
BLOCKS = 22  # characters across a picture in the terminal


class PagePicker:
    """A person, on a page in the browser."""

    name = "human"

    def __init__(self, gallery: Gallery, screen: Screen) -> None:
        self._gallery, self._screen = gallery, screen

    def pick(self, candidates: Candidates, keep: int, folder: Path) -> list[int]:
        from styledrop_cli.feedback.page import Candidate, Choices
        from styledrop_cli.io.images import png_bytes, to_image

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
        self._screen.say(f"pick pictures on the page {self._gallery.url}; {ENOUGH} are enough")
        choices = Choices(len(shown), folder / CHOICES)
        number = int(folder.name.rpartition("-")[2])
        return self._gallery.pick(shown, choices, number, ENOUGH)


class TerminalPicker:
    """A person, in the terminal: prompt by prompt, numbers typed."""

    name = "human"

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def pick(self, candidates: Candidates, keep: int, folder: Path) -> list[int]:
        from styledrop_cli.feedback.page import Choices

        choices = Choices(len(candidates.prompts), folder / CHOICES)
        screen = self._screen
        screen.say(f"All pictures are in {folder / 'pool.png'}, numbered. {ENOUGH} picks are enough.")
        prompts = list(dict.fromkeys(candidates.prompts))
        at = 0
        while not choices.done:
            if at == len(prompts):
                at = self._end(choices, at)
                continue
            places = [i for i, prompt in enumerate(candidates.prompts) if prompt == prompts[at]]
            self._show(candidates, places)
            chosen = [str(i + 1) for i in choices.picked if i in places]
            said = f" (picked: {' '.join(chosen)})" if chosen else ""
            answer = _ask(f"{at + 1}/{len(prompts)} {prompts[at]}{said}: numbers, Enter for none, b back, d done? ")
            if answer in ("b", "back"):
                at = max(0, at - 1)
            elif answer in ("d", "done"):
                at = len(prompts)
            elif (wanted := numbers(answer)) is None or not {n - 1 for n in wanted} <= set(places):
                screen.say(f"Type some of {places[0] + 1} to {places[-1] + 1}, separated by blanks.")
            else:
                if wanted:
                    for i in places:
                        choices.mark(i, "pick" if i + 1 in wanted else None)
                at += 1
        return choices.picked

    def _end(self, choices: Choices, at: int) -> int:
        """All prompts are through: learn from what is picked, or go back."""
        if not choices.picked:
            self._screen.say("Nothing is picked yet; starting again:")
            return 0
        answer = _ask(f"{len(choices.picked)} picked. Enter trains on them, b goes back? ")
        if answer in ("b", "back"):
            return at - 1
        choices.finish()
        return at

    def _show(self, candidates: Candidates, places: list[int]) -> None:
        from styledrop_cli.io.images import to_image

        lines = []
        for i in places:
            score, flaw = candidates.scores[i], candidates.flaws[i]
            about = Text(f"{i + 1}  {score.total:.2f} {flaw}".rstrip(), "bold")
            if self._screen.err.color_system == "truecolor":
                about = Text("\n").join([about, in_blocks(to_image(candidates.pictures[i].float() / 255), BLOCKS)])
            lines.append(about)
        self._screen.err.print(Columns(lines, padding=(0, 2)))


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


def _ask(question: str) -> str:
    try:
        return input(question).strip().lower()
    except EOFError:
        raise UsageError(
            "there is nobody to pick: the input has ended", "Name a file with --picks, or say --feedback clip."
        ) from None
