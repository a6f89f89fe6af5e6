"""`styledrop sweep`: one adapter at many settings, on one sheet."""

from __future__ import annotations

import os
import shlex
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from styledrop_cli import __version__
from styledrop_cli.cli import checks, console, options
from styledrop_cli.errors import UsageError
from styledrop_cli.generation.lists.wildcards import escaped
from styledrop_cli.io.files import real_place
from styledrop_cli.settings import CHECKPOINT, RECOMMENDABLE, SampleSettings, SweepSettings, seeds_from

if TYPE_CHECKING:
    from collections.abc import Mapping

    from styledrop_cli.judging.sweep import Cell, Sweep

OUTPUT = Path("sweep.png")
SCORES = ("object", "shape", "style", "leak", "balance")
compared = partial(typer.Option, metavar="VALUE,...", rich_help_panel="What is compared")


def sweep(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="The adapter file.")],
    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT...", help="What to draw, each prompt in quotes.", show_default=False),
    ] = None,
    lambda_a: Annotated[
        str | None,
        compared(help="Push towards the style.", show_default="0 to 1, if there are no other axes"),
    ] = None,
    lambda_b: Annotated[
        str | None,
        compared(help="Push towards the words.", show_default="0.75 to 3, if there are no other axes"),
    ] = None,
    strength: Annotated[str | None, compared(help="How much of the adapter there is.")] = None,
    temperature: Annotated[str | None, compared(help="Variety.")] = None,
    steps: Annotated[str | None, compared(help="Drawing steps.")] = None,
    checkpoints: Annotated[
        bool,
        options.flag("--checkpoints", help="The checkpoints in ADAPTER.run/ too.", rich_help_panel="What is compared"),
    ] = False,
    number: Annotated[
        int, typer.Option("--number", "-n", help="How many pictures of each prompt in each cell.")
    ] = SweepSettings.number,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The sheet to write.")] = OUTPUT,
    overwrite: Annotated[bool, options.flag("--overwrite", help="Replace the sheet if it is already there.")] = False,
    save: Annotated[
        bool, options.flag("--save", help="Let the adapter file recommend what is best: generate goes by it.")
    ] = False,
    style: options.OwnStyle = None,
    scorer: Annotated[
        str,
        typer.Option(metavar="NAME", help="Who judges: clip, scorer, or a model of open_clip's as in ViT-B-16/openai."),
    ] = "clip",
    model: options.Model = "pocket",
    seed: Annotated[int, options.common(help="The first picture's number; the others count on.")] = SweepSettings.seed,
    device: options.Device = options.DeviceName.auto,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    r"""Find the settings that suit an adapter: draw at many, see them side by side.

    Writes one sheet with the same prompts and seeds at every combination of up
    to two settings, scores each as training does, and says which is best and
    how sure that is. Three prompts say more than one.

      styledrop sweep adapter.safetensors "a cat" "a teapot" "a house"
      styledrop sweep adapter.safetensors "a cat" "a house" \
          --lambda-a 0,1,2,4 --lambda-b 1,3,5 -o scales.png
      styledrop sweep adapter.safetensors "a cat" "a house" \
          --strength 0.5,1,1.5 --save -o strength.png
    """
    screen = console.Screen(quiet, as_json)
    given = options.given(lambda_a=lambda_a, lambda_b=lambda_b, strength=strength, temperature=temperature, steps=steps)
    axes: dict[str, list[float]] = _axes(given, number, seed)
    prompts = list(dict.fromkeys(checks.checked_prompts(prompts or [], f"styledrop sweep {adapter}")))
    style = checks.checked_style(style)
    _refuse_files(adapter, save, output, overwrite)
    started = time.monotonic()
    base_folder = options.located(screen, model)
    with screen.working("waking up the base model"):
        from styledrop_cli.base.base import load_base
        from styledrop_cli.devices import pick_device
        from styledrop_cli.generation.output_folder import about_mixture
        from styledrop_cli.generation.pipeline import StyleMix
        from styledrop_cli.io.images import save_png
        from styledrop_cli.io.tensors import load_adapter, write_recommended
        from styledrop_cli.judging import sweep as sweep_module
        from styledrop_cli.judging.clip_scorer import open_scorer

        file = load_adapter(adapter)
        files = sweep_module.checkpoints_of(file) if checkpoints else {}
        every = axes | ({CHECKPOINT: list(files)} if files else {})
        settings = SweepSettings(sweep_module.whole_grid(every, file), prompts, number, seed)
        base = load_base(base_folder, pick_device(device))
        clip_scorer = open_scorer(base, scorer)
    style = str(file.header["style"]) if style is None else style
    prompts = [base.text_tokenizer.cut(prompt, style, screen.say) for prompt in prompts]
    settings = replace(settings, prompts=list(dict.fromkeys(prompts)))
    screen.warn_of_unknown(base, prompts)
    with screen.progress("drawing") as move:
        result = sweep_module.sweep(
            base,
            clip_scorer,
            file,
            settings,
            style=style,
            checkpoints=files,
            on_progress=move,
        )
    cells = [
        {**cell.values, **{name: round(value, 4) for name, value in _means(cell).items()}} for cell in result.cells
    ]
    common = {
        "prompt": " | ".join(settings.prompts),
        "style": style,
        **about_mixture(base, StyleMix.of(file)),
        "scorer": scorer,
        "seeds": settings.seeds,
        "axes": {name: list(values) for name, values in settings.axes.items()},
        "recommended": result.cells[result.best].values,
        "cells": cells,
        "styledrop": __version__,
    }
    save_png(sweep_module.sheet_of(result, style or adapter.stem, scorer), output, common)
    if save:
        source = files.get(int(result.cells[result.best].values.get(CHECKPOINT, 0)))
        write_recommended(adapter, result.recommended, source)
    seconds = time.monotonic() - started
    screen.say(f"drawn in {console.duration(seconds)}:")
    low, high = result.interval
    compared_with = {
        **result.cells[result.other].values,
        "gain": round(result.gain, 4),
        "interval": [round(low, 4), round(high, 4)],
    }
    path = Text(str(output), no_wrap=True, overflow="ignore")  # whole, however narrow the terminal
    screen.result(
        common | {"sheet": output, "compared_with": compared_with, "saved": save, "seconds": round(seconds, 1)},
        [output] if quiet else Group(_table(result, scorer), "", *map(Text, _verdict(result)), path),
    )
    if save:
        screen.say(f"{adapter} recommends this now; generate goes by it")
    elif result.best != result.present:
        screen.say(f"try it:  {_generate(adapter, result, settings.prompts[0], model, files)}", "dim")


# ---- what is compared ----


def _axes(given: Mapping[str, str], number: int, seed: int) -> dict[str, list[float]]:
    """The values of each axis, without repeated ones; all that is wrong with them is said at once."""
    axes: dict[str, list[float]] = {}
    problems = []
    for name, text in given.items():
        option = f"--{name.replace('_', '-')}"
        whole = isinstance(SampleSettings.defaults()[name], int)
        values: list[float] = []
        for word in filter(None, map(str.strip, text.split(","))):
            try:
                value = int(word) if whole else float(word)
            except ValueError:
                problems.append(f"{option}: '{word[:20]}' is no {'whole ' if whole else ''}number")
                continue
            problems += checks.outside(**{name: (value, *SampleSettings.RANGES[name])})
            values.append(value)
        if not text.replace(",", "").strip():
            problems.append(f"{option} is empty")
        axes[name] = list(dict.fromkeys(values))
    ranges = SweepSettings.RANGES
    problems += checks.outside(number=(number, *ranges["number"]), seed=(seed, *ranges["seed"]))
    if problems:
        raise UsageError("; ".join(problems), "give values with commas between: --lambda-a 0,1,2" if axes else None)
    seeds_from(seed, number)
    return axes


def _refuse_files(adapter: Path, save: bool, output: Path, overwrite: bool) -> None:
    """Everything that can be wrong with the names of the files, before the base is loaded."""
    if adapter.suffix != ".safetensors":
        raise UsageError(f"'{adapter}' is no adapter file (*.safetensors)", "put the adapter before the prompts")
    if output.suffix != ".png":
        raise UsageError(f"the sheet's name {output} does not end in .png", "name it so with -o")
    checks.refuse_output(output, overwrite)
    if save and adapter.exists() and not os.access(real_place(adapter).parent, os.W_OK | os.X_OK):
        raise UsageError(f"the folder of {adapter} may not be written to", "leave --save out, or copy the adapter")


# ---- what comes out ----


def _means(cell: Cell) -> dict[str, float]:
    """The mean of each score over a cell's pictures."""
    return {name: cell.balance if name == "balance" else getattr(cell.mean, name) for name in SCORES}


def _table(result: Sweep, scorer: str) -> Table:
    """A row for each cell, in their order."""
    settings = result.settings
    title = Text(f"{_counts(settings)}, by {scorer}")
    table = Table(box=None, title_justify="left", title=title, padding=(0, 2, 0, 0), pad_edge=False)
    for name in (*settings.axes, *SCORES):
        table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
    table.add_column("")
    for place, cell in enumerate(result.cells):
        best = place == result.best
        mark = "recommended" if best else "as it was" if place == result.present else ""
        values = (*(f"{value:g}" for value in cell.values.values()), *(f"{mean:.3f}" for mean in _means(cell).values()))
        table.add_row(*values, mark, style="bold" if best else "")
    return table


def _verdict(result: Sweep) -> list[str]:
    """What is recommended, and how sure that is."""
    settings = result.settings
    low, high = result.interval
    best, other = (result.cells[place] for place in (result.best, result.other))
    already = ", as it was" if result.best == result.present else ""
    whom = "what it was" if result.other == result.present else f"the second best, {_said(other.values)}"
    lines = [
        f"recommended{already}: {_said(best.values)}",
        f"its balance of {best.balance:.3f} is {result.gain:.3f} above {whom}",
    ]
    if len(settings.prompts) * settings.number == 1:
        return [*lines, "of one picture in each cell that says little: give more prompts and seeds"]
    sure = "" if low > 0 else ": it may be chance"
    lines.append(f"95 % interval {low:+.3f} to {high:+.3f} over {_counts(settings)}{sure}")
    if len(settings.prompts) == 1:
        lines.append("one prompt says little, what suits it need not suit another: give three or more")
    return lines


def _counts(settings: SweepSettings) -> str:
    parts = ((len(settings.prompts), "prompt"), (settings.number, "seed"))
    return " and ".join(f"{count} {what}{'s' if count > 1 else ''}" for count, what in parts)


def _said(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def _generate(adapter: Path, result: Sweep, prompt: str, model: str, files: Mapping[int, Path]) -> str:
    """The command that draws with the recommended values."""
    values = result.cells[result.best].values
    path = files.get(int(values.get(CHECKPOINT, 0)), adapter)
    said = [f"--{name.replace('_', '-')} {values[name]:g}" for name in RECOMMENDABLE if name in values]
    base_option = [] if model == "pocket" else [f"--model {shlex.quote(model)}"]
    return " ".join(["styledrop generate", shlex.quote(str(path)), shlex.quote(escaped(prompt)), *said, *base_option])
