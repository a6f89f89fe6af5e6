"""`styledrop generate`: draw what the prompts say, in an adapter's style."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from styledrop_cli.cli import checks, console, drawing, options
from styledrop_cli.errors import UsageError
from styledrop_cli.generation.lists.file_names import check_pattern, folder_or_picture, stem
from styledrop_cli.generation.lists.prompt_file import Line, read_lines
from styledrop_cli.generation.lists.wildcards import Template
from styledrop_cli.settings import PRESETS, SampleSettings, preset_values, seeds_from

if TYPE_CHECKING:
    from styledrop_cli.generation.pipeline import PictureRequest

OUTPUT = Path("styledrop-out")
PATTERN = "{prompt}-{seed}"
MOST_OF_EACH = 1000
MOST = 200_000  # pictures of one command
DEFAULT = SampleSettings()
look = partial(typer.Option, rich_help_panel="How it draws")
many = partial(typer.Option, rich_help_panel="Many prompts")
mixing = partial(typer.Option, rich_help_panel="Several adapters")


def _recommended(default: float) -> str:
    return f"what the adapter recommends, or {default:g}"


def generate(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ADAPTER] PROMPT...", help="The adapter file, then what to draw; each prompt in quotes."
        ),
    ] = None,
    number: Annotated[int, typer.Option("--number", "-n", help="How many pictures of each prompt.")] = 4,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the pictures go.")] = OUTPUT,
    base_only: Annotated[bool, options.flag("--base-only", help="Draw with the base model alone, no adapter.")] = False,
    style: options.OwnStyle = None,
    prompts: Annotated[
        Path | None,
        many(
            metavar="FILE",
            help="Draw what a file says: a line a prompt, with options of its own (a cat --seed 5 -n 3); .toml and "
            ".csv too; - reads standard input.",
        ),
    ] = None,
    combinations: Annotated[
        bool,
        options.flag(
            "--combinations",
            help="Draw each variant of a prompt with {cat|dog} in it; else each picture has one by chance.",
            rich_help_panel="Many prompts",
        ),
    ] = False,
    name: Annotated[
        str,
        many(
            metavar="PATTERN",
            help="What the files are called, of {prompt} {seed} {index} {name} {style}; {index:04} has leading zeros.",
        ),
    ] = PATTERN,
    sheet: Annotated[bool, many("--sheet/--no-sheet", help="Lay all pictures out on sheets, too.", metavar="")] = True,
    mix: Annotated[
        list[str] | None,
        mixing(metavar="FILE:SHARE", help="One of several styles, with its share, in place of ADAPTER; repeat it."),
    ] = None,
    thing: Annotated[
        Path | None,
        mixing("--object", metavar="FILE", help="An adapter of an object (train --learn object), drawn in the style."),
    ] = None,
    gamma: Annotated[
        float | None,
        mixing(help="The object's share: 0 is the style alone, 1 the object.", show_default="0.6"),
    ] = None,
    preset: Annotated[
        str | None,
        look(
            metavar="|".join(PRESETS),
            help="Settings that go together: fast takes about two thirds of the time, paper is StyleDrop's own. Other "
            "options go before it.",
            show_default=False,
        ),
    ] = None,
    negative: Annotated[str, look(help="What to keep away from.")] = DEFAULT.negative,
    strength: Annotated[
        float | None,
        look(
            help="How much of the adapter there is: 0 none, 1 as it was trained.",
            show_default=_recommended(DEFAULT.strength),
        ),
    ] = None,
    lambda_a: Annotated[
        float | None,
        look(
            help="Push towards the style. Too high brings back the reference's content.",
            show_default=_recommended(DEFAULT.lambda_a),
        ),
    ] = None,
    lambda_b: Annotated[
        float | None,
        look(
            help="Push towards the words. Too high brings back the base model's own look.",
            show_default=_recommended(DEFAULT.lambda_b),
        ),
    ] = None,
    steps: Annotated[
        int | None,
        look(help="Drawing steps: more is slower and finer.", show_default=_recommended(DEFAULT.steps)),
    ] = None,
    temperature: Annotated[
        float | None,
        look(
            help="Draw the surest parts first (order by confidence), with this much chance: low is alike and safe, "
            "high is varied and wild.",
            show_default="not given: parts are drawn in an even order, without it",
        ),
    ] = None,
    top_p: Annotated[
        float | None,
        look(help="Variety of each part: 0 takes the likeliest, 1 all there is.", show_default=f"{DEFAULT.top_p:g}"),
    ] = None,
    superres_steps: Annotated[
        int,
        look(help="Draw the larger size by super-resolution in so many steps (8 are plenty): sharper; 0 enlarges."),
    ] = DEFAULT.superres_steps,
    size: Annotated[
        int | None,
        look(metavar="256|128", help="Width and height of the pictures.", show_default="the largest there is"),
    ] = None,
    model: options.OwnModel = None,
    seed: Annotated[int, options.common(help="The first picture's number; the others count on.")] = DEFAULT.seed,
    device: options.Device = options.DeviceName.auto,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Draw new things in a learnt style. Also called sample.

    Prints the paths of the pictures and of a sheet with all of them. Each
    picture holds its settings; styledrop inspect reads them back. What is
    in the folder already is not drawn again.

      styledrop generate adapter.safetensors "a cat" "a teapot" -n 8
      styledrop generate adapter.safetensors "a {red|blue} cat" --combinations
      styledrop generate --mix ink.safetensors:0.6 --mix gold.safetensors:0.4 "a cat"
      styledrop generate --base-only "a cat"
    """
    screen = console.Screen(quiet, as_json)
    styles, said = _adapters_and_prompts(words or [], base_only, drawing.read_shares(mix or []), prompts)
    chosen = options.given(
        strength=strength,
        lambda_a=lambda_a,
        lambda_b=lambda_b,
        steps=steps,
        temperature=temperature,
        top_p=top_p,
        size=size,
    )
    suits = preset_values(preset)
    style = checks.checked_style(style)
    if negative.strip():
        negative = checks.typed_text(negative, "--negative", "say in a few words what to keep away from")
    chosen |= {"negative": negative, "seed": seed, "superres_steps": superres_steps}
    SampleSettings(**chosen)  # wrong ones are refused at once
    checks.refuse_outside(number=(number, 1, MOST_OF_EACH), gamma=(gamma, 0, 1))
    check_pattern(name)
    lines = [Line(prompt, {}, f"'{prompt[:40]}'") for prompt in said] + (read_lines(prompts) if prompts else [])
    pictures = _pictures_of(lines, number, seed, combinations)
    output, called = folder_or_picture(output, len(pictures))
    checks.refuse_unwritable(output)
    base_folder = options.located(screen, model, styles[0][0] if styles else thing)
    with screen.working("waking up the base model"):
        from styledrop_cli.base.base import load_base
        from styledrop_cli.devices import pick_device
        from styledrop_cli.generation.pipeline import PictureRequest
        from styledrop_cli.training.distributed import take_place

        place = take_place()
        mixture = drawing.read_mixture(styles, thing, gamma)
        base = load_base(base_folder, pick_device(device))
    usual = {"size": base.sizes[-1]} | mixture.recommended | suits | chosen
    cut = cache(lambda text, style: mixture.cut(base, text, style, screen.say))  # thousands of pictures may share one
    made: dict[str, SampleSettings] = {}
    wanted: list[PictureRequest] = []
    stems: list[str] = []
    for index, (line, prompt, its_seed) in enumerate(pictures):
        own = {key: value for key, value in line.options.items() if key in DEFAULT.defaults() and key != "seed"}
        if repr(own) not in made:
            settings = base.sampling(**(usual | own))
            made[repr(own)] = replace(settings, negative=cut(settings.negative, ""))
        its_style = line.options.get("style", style)
        said_style = mixture.style if its_style is None else its_style
        prompt = cut(prompt, its_style)
        wanted.append(PictureRequest(prompt, its_seed, made[repr(own)], its_style))
        own_name = line.options.get("name")
        stems.append(
            called or stem(name, prompt=prompt, seed=its_seed, index=index + 1, name=own_name, style=said_style)
        )
    said = [text for one in wanted for text in (one.prompt, one.style or "", one.settings.negative)]
    screen.warn_of_unknown(base, list(dict.fromkeys(said)), mixture.learnt)
    of_each = len(wanted) // len(lines)
    result = drawing.draw_all(
        screen,
        base,
        mixture,
        wanted,
        stems,
        output,
        sheet=sheet,
        columns=min(8, of_each if len(lines) > 1 and of_each > 1 else math.ceil(math.sqrt(len(wanted)))),
        title=style or mixture.style or ("" if mixture.styles else f"{base.name}, no adapter"),
        place=place,
    )
    screen.result(result, drawing.paths_of(result))


def _adapters_and_prompts(
    words: list[str], base_only: bool, mixed: drawing.Shares, file: Path | None
) -> tuple[drawing.Shares, list[str]]:
    """Tell the adapter file from the prompts; without one, or with others, every word is a prompt."""
    first = words[0] if words else ""
    named = first.endswith(drawing.ADAPTER)
    if base_only and mixed:
        raise UsageError(f"--base-only draws without {mixed[0][0]}", "leave out one of the two")
    if (base_only or mixed) and named:
        other = "--base-only" if base_only else f"--mix {mixed[0][0]}"
        hint = "leave out one of the two" if base_only else f"say --mix {first}, too"
        raise UsageError(f"{other} draws without {first}", hint)
    if not (base_only or mixed or named):
        raise UsageError(
            f"'{first}' is no adapter file (*{drawing.ADAPTER})" if words else "there is no adapter file",
            "put the adapter before the prompts, or say --base-only to draw without one",
        )
    prompts = words[1:] if named else words
    if prompts or file is None:
        prompts = checks.checked_prompts(
            prompts, f"styledrop generate {first if named else '--base-only'}", templates=True
        )
    return [(Path(first), 1.0)] if named else mixed, prompts


def _pictures_of(lines: list[Line], number: int, seed: int, combinations: bool) -> list[tuple[Line, str, int]]:
    """The prompt and the seed of each picture, in order; a line's own number and seed go before the command's."""
    read = [(line, Template.read(line.text, line.where), line.options.get("number", number)) for line in lines]
    total = sum(each * (template.count if combinations else 1) for _, template, each in read)
    if total > MOST:
        raise UsageError(f"{total:,} pictures are too many: at most {MOST:,}", "draw them by several commands")
    made = []
    for line, template, each in read:
        try:
            seeds = seeds_from(line.options.get("seed", seed), each)
        except UsageError as error:
            raise UsageError(f"{line.where}: {error.message}" if line.options else error.message, error.hint) from None
        if combinations:
            made += [(line, prompt, one) for prompt in template.every() for one in seeds]
        else:
            made += [(line, template.pick(one), one) for one in seeds]
    for line, prompt, _ in made:
        checks.plain_text(prompt, f"a prompt in {line.where}", "say what to draw: a cat")
    return made
