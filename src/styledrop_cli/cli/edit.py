"""`styledrop edit`: change a picture, in an adapter's style."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from styledrop_cli.cli import checks, console, drawing, load, options
from styledrop_cli.cli.generate import OUTPUT
from styledrop_cli.cli.options import flag, option
from styledrop_cli.errors import UsageError
from styledrop_cli.generation.lists.file_names import stem
from styledrop_cli.settings import SampleSettings, seeds_from

if TYPE_CHECKING:
    from styledrop_cli.generation.editing.edit import Edit

MOST_OF_EACH = 100
ITERATIONS = 100  # Muse, 3
PATTERN = "{name}-{prompt}-{seed}"


@dataclass(frozen=True, kw_only=True)
class Change:
    """What to change: one of these."""

    PANEL: ClassVar = "What to change"
    RANGES: ClassVar = {"restyle": (0, 1), "iterations": (1, 1000)}

    mask: Annotated[
        Path | None,
        option(
            "Redraw where this picture, of the same size, is white. What is black or transparent in it stays.",
            metavar="FILE",
            shown="where PICTURE is transparent",
        ),
    ] = None
    outpaint: Annotated[
        str | None,
        option("Add that many pixels around the picture: left=64,top=32, or 64 for all four sides.", metavar="SIDES"),
    ] = None
    restyle: Annotated[
        float | None, option("Redraw this share of the middle square, spread all over it: 0 nothing, 1 all.")
    ] = None
    mask_free: Annotated[
        bool, flag("Redraw the middle square bit by bit, until it shows what PROMPT says.", "--mask-free")
    ] = False
    iterations: Annotated[
        int | None,
        option("How many bits --mask-free redraws: more move farther away from the picture.", shown=f"{ITERATIONS}"),
    ] = None

    def of(self, picture: Path, on_message: Callable[[str], None]) -> Edit:
        """The edit of a picture, once all is found that can be wrong with it and with the pictures.

        Raises UsageError for none and for several, a mask that does not fit or selects nothing or all, and sides that
        are none or too large, PictureError for a picture that cannot be read.
        """
        if self.iterations is not None and not self.mask_free:
            raise UsageError("--iterations belongs to --mask-free, which was not given", "leave one out, or say both")
        iterations = (self.iterations or ITERATIONS) if self.mask_free else None
        ways = {"mask": self.mask, "outpaint": self.outpaint, "restyle": self.restyle, "mask-free": iterations}
        given = [f"--{name}" for name, value in ways.items() if value is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} are {len(given)} changes", "make them one after the other")
        from styledrop_cli.generation.editing import edit as edits

        sides = _sides(self.outpaint) if self.outpaint is not None else None
        if change := edits.edit_of(
            picture, mask=self.mask, sides=sides, share=self.restyle, iterations=iterations, on_message=on_message
        ):
            return change
        hint = "say --mask mask.png, --outpaint left=64, --restyle 0.6 or --mask-free"
        raise UsageError(f"nothing says what to change in {picture}", hint)


def edit(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="The picture to change, of any size.")],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT", help="What the redrawn part shows, in quotes.")
    ] = None,
    *,
    what: Change,
    adapter: Annotated[
        Path | None,
        option(
            "Draw in this adapter's style; a file, or a saved style.",
            "--adapter",
            "-a",
            metavar="ADAPTER",
            shown="the base model alone",
            **options.of_adapter,
        ),
    ] = None,
    number: Annotated[int, options.number("How many pictures to draw, for you to choose from.")] = 4,
    output: Annotated[Path, options.output("FOLDER", "The folder for the pictures.")] = OUTPUT,
    style: options.OwnStyle = None,
    how: options.Drawing,
    colours: options.Colours,
    model: options.OwnModel = None,
    seed: options.FirstSeed = SampleSettings.seed,
    device: options.Device = "auto",
    screen: console.Screen,
) -> None:
    """Change a picture: a part of it, what is around it, or its style.

    With --mask and --outpaint all that is not redrawn stays exactly as it is
    (a picture above 24 megapixels is scaled down first). Paint a mask white on
    black, or on a transparent layer; it must select something, and not all.
    The prompt says what the masked part is to show or, around a picture, what
    is there besides its subject, for example "background". --restyle and
    --mask-free redraw the middle square, at the size that the base draws. If
    --lambda-b is not given, it is what suits the adapter and the change.

      styledrop edit picture.png "a hat" --mask mask.png --adapter adapter.safetensors
      styledrop edit picture.png "background" --outpaint left=64,right=64
      styledrop edit picture.png "a house" --restyle 0.7 --adapter adapter.safetensors
      styledrop edit picture.png "a dog" --mask-free --iterations 50
    """
    prompt = _prompt(words or [], picture)
    preset, chosen = how.checked(seed)
    palette = colours.checked()
    style = checks.checked_style(style)
    checks.refuse_outside(
        number=(number, 1, MOST_OF_EACH),
        restyle=(what.restyle, *what.RANGES["restyle"]),
        iterations=(what.iterations, *what.RANGES["iterations"]),
    )
    seeds = seeds_from(seed, number)
    if what.mask_free and how.steps is not None:
        raise UsageError("--steps does not act on --mask-free", "say --iterations")
    change = what.of(picture, screen.say)
    checks.refuse_unwritable(output)
    base, mixture = load.load_to_draw(screen, model, device, adapter)
    from styledrop_cli.generation.pipeline import PictureRequest
    from styledrop_cli.generation.resolve import settings_of, within_reach

    drawing.say_roughly(screen, base, change.name)
    if change.remark:
        screen.say(change.remark)
    own = within_reach(base, chosen, screen.say)
    settings = settings_of(base, mixture, base.preset(preset), change.suits(base), own, palette)
    settings = replace(settings, negative=base.text_tokenizer.cut(settings.negative, "", screen.say))
    prompt = mixture.cut(base, prompt, style, screen.say)
    wanted = [PictureRequest(prompt, one, settings, style) for one in seeds]
    screen.warn_of_unknown(base, [prompt, style or "", settings.negative], mixture.learnt)
    drawing.draw_all(
        screen,
        base,
        mixture,
        wanted,
        [stem(PATTERN, prompt=prompt, seed=one.seed, index=0, name=picture.stem) for one in wanted],
        output,
        own_draw=change.draw,
        more=change.about,
        original=picture,
        columns=4 if number > 4 else 5,
    )


def _prompt(words: list[str], picture: Path) -> str:
    """The one prompt; UsageError for several."""
    prompts = checks.checked_prompts(words, f"styledrop edit {picture}")
    if len(prompts) > 1:
        raise UsageError(f"{len(prompts)} prompts, and a picture takes one: {', '.join(prompts)}", "put it in quotes")
    return prompts[0]


def _sides(text: str) -> tuple[int, int, int, int]:
    """`left=64,top=32` or `64` as pixels left, top, right and bottom; UsageError for anything else."""
    from styledrop_cli.generation.editing.edit import SIDES

    number = r"[+-]?[0-9]{1,9}"
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 1 and re.fullmatch(number, parts[0]):
        parts = [f"{side}={parts[0]}" for side in SIDES]
    found = [re.fullmatch(rf"({'|'.join(SIDES)})\s*=\s*({number})", part) for part in parts]
    read = {one[1]: int(one[2]) for one in found if one}
    if len(read) < len(parts):
        raise UsageError(
            f"--outpaint {text} does not say how many pixels on which sides",
            "write --outpaint left=64,bottom=32, or --outpaint 64 for all four sides",
        )
    return read.get("left", 0), read.get("top", 0), read.get("right", 0), read.get("bottom", 0)
