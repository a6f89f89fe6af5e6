"""`styledrop sweep`: one adapter at many settings, on one sheet."""

from __future__ import annotations

import os
import shlex
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from styledrop_cli import __version__
from styledrop_cli.adapters import library
from styledrop_cli.cli import checks, console, load, options
from styledrop_cli.cli.options import flag, option
from styledrop_cli.errors import UsageError
from styledrop_cli.generation.lists.wildcards import escaped
from styledrop_cli.io.files import real_place
from styledrop_cli.settings import CHECKPOINT, RECOMMENDABLE, SampleSettings, SweepSettings, seeds_from

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from styledrop_cli.base.base import Base
    from styledrop_cli.judging.sweep import Cell, Sweep

OUTPUT = Path("sweep.png")
VALUES = "VALUE,..."
SCORES = ("object", "shape", "style", "leak", "balance")


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What is compared: the values of each setting as they were typed."""

    PANEL: ClassVar = "What is compared"

    lambda_a: Annotated[
        str | None, option("Guidance towards the style.", metavar=VALUES, shown="0 to 0.5, if nothing is named")
    ] = None
    lambda_b: Annotated[
        str | None,
        option("Guidance towards the prompt.", metavar=VALUES, shown="0.75 to 3, if nothing is named"),
    ] = None
    strength: Annotated[str | None, option("How strongly the adapter acts.", metavar=VALUES)] = None
    temperature: Annotated[str | None, option("Chance in the order in which parts are drawn.", metavar=VALUES)] = None
    steps: Annotated[str | None, option("Drawing steps.", metavar=VALUES)] = None
    checkpoints: Annotated[bool, flag("Also the checkpoints in ADAPTER.run/.", "--checkpoints")] = False


def sweep(
    adapter: options.AdapterFile,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT...", help="What to draw, each prompt in quotes.", show_default=False),
    ] = None,
    *,
    what: Compared,
    number: Annotated[
        int, options.number("How many pictures of each prompt to draw at each combination of values.")
    ] = SweepSettings.number,
    output: Annotated[Path, options.output("FILE", "The contact sheet to write.")] = OUTPUT,
    overwrite: options.Overwrite = False,
    save: Annotated[
        bool,
        flag(
            "Write the best values into the adapter file, so that generate uses them, if the gain is beyond chance. "
            "styledrop inspect --reset undoes it.",
            "--save",
        ),
    ] = False,
    force: Annotated[bool, flag("With --save: write them also where the gain may be chance.", "--force")] = False,
    style: options.OwnStyle = None,
    scorer: options.Scorer = "clip",
    model: options.Model = "pocket",
    seed: options.FirstSeed = SweepSettings.seed,
    device: options.Device = "auto",
    screen: console.Screen,
) -> None:
    r"""Find the settings that suit an adapter: draw at many, see them side by side.

    Draws the same prompts and seeds at every combination of up to two settings,
    on one contact sheet. CLIP scores each combination, as it does checkpoints in
    training, and the best is named with how sure that is. One at which the thing
    is lost is never recommended. Give three prompts or more: what suits one need
    not suit another.

      styledrop sweep adapter.safetensors "a cat" "a teapot" "a house"
      styledrop sweep adapter.safetensors "a cat" "a house" \
          --lambda-a 0,0.25,0.5 --lambda-b 1,3 -o scales.png
      styledrop sweep adapter.safetensors "a cat" "a house" \
          --strength 0.5,1,1.5 --save -o strength.png
    """
    values = options.given(**vars(what))
    del values["checkpoints"]
    axes = _axes(values, number, seed)
    if force and not save:
        raise UsageError("--force is for --save, and nothing is to be saved", "say both, or leave --force out")
    _refuse_single(axes, what.checkpoints)
    prompts = list(dict.fromkeys(checks.checked_prompts(prompts or [], f"styledrop sweep {adapter}")))
    style = checks.checked_style(style)
    _refuse_files(adapter, save, output, overwrite)
    started = time.monotonic()
    with load.loading(screen, model, device) as load_base:
        from styledrop_cli.adapters.header import load_adapter, write_recommended
        from styledrop_cli.io.images import save_png
        from styledrop_cli.judging import sweep as sweep_module
        from styledrop_cli.judging.clip_scorer import open_scorer

        file = load_adapter(adapter)
        files = sweep_module.checkpoints_of(file) if what.checkpoints else {}
        every = axes | ({CHECKPOINT: list(files)} if files else {})
        settings = SweepSettings(sweep_module.whole_grid(every, file), prompts, number, seed)
        base = load_base()
        settings = replace(settings, axes=_within_reach(base, settings.axes, screen))
        clip_scorer = open_scorer(base, scorer)
    style = str(file.header.style) if style is None else style
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
    from styledrop_cli.generation.output_folder import about_mixture
    from styledrop_cli.generation.pipeline import StyleMix

    about = _about(result, style, about_mixture(base, StyleMix.of(file)), scorer)
    save_png(sweep_module.sheet_of(result, style or adapter.stem, scorer), output, about)
    saved = save and result.best not in (None, result.present) and (result.sure or force)
    if saved:
        write_recommended(adapter, result.recommended, files.get(int(result.values.get(CHECKPOINT, 0))))
    seconds = time.monotonic() - started
    screen.say(f"drawn in {console.duration(seconds)}:")
    compared_with = {
        **result.other.values,
        "gain": round(result.gain, 4),
        "interval": [round(bound, 4) for bound in result.interval],
    }
    path = Text(str(output), no_wrap=True, overflow="ignore")  # whole, however narrow the terminal
    screen.result(
        about | {"sheet": output, "compared_with": compared_with, "saved": saved, "seconds": round(seconds, 1)},
        [output] if screen.quiet else Group(_table(result, scorer), "", *map(Text, _verdict(result)), path),
    )
    if save:
        _say_saved(screen, adapter, result, saved)
    elif result.best not in (None, result.present):
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
        raise UsageError("; ".join(problems), "give values separated by commas: --lambda-a 0,1,2" if axes else None)
    seeds_from(seed, number)
    return axes


def _refuse_single(axes: Mapping[str, Sequence[float]], checkpoints: bool) -> None:
    """Refuse settings of one value each, where nothing else would be compared."""
    if axes and not checkpoints and all(len(values) == 1 for values in axes.values()):
        said = " and ".join(f"--{name.replace('_', '-')} {values[0]:g}" for name, values in axes.items())
        raise UsageError(
            f"{said}: one combination of settings is nothing to compare",
            "give one of them several values, separated by commas; without any, lambda A and lambda B are compared",
        )


def _within_reach(base: Base, axes: Mapping[str, Sequence[float]], screen: console.Screen) -> dict[str, list[float]]:
    """The axes without values that `base` can draw nothing with, of which a warning tells."""
    from styledrop_cli.generation.resolve import within_reach

    return {
        name: list(dict.fromkeys(within_reach(base, {name: value}, screen.say)[name] for value in values))
        for name, values in axes.items()
    }


def _refuse_files(adapter: Path, save: bool, output: Path, overwrite: bool) -> None:
    """Everything that can be wrong with the names of the files, before the base is loaded."""
    checks.refuse_no_adapter(adapter, "put the adapter before the prompts")
    checks.refuse_output(output, overwrite, suffix=".png")
    if save and adapter.exists() and not os.access(real_place(adapter).parent, os.W_OK | os.X_OK):
        raise UsageError(f"the folder of {adapter} may not be written to", "leave --save out, or copy the adapter")


# ---- what comes out ----


def _say_saved(screen: console.Screen, adapter: Path, result: Sweep, saved: bool) -> None:
    """Whether the recommended values were written into the adapter, and what can be done about it."""
    if saved:
        screen.say(f"{adapter} recommends these values now, and generate uses them")
        screen.say(f"undo it:  styledrop inspect {shlex.quote(library.called(adapter))} --reset", "dim")
    elif result.best in (None, result.present):
        screen.say(f"{adapter} stays as it is: none of these is better than what it recommends")
    else:
        screen.warn("nothing is saved, as the gain may be chance: give more prompts and seeds, or say --force")


def _about(result: Sweep, style: str, drawn_by: Mapping[str, Any], scorer: str) -> dict[str, Any]:
    """What the sheet says of itself, and the beginning of the command's result."""
    from styledrop_cli.judging import meaning

    settings = result.settings
    return {
        "prompt": " | ".join(settings.prompts),
        "style": style,
        **drawn_by,
        "scorer": scorer,
        "seeds": settings.seeds,
        "axes": {name: list(values) for name, values in settings.axes.items()},
        "recommended": result.values,
        "cells": [
            {
                **cell.values,
                **{name: round(value, 4) for name, value in _means(cell).items()},
                **meaning.mean(cell.meanings).rounded(),
                "lost": i in result.lost,
            }
            for i, cell in enumerate(result.cells)
        ],
        "styledrop": __version__,
    }


def _means(cell: Cell) -> dict[str, float]:
    """The mean of each score over a cell's pictures."""
    return {name: cell.balance if name == "balance" else getattr(cell.mean, name) for name in SCORES}


def _table(result: Sweep, scorer: str) -> Table:
    """A row for each cell, in their order."""
    from styledrop_cli.judging import meaning

    settings = result.settings
    title = Text(f"{_counts(settings)}, by {scorer}")
    table = Table(box=None, title_justify="left", title=title, padding=(0, 2, 0, 0), pad_edge=False)
    for name in (*settings.axes, *SCORES, *meaning.NAMES):
        table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
    table.add_column("")
    from styledrop_cli.judging.sweep import mark_of

    for place, cell in enumerate(result.cells):
        values = (*(f"{value:g}" for value in cell.values.values()), *(f"{mean:.3f}" for mean in _means(cell).values()))
        placed = meaning.mean(cell.meanings)
        words = ": ".join(filter(None, (mark_of(result, place), placed.words)))
        table.add_row(*values, *placed.percent(), words, style="bold" if place == result.best else "")
    return table


def _verdict(result: Sweep) -> list[str]:
    """What is recommended, and how sure that is."""
    settings = result.settings
    low, high = result.interval
    if result.best is None:
        why = "all of these lose the thing" if len(result.lost) == len(result.cells) else "none of these is better"
        return [f"recommended, as before: {_said(result.other.values)}", why]
    already = result.best == result.present
    if already and result.other is result.cells[result.best]:
        return [f"recommended, as before: {_said(result.values)}", "all others lose the thing"]
    whom = f"the second best, {_said(result.other.values)}" if already else "the values before"
    way = "above" if result.gain >= 0 else "below"
    lines = [
        f"recommended{', as before' if already else ''}: {_said(result.values)}",
        f"its balance of {result.cells[result.best].balance:.3f} is {abs(result.gain):.3f} {way} {whom}",
    ]
    if len(settings.prompts) * settings.number == 1:
        return [*lines, "one picture at each combination says little: give more prompts and seeds"]
    sure = "" if low > 0 else ": it may be chance"
    lines.append(f"95 % interval {low:+.3f} to {high:+.3f} over {_counts(settings)}{sure}")
    if len(settings.prompts) == 1:
        lines.append("one prompt says little, as another may need other values: give three or more")
    return lines


def _counts(settings: SweepSettings) -> str:
    parts = ((len(settings.prompts), "prompt"), (settings.number, "seed"))
    return " and ".join(f"{count} {what}{'s' if count > 1 else ''}" for count, what in parts)


def _said(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def _generate(adapter: Path, result: Sweep, prompt: str, model: str, files: Mapping[int, Path]) -> str:
    """The command that draws with the recommended values."""
    values = result.values
    path = files.get(int(values.get(CHECKPOINT, 0)), adapter)
    said = [f"--{name.replace('_', '-')} {values[name]:g}" for name in RECOMMENDABLE if name in values]
    base_option = [] if model == "pocket" else [f"--model {shlex.quote(model)}"]
    return " ".join(
        ["styledrop generate", shlex.quote(library.called(path)), shlex.quote(escaped(prompt)), *said, *base_option]
    )
