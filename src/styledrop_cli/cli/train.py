"""`styledrop train`: learn a style from one picture, or a few, or an object from several."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer
from rich.filesize import decimal as file_size

from styledrop_cli.cli import checks, console, drawing, load, options, plan, train_each
from styledrop_cli.cli.options import by_base, flag, option
from styledrop_cli.cli.plan import DryRun
from styledrop_cli.cli.recipe import Recipe
from styledrop_cli.errors import UsageError
from styledrop_cli.io.run_names import run_of
from styledrop_cli.progress import Forecast, OnProgress
from styledrop_cli.settings import OBJECT, STYLE, SUPERRES_STEPS, UNKNOWN_CONTENT, TrainSettings

if TYPE_CHECKING:
    from styledrop_cli.base.base import Base
    from styledrop_cli.training.adapter import TrainResult

OUTPUT = Path("adapter.safetensors")
DEFAULT = TrainSettings()
LONG = 1800.0  # seconds: a training that takes longer is announced
SUITS = "what suits the kind"
CHOSEN = "chosen by the test pictures; without them what suits the base"


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
    layers: Annotated[str, option(metavar="all|style|NUMBERS")] = DEFAULT.layers
    checkpoints: Annotated[int | None, option(shown=by_base("checkpoints", "objects"))] = None
    sample_prompt: Annotated[
        list[str] | None,
        option(
            "A prompt of your own, drawn at each checkpoint to FILE.run/samples-STEP.png. Repeat it for more; nothing "
            "is chosen by them.",
            metavar="PROMPT",
        ),
    ] = None
    last: Annotated[bool, flag(None, "--last")] = False
    superres: Annotated[
        bool,
        flag(
            "Also let super-resolution learn the style, for drawing with --superres-steps. Training takes longer.",
            "--superres/--no-superres",
        ),
    ] = False
    lambda_a: Annotated[float | None, option(shown="what suits the base")] = None
    lambda_b: Annotated[float | None, option(shown=CHOSEN)] = None

    @property
    def samples(self) -> list[str]:
        """The prompts to draw at each checkpoint."""
        return self.sample_prompt or []

    def given(self) -> dict[str, Any]:
        """What was given, but for the kind, by the names of `TrainSettings`."""
        values = options.given(**vars(self)) | {"targets": tuple(name.strip() for name in self.targets.split(","))}
        del values["kind"]
        values.pop("sample_prompt", None)
        values["superres_steps"] = SUPERRES_STEPS if values.pop("superres") else 0
        return values


def train(
    pictures: Annotated[
        list[str],
        typer.Argument(
            metavar="PICTURE[:WEIGHT]...",
            help="The reference picture, or several of one style or one object, or a folder of them. With weights, "
            "a.png:2 b.png:1, the first is learnt from twice as often; a folder's is that of each picture in it.",
        ),
    ],
    *,
    style: Annotated[str | None, option(options.STYLE, shown=False)] = None,
    content: Annotated[
        list[str] | None,
        option(
            'What the picture shows: "a cat". For several pictures repeat it, once for each, in their order. If not '
            "given, you are asked in a terminal, and elsewhere it is taken for any picture. With --learn object: what "
            "to call the object, once for all pictures or once for each. In a folder a text file beside each picture, "
            "ref.txt, can say it."
        ),
    ] = None,
    learn: Annotated[
        Literal["style", "object"],
        option(
            "What to learn: the style of the pictures, or the object that they show. For an object no test pictures "
            "are compared: the last step is kept."
        ),
    ] = "style",
    each: Annotated[
        bool,
        flag(
            "Learn every picture as a style of its own, each into NAME.safetensors in the folder -o, or into the "
            "library with --save-as '{name}'; NAME is the picture's. Without --style, a text file beside each picture "
            "says its style: watercolor, or a house in watercolor style. What is learnt already is not learnt again.",
            "--each",
        ),
    ] = False,
    output: Annotated[
        Path | None,
        options.output(
            "FILE", "The adapter file to write; with --each the folder.", shown=f"{OUTPUT}, or {train_each.OUTPUT}"
        ),
    ] = None,
    save_as: options.SaveAs = None,
    overwrite: options.Overwrite = False,
    fresh: Annotated[bool, flag("Start over, instead of continuing an interrupted training.", "--fresh")] = False,
    learning: Learning,
    dry_run: DryRun = False,
    model: options.Model = "pocket",
    seed: Annotated[int, options.common("The same seed trains the same adapter.")] = DEFAULT.seed,
    device: options.Device = "auto",
    recipe: Recipe,
    screen: console.Screen,
) -> None:
    r"""Learn the style of a picture. Also called fine-tune.

    Writes one small adapter file. styledrop generate draws new pictures with
    it, styledrop inspect shows what is in it.

      styledrop train ref.png --style "watercolor" --content "a bird"
      styledrop train ref.png --style "watercolor" --save-as aquarelle
      styledrop train a.jpg b.jpg --style "flat illustration" \
          --content "a tree" --content "a dog" -o flat.safetensors
      styledrop train --each pictures --style "watercolor" -o styles
      styledrop train a.jpg b.jpg --learn object --content "my dog" \
          -o mydog.safetensors
    """
    kind, chosen = learning.kind, learning.given() | {"learn": learn, "seed": seed}
    TrainSettings.of(kind, **chosen)  # what is wrong is said before the base is loaded
    samples = [checks.typed_text(one, "a --sample-prompt", 'say what to draw: "a cat"') for one in learning.samples]
    if each:
        train_each.train_each(
            screen,
            train_each.lessons_in([Path(one) for one in pictures], style, content, output, save_as, screen.say),
            kind,
            chosen,
            samples,
            told=partial(_told, screen),
            save_as=save_as,
            overwrite=overwrite,
            fresh=fresh,
            dry_run=dry_run,
            model=model,
            device=device,
            recipe=recipe,
        )
        return
    output = checks.adapter_output(output, OUTPUT, save_as, overwrite, run=True)
    paths, weights = load.read_weighted(pictures, "weight", "picture")
    paths, weights, content = checks.references_in(paths, weights, style or "", content, screen.say)
    style, content = _texts(learn, paths, style, content)
    checks.refuse_busy(run_of(output))
    with load.loading(screen, model, device) as load_base:
        from styledrop_cli.generation.resolve import within_reach
        from styledrop_cli.training.adapter import train_adapter
        from styledrop_cli.training.distributed import take_place, together

        place = take_place()
        base = load_base()
        settings = base.training(kind, **within_reach(base, chosen, screen.say))
    if learn == OBJECT:
        drawing.say_roughly(screen, base, "object")
    screen.warn_of_unknown(base, samples)
    if dry_run:
        _show_plan(screen, base, settings, paths, weights, style, content, output)
        return
    if place[1] == 1:
        content = asked_contents(screen, base, paths, content)
    with (
        together(place, base.device),
        recipe.kept_in(run_of(output)),
        screen.progress("learning") as move,
    ):
        learnt = train_adapter(
            base,
            pictures=paths,
            style=style,
            contents=content,
            weights=weights,
            settings=settings,
            output=output,
            sample_prompts=samples,
            fresh=fresh,
            on_step=_told(screen, base, move, settings),
            on_message=screen.say,
        )
    if place[0]:
        return
    kept = load.keep(screen, learnt.path, save_as, overwrite, trained=True)
    _show_result(screen, learnt, settings, style, weights, model, save_as if kept else None)
    if not kept:
        raise typer.Exit(1)


def _show_result(
    screen: console.Screen,
    learnt: TrainResult,
    settings: TrainSettings,
    style: str,
    weights: list[float] | None,
    model: str,
    name: str | None,
) -> None:
    size = file_size(learnt.path.stat().st_size)
    kept = _kept(learnt.step, settings.steps, learnt.compared)
    screen.say(f"learnt in {console.duration(learnt.seconds)}. {kept} The adapter ({size}):")
    screen.result(
        {
            "adapter": learnt.path,
            "saved_as": name,
            "learns": settings.learn,
            "style": style,
            "contents": learnt.content_texts,
            **({"weights": weights} if weights else {}),
            "step": learnt.step,
            "reconstruction_psnr": learnt.reconstruction_psnr,
            "seconds": round(learnt.seconds, 1),
        },
        [learnt.path],
    )
    say_how_to_draw(screen, name or learnt.path, model, learnt.content_texts[0] if settings.learn == OBJECT else None)


def _show_plan(
    screen: console.Screen,
    base: Base,
    settings: TrainSettings,
    pictures: list[Path],
    weights: list[float] | None,
    style: str,
    contents: list[str] | None,
    output: Path,
) -> None:
    from styledrop_cli.training.adapter import foresee

    with screen.working("timing a few steps"):
        seconds = foresee(base, settings, len(pictures))
    finer = f", and {settings.superres_steps} for super-resolution" * bool(settings.superres_steps)
    shown = contents or [UNKNOWN_CONTENT] * len(pictures)
    each = [f" at weight {weight:g}" for weight in weights] if weights else [""] * len(pictures)
    said = {
        "base": base.name,
        "learns": style or OBJECT,
        "from": "\n".join(f"{path}{at}: {text}" for path, at, text in zip(pictures, each, shown, strict=True)),
        "trains": f"{settings.kind}, width {settings.width}, {settings.steps} steps of {settings.batch_size}{finer}",
        "layers": settings.layers,
    }
    plan.show(screen, said, seconds, [output, run_of(output)])


def _told(
    screen: console.Screen, base: Base, move: OnProgress, settings: TrainSettings
) -> Callable[[int, int, float], None]:
    """What hears of each step: it moves the bar, and says early how long a long training takes."""

    def tell(taken: int, seconds: float) -> None:
        hint = "" if base.device.type != "cpu" else "; this is work for a graphics card"
        screen.say(
            f"this takes about {console.duration(taken * seconds)}: {taken:,} steps of {seconds:.1f} s each{hint}"
        )

    forecast = Forecast(tell, LONG)

    def on_step(step: int, total: int, loss: float) -> None:
        forecast.step(step / total)
        move(step / total, _note(step, total - settings.steps, settings, loss))

    return on_step


def _note(step: int, before: int, settings: TrainSettings, loss: float) -> str:
    """Where a training stands: super-resolution's adapter takes the first `before` steps."""
    if step <= before:
        return f"super-resolution {step}/{before}  loss {loss:.2f}"
    return f"{step - before}/{settings.steps}  loss {loss:.2f}"


def _kept(step: int, steps: int, compared: bool) -> str:
    """Which step the file holds, and whether test pictures chose it."""
    if step < steps:
        return f"Step {step} of {steps} is kept: the test pictures of later steps are worse."
    why = ": no earlier one drew better test pictures" if compared else ""
    return f"The last of {steps} steps is kept{why}."


def asked_contents(
    screen: console.Screen, base: Base, pictures: list[Path], content: list[str] | None
) -> list[str] | None:
    """What the pictures show: what was said or, in a terminal, what is typed of each that `base` is not sure of.

    None where nothing was said.
    """
    from styledrop_cli.adapters.examples import sure_guess
    from styledrop_cli.io.images import load_reference

    if content:
        return content
    found: list[str] = []
    for picture in pictures:
        guessed = sure_guess(base, load_reference(picture))
        typed = "" if guessed else screen.ask(f'What does {picture.name} show, such as "a bird"?')
        if typed:
            typed = checks.checked_contents([typed], 1, "picture", "")[0]
        found.append(typed or (guessed[0] if guessed else UNKNOWN_CONTENT))
    return None if set(found) == {UNKNOWN_CONTENT} else found


def say_how_to_draw(screen: console.Screen, adapter: Path | str, model: str | None, thing: str | None = None) -> None:
    """The command that draws with an adapter, a file or a saved style, or in a style the object that it learnt."""
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
