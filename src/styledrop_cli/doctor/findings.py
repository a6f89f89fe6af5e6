"""What the doctor tells: one finding after another."""

from __future__ import annotations

from dataclasses import dataclass

FINE, NOTE, WRONG = "fine", "note", "wrong"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was `found`, whether that is right, and if not, what to do about it."""

    section: str
    name: str
    found: str
    state: str = FINE
    advice: str = ""
