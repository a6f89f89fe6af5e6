"""What a person has picked. Knows nothing of pages and requests: what is on disk is the state."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Literal

from styledrop_cli.errors import UsageError
from styledrop_cli.io.files import atomic_write, read_json

Mark = Literal["pick", "reject", None]
MARKS = ("pick", "reject", None)


class Choices:
    """Picks and rejections among ``count`` pictures, numbered from 0, in the JSON file ``path``.

    The file is the history, ``[picture, mark]`` a line with pictures numbered from 1; a mark is what the last line of
    its picture says, and undoing drops the last line. Every change is on disk when its method returns; one that cannot
    be written raises StyledropError and is not made. Threads may share it.

    ``done`` says whether the picking is over; ``version`` how often something has changed, over all processes.

    Raises:
        UsageError: the file is damaged or belongs to another number of pictures.
    """

    def __init__(self, count: int, path: Path) -> None:
        self.count, self.path = count, path
        self.done, self.version = False, 0
        self._lock = threading.RLock()
        self._history: list[tuple[int, Mark]] = []
        if path.exists():
            self._take_up()

    @property
    def picked(self) -> list[int]:
        """The picked pictures, in their order."""
        return self._marked("pick")

    @property
    def rejected(self) -> list[int]:
        """The rejected pictures, in their order."""
        return self._marked("reject")

    @property
    def undoable(self) -> bool:
        """Whether there is a mark to take back."""
        return bool(self._history) and not self.done

    def mark(self, index: int, mark: Mark) -> None:
        """Mark a picture as picked or rejected, or as neither with None.

        Raises:
            IndexError: there is no such picture.
            ValueError: there is no such mark, or the picking is over.
        """
        with self._lock:
            if type(index) is not int or not 0 <= index < self.count:
                raise IndexError(f"there is no picture {index!r:.20}: they go from 0 to {self.count - 1}")
            if mark not in MARKS:
                raise ValueError(f"a mark is 'pick', 'reject' or nothing, not {mark!r:.20}")
            self._refuse_if_done()
            if mark != dict(self._history).get(index):
                self._change([*self._history, (index, mark)])

    def undo(self) -> int | None:
        """Take the last mark back; the picture it was on, or None where there is none.

        Raises:
            ValueError: the picking is over.
        """
        with self._lock:
            self._refuse_if_done()
            if not self._history:
                return None
            index, _ = self._history[-1]
            self._change(self._history[:-1])
            return index

    def finish(self) -> None:
        """End the picking; once more does nothing.

        Raises:
            ValueError: nothing is picked.
        """
        with self._lock:
            if not self.picked:
                raise ValueError("nothing is picked yet: pick at least one picture")
            if not self.done:
                self._change(self._history, done=True)

    def _marked(self, wanted: Mark) -> list[int]:
        return sorted(index for index, mark in dict(self._history).items() if mark == wanted)

    def _refuse_if_done(self) -> None:
        if self.done:
            raise ValueError("the picking is over: these picks are being learnt from")

    def _change(self, history: list[tuple[int, Mark]], done: bool = False) -> None:
        lines = ",\n".join(f"  {json.dumps([index + 1, mark])}" for index, mark in history)
        head = f' "count": {self.count},\n "done": {json.dumps(done)},\n "version": {self.version + 1},\n'
        atomic_write(self.path, f'{{\n{head} "history": [\n{lines}\n ]\n}}\n'.encode())
        self._history, self.done, self.version = history, done, self.version + 1

    def _take_up(self) -> None:
        damaged = UsageError(
            f"{self.path} is damaged: what was picked cannot be read from it",
            "Remove it to pick again from the start.",
        )
        try:
            there = read_json(self.path)
            count, done, version = there["count"], there["done"], there["version"]
            history = [(number - 1, mark) for number, mark in there["history"]]
        except (OSError, ValueError, KeyError, TypeError):
            raise damaged from None
        if (type(count), type(done), type(version)) != (int, bool, int):
            raise damaged
        if count != self.count:
            raise UsageError(
                f"{self.path} holds choices among {count} pictures, and there are {self.count} now",
                "Remove it to pick among the new pictures.",
            )
        if not all(type(index) is int and 0 <= index < count and mark in MARKS for index, mark in history):
            raise damaged
        self._history, self.done, self.version = history, done, version
        if done and not self.picked:
            raise damaged
