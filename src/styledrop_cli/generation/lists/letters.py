"""Letters, digits and signs as prompts and as names of files."""

from __future__ import annotations

import string
import unicodedata
from dataclasses import dataclass

from styledrop_cli.errors import UsageError
from styledrop_cli.generation.lists.file_names import stem

LETTERS = string.ascii_uppercase + string.digits
MOST = 1000  # letters


@dataclass(frozen=True)
class Glyph:
    """A sign, what a prompt calls it, and what its file is called."""

    sign: str
    prompt: str
    stem: str


def capital(sign: str) -> str:
    """A letter's capital, if that is one letter: there is hardly one of ß."""
    return sign.upper() if len(sign.upper()) == 1 else sign


def glyphs_of(text: str) -> list[Glyph]:
    """The letters, digits and signs in a text, each once, in their order; small letters are taken for capitals.

    Raises UsageError if there are none, or more than ``MOST``.
    """
    signs = dict.fromkeys(
        capital(sign) for sign in unicodedata.normalize("NFC", text) if unicodedata.category(sign)[0] in "LNPS"
    )
    if not signs:
        raise UsageError("--letters holds nothing that can be drawn", "write them without blanks: --letters ABC")
    if len(signs) > MOST:
        raise UsageError(f"--letters holds {len(signs):,} letters: at most {MOST:,}", "draw them by several commands")
    return [_glyph(sign) for sign in signs]


def _glyph(sign: str) -> Glyph:
    name = unicodedata.name(sign, f"sign {ord(sign):x}").lower()
    # As the captions of pocket's corpus have it.
    prompt = f"the number {sign}" if sign.isdigit() else f"the letter {sign}" if sign.isalpha() else f"the {name}"
    called = sign if sign.isalnum() else None  # what a file system forbids goes by its name
    return Glyph(sign, prompt, stem("{name}", prompt=name, seed=0, index=0, name=called))
