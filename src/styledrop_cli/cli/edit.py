"""`styledrop edit`: change a picture, in an adapter's style."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from styledrop_cli import __version__
from styledrop_cli.cli import console, drawing
from styledrop_cli.cli.generate import OUTPUT, look
from styledrop_cli.errors import UsageError
from styledrop_cli.prompts import stem
from styledrop_cli.settings import PRESETS, SampleSettings, preset_values

if TYPE_CHECKING:
    from PIL.Image import Image

    from styledrop_cli.base import Base
    from styledrop_cli.pipeline import Mixture, Wanted

MOST_OF_EACH = 100
ITERATIONS, MOST_ITERATIONS = 100, 1000  # Muse, 3
PATTERN = "{name}-{prompt}-{seed}"
SIDES = ("left", "top", "right", "bottom")
DEFAULT = SampleSettings()
WAYS = "--mask mask.png, --outpaint left=64, --restyle 0.6 or --mask-free"
# How each edit is drawn best, where that is not how a picture is; looked at on pocket. All begin beside what is known,
# where the base is surest: in an even order colours change within a thing. A thing in a mask needs more say to the
# words. What is around a picture has only to go on: with any, parts of things appear there. Muse resamples with a
# guidance scale of 4, our 3, among the 3 likeliest tokens.
SUITS: dict[str, dict[str, Any]] = {
    "inpaint": {"lambda_b": 3.5, "order": "confidence"},
    "outpaint": {"lambda_b": 0.0, "order": "confidence"},
    "restyle": {"order": "confidence"},
    "mask-free": {"lambda_b": 3.0, "top_k": 3, "top_p": 1.0},
}
way = partial(typer.Option, rich_help_panel="What to change")

# (base, mixture, wanted, on_step) -> (which of them, picture), as they are done
Draw = Callable[["Base", "Mixture", list["Wanted"], Callable[[float], None]], Iterator[tuple[int, "Image"]]]


@dataclass(frozen=True)
class Edit:
    """What is done to a picture: what it is called, what its result's file says of it, and how it is drawn."""

    name: str
    about: dict[str, Any]
    draw: Draw
    remark: str = ""


def edit(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="The picture to change, of any size.")],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT", help="What to draw, in quotes: what is to be there then.")
    ] = None,
    mask: Annotated[
        Path | None,
        way(
            metavar="FILE",
            help="Draw anew where this picture, of the same size, is white; all else stays.",
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
        console.flag(
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
    style: Annotated[
        str | None,
        typer.Option(
            help='Say the style in other words than the adapter\'s own; an empty "" drops it.',
            show_default="the adapter's own",
        ),
    ] = None,
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
    model: console.OwnModel = None,
    seed: Annotated[int, console.common(help="The first picture's number; the others count on.")] = DEFAULT.seed,
    device: console.Device = console.DeviceName.auto,
    quiet: console.Quiet = False,
    as_json: console.Json = False,
) -> None:
    """Change a picture: a part of it, what is around it, or its style.

    With --mask and --outpaint all that is not drawn anew stays as it is, bit
    for bit. Say what a mask is to show; around a picture say what is there
    besides its thing, for example "background". --restyle and --mask-free
    take the middle square, and draw it as large as the base draws.

      styledrop edit picture.png "a hat" --mask mask.png --adapter adapter.safetensors
      styledrop edit picture.png "background" --outpaint left=64,right=64
      styledrop edit picture.png "a house" --restyle 0.7 --adapter adapter.safetensors
      styledrop edit picture.png "a dog" --mask-free --iterations 50
    """
    screen = console.Screen(quiet, as_json)
    prompt = _prompt(words or [], picture)
    chosen = console.given(strength=strength, lambda_a=lambda_a, lambda_b=lambda_b, steps=steps)
    suits = preset_values(preset)
    style = console.checked_style(style)
    if negative.strip():
        negative = console.plain_text(negative, "--negative", "say in a few words what to keep away from")
    chosen |= {"negative": negative, "seed": seed}
    SampleSettings(**chosen)  # wrong ones are refused at once
    console.refuse_outside(
        number=(number, 1, MOST_OF_EACH), restyle=(restyle, 0, 1), iterations=(iterations, 1, MOST_ITERATIONS)
    )
    if mask_free and steps is not None:
        raise UsageError("--steps has no say with --mask-free", "say --iterations")
    if iterations is not None and not mask_free:
        raise UsageError("--iterations belongs to --mask-free, which was not given", "leave one out, or say both")
    change = _the_edit(picture, mask, outpaint, restyle, iterations or ITERATIONS if mask_free else None)
    console.refuse_unwritable(output)
    base_folder = console.located(screen, model, adapter)
    with screen.working("waking up the base model"):
        from styledrop_cli.base import load_base
        from styledrop_cli.batches import about, about_mixture
        from styledrop_cli.devices import pick_device
        from styledrop_cli.pipeline import Wanted

        mixture = drawing.read_mixture([(adapter, 1.0)] if adapter else [], None, None)
        base = load_base(base_folder, pick_device(device))
    if change.remark:
        screen.say(change.remark)
    # A published base draws by scales of its own, and hardly without any.
    own = {} if base.published is not None and change.name != "mask-free" else SUITS[change.name]
    settings = base.sampling(**({"size": base.sizes[-1]} | mixture.recommended | suits | own | chosen))
    settings = replace(settings, negative=base.text_tokenizer.cut(settings.negative, "", screen.say))
    prompt = mixture.cut(base, prompt, style, screen.say)
    wanted = [Wanted(prompt, seed + index, settings, style) for index in range(number)]
    screen.warn_of_unknown(base, [prompt] if mixture.styles else [prompt, style or ""])
    drawn_by = about_mixture(base, mixture)
    said = [about(one, mixture, drawn_by) | change.about for one in wanted]
    stems = [stem(PATTERN, prompt=prompt, seed=one.seed, index=0, name=picture.stem) for one in wanted]
    result = _draw_all(screen, base, mixture, wanted, stems, said, change, output, picture)
    screen.result(result, drawing.paths_of(result))


def _prompt(words: list[str], picture: Path) -> str:
    """The one prompt.

    Raises:
        UsageError: there is none, it says nothing, or there are several.
    """
    prompts = console.checked_prompts(words, f"styledrop edit {picture}")
    if len(prompts) > 1:
        raise UsageError(f"{len(prompts)} prompts, and a picture takes one: {', '.join(prompts)}", "put it in quotes")
    return prompts[0]


def _the_edit(
    path: Path, mask: Path | None, outpaint: str | None, restyle: float | None, iterations: int | None
) -> Edit:
    """What the options ask for, once all is found that can be wrong with it and with the pictures.

    Raises:
        UsageError: there are none or several, a mask does not fit or is empty, or sides are none or too large.
        PictureError: a picture cannot be read.
    """
    options = {"--mask": mask, "--outpaint": outpaint, "--restyle": restyle, "--mask-free": iterations}
    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} are {len(given)} changes", "make them one after the other")
    from styledrop_cli.images import load_picture, load_transparency

    sides = _sides(outpaint) if outpaint is not None else None
    picture = load_picture(path)
    area = load_picture(mask) if mask is not None else None if given else load_transparency(path)
    if not given and area is None:
        raise UsageError(f"nothing says what to change in {path}", f"say {WAYS}")
    from styledrop_cli import editing
    from styledrop_cli.checkpoints import file_hash

    about = {"picture": path.name, "picture_sha256": file_hash(path)}
    square = f"{path} is not square: its middle, {min(picture.size)} x {min(picture.size)} px, is taken"
    remark = square if picture.width != picture.height else ""
    if area is not None:
        share = float(editing.check_mask(picture, area).float().mean())
        about = {"edit": "inpaint"} | about | ({"mask_sha256": file_hash(mask)} if mask is not None else {})
        part = f"{share:.0%}" if 0.005 <= share < 0.995 else f"{share:.3%}" if share < 1 else "all"
        return Edit(
            "inpaint",
            about,
            lambda base, mixture, wanted, on_step: editing.inpaint(base, mixture, wanted, picture, area, on_step),
            f"{part} of {path} is drawn anew",
        )
    if sides is not None:
        editing.check_sides(picture, sides)
        return Edit(
            "outpaint",
            {"edit": "outpaint"} | about | {"sides": dict(zip(SIDES, sides, strict=True))},
            lambda base, mixture, wanted, on_step: editing.outpaint(base, mixture, wanted, picture, sides, on_step),
        )
    if restyle is not None:
        return Edit(
            "restyle",
            {"edit": "restyle"} | about | {"share": restyle},
            lambda base, mixture, wanted, on_step: editing.restyle(base, mixture, wanted, picture, restyle, on_step),
            remark,
        )
    assert iterations is not None
    return Edit(
        "mask-free",
        {"edit": "mask-free"} | about | {"iterations": iterations},
        lambda base, mixture, wanted, on_step: editing.resample(base, mixture, wanted, picture, iterations, on_step),
        remark,
    )


def _sides(text: str) -> tuple[int, int, int, int]:
    """`left=64,top=32` or `64` as pixels left, top, right and bottom.

    Raises:
        UsageError: it is neither.
    """
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


def _draw_all(
    screen: console.Screen,
    base: Base,
    mixture: Mixture,
    wanted: list[Wanted],
    stems: list[str],
    said: list[dict[str, Any]],
    change: Edit,
    folder: Path,
    original: Path,
) -> dict[str, Any]:
    """Draw what is not in `folder` yet, show it as it comes, and say at the end what is where."""
    from styledrop_cli.batches import Batch
    from styledrop_cli.images import load_picture, remove_parts
    from styledrop_cli.sheets import contact_sheet

    started = time.monotonic()
    batch = Batch(folder, stems, said.__getitem__)
    remove_parts(folder, "*.png", older=drawing.DEAD)
    missing = batch.missing
    there = len(wanted) - len(missing)
    if there:
        screen.say(f"{there} of {len(wanted)} pictures were there already")
    if missing:
        with screen.drawing("editing") as (move, show):
            drawn = there

            def on_step(share: float) -> None:
                move(min(share, 0.999), f"{drawn}/{len(wanted)}, {share:.0%} of the steps")

            for index, image in change.draw(base, mixture, [wanted[index] for index in missing], on_step):
                batch.save(missing[index], image)
                show(image)
                drawn += 1
            move(1.0, f"{drawn}/{len(wanted)}")
    sheets: list[Path] = []
    if len(wanted) > 1:
        images = [load_picture(path) for path in (original, *batch.paths)]
        labels = [original.name, *(f"{one.prompt} · {one.seed}" for one in wanted)]
        sheet = contact_sheet(images, 4 if len(images) > 5 else 5, labels, None, 256 if len(images) <= 24 else 128)
        sheet_of = {"prompt": wanted[0].prompt, "sheet_of": [path.name for path in batch.paths]}
        sheets = [Batch(folder, ["sheet"], [sheet_of | {"styledrop": __version__}].__getitem__).save(0, sheet)]
    seconds = time.monotonic() - started
    if missing:
        screen.say(f"drawn in {console.duration(seconds)}:")
    return {
        "pictures": [
            {"path": path, "prompt": one.prompt, "seed": one.seed}
            for path, one in zip(batch.paths, wanted, strict=True)
        ],
        "sheets": sheets,
        "drawn": len(missing),
        "settings": {name: value for name, value in said[0].items() if name not in ("prompt", "seed")},
        "seconds": round(seconds, 1),
    }
