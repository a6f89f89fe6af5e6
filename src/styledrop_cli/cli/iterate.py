"""`styledrop iterate`: rounds of feedback, picked by CLIP or by a person."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from rich.table import Table

from styledrop_cli.cli import checks, console, load, options
from styledrop_cli.cli.options import by_base, flag, option
from styledrop_cli.cli.picking import Watcher, gallery_of, pickers_of
from styledrop_cli.cli.train import say_how_to_draw
from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.settings import RoundSettings

if TYPE_CHECKING:
    from styledrop_cli.feedback.rounds import Result

DEFAULT = RoundSettings()
FEEDBACK = ("clip", "human", "terminal", "random")
SCORES = ("object", "shape", "style", "leak", "total")


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """What the rounds are like. None stands for what was not given."""

    PANEL: ClassVar = "The rounds"
    SETTINGS: ClassVar = RoundSettings
    RANGES: ClassVar = {"keep": (1, RoundSettings.RANGES["keep"][1])}  # 0 is one a prompt

    prompts: Annotated[Path | None, option(options.PROMPTS, metavar="FILE", shown="30 everyday things")] = None
    per_prompt: Annotated[int, option()] = DEFAULT.per_prompt
    keep: Annotated[int | None, option(shown="as many as there are prompts")] = None
    picks: Annotated[
        list[Path] | None,
        option(
            "A file with the numbers of the pictures to pick, instead of --feedback. Repeat it for each round.",
            metavar="FILE",
        ),
    ] = None
    steps: Annotated[int | None, option(shown=by_base("steps"))] = None
    last: Annotated[bool, flag("Keep the last round instead of the best.", "--last")] = False
    scorer: options.SecondScorer = None


def iterate(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[ADAPTER|PICTURE...]",
            help="The adapter to improve, or reference pictures to train one from first. If not given, the newest "
            "adapter in this folder is improved.",
            show_default=False,
        ),
    ] = None,
    *,
    rounds: Annotated[
        int, option(RoundSettings.HELP["rounds"], metavar=options.range_of(RoundSettings.RANGES, "rounds"))
    ] = DEFAULT.rounds,
    feedback: Annotated[
        str,
        option(
            "Who picks: clip; human, on a page in the browser; terminal, a person who types numbers; random, for "
            "comparison. For several rounds name one each, separated by commas; the last picks in all further rounds.",
            metavar="WHO",
        ),
    ] = "clip",
    style: Annotated[str | None, option("With reference pictures: their style in a few words.")] = None,
    content: Annotated[
        list[str] | None,
        option("With reference pictures: what each shows. If not given, CLIP guesses it and the guess is shown."),
    ] = None,
    output: Annotated[
        Path | None,
        options.output(
            "FOLDER",
            "The folder for the rounds and best.safetensors.",
            shown="the name of the adapter, or of the first picture, with .rounds",
        ),
    ] = None,
    how: Rounds,
    fresh: Annotated[bool, flag("Start over, instead of continuing the rounds in the folder.", "--fresh")] = False,
    model: options.Model = "pocket",
    seed: Annotated[int, options.common("The same seed draws and trains the same.")] = DEFAULT.seed,
    device: options.Device = "auto",
    screen: console.Screen,
) -> None:
    r"""Make an adapter better by feedback: draw, pick the best, train again.

    Each round draws many pictures with the adapter, picks the best by CLIP or
    lets you pick, and trains a new adapter on those and the reference. At the
    end all rounds are compared on prompts that no picture was picked for, and
    the best one becomes FOLDER/best.safetensors. Your adapter file stays as it
    is. If interrupted, the same command continues.

      styledrop iterate --rounds 2
      styledrop iterate adapter.safetensors --feedback human
      styledrop iterate ref.png --style "watercolor" --feedback clip,human --rounds 3
    """
    began, launcher, helps = time.time(), os.getppid(), console.helps()
    settings = RoundSettings(
        rounds=rounds, per_prompt=how.per_prompt, keep=how.keep or 0, seed=seed, **options.given(steps=how.steps)
    )
    checks.refuse_outside(keep=(how.keep, *how.RANGES["keep"]))
    names = _feedback(feedback, how.picks, rounds)
    start, pictures = _start(files or [], style, content)
    if style is not None:
        style, content = checks.checked_references(pictures, style, content)
    folder = output or (start.with_suffix(".rounds") if start else Path(f"{pictures[0].stem}.rounds"))
    checks.refuse_unwritable(folder)
    checks.refuse_busy(folder)
    wanted = checks.prompts_in(how.prompts) if how.prompts else None
    over = folder / f".over-{launcher}"
    if not helps:
        for left in folder.glob(".over-*"):
            left.unlink(missing_ok=True)
    with load.loading(screen, model, device) as load_base:
        from styledrop_cli.feedback.rounds import assist, first_round, iterate
        from styledrop_cli.io.run_folder import alone_in
        from styledrop_cli.judging.clip_scorer import open_second_scorer
        from styledrop_cli.training.distributed import take_place

        number, of = take_place()
        base = load_base()
        if helps:
            with suppress(KeyboardInterrupt):  # the other one says so
                assist(base, folder, (number, of), lambda: over.exists() or os.getppid() != launcher, began)
            return
        name, grader = open_second_scorer(base, how.scorer)
        settings = replace(settings, steps=how.steps or base.training().steps)
    screen.warn_of_lines(base, {f"'{prompt}'": [prompt] for prompt in wanted or []})
    with ExitStack() as stack:
        stack.enter_context(alone_in(folder))
        if of > 1:
            stack.callback(_leave, over)
        watcher = stack.enter_context(Watcher(screen))
        if start is None:
            assert style is not None
            first = base.training(steps=settings.steps, seed=seed)
            about: dict[str, Any] = {"style": style, "contents": content, "settings": first, "fresh": fresh}
            start = first_round(base, pictures, **about, folder=folder, watcher=watcher)
        if "human" in names:
            watcher.gallery = stack.enter_context(gallery_of(base, start, folder))
        result = iterate(
            base,
            start,
            folder=folder,
            settings=settings,
            pickers=pickers_of(names, how.picks, watcher, seed),
            watcher=watcher,
            grader=grader,
            prompts=wanted,
            last=how.last,
            fresh=fresh,
            share=(number, of),
        )
        watcher.over(result)
    screen.result(
        {"adapter": result.path, "best": result.best, "rounds": result.table, "scorer": name},
        [result.path] if screen.quiet else _table(result, name),
    )
    say_how_to_draw(screen, result.path, model)


def _leave(over: Path) -> None:
    """Tell the processes that helped to draw that there is nothing left to do."""
    over.parent.mkdir(parents=True, exist_ok=True)
    over.touch()


def _feedback(text: str, picks: list[Path] | None, rounds: int) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in FEEDBACK]:
        raise UsageError(f"--feedback knows no '{unknown[0]}'", f"choose among {', '.join(FEEDBACK)}")
    if picks and len(picks) != rounds:
        raise UsageError(f"{len(picks)} --picks for {rounds} rounds", "name one file for each round")
    if picks and text != "clip":
        raise UsageError("--picks and --feedback both say who picks", "leave one of them out")
    return [] if picks else names


def _start(files: list[Path], style: str | None, content: list[str] | None) -> tuple[Path | None, list[Path]]:
    """The adapter to improve, or the pictures to train one from."""
    if files and files[0].suffix != checks.ADAPTER:
        if style is None:
            raise UsageError("reference pictures need a style", 'describe it in a few words: --style "watercolor"')
        return None, files
    if style is not None or content:
        raise UsageError(
            "an adapter has its own style and contents", "leave out --style and --content, or give pictures"
        )
    if len(files) > 1:
        raise UsageError(f"{len(files)} files, and one adapter is improved at a time", "name one adapter, or pictures")
    return (files[0] if files else _newest(Path())), []


def _newest(folder: Path) -> Path:
    """The newest adapter of a style in ``folder`` that `train` made: what a round made is never meant."""
    from styledrop_cli.adapters.header import read_header

    found = []
    for path in folder.glob(f"*{checks.ADAPTER}"):
        try:
            header = read_header(path)
        except ModelError:
            continue
        if header.number == 1 and not header.is_object:
            found.append((path.stat().st_mtime, path))
    if not found:
        raise UsageError(
            "there is no adapter in this folder to improve",
            'train one first: styledrop train ref.png --style "watercolor"',
        )
    return max(found)[1]


def _table(result: Result, scorer: str) -> Table:
    table = Table(box=None, title_justify="left", title=f"by {scorer}, on prompts that no picture was picked for")
    for name in ("round", *SCORES, "seen", "way", "", ""):
        table.add_column(name, justify="left" if not name else "right")
    for row in result.table:
        numbers: list[Any] = [f"{row[name]:.3f}" for name in SCORES]
        best = row["round"] == result.best
        table.add_row(
            str(row["round"]) if row["round"] else "base",
            *numbers,
            *("" if row[name] is None else f"{round(100 * row[name])}%" for name in ("seen", "way")),
            str(row["verdict"]),
            f"{result.path}" if best else "",
            style="bold" if best else "",
        )
    return table
