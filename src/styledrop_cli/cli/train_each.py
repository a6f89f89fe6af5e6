"""`styledrop train --each`: every picture is a style of its own, learnt one after the other."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table
from rich.text import Text

from styledrop_cli.adapters import library
from styledrop_cli.cli import checks, console, load, plan
from styledrop_cli.cli.recipe import Recipe
from styledrop_cli.errors import StyledropError, UsageError
from styledrop_cli.io.files import file_hash
from styledrop_cli.io.run_names import run_of
from styledrop_cli.progress import OnProgress
from styledrop_cli.settings import STYLE, TrainSettings

if TYPE_CHECKING:
    from styledrop_cli.base.base import Base

OUTPUT = Path("styles")
NAME = "{name}"  # what stands for a picture's own in --save-as
SAID = re.compile(r"(.+) in (.+) style")  # a caption of both: what is shown, and how
LEARNT, THERE, FAILED = "learnt", "was there", "failed"
Told = Callable[["Base", OnProgress, TrainSettings], Callable[[int, int, float], None]]


@dataclass(frozen=True)
class Lesson:
    """A picture, its style in words and what it shows, if that is said; the adapter file to write and its name."""

    picture: Path
    style: str
    content: str | None
    name: str
    output: Path


@dataclass(frozen=True)
class Learnt:
    """What became of a lesson: how it ended, with an `error` if it failed, and what its training found."""

    lesson: Lesson
    state: str
    error: str = ""
    step: int | None = None
    psnr: float | None = None
    seconds: float = 0.0


def lessons_in(
    paths: Sequence[Path],
    style: str | None,
    content: Sequence[str] | None,
    output: Path | None,
    save_as: str | None,
    on_message: Callable[[str], None],
) -> list[Lesson]:
    """A lesson for each picture, and for each in a folder, in the order of their names.

    With a `style` for all, a picture's caption says what it shows; without one the caption says the style, too: "a
    house in watercolor style", or the style alone. Raises UsageError for a picture without a style, two of one name,
    and names that no style can have.
    """
    from styledrop_cli.corpus.folder import Record, records_in

    records: list[Record] = []
    for path in paths:
        records += records_in(path, on_message) if path.is_dir() else [Record(path, ())]
    if content and len(content) != len(records):
        hint = "give one --content for each picture, in their order, or none"
        raise UsageError(f"pictures: {len(records)}, --content texts: {len(content)}", hint)
    if style is None and (without := [one.path for one in records if not one.captions]):
        raise UsageError(
            f"{len(without)} of {len(records)} pictures have no style, the first is {without[0]}",
            'give one for all, --style "watercolor", or put a .txt of the same name beside each picture',
        )
    if output is not None and save_as is not None:
        raise UsageError("--output and --save-as both say where the styles go", "leave one of them out")
    if output is not None and (output.is_file() or output.name.endswith(checks.ADAPTER)):
        raise UsageError(f"{output} is a file, and each picture gets one of its own", "name a folder with -o")
    lessons: dict[str, Lesson] = {}
    for index, one in enumerate(records):
        caption = one.captions[0] if one.captions else ""
        its_style, shows = _said(caption, style, one.path)
        shows = content[index] if content else shows
        name = _name(one.path, save_as, len(records))
        file = library.file_of(name) if save_as is not None else (output or OUTPUT) / f"{name}{checks.ADAPTER}"
        if name.lower() in lessons:
            other = lessons[name.lower()].picture
            raise UsageError(f"{other} and {one.path} would both be called '{name}'", "rename one of them")
        checks.refuse_output(file, overwrite=True, run=True)
        lessons[name.lower()] = Lesson(one.path, its_style, shows, name, file)
    return list(lessons.values())


def _said(caption: str, style: str | None, picture: Path) -> tuple[str, str | None]:
    """The style of a picture and what it shows, by its caption and the `style` that was given for all."""
    both = SAID.fullmatch(" ".join(caption.split()))
    if style is not None:
        shows = caption.removesuffix(f" in {style} style")
    else:
        shows, style = (both[1], both[2]) if both else ("", caption)
    hint = 'write it in a few words: "watercolor", or "a house in watercolor style"'
    style = checks.typed_text(style, f"the style of {picture}", hint)
    return style, checks.typed_text(shows, f"the caption of {picture}", hint) if shows else None


def _name(picture: Path, save_as: str | None, number: int) -> str:
    """What the style of a picture is called."""
    own = library.name_from(picture.stem)
    if save_as is None:
        return own
    if NAME not in save_as and number > 1:
        raise UsageError(
            f"--save-as {save_as} is one name, and there are {number} pictures",
            f"write {NAME} where each picture's own goes: --save-as {shlex.quote(f'{save_as}-{NAME}')}",
        )
    name = save_as.replace(NAME, own)
    library.file_of(name)
    return name


def train_each(
    screen: console.Screen,
    lessons: Sequence[Lesson],
    kind: str,
    chosen: dict[str, Any],
    samples: list[str],
    *,
    told: Told,
    save_as: str | None,
    overwrite: bool,
    fresh: bool,
    dry_run: bool,
    model: str,
    device: str,
    recipe: Recipe,
) -> None:
    """Learn every lesson that is not learnt yet; what cannot be learnt is said at the end, and is exit code 1.

    Raises UsageError before the first one for an output that is there and holds something else, unless `overwrite`.
    """
    if chosen["learn"] != STYLE:
        raise UsageError("--each learns styles, and --learn object an object", "leave one of them out")
    if console.place()[1] > 1:
        raise UsageError("--each learns in one process", "start it without a launcher, or one command for each picture")
    with load.loading(screen, model, device) as load_base:
        from styledrop_cli.generation.resolve import within_reach

        base = load_base()
        settings = base.training(kind, **within_reach(base, chosen, screen.say))
    there = {one.name for one in lessons if _is_learnt(base, settings, one)}
    others = [one for one in lessons if one.name not in there and one.output.exists()]
    if others and not overwrite:
        raise UsageError(
            f"{others[0].output} is already there, and was not learnt so from {others[0].picture}"
            + f"; nor were {len(others) - 1} more" * (len(others) > 1),
            "say --overwrite to learn it anew, or choose other names with -o or --save-as",
        )
    missing = [one for one in lessons if one.name not in there]
    screen.warn_of_unknown(base, samples)
    if dry_run:
        _show_plan(screen, base, settings, lessons, missing)
        return
    ended = {one.name: Learnt(one, THERE) for one in lessons if one.name in there}
    if ended:
        screen.say(f"{len(ended)} of {len(lessons)} were there already")
    for number, lesson in enumerate(missing, 1):
        with screen.progress(f"{lesson.name}, {number} of {len(missing)}") as move:
            on_step = told(base, move, settings)
            ended[lesson.name] = _learn(screen, base, lesson, settings, samples, on_step, fresh, recipe)
    _show_result(screen, [ended[one.name] for one in lessons], save_as is not None)


def _is_learnt(base: Base, settings: TrainSettings, lesson: Lesson) -> bool:
    """Whether its file is there, and of the same picture, words, base and settings."""
    from styledrop_cli.adapters.file import is_one_base
    from styledrop_cli.adapters.header import read_header

    try:
        header = read_header(lesson.output)
        hashes = [file_hash(lesson.picture)]
    except (StyledropError, OSError):
        return False
    return (
        [one.get("sha256") for one in header.pictures] == hashes
        and header.style == lesson.style
        and (lesson.content is None or header.contents == [lesson.content])
        and is_one_base(header.base, base.identity)
        and dict(header.settings) == json.loads(json.dumps(asdict(settings)))
    )


def _learn(
    screen: console.Screen,
    base: Base,
    lesson: Lesson,
    settings: TrainSettings,
    samples: list[str],
    on_step: Callable[[int, int, float], None],
    fresh: bool,
    recipe: Recipe,
) -> Learnt:
    """Learn one; what is wrong with it is what became of it, and the next one has its turn."""
    from styledrop_cli.training.adapter import train_adapter

    try:
        with recipe.kept_in(run_of(lesson.output)):
            made = train_adapter(
                base,
                pictures=[lesson.picture],
                style=lesson.style,
                contents=[lesson.content] if lesson.content else None,
                settings=settings,
                output=lesson.output,
                sample_prompts=samples,
                fresh=fresh,
                on_step=on_step,
                on_message=screen.say,
            )
    except StyledropError as error:
        screen.warn(f"{lesson.picture} was not learnt: {error.message}")
        return Learnt(lesson, FAILED, f"{error.message}. {error.hint or ''}".strip())
    return Learnt(lesson, LEARNT, "", made.step, made.reconstruction_psnr, made.seconds)


def _show_plan(
    screen: console.Screen, base: Base, settings: TrainSettings, lessons: Sequence[Lesson], missing: Sequence[Lesson]
) -> None:
    from styledrop_cli.training.adapter import foresee

    with screen.working("timing a few steps"):
        seconds = foresee(base, settings, 1) * len(missing) if missing else 0.0
    said = {
        "base": base.name,
        "styles": f"{len(missing)} of {len(lessons)} to learn",
        "from": "\n".join(f"{one.picture}: {one.content or 'a picture'}, in {one.style}" for one in missing),
        "trains": f"{settings.kind}, width {settings.width}, {settings.steps} steps of {settings.batch_size} each",
    }
    plan.show(screen, said, seconds, [one.output for one in missing])


def _show_result(screen: console.Screen, ended: Sequence[Learnt], saved: bool) -> None:
    """A table of all, and how to draw with those that are there."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("name", "picture", "style", "step", "time", ""):
        table.add_column(column, justify="right" if column in ("step", "time") else "left")
    for one in ended:
        words = (one.lesson.name, one.lesson.picture.name, one.lesson.style, "" if one.step is None else f"{one.step}")
        took = console.duration(one.seconds) if one.state == LEARNT else ""
        table.add_row(*map(Text, words), took, Text(one.error or one.state, "red" if one.error else ""))
    sound = [one.lesson for one in ended if one.state != FAILED]
    said = [
        {
            "name": one.lesson.name,
            "adapter": one.lesson.output,
            "saved_as": one.lesson.name if saved and one.state != FAILED else None,
            "picture": one.lesson.picture,
            "style": one.lesson.style,
            "step": one.step,
            "reconstruction_psnr": one.psnr,
            "seconds": round(one.seconds, 1),
            "state": one.state,
            "error": one.error or None,
        }
        for one in ended
    ]
    failed = len(ended) - len(sound)
    screen.result({"styles": said, "failed": failed}, [one.output for one in sound] if screen.quiet else table)
    if sound:
        several = ",".join(one.name for one in sound) if saved else f"{sound[0].output.parent}"
        screen.say(f'draw in all of them:  styledrop generate --styles {shlex.quote(several)} "a cat"', "dim")
    if failed:
        screen.warn(f"{failed} of {len(ended)} pictures were not learnt; the same command tries these again")
        raise typer.Exit(1)
