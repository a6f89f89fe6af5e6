"""What a command tells a program that watches it: a line of JSON in the file that STYLEDROP_EVENTS names.

{"what": "learning", "share": 0.4, "note": "100/250  loss 3.10", "left": 31.0}   progress; left are seconds
{"say": ...}, {"warn": ...}                                                      remarks and warnings
{"error": ..., "hint": ...}                                                      why it failed
{"result": {...}}                                                                what --json prints
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress

VARIABLE = "STYLEDROP_EVENTS"
OFTEN = 0.2  # seconds between two lines of one piece of work
FORESEEN = 2.0  # seconds of work after which it is said how much time is left


def tell(**said: object) -> None:
    """Add a line, in one write; nothing where nobody watches, and no command fails for it."""
    if path := os.environ.get(VARIABLE, "").strip():
        line = json.dumps(said, default=str).encode() + b"\n"
        with suppress(OSError), open(path, "ab", buffering=0) as file:
            file.write(line)


def told_of(what: str) -> Callable[[float, str], None]:
    """What tells how far the work called ``what`` is: the share that is done, in [0, 1], and a note."""
    began, first, last = time.monotonic(), -1.0, 0.0

    def move(share: float, note: str) -> None:
        nonlocal first, last
        now = time.monotonic()
        first = share if first < 0 else first
        if share >= 1 or now - last >= OFTEN:
            last = now
            known = now - began >= FORESEEN and first < share < 1
            left = round((now - began) * (1 - share) / (share - first), 1) if known else None
            tell(what=what, share=min(max(share, 0.0), 1.0), note=note, left=left)

    return move
