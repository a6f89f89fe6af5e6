"""`styledrop vary`: pictures near one that somebody likes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from styledrop_cli.adapters import library
from styledrop_cli.cli import checks, console, drawing, load, options
from styledrop_cli.cli.edit import MOST_OF_EACH
from styledrop_cli.cli.generate import OUTPUT
from styledrop_cli.cli.options import common, option
from styledrop_cli.generation.lists.file_names import stem
from styledrop_cli.settings import VARIED, seeds_from

SHARE = (0, 1)
OWN = "the picture's own"


@dataclass(frozen=True, kw_only=True)
class Drawing(options.Drawing):
    """How pictures are drawn: as the one that is varied."""

    negative: Annotated[str | None, option(shown=OWN)] = None
    strength: Annotated[float | None, option(metavar=options.reach_of("strength"), shown=OWN)] = None
    lambda_a: Annotated[float | None, option(metavar=options.reach_of("lambda_a"), shown=OWN)] = None
    lambda_b: Annotated[float | None, option(metavar=options.reach_of("lambda_b"), shown=OWN)] = None
    steps: Annotated[int | None, option(shown=OWN)] = None


def vary(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="The picture to vary, as generate wrote it.")],
    *,
    number: Annotated[int, options.number("How many variations to draw.")] = 8,
    much: Annotated[
        float,
        option(
            "The share of the picture that is drawn anew, in soft patches: 0 nothing, 1 all.",
            metavar=options.range_of({"much": SHARE}, "much"),
        ),
    ] = VARIED,
    prompt: Annotated[str | None, option("What it shows, in quotes.", shown=OWN)] = None,
    adapter: Annotated[
        Path | None,
        option("Draw with this adapter.", "--adapter", "-a", metavar="FILE", shown="those that drew the picture"),
    ] = None,
    output: Annotated[Path, options.output("FOLDER", "The folder for the pictures.")] = OUTPUT,
    style: Annotated[
        str | None,
        option('Other words for the style; "" leaves it out of the prompt.', shown=OWN),
    ] = None,
    how: Drawing,
    model: Annotated[
        str | None, common(options.MODEL, metavar="NAME|FOLDER", shown="the one that drew the picture")
    ] = None,
    seed: Annotated[
        int | None,
        common(
            "Seed of the first picture; each further picture adds 1.", "--seed", shown="the one after the picture's"
        ),
    ] = None,
    device: options.Device = "auto",
    screen: console.Screen,
) -> None:
    """Draw variations: pictures near one that you like.

    A picture that styledrop drew holds its prompt, its adapter and its
    settings (styledrop inspect shows them), and its variations are drawn
    with the same; what you say here goes before it. Of another picture say
    what it shows. What is not drawn anew keeps its tokens.

      styledrop vary styledrop-out/a-cat-1.png
      styledrop vary styledrop-out/a-cat-1.png -n 12 --much 0.3
      styledrop vary photo.jpg --prompt "a house" --adapter adapter.safetensors
    """
    preset, chosen = how.checked(seed or 0)
    style = checks.checked_style(style)
    checks.refuse_outside(number=(number, 1, MOST_OF_EACH), much=(much, *SHARE))
    if prompt is not None:
        (prompt,) = checks.checked_prompts([prompt], f"styledrop vary {picture} --prompt")
    checks.refuse_unwritable(output)
    with screen.working("reading the picture"):
        from styledrop_cli.generation.editing.edit import edit_of
        from styledrop_cli.generation.editing.origin import Origin

        origin = Origin.read(picture)
        shown = prompt or origin.prompt
        change = edit_of(picture, much=much, on_message=screen.say)
        assert change is not None
        mixture = load.read_mixture([(library.find(str(adapter)), 1.0)]) if adapter else origin.mixture()
    seeds = seeds_from(origin.next_seed(number) if seed is None else seed, number)
    files = [*(file.path for file, _ in mixture.styles), *([mixture.thing.path] if mixture.thing else [])]
    with load.loading(screen, model or (None if files else origin.model), device, *files[:1]) as load_base:
        base = load_base()
    from styledrop_cli.generation.pipeline import PictureRequest
    from styledrop_cli.generation.resolve import settings_of, within_reach

    drawing.say_roughly(screen, base, change.name)
    if change.remark:
        screen.say(change.remark)
    if model is None and (drawn_on := origin.text("model_hash")) and not base.hash.startswith(drawn_on):
        screen.warn(f"{picture} was drawn by another base model than {base.name}, {origin.text('model')}: see --model")
    own = within_reach(base, chosen, screen.say)
    settings = settings_of(base, mixture, origin.settings_on(base), base.preset(preset), change.suits(base), own)
    settings = replace(settings, negative=base.text_tokenizer.cut(settings.negative, "", screen.say))
    if style is None and adapter is None:
        style = origin.style_beside(mixture)
    shown = mixture.cut(base, shown, style, screen.say)
    wanted = [PictureRequest(shown, one, settings, style) for one in seeds]
    screen.warn_of_unknown(base, [shown, style or "", settings.negative], mixture.learnt)
    drawing.draw_all(
        screen,
        base,
        mixture,
        wanted,
        [stem(f"{{name}}-vary-{much:g}-{{seed}}", prompt=shown, seed=s, index=0, name=picture.stem) for s in seeds],
        output,
        own_draw=change.draw,
        more=change.about,
        original=picture,
        columns=3 if number > 4 else 5,
        title=f"{much:.0%} of {picture.name} drawn anew",
    )
