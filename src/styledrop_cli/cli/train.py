"""`styledrop train`: learn a style from one picture, or a few, or an object from several."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import typer
from rich.filesize import decimal as file_size

from styledrop_cli.cli import checks, console, drawing, load, options
from styledrop_cli.cli.options import by_base, flag, option
from styledrop_cli.errors import UsageError
from styledrop_cli.progress import Forecast
from styledrop_cli.settings import OBJECT, STYLE, TrainSettings

OUTPUT = Path("adapter.safetensors")
DEFAULT = TrainSettings()
LONG = 1800.0  # seconds: a training that takes longer is announced
SUITS = "what suits the kind"


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How it learns. None stands for what was not given."""

    PANEL: ClassVar = "How it learns"
    SETTINGS: ClassVar = TrainSettings

    steps: Annotated[int | None, option(shown=by_base("steps"))] = None
    lr: Annotated[float | None, option(shown=SUITS)] = None
    kind: Annotated[Literal["bottleneck", "lora", "prompt"], option()] = "bottleneck"
    width: Annotated[int | None, option(None, "--width", "--rank", shown=SUITS)] = None
    targets: Annotated[str, option(metavar="NAMES")] = ",".join(DEFAULT.targets)
    checkpoints: Annotated[int | None, option(shown=by_base("checkpoints", "objects"))] = None
    last: Annotated[bool, flag(None, "--last")] = False
    lambda_a: Annotated[float, option()] = DEFAULT.lambda_a
    lambda_b: Annotated[
        float | None,
        option(shown=by_base("lambda_b")),
    ] = None

    def given(self) -> dict[str, Any]:
        """What was given, but for the kind, by the names of `TrainSettings`."""
        values = options.given(**vars(self)) | {"targets": tuple(name.strip() for name in self.targets.split(","))}
        del values["kind"]
        return values


def train(
    pictures: Annotated[
        list[Path],
        typer.Argument(metavar="PICTURE...", help="The reference picture, or several of one style or one object."),
    ],
    *,
    style: Annotated[str | None, option(options.STYLE, shown=False)] = None,
    content: Annotated[
        list[str] | None,
        option(
            'What the picture shows: "a cat". For several pictures repeat it, once for each, in their order. If not '
            "given, CLIP guesses it and the guess is shown. With --learn object: what to call the object, once for all "
            "pictures or once for each."
        ),
    ] = None,
    learn: Annotated[
        Literal["style", "object"],
        option(
            "What to learn: the style of the pictures, or the object that they show. For an object no test pictures "
            "are compared: the last step is kept."
        ),
    ] = "style",
    output: Annotated[Path, options.output("FILE", "The adapter file to write.")] = OUTPUT,
    overwrite: options.Overwrite = False,
    fresh: Annotated[bool, flag("Start over, instead of continuing an interrupted training.", "--fresh")] = False,
    learning: Learning,
    model: options.Model = "pocket",
    seed: Annotated[int, options.common("The same seed trains the same adapter.")] = DEFAULT.seed,
    device: options.Device = "auto",
    screen: console.Screen,
) -> None:
    r"""Learn the style of a picture. Also called fine-tune.

    Writes one small adapter file. styledrop generate draws new pictures with
    it, styledrop inspect shows what is in it.

      styledrop train ref.png --style "watercolor"
      styledrop train a.jpg b.jpg --style "flat illustration" \
          --content "a tree" --content "a dog" -o flat.safetensors
      styledrop train a.jpg b.jpg --learn object --content "my dog" \
          -o mydog.safetensors
    """
    kind, chosen = learning.kind, learning.given() | {"learn": learn, "seed": seed}
    TrainSettings.of(kind, **chosen)  # what is wrong is said before the base is loaded
    checks.refuse_output(output, overwrite, suffix=checks.ADAPTER, run=True)
    style, content = _texts(learn, pictures, style, content)
    checks.refuse_busy(output.with_name(output.name + checks.RUN))
    with load.loading(screen, model, device) as load_base:
        from styledrop_cli.training.adapter import train_adapter
        from styledrop_cli.training.distributed import take_place, together

        place = take_place()
        base = load_base()
        settings = base.training(kind, **chosen)
    if learn == OBJECT:
        drawing.say_roughly(screen, base, "object")

    def tell(taken: int, seconds: float) -> None:
        hint = "" if base.device.type != "cpu" else "; this is work for a graphics card"
        screen.say(
            f"this takes about {console.duration(taken * seconds)}: {taken:,} steps of {seconds:.1f} s each{hint}"
        )

    forecast = Forecast(tell, LONG)

    def on_step(step: int, total: int, loss: float) -> None:
        forecast.step(step / total)
        move(step / total, f"{step}/{total}  loss {loss:.2f}")

    with together(place, base.device), screen.progress("learning") as move:
        learnt = train_adapter(
            base,
            pictures=pictures,
            style=style,
            contents=content,
            settings=settings,
            output=output,
            fresh=fresh,
            on_step=on_step,
            on_message=screen.say,
        )
    if place[0]:
        return
    kept = f"{learnt.step} steps"
    if learnt.step != settings.steps:
        kept = f"step {learnt.step} of {settings.steps} drew the best test pictures"
    size = file_size(learnt.path.stat().st_size)
    screen.say(f"learnt in {console.duration(learnt.seconds)}, {kept}; the adapter ({size}):")
    screen.result(
        {
            "adapter": learnt.path,
            "learns": learn,
            "style": style,
            "contents": learnt.content_texts,
            "step": learnt.step,
            "reconstruction_psnr": learnt.reconstruction_psnr,
            "seconds": round(learnt.seconds, 1),
        },
        [learnt.path],
    )
    say_how_to_draw(screen, learnt.path, model, learnt.content_texts[0] if learn == OBJECT else None)


def say_how_to_draw(screen: console.Screen, adapter: Path, model: str | None, thing: str | None = None) -> None:
    """The command that draws with an adapter, or in a style the object that it learnt."""
    path, base = shlex.quote(str(adapter)), "" if model in (None, "pocket") else f" --model {shlex.quote(str(model))}"
    if thing is None:
        screen.say(f'draw with it:  styledrop generate {path} "a cat"{base}', "dim")
    else:
        prompt = shlex.quote(f"{thing} on ...")
        screen.say(f"draw it in a style:  styledrop generate style.safetensors {prompt} --object {path}{base}", "dim")


def _texts(
    learn: str, pictures: list[Path], style: str | None, content: list[str] | None
) -> tuple[str, list[str] | None]:
    """The style, empty for an object, and a content for each picture, once all is found that can be wrong with them."""
    if learn == STYLE:
        if style is None:
            raise UsageError("missing option '--style'", 'describe the style in a few words: --style "watercolor"')
        return checks.checked_references(pictures, style, content)
    if style is not None:
        raise UsageError("--style is for learning a style, not an object", "leave out --style or --learn object")
    if not content:
        raise UsageError("an object needs a name to be called by in prompts", 'give it: --content "my dog"')
    names = content * len(pictures) if len(content) == 1 else content
    if len(names) != len(pictures):
        raise UsageError(
            f"pictures: {len(pictures)}, --content texts: {len(names)}",
            "give one --content for all pictures, or one for each, in their order",
        )
    return "", checks.checked_references(pictures, OBJECT, names)[1]  # there is no style to check
