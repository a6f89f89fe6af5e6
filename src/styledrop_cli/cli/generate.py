"""`styledrop generate`: draw what the prompts say, in an adapter's style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from styledrop_cli.adapters import library
from styledrop_cli.cli import checks, console, drawing, each_style, load, options, plan
from styledrop_cli.cli.options import flag, option
from styledrop_cli.cli.plan import DryRun
from styledrop_cli.errors import UsageError
from styledrop_cli.generation.lists.file_names import check_pattern, folder_or_picture
from styledrop_cli.generation.lists.prompt_file import Line, read_lines
from styledrop_cli.generation.lists.wildcards import Template
from styledrop_cli.settings import SampleSettings, seeds_from

if TYPE_CHECKING:
    from styledrop_cli.base.base import Base
    from styledrop_cli.generation.pipeline import PictureRequest, StyleMix

OUTPUT = Path("styledrop-out")
MOST_OF_EACH = 1000
MOST = 200_000  # pictures of one command


@dataclass(frozen=True, kw_only=True)
class Drawing(options.Drawing):
    """How pictures are drawn, with what only generate can be told."""

    temperature: Annotated[
        float | None,
        option(shown="not given, parts are drawn in an even order over the picture"),
    ] = None
    top_p: Annotated[float | None, option(shown=f"{SampleSettings.top_p}")] = None
    superres_steps: Annotated[int, option()] = SampleSettings.superres_steps


@dataclass(frozen=True, kw_only=True)
class ManyPrompts:
    """Files of prompts, prompts with variants, and files of pictures."""

    PANEL: ClassVar = "Many prompts"

    prompts: Annotated[
        Path | None,
        option(
            "A file of prompts, one a line, each with options of its own if it needs any: a cat --seed 5 -n 3. Tables "
            "(.toml, .csv) are read too; - reads standard input.",
            metavar="FILE",
        ),
    ] = None
    combinations: Annotated[
        bool,
        flag(
            "Draw every variant of a prompt such as: a {red|blue} cat. Without it, each picture takes one at random.",
            "--combinations",
        ),
    ] = False
    name: Annotated[
        str,
        option(
            "Names of the files, made of {prompt} {seed} {index} {name} {style}; {index:04} has leading zeros. With "
            "--styles, {style} is the name of each.",
            metavar="PATTERN",
        ),
    ] = "{prompt}-{seed}"
    sheet: Annotated[bool, flag("Also write contact sheets with all pictures.", "--sheet/--no-sheet")] = True


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Several adapters in place of one."""

    PANEL: ClassVar = "Several adapters"
    RANGES: ClassVar = {"gamma": (0, 1)}

    styles: Annotated[
        list[str] | None,
        option(
            "Draw every prompt in each of these styles, with the same seeds, each style on its own base model: names, "
            "files and folders of adapters, with commas between, instead of ADAPTER. The sheet has a row for each "
            "style and a column for each prompt.",
            metavar="ADAPTER,ADAPTER,...",
            autocompletion=options.adapters_like,
        ),
    ] = None
    mix: Annotated[
        list[str] | None,
        option(
            "Mix styles: an adapter and its share, instead of ADAPTER. Repeat it for each adapter.",
            metavar="ADAPTER:SHARE",
            autocompletion=options.adapters_like,
        ),
    ] = None
    thing: Annotated[
        Path | None,
        option(
            "The adapter of an object (train --learn object), to draw in the style.",
            "--object",
            metavar="ADAPTER",
            **options.of_adapter,
        ),
    ] = None
    gamma: Annotated[
        float | None,
        option("Share of the object's adapter: 0 is the style alone, 1 the object alone.", shown="0.6"),
    ] = None


def generate(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ADAPTER] PROMPT...",
            help="The adapter file or the name of a saved style, then what to draw; each prompt in quotes.",
            autocompletion=options.adapters_like,
        ),
    ] = None,
    *,
    number: Annotated[
        int | None,
        options.option("How many pictures to draw of each prompt.", "--number", "-n", shown="4; 1 with --styles"),
    ] = None,
    output: Annotated[
        Path, options.output("FOLDER", "The folder for the pictures; for a single one also its file: cat.png.")
    ] = OUTPUT,
    base_only: Annotated[bool, flag("Draw with the base model alone, no adapter.", "--base-only")] = False,
    style: options.OwnStyle = None,
    many: ManyPrompts,
    mixing: Mixing,
    how: Drawing,
    colours: options.Colours,
    assets: options.Assets,
    dry_run: DryRun = False,
    model: options.OwnModel = None,
    seed: options.FirstSeed = SampleSettings.seed,
    device: options.Device = "auto",
    screen: console.Screen,
) -> None:
    """Draw new pictures in a learnt style. Also called sample.

    Prints the paths of the pictures and of a contact sheet. Every picture file
    holds its settings; styledrop inspect shows them. Pictures that are in the
    folder already are not drawn again.

      styledrop generate adapter.safetensors "a cat" "a teapot" -n 8
      styledrop generate adapter.safetensors "a {red|blue} cat" --combinations
      styledrop generate --mix ink.safetensors:0.6 --mix gold.safetensors:0.4 "a cat"
      styledrop generate --styles ink.safetensors,gold.safetensors "a cat" "a house"
      styledrop generate --base-only "a cat"
    """
    several = each_style.named(mixing.styles) if mixing.styles else {}
    styles, said = _adapters_and_prompts(words or [], base_only, mixing, many.prompts)
    number = number if number is not None else 1 if several else 4
    preset, chosen = how.checked(seed)
    palette = colours.checked()
    chosen |= assets.checked()
    style = checks.checked_style(style)
    checks.refuse_outside(number=(number, 1, MOST_OF_EACH), gamma=(mixing.gamma, 0, 1))
    if mixing.gamma is not None and mixing.thing is None:
        raise UsageError("--gamma is the share of an object, and there is none", "name its adapter with --object")
    pattern = _pattern(many.name, bool(several))
    lines = [Line(prompt, {}, f"'{prompt[:40]}'") for prompt in said] + (
        read_lines(many.prompts) if many.prompts else []
    )
    pictures = _pictures_of(lines, number, seed, many.combinations)
    output, called = folder_or_picture(output, len(pictures) * max(1, len(several)))
    checks.refuse_unwritable(output)
    if several:
        with screen.working("reading the styles"):
            files = each_style.read_styles(several)
        pattern = called.replace("{", "{{").replace("}", "}}") or pattern
        wanted_in_each = each_style.Wanted(
            pictures, preset, chosen | palette, style, pattern, mixing.thing, mixing.gamma, assets
        )
        each_style.draw_styles(
            screen, files, wanted_in_each, output, model=model, device=device, sheet=many.sheet, dry_run=dry_run
        )
        return
    with load.loading(screen, model, device, styles[0][0] if styles else mixing.thing) as load_base:
        from styledrop_cli.training.distributed import take_place

        place = take_place()
        mixture = load.read_mixture(styles, mixing.thing, mixing.gamma)
        base = load_base()
    from styledrop_cli.generation.requests import requests_of
    from styledrop_cli.generation.resolve import within_reach

    if mixture.thing is not None:
        drawing.say_roughly(screen, base, "object")
    chosen = base.preset(preset) | within_reach(base, chosen, screen.say) | palette
    wanted, stems = requests_of(base, mixture, pictures, chosen, style, pattern, screen.say)
    texts = [text for one in wanted for text in (one.style or "", one.settings.negative)]
    if many.prompts and len(lines) > 1:
        by_line: dict[str, dict[str, None]] = {}
        for (line, _, _), one in zip(pictures, wanted, strict=True):
            by_line.setdefault(line.where, {})[one.prompt] = None
        screen.warn_of_lines(base, {place: list(texts) for place, texts in by_line.items()}, mixture.learnt)
    else:
        texts += [one.prompt for one in wanted]
    screen.warn_of_unknown(base, list(dict.fromkeys(texts)), mixture.learnt)
    if any(one.settings.superres_steps for one in wanted):
        _warn_of_superres(screen, mixture)
    stems = [called] if called else stems
    if dry_run:
        _show_plan(screen, base, mixture, wanted, stems, output)
        return
    of_each = len(wanted) // len(lines)
    drawing.draw_all(
        screen,
        base,
        mixture,
        wanted,
        stems,
        output,
        sheet=many.sheet,
        columns=min(8, of_each if len(lines) > 1 and of_each > 1 else math.ceil(math.sqrt(len(wanted)))),
        title=style or mixture.style or ("" if mixture.styles else f"{base.name}, no adapter"),
        place=place,
        assets=assets,
    )


def _show_plan(
    screen: console.Screen,
    base: Base,
    mixture: StyleMix,
    wanted: Sequence[PictureRequest],
    stems: Sequence[str],
    output: Path,
) -> None:
    from styledrop_cli.generation.foresight import seconds_each
    from styledrop_cli.generation.output_folder import Batch, about, about_mixture

    drawn_by = about_mixture(base, mixture)
    batch = Batch(output, stems, lambda index: about(base, wanted[index], mixture, drawn_by))
    missing = batch.missing
    with screen.working("timing a few steps"):
        seconds = seconds_each(base, mixture, wanted[missing[0]]) * len(missing) if missing else 0.0
    first = wanted[0].settings
    said = {
        "base": base.name,
        "adapter": ", ".join(f"{file.path}" for file, _ in mixture.styles) or "none",
        "style": mixture.style,
        "pictures": f"{len(missing):,} of {first.size} px to draw, {len(wanted) - len(missing):,} are there",
        "settings": f"{first.steps} steps, lambda_a {first.lambda_a:g}, lambda_b {first.lambda_b:g}, "
        f"strength {first.strength:g}" + " and others by picture" * (len({one.settings for one in wanted}) > 1),
    }
    plan.show(screen, said, seconds, [batch.paths[index] for index in missing])


def _warn_of_superres(screen: console.Screen, mixture: StyleMix) -> None:
    """A warning where super-resolution is to draw in a style that it has not learnt."""
    files = [*(file for file, _ in mixture.styles), *([mixture.thing] if mixture.thing else [])]
    for file in files:
        if file.header.superres is None:
            screen.warn(
                f"{file.path} has nothing for super-resolution, which draws in the base model's own way: train with "
                "--superres, or leave --superres-steps out"
            )


def _adapters_and_prompts(
    words: list[str], base_only: bool, mixing: Mixing, file: Path | None
) -> tuple[load.Shares, list[str]]:
    """Tell the adapter file from the prompts; without one, or with others, every word is a prompt."""
    paths, shares = load.read_weighted(mixing.mix or [], "share")
    first = words[0] if words else ""
    instead = {
        "--base-only": base_only,
        f"--mix {paths[0] if paths else ''}": bool(paths),
        f"--styles {(mixing.styles or [''])[0]}": bool(mixing.styles),
    }
    others = [option for option, given in instead.items() if given]
    named = first.endswith(checks.ADAPTER) if others else library.names_adapter(first)
    if len(others) > 1:
        raise UsageError(f"{others[0]} draws without {others[1]}", "leave out one of the two")
    if others and named:
        add = {"--mix": f"say --mix {first}, too", "--styles": f"name it with the others: {others[0]},{first}"}
        hint = add.get(others[0].split()[0], "leave out one of the two")
        raise UsageError(f"{others[0]} draws without {first}", hint)
    if not (others or named):
        raise UsageError(
            f"'{first}' is no adapter file (*{checks.ADAPTER}), and no style in the library"
            if words
            else "there is no adapter file",
            library.nearest(first) or "put the adapter before the prompts, or say --base-only to draw without one",
        )
    prompts = words[1:] if named else words
    if prompts or file is None:
        prompts = checks.checked_prompts(prompts, f"styledrop generate {first if named else others[0]}", templates=True)
    paths = [library.find(first)] if named else paths
    return list(zip(paths, shares or [1 / len(paths)] * len(paths), strict=True)) if paths else [], prompts


def _pattern(name: str, several: bool) -> str:
    """The names of the files; with several styles a name tells which one it is."""
    if several and name == ManyPrompts.name:
        return each_style.PATTERN
    check_pattern(name)
    if several and "{style}" not in name:
        raise UsageError(f"the pattern '{name}' does not tell the styles apart", "add {style}, which is a style's name")
    return name


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
