"""Palettes as people write them: colours, or a picture whose main ones are meant. Nothing heavy is imported for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from styledrop_cli.errors import UsageError
from styledrop_cli.io.files import NOT_READ, SUFFIXES
from styledrop_cli.io.text_files import short

KEEP = "keep"  # the colours of what the style was learnt from
FEWEST, MOST = 2, 32  # colours of a palette
FROM_PICTURE = 6  # colours that are taken from a picture, at most: those it has in more than a hundredth of its area
EXAMPLE = '"#0b3d91,#f2c14e"'
RGB = tuple[int, int, int]  # each in [0,255]


@dataclass(frozen=True)
class Palette:
    """The colours that pictures are to have, each once, in the order in which they were given.

    Raises UsageError for fewer than ``FEWEST`` and more than ``MOST``.
    """

    colours: tuple[RGB, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "colours", tuple(dict.fromkeys(self.colours)))
        number = len(self.colours)
        if number < FEWEST:
            said = f"one colour, {self}, is" if number else "no colours are"
            raise UsageError(f"{said} no palette: it takes {FEWEST} at least", f"say for example {EXAMPLE}")
        if number > MOST:
            raise UsageError(f"{number} colours are too many for a palette: at most {MOST}", "leave out the rarest")

    def __str__(self) -> str:
        """The colours as settings and files hold them: ``#0b3d91,#f2c14e``."""
        return ",".join("#{:02x}{:02x}{:02x}".format(*colour) for colour in self.colours)

    @classmethod
    def read(cls, said: str | Sequence[str]) -> Palette:
        """Colours separated by commas or blanks, or a list of them: #rgb, #rrggbb, both without #, or names of CSS.

        Raises UsageError, naming the colour, for what is none.
        """
        words = re.split(r"[,;\s]+", said.strip(" ,;")) if isinstance(said, str) else [str(one).strip() for one in said]
        return cls(tuple(_colour(word) for word in words if word))


def is_picture(said: str) -> bool:
    """Whether what was given for a palette names a picture, and no colours."""
    return Path(said).suffix.lower() in {*SUFFIXES, *NOT_READ} or "/" in said or "\\" in said


def check_palette(said: str) -> None:
    """Raise UsageError for what cannot be a palette, as far as that is seen without reading a picture."""
    if said == KEEP:
        return
    if not is_picture(said):
        Palette.read(said)
    elif not Path(said).is_file():
        raise UsageError(f"there is no picture {said} to take colours from", f"say colours instead: {EXAMPLE}")


def _colour(word: str) -> RGB:
    digits = word.removeprefix("#").lower()
    if re.fullmatch(r"[0-9a-f]{3}|[0-9a-f]{6}", digits):
        digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
        red, green, blue = (int(digits[place : place + 2], 16) for place in (0, 2, 4))
        return red, green, blue
    from PIL import ImageColor  # only here: whoever asks for help does not wait for it

    if word.lower() in ImageColor.colormap:
        red, green, blue = ImageColor.getrgb(word.lower())[:3]
        return red, green, blue
    raise UsageError(
        f"'{short(word)}' is no colour",
        f"a colour is # and six digits of 0-9 and a-f (#0b3d91), three of them (#fff), or a name of CSS (teal); a "
        f"palette is several, {EXAMPLE}, a picture, or {KEEP}",
    )
