"""`styledrop edit`: change a picture, in an adapter's style."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from styledrop_cli.cli import checks, console, drawing, options
from styledrop_cli.cli.generate import OUTPUT, look
from styledrop_cli.errors import UsageError
from styledrop_cli.generation.lists.file_names import stem
from styledrop_cli.settings import PRESETS, SampleSettings, preset_values, seeds_from

if TYPE_CHECKING:
    from styledrop_cli.generation.editing.edit import Edit

MOST_OF_EACH = 100
ITERATIONS, MOST_ITERATIONS = 100, 1000  # Muse, 3
PATTERN = "{name}-{prompt}-{seed}"
DEFAULT = SampleSettings()
WAYS = "--mask mask.png, --outpaint left=64, --restyle 0.6 or --mask-free"
way = partial(typer.Option, rich_help_panel="What to change")


def edit(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="The picture to change, of any size.")],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT", help="What to draw, in quotes: what is to be there then.")
    ] = None,
    mask: Annotated[
        Path | None,
        way(
            metavar="FILE",
            help="Draw anew where this picture, of the same size, is white; what is black or transparent in it stays.",
            show_default="where PICTURE is transparent",
        ),
    ] = None,
    outpaint: Annotated[
        str | None,
        way(metavar="SIDES", help="Draw so many pixels around it: left=64,top=32, or 64 for all four sides."),
    ] = None,
    restyle: Annotated[
        float | None,
        way(metavar="SHARE", help="Draw a share of its middle square anew, all over it: 0 nothing, 1 everything."),
    ] = None,
    mask_free: Annotated[
        bool,
        options.flag(
            "--mask-free",
            help="Draw its middle square anew bit by bit, until it shows what PROMPT says.",
            rich_help_panel="What to change",
        ),
    ] = False,
    iterations: Annotated[
        int | None, way(help="How many bits, with --mask-free: more go farther away.", show_default=f"{ITERATIONS}")
    ] = None,
    adapter: Annotated[
        Path | None,
        typer.Option("--adapter", "-a", metavar="FILE", help="Draw in this style.", show_default="the base alone"),
    ] = None,
    number: Annotated[int, typer.Option("--number", "-n", help="How many pictures to draw, to choose from.")] = 4,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the pictures go.")] = OUTPUT,
    style: options.OwnStyle = None,
    preset: Annotated[
        str | None,
        look(metavar="|".join(PRESETS), help="Settings that go together, as in generate.", show_default=False),
    ] = None,
    negative: Annotated[str, look(help="What to keep away from.")] = DEFAULT.negative,
    strength: Annotated[
        float | None, look(help="How much of the adapter there is.", show_default="what the adapter recommends")
    ] = None,
    lambda_a: Annotated[
        float | None, look(help="Push towards the style.", show_default="what the adapter recommends")
    ] = None,
    lambda_b: Annotated[
        float | None, look(help="Push towards the words.", show_default="what suits the adapter and the change")
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
    """Change a picture: a part of it, what is around it, or its style.

    With --mask and --outpaint all that is not drawn anew stays as it is, bit
    for bit (a picture above 24 megapixels is scaled down first). A mask may be
    painted white on black or on a transparent layer; one that selects nothing
    or all is refused. Say what a mask is to show; around a picture say what is
    there besides its thing, for example "background". --restyle and
    --mask-free take the middle square, and draw it as large as the base draws.

      styledrop edit picture.png "a hat" --mask mask.png --adapter adapter.safetensors
      styledrop edit picture.png "background" --outpaint left=64,right=64
      styledrop edit picture.png "a house" --restyle 0.7 --adapter adapter.safetensors
      styledrop edit picture.png "a dog" --mask-free --iterations 50
    """
    screen = console.Screen(quiet, as_json)
    prompt = _prompt(words or [], picture)
    chosen = options.given(strength=strength, lambda_a=lambda_a, lambda_b=lambda_b, steps=steps)
    suits = preset_values(preset)
    style = checks.checked_style(style)
    if negative.strip():
        negative = checks.typed_text(negative, "--negative", "say in a few words what to keep away from")
    chosen |= {"negative": negative, "seed": seed}
    SampleSettings(**chosen)  # wrong ones are refused at once
    checks.refuse_outside(
        number=(number, 1, MOST_OF_EACH), restyle=(restyle, 0, 1), iterations=(iterations, 1, MOST_ITERATIONS)
    )
    seeds = seeds_from(seed, number)
    if mask_free and steps is not None:
        raise UsageError("--steps has no say with --mask-free", "say --iterations")
    if iterations is not None and not mask_free:
        raise UsageError("--iterations belongs to --mask-free, which was not given", "leave one out, or say both")
    change = _the_edit(picture, mask, outpaint, restyle, iterations or ITERATIONS if mask_free else None, screen.say)
    checks.refuse_unwritable(output)
    base_folder = options.located(screen, model, adapter)
    with screen.working("waking up the base model"):
        from styledrop_cli.base.base import load_base
        from styledrop_cli.devices import pick_device
        from styledrop_cli.generation.pipeline import PictureRequest

        mixture = drawing.read_mixture([(adapter, 1.0)] if adapter else [], None, None)
        base = load_base(base_folder, pick_device(device))
    if change.remark:
        screen.say(change.remark)
    usual = {"size": base.sizes[-1]} | mixture.recommended
    settings = base.sampling(**(usual | suits | change.suits(base) | chosen))
    settings = replace(settings, negative=base.text_tokenizer.cut(settings.negative, "", screen.say))
    prompt = mixture.cut(base, prompt, style, screen.say)
    wanted = [PictureRequest(prompt, one, settings, style) for one in seeds]
    screen.warn_of_unknown(base, [prompt, style or "", settings.negative], mixture.learnt)
    stems = [stem(PATTERN, prompt=prompt, seed=one.seed, index=0, name=picture.stem) for one in wanted]
    result = drawing.draw_all(
        screen,
        base,
        mixture,
        wanted,
        stems,
        output,
        own_draw=change.draw,
        more=change.about,
        original=picture,
        columns=4 if number > 4 else 5,
    )
    screen.result(result, drawing.paths_of(result))


def _prompt(words: list[str], picture: Path) -> str:
    """The one prompt.

    Raises:
        UsageError: there is none, it says nothing, or there are several.
    """
    prompts = checks.checked_prompts(words, f"styledrop edit {picture}")
    if len(prompts) > 1:
        raise UsageError(f"{len(prompts)} prompts, and a picture takes one: {', '.join(prompts)}", "put it in quotes")
    return prompts[0]


def _the_edit(
    path: Path,
    mask: Path | None,
    outpaint: str | None,
    restyle: float | None,
    iterations: int | None,
    on_message: Callable[[str], None],
) -> Edit:
    """What the options ask for, once all is found that can be wrong with it and with the pictures.

    Raises:
        UsageError: there are none or several, a mask does not fit or selects nothing or all, or sides are none or too
            large.
        PictureError: a picture cannot be read.
    """
    ways = {"--mask": mask, "--outpaint": outpaint, "--restyle": restyle, "--mask-free": iterations}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} are {len(given)} changes", "make them one after the other")
    from styledrop_cli.generation.editing.edit import edit_of

    sides = _sides(outpaint) if outpaint is not None else None
    if change := edit_of(path, mask=mask, sides=sides, share=restyle, iterations=iterations, on_message=on_message):
        return change
    raise UsageError(f"nothing says what to change in {path}", f"say {WAYS}")


def _sides(text: str) -> tuple[int, int, int, int]:
    """`left=64,top=32` or `64` as pixels left, top, right and bottom.

    Raises:
        UsageError: it is neither.
    """
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
