"""`styledrop alphabet`: letters and digits in an adapter's style."""

from __future__ import annotations

import string
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from styledrop_cli.cli import checks, collecting, console, drawing, options
from styledrop_cli.cli.generate import look
from styledrop_cli.errors import UsageError
from styledrop_cli.generation.lists.file_names import stem
from styledrop_cli.settings import PRESETS, SampleSettings, preset_values, seeds_from

if TYPE_CHECKING:
    from styledrop_cli.base.base import Base

LETTERS = string.ascii_uppercase + string.digits
MOST = 1000  # letters
BEST_OF, MOST_OF_EACH = 4, 100
COLUMNS = 9  # all of them make a sheet of four rows
# A letter is its shape: with more say to the words it is drawn cleaner. Still more costs style (tried up to 6 on two).
LAMBDA_B = 2.5
DEFAULT = SampleSettings()


@dataclass(frozen=True)
class Glyph:
    """A sign, what a prompt calls it, and what its file is called."""

    sign: str
    prompt: str
    stem: str


def glyphs_of(text: str) -> list[Glyph]:
    """The letters, digits and signs in a text, each once, in their order; small letters are taken for capitals.

    Raises:
        UsageError: there are none, or more than `MOST`, or bytes that are no text.
    """
    text = checks.given_text(text, "--letters")
    signs = dict.fromkeys(
        _capital(sign) for sign in unicodedata.normalize("NFC", text) if unicodedata.category(sign)[0] in "LNPS"
    )
    if not signs:
        raise UsageError("--letters holds nothing that can be drawn", "write them without blanks: --letters ABC")
    if len(signs) > MOST:
        raise UsageError(f"--letters holds {len(signs):,} letters: at most {MOST:,}", "draw them by several commands")
    return [_glyph(sign) for sign in signs]


def _capital(sign: str) -> str:
    return sign.upper() if len(sign.upper()) == 1 else sign  # there is hardly a capital of ß


def _glyph(sign: str) -> Glyph:
    name = unicodedata.name(sign, f"sign {ord(sign):x}").lower()
    # As the captions of pocket's corpus have it.
    prompt = f"the number {sign}" if sign.isdigit() else f"the letter {sign}" if sign.isalpha() else f"the {name}"
    called = sign if sign.isalnum() else None  # what a file system forbids goes by its name
    return Glyph(sign, prompt, stem("{name}", prompt=name, seed=0, index=0, name=called))


def alphabet(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="The adapter file.")],
    letters: Annotated[
        str, typer.Option(help="Which letters, digits and signs, without blanks.", show_default="A to Z, 0 to 9")
    ] = LETTERS,
    best_of: Annotated[
        int, typer.Option("--best-of", "-n", help="How many pictures of each to draw; the clearest is kept.")
    ] = BEST_OF,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Where the pictures go.", show_default="ADAPTER-alphabet"
        ),
    ] = None,
    style: options.OwnStyle = None,
    preset: Annotated[
        str | None,
        look(metavar="|".join(PRESETS), help="Settings that go together, as in generate.", show_default=False),
    ] = None,
    strength: Annotated[
        float | None, look(help="How much of the adapter there is.", show_default="what the adapter recommends")
    ] = None,
    lambda_a: Annotated[
        float | None, look(help="Push towards the style.", show_default="what the adapter recommends")
    ] = None,
    lambda_b: Annotated[
        float | None,
        look(
            help="Push towards the words: clearer letters.",
            show_default=f"what the adapter recommends, and {LAMBDA_B} at least",
        ),
    ] = None,
    steps: Annotated[
        int | None, look(help="Drawing steps: more is slower.", show_default="what the adapter recommends")
    ] = None,
    model: options.OwnModel = None,
    seed: Annotated[int, options.common(help="The first picture's number; the others count on.")] = DEFAULT.seed,
    device: options.Device = options.DeviceName.auto,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Draw letters and digits in a learnt style, as files and on one sheet.

    Of several pictures of each the one is kept that the base's CLIP is
    surest of. Each holds its settings; what is in the folder already is not
    drawn again.

      styledrop alphabet adapter.safetensors
      styledrop alphabet adapter.safetensors --letters STYLE --best-of 8 -o word
    """
    screen = console.Screen(quiet, as_json)
    collecting.refuse_no_adapter(adapter, "alphabet adapter.safetensors")
    glyphs = glyphs_of(letters)
    suits = preset_values(preset)
    chosen = options.given(strength=strength, lambda_a=lambda_a, lambda_b=lambda_b, steps=steps) | {"seed": seed}
    SampleSettings(**chosen)  # wrong ones are refused at once
    checks.refuse_outside(best_of=(best_of, 1, MOST_OF_EACH))
    seeds_from(seed, best_of)
    style = checks.checked_style(style)
    folder = Path(f"{adapter.stem}-alphabet") if output is None else output
    checks.refuse_unwritable(folder)
    base_folder = options.located(screen, model, adapter)
    with screen.working("waking up the base model"):
        from styledrop_cli.base.base import load_base
        from styledrop_cli.devices import pick_device
        from styledrop_cli.generation.collection import Thing
        from styledrop_cli.generation.pipeline import PictureRequest

        mixture = drawing.read_mixture([(adapter, 1.0)], None, None)
        base = load_base(base_folder, pick_device(device))
    usual = {"size": base.sizes[-1]} | mixture.recommended
    settings = base.sampling(**usual)
    clearer = {"lambda_b": max(settings.lambda_b, LAMBDA_B)}
    settings = base.sampling(**(usual | clearer | suits | chosen))
    if any(sign.islower() and _capital(sign) != sign for sign in letters):
        screen.say("small letters are drawn as capitals: the base does not tell them apart")
    if unknown := _unknown(base, glyphs):
        from styledrop_cli.base.prompt_tokens import quoted

        screen.warn(f"{base.name} was never taught {quoted(unknown)}; it may draw something else")
    if best_of > 1 and collecting.is_blind(screen, base):
        best_of = 1
    things = [
        Thing(glyph.stem, collecting.candidates(PictureRequest(glyph.prompt, seed, settings, style), best_of))
        for glyph in glyphs
    ]
    # However few letters are asked for, each must be told from all others.
    known = list(dict.fromkeys(glyph.prompt for glyph in glyphs_of(LETTERS) + glyphs))
    collection, result = collecting.collect(screen, base, mixture, things, folder, known, colours=False)
    pictures = [
        {"letter": glyph.sign, "path": path, "prompt": glyph.prompt, "seed": collection.wanted(index).seed}
        for index, (glyph, path) in enumerate(zip(glyphs, collection.paths, strict=True))
    ]
    with screen.working("laying out a sheet"):
        title = (mixture.style if style is None else style) or adapter.stem
        sheets = list(collection.sheets("alphabet", [glyph.sign for glyph in glyphs], title, COLUMNS))
    screen.result({"pictures": pictures, "sheets": sheets} | result, [*collection.paths, *sheets])


def _unknown(base: Base, glyphs: list[Glyph]) -> list[str]:
    """The signs that the base was not taught, by the things that it was, or else by its words."""
    from styledrop_cli.base.prompt_tokens import words

    taught = {tuple(words(text)[1:]) for text in base.contents}  # "a letter A" is "the letter A"
    return [
        glyph.sign
        for glyph in glyphs
        if (tuple(words(glyph.prompt)[1:]) not in taught if taught else base.unknown_words(glyph.prompt))
    ]
