"""`styledrop alphabet`: letters and digits in an adapter's style."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from styledrop_cli.cli import checks, console, drawing, load, options
from styledrop_cli.cli.options import flag, option
from styledrop_cli.generation.lists.letters import LETTERS, Glyph, capital, glyphs_of
from styledrop_cli.settings import SampleSettings, seeds_from

if TYPE_CHECKING:
    from styledrop_cli.base.base import Base

BEST_OF, MOST_OF_EACH = 4, 100
COLUMNS = 9  # all of them make a sheet of four rows
# A letter is its shape: with more say to the words it is drawn cleaner. Still more costs style (tried up to 6 on two).
LAMBDA_B = 2.5


def alphabet(
    adapter: options.AdapterFile,
    *,
    letters: Annotated[
        str, option("Which letters, digits and signs, without blanks.", shown="A to Z, 0 to 9")
    ] = LETTERS,
    best_of: Annotated[
        int, option("How many pictures of each letter to draw; the clearest is kept.", "--best-of", "-n")
    ] = BEST_OF,
    output: Annotated[
        Path | None, options.output("FOLDER", "The folder for the pictures.", shown="ADAPTER-alphabet")
    ] = None,
    own_colours: Annotated[
        bool,
        flag(
            "Leave the letters in the base model's colours, instead of painting them in the reference's.",
            "--own-colours",
        ),
    ] = False,
    style: options.OwnStyle = None,
    how: options.Drawing,
    colours: options.Colours,
    assets: options.Assets,
    model: options.OwnModel = None,
    seed: options.FirstSeed = SampleSettings.seed,
    device: options.Device = "auto",
    screen: console.Screen,
) -> None:
    """Draw letters and digits in a learnt style, as files and on one sheet.

    Draws several pictures of each letter and keeps the one that the base
    model's CLIP recognises best. --lambda-b is 2.5 at least, if not given:
    guidance towards the prompt makes clearer letters. Every file holds its
    settings; what is in the folder already is not drawn again. pocket was
    taught letters in colours of their own, so its letters are then painted in
    those of the reference, in turn. With --transparent the insides of letters
    are taken out, too, unless --holes says otherwise.

      styledrop alphabet adapter.safetensors
      styledrop alphabet adapter.safetensors --letters STYLE --best-of 8 -o word
    """
    checks.refuse_no_adapter(adapter, "styledrop alphabet adapter.safetensors")
    letters = checks.given_text(letters, "--letters")
    glyphs = glyphs_of(letters)
    preset, chosen = how.checked(seed)
    palette = colours.checked()
    chosen |= {"holes": "all"} | assets.checked() if assets.transparent else assets.checked()
    checks.refuse_outside(best_of=(best_of, 1, MOST_OF_EACH))
    seeds_from(seed, best_of)
    style = checks.checked_style(style)
    folder = Path(f"{adapter.stem}-alphabet") if output is None else output
    checks.refuse_unwritable(folder)
    base, mixture = load.load_to_draw(screen, model, device, adapter)
    from styledrop_cli.generation.collection import Thing
    from styledrop_cli.generation.inks import painted, reference_inks
    from styledrop_cli.generation.kit import candidates
    from styledrop_cli.generation.palette import palette_in
    from styledrop_cli.generation.pipeline import PictureRequest
    from styledrop_cli.generation.resolve import settings_of, within_reach

    clearer = {"lambda_b": max(settings_of(base, mixture).lambda_b, LAMBDA_B)}
    own = within_reach(base, chosen, screen.say)
    settings = settings_of(base, mixture, clearer, base.preset(preset), own, palette)
    settings = replace(settings, negative=base.text_tokenizer.cut(settings.negative, "", screen.say))
    if any(sign.islower() and capital(sign) != sign for sign in letters):
        screen.say("small letters are drawn as capitals: the base model does not tell them apart")
    if unknown := _unknown(base, glyphs):
        from styledrop_cli.base.prompt_tokens import quoted

        screen.warn(f"{base.name} was never taught {quoted(unknown)}; it may draw something else")
    if best_of > 1 and drawing.is_blind(screen, base):
        best_of = 1
    inks = [] if own_colours or palette_in(settings) or not base.spec.own_inks else reference_inks(base, mixture)
    things = [
        Thing(
            glyph.stem,
            candidates(PictureRequest(glyph.prompt, seed, settings, style), best_of),
            *painted(inks, index),
        )
        for index, glyph in enumerate(glyphs)
    ]
    # However few letters are asked for, each must be told from all others.
    known = list(dict.fromkeys(glyph.prompt for glyph in glyphs_of(LETTERS) + glyphs))
    collection, result = drawing.collect(screen, base, mixture, things, folder, known, colours=False)
    pictures = [
        {"letter": glyph.sign, "path": path, "prompt": glyph.prompt, "seed": collection.wanted(index).seed}
        for index, (glyph, path) in enumerate(zip(glyphs, collection.paths, strict=True))
    ]
    svgs = drawing.finish(screen, collection.paths, assets)
    pictures = [one | svgs.get(path, {}) for one, path in zip(pictures, collection.paths, strict=True)]
    with screen.working("laying out a sheet"):
        title = (mixture.style if style is None else style) or adapter.stem
        sheets = list(collection.sheets("alphabet", [glyph.sign for glyph in glyphs], title, COLUMNS))
    screen.result(
        {"pictures": pictures, "sheets": sheets} | result,
        [*collection.paths, *(one["svg"] for one in svgs.values()), *sheets],
    )


def _unknown(base: Base, glyphs: list[Glyph]) -> list[str]:
    """The signs that the base was not taught, by the subjects that it was, or else by its words."""
    from styledrop_cli.base.prompt_tokens import words

    taught = {tuple(words(text)[1:]) for text in base.contents}  # "a letter A" is "the letter A"
    return [
        glyph.sign
        for glyph in glyphs
        if (tuple(words(glyph.prompt)[1:]) not in taught if taught else base.unknown_words(glyph.prompt))
    ]
