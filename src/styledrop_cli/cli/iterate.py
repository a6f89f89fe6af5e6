"""`styledrop iterate`: rounds of feedback, picked by CLIP or by a person."""

from __future__ import annotations

import os
import shlex
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from styledrop_cli.base.registry import AMUSED
from styledrop_cli.cli import checks, console, options
from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.settings import RoundSettings

if TYPE_CHECKING:
    from styledrop_cli.feedback.page import Gallery
    from styledrop_cli.feedback.pickers import Picker
    from styledrop_cli.feedback.rounds import Result

DEFAULT = RoundSettings()
FEEDBACK = ("clip", "human", "terminal", "random")
SCORES = ("object", "shape", "style", "leak", "total")
rounds_option = partial(typer.Option, rich_help_panel="The rounds")


def iterate(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[ADAPTER|PICTURE...]",
            help="The adapter to go on from, or reference pictures to train one from first. Left out, it is the newest "
            "adapter in this folder.",
            show_default=False,
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(help="How many rounds of feedback to add.")] = DEFAULT.rounds,
    feedback: Annotated[
        str,
        typer.Option(
            metavar="WHO",
            help="Who picks: clip; human, on a page in the browser; terminal, a person without one; random, the "
            "control. One for each round with commas, the last for all that follow.",
        ),
    ] = "clip",
    style: Annotated[str | None, typer.Option(help="Given pictures: their style in a few words.")] = None,
    content: Annotated[
        list[str] | None, typer.Option(help="Given pictures: what each shows; left out, it is guessed and said aloud.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Where the rounds go, and best.safetensors.",
            show_default="the name of the adapter, or of the first picture, with .rounds",
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        rounds_option(metavar="FILE", help="What to draw, a prompt a line.", show_default="30 everyday things"),
    ] = None,
    per_prompt: Annotated[int, rounds_option(help="Pictures of each prompt to pick from.")] = DEFAULT.per_prompt,
    keep: Annotated[
        int | None, rounds_option(help="How many to learn from.", show_default="one of each prompt")
    ] = None,
    picks: Annotated[
        list[Path] | None,
        rounds_option(metavar="FILE", help="Pick the pictures with these numbers instead; repeat it for each round."),
    ] = None,
    steps: Annotated[
        int | None,
        rounds_option(
            help="Training steps of a round.",
            show_default=f"{DEFAULT.steps}; {AMUSED.training['steps']} for a published base",
        ),
    ] = None,
    last: Annotated[
        bool, options.flag("--last", help="Take the last round, not the best.", rich_help_panel="The rounds")
    ] = False,
    scorer: Annotated[
        str | None,
        rounds_option(
            help="Who compares the rounds: clip, scorer, or a model of open_clip's as in ViT-B-16/openai.",
            show_default="scorer, the bundled second CLIP",
        ),
    ] = None,
    fresh: Annotated[
        bool, options.flag("--fresh", help="Start over where rounds in FOLDER would be gone on with.")
    ] = False,
    model: options.Model = "pocket",
    seed: Annotated[int, options.common(help="The same seed draws and learns the same.")] = DEFAULT.seed,
    device: options.Device = options.DeviceName.auto,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    r"""Make an adapter better by feedback: draw, pick the best, train again.

    Each round draws a pool with the adapter in hand, keeps the best by CLIP or
    lets you pick, and trains a new adapter on the picks and the reference. At
    the end the rounds are compared on prompts that nothing was picked from,
    and the best becomes FOLDER/best.safetensors. The adapter in hand stays as
    it is. Stopped at any time, the same command goes on.

      styledrop iterate --rounds 2
      styledrop iterate adapter.safetensors --feedback human
      styledrop iterate ref.png --style "watercolor" --feedback clip,human --rounds 3
    """
    began, launcher = time.time(), os.getppid()
    helps = console.helps()
    screen = console.Screen(quiet, as_json)
    settings = RoundSettings(
        rounds=rounds, per_prompt=per_prompt, keep=keep or 0, seed=seed, **options.given(steps=steps)
    )
    checks.refuse_outside(keep=(keep, 1, RoundSettings.RANGES["keep"][1]))
    names = _feedback(feedback, picks, rounds)
    start, pictures = _start(files or [], style, content)
    if style is not None:
        style, content = checks.checked_references(pictures, style, content)
    folder = output or (start.with_suffix(".rounds") if start else Path(f"{pictures[0].stem}.rounds"))
    checks.refuse_unwritable(folder)
    checks.refuse_busy(folder)
    wanted = checks.prompts_in(prompts) if prompts else None
    over = folder / f".over-{launcher}"
    if not helps:
        for left in folder.glob(".over-*"):
            left.unlink(missing_ok=True)
    base_folder = options.located(screen, model)
    with screen.working("waking up the base model"):
        from styledrop_cli.base.base import load_base
        from styledrop_cli.devices import pick_device
        from styledrop_cli.feedback.rounds import assist, first_round, iterate, reference_pictures
        from styledrop_cli.io.run_folder import alone_in
        from styledrop_cli.io.tensors import read_header
        from styledrop_cli.judging.clip_scorer import open_second_scorer
        from styledrop_cli.training.distributed import take_place

        number, of = take_place()
        base = load_base(base_folder, pick_device(device))
        if helps:
            with suppress(KeyboardInterrupt):  # the other one says so
                assist(base, folder, (number, of), lambda: over.exists() or os.getppid() != launcher, began)
            return
        name, grader = open_second_scorer(base, scorer)
        settings = replace(settings, steps=steps or base.training().steps)
    screen.warn_of_unknown(base, wanted or [])
    with ExitStack() as stack:
        stack.enter_context(alone_in(folder))
        if of > 1:
            stack.callback(_leave, over)
        watcher = stack.enter_context(_Watcher(screen))
        if start is None:
            assert style is not None
            start = first_round(
                base,
                pictures,
                style=style,
                contents=content,
                settings=base.training(steps=settings.steps, seed=seed),
                folder=folder,
                watcher=watcher,
                fresh=fresh,
            )
        if "human" in names:
            from styledrop_cli.feedback.page import Gallery

            shown, title = reference_pictures(base, start), read_header(start)["style"]
            watcher.gallery = stack.enter_context(Gallery(folder, shown, title))
        pickers = _pickers(names, picks, watcher, seed)
        result = iterate(
            base,
            start,
            folder=folder,
            settings=settings,
            pickers=pickers,
            watcher=watcher,
            grader=grader,
            prompts=wanted,
            last=last,
            fresh=fresh,
            share=(number, of),
        )
        watcher.over(result)
    screen.result(
        {"adapter": result.path, "best": result.best, "rounds": result.table, "scorer": name},
        [result.path] if quiet else _table(result, name),
    )
    base_option = "" if model == "pocket" else f" --model {shlex.quote(model)}"
    screen.say(f'draw with it:  styledrop generate {shlex.quote(str(result.path))} "a cat"{base_option}', "dim")


class _Watcher:
    """Tells the terminal how it goes on, and the page, where there is one."""

    def __init__(self, screen: console.Screen) -> None:
        self.screen = screen
        self.gallery: Gallery | None = None
        self._steps = console.Steps(screen)

    def __enter__(self) -> _Watcher:
        return self

    def __exit__(self, *about: object) -> None:
        self._steps.close()

    def say(self, message: str) -> None:
        self.screen.say(message)

    def drawing(self, what: str, share: float, note: str) -> None:
        self._steps.show(what, share, note)
        if self.gallery is not None:
            self.gallery.drawing(share, f"{what}: {note}")

    def learning(self, share: float, note: str) -> None:
        self._steps.show("learning", share, note)
        if self.gallery is not None:
            self.gallery.training(share, note)

    def round_done(self, number: int, sheet: Path, planned: bool) -> bool:
        self._steps.close()
        self.say(f"round {number} is done: {sheet}")
        if self.gallery is None:
            return planned
        return self.gallery.another(sheet.read_bytes(), f"Round {number} has been learnt.", planned)

    def over(self, result: Result) -> None:
        """The page's last words."""
        if self.gallery is not None:
            self.gallery.over(f"Round {result.best} is best. It was written to {result.path}.")


def _leave(over: Path) -> None:
    """Tell the processes that helped to draw that there is nothing left to do."""
    over.parent.mkdir(parents=True, exist_ok=True)
    over.touch()


def _feedback(text: str, picks: list[Path] | None, rounds: int) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in FEEDBACK]:
        raise UsageError(f"nobody is called '{unknown[0]}' who could pick", f"choose among {', '.join(FEEDBACK)}")
    if picks and len(picks) != rounds:
        raise UsageError(f"{len(picks)} --picks for {rounds} rounds", "name a file of numbers for each round")
    if picks and text != "clip":
        raise UsageError("--picks and --feedback both say who picks", "leave one of them out")
    return [] if picks else names


def _pickers(names: list[str], picks: list[Path] | None, watcher: _Watcher, seed: int) -> list[Picker]:
    from styledrop_cli.cli.picking import FilePicker, PagePicker, TerminalPicker
    from styledrop_cli.feedback.pickers import BestPicker, RandomPicker

    made: list[Picker] = [FilePicker(path) for path in picks or []]
    for name in names:
        if name == "human":
            assert watcher.gallery is not None
            made.append(PagePicker(watcher.gallery, watcher.screen))
        elif name == "terminal":
            made.append(TerminalPicker(watcher.screen))
        else:
            made.append(BestPicker() if name == "clip" else RandomPicker(seed))
    return made


def _start(files: list[Path], style: str | None, content: list[str] | None) -> tuple[Path | None, list[Path]]:
    """The adapter to go on from, or the pictures to begin with."""
    if files and files[0].suffix != ".safetensors":
        if style is None:
            raise UsageError("reference pictures need a style", 'describe it in a few words: --style "watercolor"')
        return None, files
    if style is not None or content:
        raise UsageError(
            "an adapter has its own style and contents", "leave out --style and --content, or give pictures"
        )
    if len(files) > 1:
        raise UsageError(f"{len(files)} files where one adapter is gone on from", "name one adapter, or pictures")
    return (files[0] if files else _newest(Path())), []


def _newest(folder: Path) -> Path:
    """The newest adapter of a style in ``folder`` that `train` made: what a round made is never meant."""
    from styledrop_cli.io.tensors import is_object, read_header

    found = []
    for path in folder.glob("*.safetensors"):
        try:
            header = read_header(path)
        except ModelError:
            continue
        if header.get("round", 1) == 1 and not is_object(header):
            found.append((path.stat().st_mtime, path))
    if not found:
        raise UsageError(
            "there is no adapter in this folder to go on from",
            'train one first: styledrop train ref.png --style "watercolor"',
        )
    return max(found)[1]


def _table(result: Result, scorer: str) -> Table:
    table = Table(box=None, title_justify="left", title=f"by {scorer}, on prompts that nothing was picked from")
    for name in ("round", *SCORES, ""):
        table.add_column(name, justify="left" if not name else "right")
    for row in result.table:
        numbers: list[Any] = [f"{row[name]:.3f}" for name in SCORES]
        best = row["round"] == result.best
        table.add_row(
            str(row["round"]) if row["round"] else "base",
            *numbers,
            f"{result.path}" if best else "",
            style="bold" if best else "",
        )
    return table
