"""How much of a picture is left in a base's tokens, in words. What is lost there, no adapter can learn.

The number of decibels does not say it: thin black lines on white, gone altogether, leave 20 dB, and bold ones, whole,
15. What separates them is how much of the edges comes back (``tokenizer.edges_kept``). Where each verdict begins was
found by looking at pictures of many kinds beside what pocket's tokens show of them: docs/lab/tokenizer.md.
"""

from __future__ import annotations

FAIR = 0.2  # share of the edges: from here on nothing is warned of
# From which share on it is said: the word, and what it means.
VERDICTS = (
    (0.45, "good", "lines and shapes come back nearly as they were"),
    (FAIR, "fair", "shapes and colours come back, fine texture and thin lines do not"),
    (0.08, "rough", "colours and large shapes come back; brush strokes, dots, thin lines and small letters are lost"),
    (-1.0, "lost", "only blurred patches of its colours come back; its lines, letters and texture are lost"),
)
REMEDY = (
    "What helps: a crop of it with larger strokes, a picture of fewer and bolder shapes, or a larger base (--model)."
)


def verdict(edges: float) -> tuple[str, str]:
    """One word, and what it means, for a picture of which this share of the edges is left."""
    return next(((name, meaning) for least, name, meaning in VERDICTS if edges >= least), VERDICTS[-1][1:])


def warning(base: str, picture: str, edges: float) -> str:
    """What is said before ``base`` learns from ``picture``: what is lost, and what helps; empty if enough is left."""
    if edges >= FAIR:
        return ""
    name, meaning = verdict(edges)
    how = f"loses {picture}" if name == "lost" else f"can show {picture} only roughly"
    return f"{base} {how} ({max(edges, 0):.0%} of its edges are left): {meaning}. {REMEDY}"
