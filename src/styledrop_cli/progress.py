"""How long work tells how far it is: one signature for all of it, whoever listens."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[float, str], None]  # the share that is done, in [0,1], and a note such as "12/48"


def unheard(share: float, note: str) -> None:
    """The ``OnProgress`` of work that nobody watches."""


class Counter:
    """Counts what is done of ``total``, and tells ``on_progress`` after each step."""

    def __init__(self, on_progress: OnProgress, total: int) -> None:
        self._on_progress, self._total, self._done = on_progress, total, 0

    def add(self, count: int) -> None:
        """So many more are done."""
        self._done += count
        self._on_progress(self._done / self._total, f"{self._done}/{self._total}")
