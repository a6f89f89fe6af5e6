"""`styledrop train`: learn a style from one picture, or a few, or an object from several."""

from __future__ import annotations

import shlex
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from styledrop_cli.base.registry import AMUSED
from styledrop_cli.cli import checks, console, options
from styledrop_cli.errors import UsageError
from styledrop_cli.settings import OBJECT, STYLE, TrainSettings

OUTPUT = Path("adapter.safetensors")
DEFAULT, SUITS = TrainSettings(), AMUSED.training


class Kind(StrEnum):
    """What `--kind` accepts."""

    bottleneck = "bottleneck"
    lora = "lora"
    prompt = "prompt"


class Learn(StrEnum):
    """What `--learn` accepts."""

    style = STYLE
    object = OBJECT


learning = partial(typer.Option, rich_help_panel="How it learns")


def train(
    pictures: Annotated[
        list[Path],
        typer.Argument(metavar="PICTURE...", help="The reference picture, or several in one style, or of one object."),
    ],
    style: Annotated[
        str | None,
        typer.Option(
            help='The style in a few words: "watercolor", "melting golden 3d rendering". An object has none.',
            show_default=False,
        ),
    ] = None,
    content: Annotated[
        list[str] | None,
        typer.Option(
            help='What the picture shows: "a cat". Repeat it for several pictures, one each, in their order. '
            "Left out, it is guessed and said aloud. For an object it is the name to call it by, one for all or one "
            "each."
        ),
    ] = None,
    learn: Annotated[
        Learn,
        typer.Option(
            help="What to learn: the style, or the object that several pictures show. An object is not compared on "
            "the way: its last step is taken."
        ),
    ] = Learn.style,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The adapter file to write.")] = OUTPUT,
    overwrite: Annotated[bool, options.flag("--overwrite", help="Replace the output if it is already there.")] = False,
    fresh: Annotated[
        bool, options.flag("--fresh", help="Start over where an interrupted run would be gone on with.")
    ] = False,
    steps: Annotated[
        int | None,
        learning(
            help="More steps: closer to the picture, less free in content.",
            show_default=f"{DEFAULT.steps}; {SUITS['steps']} for a published base",
        ),
    ] = None,
    lr: Annotated[
        float | None,
        learning(
            help="Learning rate. Too high copies the picture's content, too low learns slowly.",
            show_default="what fits the kind",
        ),
    ] = None,
    kind: Annotated[
        Kind, learning(help="The adapter: StyleDrop's bottlenecks, LoRA, or learned text vectors.")
    ] = Kind.bottleneck,
    width: Annotated[
        int | None,
        learning(
            "--width",
            "--rank",
            help="The bottlenecks' width, LoRA's rank or the number of text vectors.",
            show_default="what fits the kind",
        ),
    ] = None,
    targets: Annotated[
        str, learning(metavar="NAMES", help="What LoRA updates: to_q, to_k, to_v, to_out, with commas.")
    ] = ",".join(DEFAULT.targets),
    checkpoints: Annotated[
        int | None,
        learning(
            help="How many points of the way to compare by test pictures, in FILE.run/; 0 draws none.",
            show_default=f"{DEFAULT.checkpoints}; {SUITS['checkpoints']} for a published base or an object",
        ),
    ] = None,
    last: Annotated[
        bool,
        options.flag("--last", help="Take the last checkpoint, not the best.", rich_help_panel="How it learns"),
    ] = False,
    lambda_a: Annotated[
        float, learning(help="Push towards the style that the file recommends to generate.")
    ] = DEFAULT.lambda_a,
    lambda_b: Annotated[
        float | None,
        learning(
            help="Push towards the words that the file recommends to generate.",
            show_default=f"{DEFAULT.lambda_b:g}; {SUITS['lambda_b']:g} for a published base",
        ),
    ] = None,
    model: options.Model = "pocket",
    seed: Annotated[int, options.common(help="The same seed learns the same.")] = DEFAULT.seed,
    device: options.Device = options.DeviceName.auto,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    r"""Learn the style of a picture. Also called fine-tune.

    Writes one small adapter file. styledrop generate draws new things with it,
    styledrop inspect shows what it says of itself.

      styledrop train ref.png --style "watercolor"
      styledrop train a.jpg b.jpg --style "flat illustration" \
          --content "a tree" --content "a dog" -o flat.safetensors
      styledrop train a.jpg b.jpg --learn object --content "my dog" \
          -o mydog.safetensors
    """
    screen = console.Screen(quiet, as_json)
    chosen: dict[str, Any] = {
        "targets": tuple(name.strip() for name in targets.split(",")),
        "last": last,
        "learn": learn.value,
        "lambda_a": lambda_a,
        "seed": seed,
    } | options.given(steps=steps, lr=lr, width=width, checkpoints=checkpoints, lambda_b=lambda_b)
    TrainSettings.of(kind.value, **chosen)  # what is wrong is said before the base is loaded
    _refuse_output(output, overwrite)
    style, content = _texts(learn, pictures, style, content)
    checks.refuse_busy(output.with_name(output.name + ".run"))
    base_folder = options.located(screen, model)
    with screen.working("waking up the base model"):
        from styledrop_cli.base.base import load_base
        from styledrop_cli.devices import pick_device
        from styledrop_cli.training.adapter import train_adapter
        from styledrop_cli.training.distributed import take_place, together

        place = take_place()
        base = load_base(base_folder, pick_device(device))
        settings = base.training(kind.value, **chosen)
    with together(place, base.device), screen.progress("learning") as move:
        learnt = train_adapter(
            base,
            pictures=pictures,
            style=style,
            contents=content,
            settings=settings,
            output=output,
            fresh=fresh,
            on_step=lambda step, total, loss: move(step / total, f"{step}/{total}  loss {loss:.2f}"),
            on_message=screen.say,
        )
    if place[0]:
        return
    size = console.file_size(learnt.path.stat().st_size)
    screen.say(f"learnt in {console.duration(learnt.seconds)}, {_chosen(settings, learnt.step)}; the adapter ({size}):")
    screen.result(
        {
            "adapter": learnt.path,
            "learns": learn.value,
            "style": style,
            "contents": learnt.content_texts,
            "step": learnt.step,
            "reconstruction_psnr": learnt.reconstruction_psnr,
            "seconds": round(learnt.seconds, 1),
        },
        [learnt.path],
    )
    screen.say(draw_with(learnt.path, model, learnt.content_texts[0] if learn is Learn.object else None), "dim")


def draw_with(adapter: Path, model: str | None, thing: str | None = None) -> str:
    """How to draw with an adapter, or in a style the ``thing`` that it learnt."""
    path, base = shlex.quote(str(adapter)), "" if model in (None, "pocket") else f" --model {shlex.quote(str(model))}"
    if thing is None:
        return f'draw with it:  styledrop generate {path} "a cat"{base}'
    prompt = shlex.quote(f"{thing} on ...")
    return f"draw it in a style:  styledrop generate style.safetensors {prompt} --object {path}{base}"


def _texts(
    learn: Learn, pictures: list[Path], style: str | None, content: list[str] | None
) -> tuple[str, list[str] | None]:
    """The style, empty for an object, and a content for each picture, once all is found that can be wrong with them."""
    if learn is Learn.style:
        if style is None:
            raise UsageError("missing option '--style'", 'describe the style in a few words: --style "watercolor"')
        return checks.checked_references(pictures, style, content)
    if style is not None:
        raise UsageError("--style says a style, and --learn object learns none", "leave one of the two out")
    if not content:
        raise UsageError("an object needs a name to be called by", 'say it: --content "my dog"')
    names = content * len(pictures) if len(content) == 1 else content
    if len(names) != len(pictures):
        raise UsageError(
            f"pictures: {len(pictures)}, --content texts: {len(names)}",
            "give one --content for all pictures, or one for each, in their order",
        )
    return "", checks.checked_references(pictures, OBJECT, names)[1]  # there is no style to check


def _chosen(settings: TrainSettings, step: int) -> str:
    """Which checkpoint was taken, in words."""
    if step == settings.steps:
        return f"{step} steps"
    return f"step {step} of {settings.steps} drew best"


def _refuse_output(output: Path, overwrite: bool) -> None:
    checks.refuse_output(output, overwrite, run=True)
    if output.suffix != ".safetensors":
        raise UsageError(f"the adapter's name {output} does not end in .safetensors", "name it so with -o")
