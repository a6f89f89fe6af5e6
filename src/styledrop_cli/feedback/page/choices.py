"""What a person has picked. Knows nothing of pages and requests: what is on disk is the state."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any, Literal

from styledrop_cli.errors import UsageError
from styledrop_cli.io.files import atomic_write, read_json

Mark = Literal["pick", "reject", None]
MARKS = ("pick", "reject", None)


class Choices:
    """Picks and rejections among ``count`` pictures, numbered from 0, in the JSON file ``path``.

    The file is the history, ``[picture, mark]`` a line with pictures numbered from 1; a mark is what the last line of
    its picture says, and undoing drops the last line. Every change is on disk when its method returns; one that cannot
    be written is not made. Threads may share it.

    Raises:
        UsageError: the file is damaged or belongs to another number of pictures.
    """

    def __init__(self, count: int, path: Path) -> None:
        self.count, self.path = count, path
        self._lock = threading.RLock()
        self._history: list[tuple[int, Mark]] = []
        self._marks: dict[int, Mark] = {}
        self._version, self._done = 0, False
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
    def done(self) -> bool:
        """Whether the picking is over; nothing can be changed then."""
        return self._done

    @property
    def undoable(self) -> bool:
        """Whether there is a mark to take back."""
        return bool(self._history) and not self._done

    @property
    def version(self) -> int:
        """How often something has changed, over all processes that shared the file."""
        return self._version

    def mark(self, index: int, mark: Mark) -> None:
        """Mark a picture as picked or rejected, or as neither with None.

        Raises:
            IndexError: there is no such picture.
            ValueError: there is no such mark, or the picking is over.
            StyledropError: the file cannot be written.
        """
        with self._lock:
            if type(index) is not int or not 0 <= index < self.count:
                raise IndexError(f"there is no picture {index!r:.20}: they go from 0 to {self.count - 1}")
            if mark not in MARKS:
                raise ValueError(f"a mark is 'pick', 'reject' or nothing, not {mark!r:.20}")
            self._refuse_if_done()
            if mark != self._marks.get(index):
                self._change([*self._history, (index, mark)], done=False)

    def undo(self) -> int | None:
        """Take the last mark back; the picture it was on, or None where there is none.

        Raises:
            ValueError: the picking is over.
            StyledropError: the file cannot be written.
        """
        with self._lock:
            self._refuse_if_done()
            if not self._history:
                return None
            index, _ = self._history[-1]
            self._change(self._history[:-1], done=False)
            return index

    def finish(self) -> None:
        """End the picking; once more does nothing.

        Raises:
            ValueError: nothing is picked.
            StyledropError: the file cannot be written.
        """
        with self._lock:
            if not self.picked:
                raise ValueError("nothing is picked yet: pick at least one picture")
            if not self._done:
                self._change(self._history, done=True)

    def _marked(self, mark: Mark) -> list[int]:
        with self._lock:
            return sorted(index for index, there in self._marks.items() if there == mark)

    def _refuse_if_done(self) -> None:
        if self._done:
            raise ValueError("the picking is over: these picks are being learnt from")

    def _change(self, history: list[tuple[int, Mark]], done: bool) -> None:
        lines = ",\n".join(f"  {json.dumps([index + 1, mark])}" for index, mark in history)
        head = f' "count": {self.count},\n "done": {json.dumps(done)},\n "version": {self._version + 1},\n'
        atomic_write(self.path, f'{{\n{head} "history": [\n{lines}\n ]\n}}\n'.encode())
        self._history, self._marks, self._done, self._version = history, dict(history), done, self._version + 1

    def _take_up(self) -> None:
        try:
            there = read_json(self.path)
            count, done, version = there["count"], there["done"], there["version"]
            history = [(number - 1, mark) for number, mark in there["history"]]
        except (OSError, ValueError, KeyError, TypeError):
            raise self._damaged() from None
        if (type(count), type(done), type(version)) != (int, bool, int):
            raise self._damaged()
        if count != self.count:
            raise UsageError(
                f"{self.path} holds choices among {count} pictures, and there are {self.count} now",
                "Remove it to pick among the new pictures.",
            )
        if not all(self._sound(index, mark) for index, mark in history):
            raise self._damaged()
        self._history, self._marks, self._done, self._version = history, dict(history), done, version
        if done and not self.picked:
            raise self._damaged()

    def _sound(self, index: Any, mark: Any) -> bool:
        return type(index) is int and 0 <= index < self.count and mark in MARKS

    def _damaged(self) -> UsageError:
        return UsageError(
            f"{self.path} is damaged: what was picked cannot be read from it",
            "Remove it to pick again from the start.",
        )
