"""Rounds of feedback in front of a person: who picks, and what is shown meanwhile, in the terminal or on the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.columns import Columns
from rich.text import Text

from styledrop_cli.cli.console import Screen, Steps, in_blocks
from styledrop_cli.errors import UsageError

if TYPE_CHECKING:
    from styledrop_cli.base.base import Base
    from styledrop_cli.feedback.page import Choices, Gallery
    from styledrop_cli.feedback.pickers import Candidates, Picker
    from styledrop_cli.feedback.rounds import Result

BLOCKS = 22  # characters across a picture in the terminal


class TerminalPicker:
    """A person, in the terminal: prompt by prompt, numbers typed. What was picked is saved at once."""

    name = "human"

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def pick(self, candidates: Candidates, keep: int, folder: Path) -> list[int]:
        from styledrop_cli.feedback.page import Choices
        from styledrop_cli.feedback.people import CHOICES, ENOUGH, numbers

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


def _ask(question: str) -> str:
    try:
        return input(question).strip().lower()
    except EOFError:
        raise UsageError(
            "there is nobody to pick: the input has ended", "Name a file with --picks, or say --feedback clip."
        ) from None


def gallery_of(base: Base, start: Path, folder: Path, pictures: Sequence[Path]) -> Gallery:
    """The page on which a person picks, with the references of the adapter at the `start`.

    They are looked for where the `pictures` lie that it was learnt from just now, and beside the `folder` of rounds.
    """
    from styledrop_cli.adapters.header import read_header
    from styledrop_cli.feedback.page import Gallery
    from styledrop_cli.feedback.rounds import reference_pictures

    places = [folder.parent, *(picture.parent for picture in pictures)]
    references, original = reference_pictures(base, start, places)
    seen = "" if original else f"The reference as {base.name} sees it: the picture itself is not beside the adapter."
    return Gallery(folder, references, read_header(start).style, seen=seen)


class Watcher:
    """Tells the terminal how it goes on, and the page, where there is one."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.gallery: Gallery | None = None
        self._steps = Steps(screen)

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *about: object) -> None:
        self._steps.close()

    def say(self, message: str) -> None:
        self.screen.say(message)

    def drawing(self, what: str, share: float, note: str) -> None:
        self._steps.show(what, share, note)
        if self.gallery is not None:
            self.gallery.drawing(share, f"{what}: {note}")

    def learning(self, share: float, note: str) -> None:
        self._steps.show("learning", share, note)
        if self.gallery is not None:
            self.gallery.training(share, note)

    def round_done(self, number: int, sheet: Path, planned: bool) -> bool:
        self._steps.close()
        from styledrop_cli.feedback.outcome import called

        self.say(f"{called(number)} is done: {sheet}")
        if self.gallery is None:
            return planned
        return self.gallery.another(sheet.read_bytes(), f"{called(number).capitalize()} has been learnt.", planned)

    def over(self, result: Result) -> None:
        """The page's last words."""
        if self.gallery is not None:
            self.gallery.over(f"{result.verdict} It was written to {result.path}.")


def pickers_of(names: list[str], picks: list[Path] | None, watcher: Watcher, seed: int) -> list[Picker]:
    """Who picks in each round: the files of numbers, or else those with these names."""
    from styledrop_cli.feedback.people import FilePicker, PagePicker
    from styledrop_cli.feedback.pickers import BestPicker, RandomPicker

    made: list[Picker] = [FilePicker(path) for path in picks or []]
    for name in names:
        if name == "human":
            assert watcher.gallery is not None
            made.append(PagePicker(watcher.gallery, watcher.say))
        elif name == "terminal":
            made.append(TerminalPicker(watcher.screen))
        else:
            made.append(BestPicker() if name == "clip" else RandomPicker(seed))
    return made
