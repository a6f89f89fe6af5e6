"""What scores mean: beside pictures that are known, a bare number says how good a picture is.

A probability among hundreds of things is near 0 for many a picture that anyone would recognise, and a calibrated
likeness is below 0 for nearly all. So what a picture shows is ranked among the pictures of the bank, which show other
things, and its style is placed between the base's own pictures and the reference's own crops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from styledrop_cli.judging.scores import Measurements

FURTHEST = 2.0  # what is said of a way, either way: beyond it there is nothing to tell
NEAREST = 0.1  # of the base's own csls and the reference's: nearer to each other, the way between them is no measure
# From which share on it is said.
SEEN = ((0.95, "clear"), (0.8, "in doubt"), (0.0, "not seen"))
WAY = ((0.5, "much style"), (0.2, "some style"), (0.07, "little style"), (-FURTHEST, "style unchanged"))
ABOUT_SEEN = "the share of pictures of other things that look less like the prompt: clear from 95 %"
ABOUT_WAY = "how far csls is on the way from the base's own pictures (0 %) to crops of the reference (100 %)"
NAMES = ("seen", "way")


@dataclass(frozen=True)
class Meaning:
    """What the scores of a picture mean, or a mean over some; None where it was not measured.

    ``seen`` in [0,1]: the share of the bank's pictures that look less like what was asked for. ``way`` in [-2,2]: where
    the style is between the base's own picture (0) and the reference's own crops (1).
    """

    seen: float | None = None
    way: float | None = None

    @property
    def words(self) -> str:
        """Both as a person says it: "clear, some style"."""
        said = [_word(value, words) for value, words in ((self.seen, SEEN), (self.way, WAY)) if value is not None]
        return ", ".join(said)

    def percent(self) -> list[str]:
        """Both as a table shows them, "" for what was not measured."""
        return ["" if value is None else f"{round(100 * value)}%" for value in (self.seen, self.way)]

    def rounded(self) -> dict[str, float | str | None]:
        """Both, and the words, as results name them."""
        values = {name: None if (one := getattr(self, name)) is None else round(one, 4) for name in NAMES}
        return {**values, "verdict": self.words}


def meanings(now: Measurements, plain: Measurements | None, own: float) -> list[Meaning]:
    """Of N pictures, beside what the base drew in their place, and the ``own`` csls of the references' crops."""
    befores = plain.csls.tolist() if plain is not None else [float("nan")] * len(now.seen)
    rows = zip(now.seen.tolist(), now.csls.tolist(), befores, strict=True)
    return [Meaning(None if isnan(seen) else seen, _way(csls, before, own)) for seen, csls, before in rows]


def mean(some: Sequence[Meaning]) -> Meaning:
    """The mean of each, over those that have it."""
    found = {name: [one for m in some if (one := getattr(m, name)) is not None] for name in NAMES}
    return Meaning(**{name: sum(values) / len(values) if values else None for name, values in found.items()})


def _way(csls: float, before: float, own: float) -> float | None:
    if isnan(csls + before + own):
        return None
    return min(max((csls - before) / max(own - before, NEAREST), -FURTHEST), FURTHEST)


def _word(value: float, words: Sequence[tuple[float, str]]) -> str:
    return next((word for least, word in words if value >= least), words[-1][1])
