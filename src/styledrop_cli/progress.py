"""How long work tells how far it is: one signature for all of it, whoever listens."""

from __future__ import annotations

import time
from collections.abc import Callable

OnProgress = Callable[[float, str], None]  # the share that is done, in [0,1], and a note such as "12/48"


def unheard(share: float, note: str) -> None:
    """The ``OnProgress`` of work that nobody watches."""


class Counter:
    """Counts what is done of ``total``, and tells ``on_progress`` at the start and after each step.

    Without the start a page would show what was done before as done until the first step is over.
    """

    def __init__(self, on_progress: OnProgress, total: int) -> None:
        self._on_progress, self._total, self._done = on_progress, total, 0
        self.add(0)

    def add(self, count: int) -> None:
        """So many more are done."""
        self._done += count
        self._on_progress(self._done / self._total, f"{self._done}/{self._total}")


class Forecast:
    """Foresees how long work of many equal steps will take, by its own second step: the first waits for what is read.

    ``tell`` hears it once, and only if one of so many ``pieces`` takes more than ``long`` seconds: how many steps a
    piece takes, and how many seconds a step. ``clock`` gives seconds.
    """

    def __init__(
        self,
        tell: Callable[[int, float], None],
        long: float,
        pieces: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell, self._long, self._pieces, self._clock = tell, long, pieces, clock
        self._first: tuple[float, float] | None = None
        self._over = False

    def step(self, share: float) -> None:
        """A step was taken, and with it a ``share`` in [0,1] of all pieces' steps."""
        if self._over:
            return
        now = self._clock()
        if self._first is None:
            self._first = share, now
            return
        self._over = True
        before, since = self._first
        steps, seconds = round(1 / ((share - before) * self._pieces)), now - since
        if steps * seconds > self._long:
            self._tell(steps, seconds)
