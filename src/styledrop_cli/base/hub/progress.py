"""How far a long piece of work on many bytes is, for who listens."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[float, str], None]
OnMessage = Callable[[str], None]


def unheard(*_: object) -> None:
    """For who does not listen."""


class Meter:
    """How far many files are, by their bytes."""

    def __init__(self, total: int, on_progress: OnProgress) -> None:
        self.total, self.done, self._on_progress = total, 0, on_progress

    def show(self, note: str = "", more: int = 0) -> None:
        """Report what is done, and `more` bytes of what is not; `note` stands for the amount."""
        done = min(self.done + more, self.total)
        self._on_progress(done / self.total if self.total else 0.0, note or self._amount(done))

    def over(self) -> None:
        """Report that all of it is done."""
        self._on_progress(1.0, self._amount(self.total))

    def _amount(self, done: int) -> str:
        unit, name = next(((u, n) for u, n in ((1e9, "GB"), (1e6, "MB")) if self.total >= u), (1e3, "kB"))
        return f"{done / unit:.1f} of {self.total / unit:.1f} {name}"
