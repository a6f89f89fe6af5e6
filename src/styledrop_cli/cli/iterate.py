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

from styledrop_cli.adapters import library
from styledrop_cli.cli import checks, console, load, options, plan
from styledrop_cli.cli.options import by_base, flag, option
from styledrop_cli.cli.picking import Watcher, gallery_of, pickers_of
from styledrop_cli.cli.plan import DryRun
from styledrop_cli.cli.recipe import Recipe
from styledrop_cli.cli.train import asked_contents, say_how_to_draw
from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.io.run_names import ROUNDS
from styledrop_cli.settings import RoundSettings

if TYPE_CHECKING:
    from styledrop_cli.base.base import Base
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
    liked: Annotated[
        list[Path] | None,
        option(
            "A picture that you like, as generate wrote it: learn from these, and draw none to pick from. Repeat it "
            "for each.",
            metavar="PICTURE",
        ),
    ] = None
    steps: Annotated[int | None, option(shown=by_base("steps"))] = None
    last: Annotated[bool, flag("Keep the last round instead of the best.", "--last")] = False
    scorer: options.SecondScorer = None


def iterate(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ADAPTER|PICTURE[:WEIGHT]...]",
            help="The adapter to improve, a file or a saved style, or reference pictures to train one from first, with "
            "weights as for train. If not given, the newest adapter in this folder is improved.",
            show_default=False,
            autocompletion=options.files_like,
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
        option("With reference pictures: what each shows. If not given, you are asked in a terminal."),
    ] = None,
    output: Annotated[
        Path | None,
        options.output(
            "FOLDER",
            "The folder for the rounds and best.safetensors.",
            shown="the name of the adapter, or of the first picture, with .rounds",
        ),
    ] = None,
    save_as: options.SaveAs = None,
    overwrite: Annotated[bool, flag("Replace the style that --save-as names, if there is one.", "--overwrite")] = False,
    how: Rounds,
    fresh: Annotated[bool, flag("Start over, instead of continuing the rounds in the folder.", "--fresh")] = False,
    dry_run: DryRun = False,
    model: options.Model = "pocket",
    seed: Annotated[int, options.common("The same seed draws and trains the same.")] = DEFAULT.seed,
    device: options.Device = "auto",
    recipe: Recipe,
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
      styledrop iterate adapter.safetensors -o liked.rounds \
          --liked styledrop-out/a-cat-1.png --liked styledrop-out/a-dog-3.png
      styledrop iterate ref.png --style "watercolor" --feedback clip,human --rounds 3
    """
    began, launcher, helps = time.time(), os.getppid(), console.helps()
    settings = RoundSettings(
        rounds=rounds, per_prompt=how.per_prompt, keep=how.keep or 0, seed=seed, **options.given(steps=how.steps)
    )
    checks.refuse_outside(keep=(how.keep, *how.RANGES["keep"]))
    names = _feedback(feedback, how.picks, rounds)
    if how.liked:
        _refuse_beside_liked(how, rounds, feedback, files or [])
    start, weighted = _start(files or [], style, content)
    pictures, weights = load.read_weighted(weighted, "weight", "picture")
    pictures, weights, content = checks.references_in(pictures, weights, style or "", content, screen.say)
    if style is not None:
        style, content = checks.checked_references(pictures, style, content)
    folder = output or (
        library.beside(start, f"{start.stem}{ROUNDS}") if start else Path(f"{pictures[0].stem}{ROUNDS}")
    )
    if save_as is not None:
        checks.refuse_name(save_as, overwrite)
    elif overwrite:
        raise UsageError("--overwrite replaces the style that --save-as names, and none is named", "leave it out")
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
    if dry_run:
        _show_plan(screen, base, settings, start, wanted, len(pictures), folder, bool(how.liked))
        return
    with ExitStack() as stack:
        stack.enter_context(alone_in(folder))
        stack.enter_context(recipe.kept_in(folder))
        if of > 1:
            stack.callback(_leave, over)
        watcher = stack.enter_context(Watcher(screen))
        if start is None:
            assert style is not None
            if of == 1 and not (folder / "round-1" / "adapter.safetensors").exists():
                content = asked_contents(screen, base, pictures, content)
            first = base.training(steps=settings.steps, seed=seed)
            about: dict[str, Any] = {"style": style, "contents": content, "settings": first, "fresh": fresh}
            about["weights"] = weights
            start = first_round(base, pictures, **about, folder=folder, watcher=watcher)
        if "human" in names:
            watcher.gallery = stack.enter_context(gallery_of(base, start, folder, pictures))
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
            liked=how.liked or (),
        )
        watcher.over(result)
    _show_result(screen, result, name, model, save_as, overwrite)


def _show_result(
    screen: console.Screen, result: Result, name: str, model: str, save_as: str | None, overwrite: bool
) -> None:
    """Keep the best adapter in the library, if that was asked for, and show how the rounds compare by `name`."""
    kept = load.keep(screen, result.path, save_as, overwrite)
    screen.result(
        {
            "adapter": result.path,
            "saved_as": save_as if kept else None,
            "best": result.best,
            "rounds": result.table,
            "scorer": name,
            "verdict": result.verdict,
        },
        [result.path] if screen.quiet else _table(result, name),
    )
    screen.say(result.verdict, "bold")
    say_how_to_draw(screen, (kept and save_as) or result.path, model)
    if not kept:
        raise typer.Exit(1)


def _show_plan(
    screen: console.Screen,
    base: Base,
    settings: RoundSettings,
    start: Path | None,
    prompts: list[str] | None,
    pictures: int,
    folder: Path,
    liked: bool,
) -> None:
    """Tell how long all rounds take. Whoever picks takes time of their own, which nobody knows."""
    from styledrop_cli.adapters.header import load_adapter
    from styledrop_cli.feedback.rounds import BEST, pictures_drawn
    from styledrop_cli.generation.foresight import seconds_each
    from styledrop_cli.generation.pipeline import PictureRequest, StyleMix
    from styledrop_cli.judging.prompts import pool_prompts
    from styledrop_cli.training.adapter import foresee

    file = load_adapter(start) if start else None
    shown = prompts or pool_prompts(base, file.header.contents if file else [])
    drawn = pictures_drawn(base, settings, shown, liked)
    request = PictureRequest(shown[0], 0, base.sampling(**(file.header.recommended if file else {})))
    with screen.working("timing a few steps"):
        seconds = drawn * seconds_each(base, StyleMix.of(file), request)
        training = base.training(steps=settings.steps)
        seconds += settings.rounds * foresee(base, replace(training, checkpoints=0), 1)
        seconds += foresee(base, training, pictures) if pictures else 0.0
    said = {
        "base": base.name,
        "from": str(start) if start else f"an adapter that is trained on {pictures} pictures first",
        "rounds": "1, from the pictures that you like"
        if liked
        else f"{settings.rounds}, each with {settings.per_prompt} pictures of {len(shown)} prompts to pick from",
        "pictures": f"{drawn:,} to draw in all",
        "trains": f"{settings.steps} steps each round",
    }
    plan.show(screen, said, seconds, [folder, folder / BEST])


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


def _refuse_beside_liked(how: Rounds, rounds: int, feedback: str, files: list[str]) -> None:
    """Raise UsageError for what says otherwise than --liked where pictures come from, and for no adapter."""
    if not files or not library.names_adapter(files[0]):
        raise UsageError("--liked improves an adapter, and none is named", "name the one that drew the pictures")
    defaults = {"--rounds": rounds != DEFAULT.rounds, "--feedback": feedback != "clip"}
    given = {"--picks": how.picks, "--prompts": how.prompts, "--keep": how.keep} | defaults
    if others := [name for name, value in given.items() if value]:
        raise UsageError(f"--liked and {others[0]} both say what is learnt from", "leave one of them out")


def _start(files: list[str], style: str | None, content: list[str] | None) -> tuple[Path | None, list[str]]:
    """The adapter to improve, or the pictures to train one from, as they were written."""
    if files and not library.names_adapter(files[0]):
        if style is None:
            if not any(Path(one).exists() for one in (files[0], files[0].rpartition(":")[0]) if one):
                library.find(files[0])  # a style that is not there, or a picture
            raise UsageError("reference pictures need a style", 'describe it in a few words: --style "watercolor"')
        return None, files
    if style is not None or content:
        raise UsageError(
            "an adapter has its own style and contents", "leave out --style and --content, or give pictures"
        )
    if len(files) > 1:
        raise UsageError(f"{len(files)} files, and one adapter is improved at a time", "name one adapter, or pictures")
    return (library.find(files[0]) if files else _newest(Path())), []


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
            'train one first: styledrop train ref.png --style "watercolor" --content "a bird"',
        )
    return max(found)[1]


def _table(result: Result, scorer: str) -> Table:
    from styledrop_cli.feedback.outcome import called

    table = Table(box=None, title_justify="left", title=f"by {scorer}, on prompts that no picture was picked for")
    for name in ("", *SCORES, "seen", "way", "", ""):
        table.add_column(name, justify="left" if not name else "right")
    for row in result.table:
        # Without a style of its own the base has the highest total of all: that is nothing to be compared by.
        numbers: list[Any] = [f"{row[name]:.3f}" if row["round"] or name != "total" else "" for name in SCORES]
        best = row["round"] == result.best
        table.add_row(
            called(row["round"]),
            *numbers,
            *("" if row[name] is None else f"{round(100 * row[name])}%" for name in ("seen", "way")),
            str(row["verdict"]),
            "kept" if best else "",
            style="bold" if best else "",
        )
    return table
