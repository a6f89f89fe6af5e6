"""`styledrop generate`: draw what the prompts say, in an adapter's style."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from styledrop_cli import __version__
from styledrop_cli.cli import console
from styledrop_cli.errors import UsageError
from styledrop_cli.settings import PRESETS, SampleSettings, preset_values

if TYPE_CHECKING:
    from PIL.Image import Image

OUTPUT = Path("styledrop-out")
MOST = 1000  # pictures of each prompt: they are all held in memory for the sheet
DEFAULT = SampleSettings()
drawing = partial(typer.Option, rich_help_panel="How it draws")


def _recommended(default: float) -> str:
    return f"what the adapter recommends, or {default:g}"


def generate(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[ADAPTER] PROMPT...", help="The adapter file, then what to draw; each prompt in quotes."
        ),
    ],
    number: Annotated[int, typer.Option("--number", "-n", help="How many pictures of each prompt.")] = 4,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the pictures go.")] = OUTPUT,
    base_only: Annotated[bool, console.flag("--base-only", help="Draw with the base model alone, no adapter.")] = False,
    style: Annotated[
        str | None,
        typer.Option(
            help='Say the style in other words than the adapter\'s own; an empty "" drops it.',
            show_default="the adapter's own",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        drawing(
            metavar="|".join(PRESETS),
            help="Settings that go together: fast takes about a third of the time, paper is StyleDrop's own. Other "
            "options go before it.",
            show_default=False,
        ),
    ] = None,
    negative: Annotated[str, drawing(help="What to keep away from.")] = DEFAULT.negative,
    strength: Annotated[
        float | None,
        drawing(
            help="How much of the adapter there is: 0 none, 1 as it was trained.",
            show_default=_recommended(DEFAULT.strength),
        ),
    ] = None,
    lambda_a: Annotated[
        float | None,
        drawing(
            help="Push towards the style. Too high brings back the reference's content.",
            show_default=_recommended(DEFAULT.lambda_a),
        ),
    ] = None,
    lambda_b: Annotated[
        float | None,
        drawing(
            help="Push towards the words. Too high brings back the base model's own look.",
            show_default=_recommended(DEFAULT.lambda_b),
        ),
    ] = None,
    steps: Annotated[
        int | None,
        drawing(help="Drawing steps: more is slower and finer.", show_default=_recommended(DEFAULT.steps)),
    ] = None,
    temperature: Annotated[
        float | None,
        drawing(
            help="Variety: low is alike and safe, high is varied and wild.",
            show_default=_recommended(DEFAULT.temperature),
        ),
    ] = None,
    superres_steps: Annotated[
        int,
        drawing(help="Draw the larger size by super-resolution in so many steps (8 are plenty): sharper; 0 enlarges."),
    ] = DEFAULT.superres_steps,
    size: Annotated[
        int | None,
        drawing(metavar="256|128", help="Width and height of the pictures.", show_default="the largest there is"),
    ] = None,
    model: console.OwnModel = None,
    seed: Annotated[int, console.common(help="The first picture's number; the others count on.")] = DEFAULT.seed,
    device: console.Device = console.DeviceName.auto,
    quiet: console.Quiet = False,
    as_json: console.Json = False,
) -> None:
    """Draw new things in a learnt style. Also called sample.

    Prints the paths of the pictures and of a sheet with all of them. Each
    picture holds its settings; styledrop inspect reads them back.

      styledrop generate adapter.safetensors "a cat" "a teapot" -n 8
      styledrop generate --base-only "a cat"
    """
    screen = console.Screen(quiet, as_json)
    path, prompts = _adapter_and_prompts(words, base_only)
    chosen = console.given(
        strength=strength, lambda_a=lambda_a, lambda_b=lambda_b, steps=steps, temperature=temperature, size=size
    )
    suits = preset_values(preset)
    style = console.checked_style(style)
    if negative.strip():
        negative = console.plain_text(negative, "--negative", "say in a few words what to keep away from")
    SampleSettings(seed=seed, superres_steps=superres_steps, **chosen)  # wrong ones are refused at once
    console.refuse_outside(number=(number, 1, MOST))
    console.refuse_unwritable(output)
    started = time.monotonic()
    base_folder = console.located(screen, model, path)
    with screen.working("waking up the base model"):
        from styledrop_cli import pipeline
        from styledrop_cli.base import load_base
        from styledrop_cli.checkpoints import load_adapter
        from styledrop_cli.devices import pick_device
        from styledrop_cli.sheets import contact_sheet

        adapter = load_adapter(path) if path else None
        base = load_base(base_folder, pick_device(device))
    header = adapter.header if adapter else {}
    chosen |= {"negative": negative, "seed": seed, "superres_steps": superres_steps}
    settings = base.sampling(**({"size": base.sizes[-1]} | header.get("recommended", {}) | suits | chosen))
    style = header.get("style", "") if style is None else style
    prompts = [base.text_tokenizer.cut(prompt, style, screen.say) for prompt in prompts]
    settings = replace(settings, negative=base.text_tokenizer.cut(negative, on_message=screen.say))
    said = prompts if adapter else [*prompts, style]  # an adapter was taught its own style
    screen.warn_of_unknown(base, said)
    common = {
        "style": style,
        "adapter": path.name if path else None,
        "model": base.name,
        **{key: value for key, value in asdict(settings).items() if key != "seed"},
        "styledrop": __version__,
    }
    drawn: list[dict[str, Any]] = []
    images: list[Image] = []
    total = len(prompts) * number
    with screen.progress("drawing") as move:
        for prompt, its_seed, image in pipeline.generate(
            base,
            adapter,
            prompts=prompts,
            count=number,
            settings=settings,
            style=style,
            on_step=lambda share: move(min(share, 0.999), f"{len(images)}/{total}, {share:.0%} of the steps"),
        ):
            about = {"prompt": prompt, "seed": its_seed, **common}
            drawn.append(
                {
                    "path": _save(image, output, f"{_slug(prompt)}-{its_seed}", about),
                    "prompt": prompt,
                    "seed": its_seed,
                }
            )
            images.append(image)
        move(1.0, f"{total}/{total}")
    sheet = None
    if total > 1:
        columns = number if len(prompts) > 1 else math.ceil(math.sqrt(total))
        labels = [f"{one['prompt']} · {one['seed']}" for one in drawn]
        title = style or ("" if adapter else f"{base.name}, no adapter")
        picture = contact_sheet(images, min(columns, 8), labels, title, 256 if total <= 24 else 128)
        sheet = _save(picture, output, "sheet", {"prompt": " | ".join(prompts), **common})
    seconds = time.monotonic() - started
    screen.say(f"drawn in {console.duration(seconds)}:")
    screen.result(
        {"pictures": drawn, "sheet": sheet, "settings": common, "seconds": round(seconds, 1)},
        [*(one["path"] for one in drawn), *([sheet] if sheet else [])],
    )


def _adapter_and_prompts(words: list[str], base_only: bool) -> tuple[Path | None, list[str]]:
    """Tell the adapter file from the prompts."""
    first, rest = words[0], words[1:]
    is_file = first.endswith(".safetensors")
    if base_only and is_file:
        raise UsageError(f"--base-only draws without {first}", "leave out one of the two")
    if not base_only and not is_file:
        raise UsageError(
            f"'{first}' is no adapter file (*.safetensors)",
            "put the adapter before the prompts, or say --base-only to draw without one",
        )
    prompts = console.checked_prompts(words if base_only else rest, f"styledrop generate {first}")
    return None if base_only else Path(first), prompts


def _slug(prompt: str) -> str:
    """A prompt's words as a file's name: at most 48 characters, in any script."""
    from styledrop_cli.text import words

    return "-".join(words(prompt)).replace("'", "-")[:48].strip("-") or "picture"


def _save(image: Image, folder: Path, stem: str, settings: dict[str, Any]) -> Path:
    """Write `image` as `stem`.png, or `stem`-2.png, ... where another picture has that name."""
    from styledrop_cli.images import atomic_write, png_bytes

    data = png_bytes(image, settings)
    for number in count(1):
        path = folder / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png")
        if not path.exists():
            atomic_write(path, data)
            return path
        if path.read_bytes() == data:
            return path  # The same command, run again: the same picture.
    raise AssertionError("unreachable")
