"""What a person sees: remarks, progress, results and errors, and the exit code.

The result of a command (paths, a table, or JSON) goes to standard output, everything else to
standard error, so that every command can stand in a pipe.
"""

from __future__ import annotations

import errno
import json
import sys
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from styledrop_cli.cli.events import tell, told_of
from styledrop_cli.cli.hints import explain
from styledrop_cli.environment import is_on, launched
from styledrop_cli.errors import INTERRUPTED, StyledropError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from styledrop_cli.base.base import Base

COMMON = "Common options"  # the panel of the help in which every command has them
common = partial(typer.Option, rich_help_panel=COMMON, metavar="")
TRACEBACK = "STYLEDROP_TRACEBACK"
WARNING = "Warning: "
EVERY = 60.0  # seconds: so often a log file is told how far the work is
FORESEEN = 5.0  # seconds of work after which a log file is told how much time is left
LINES = 10  # of a list: how many are warned of one by one
LONGEST_MESSAGE = 2_000  # characters: what a message quotes may be as long as a file
# A terminal takes control characters for commands, and cannot show half a character: marks stand in their place.
SHOWN = {
    code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0), *range(0xD800, 0xE000)) if chr(code) not in "\n\t"
}
ESCAPED = {code: f"\\u{code:04x}" for code in SHOWN}  # the same in JSON, where they are still what they were


# ---- what a command says ------------------------------------------------------------------------


def helps() -> bool:
    """Whether this process works for the one that the person sees, which speaks for both (`accelerate launch`)."""
    return place()[0] > 0


def place() -> tuple[int, int]:
    """The number of this process, and of how many. Nonsense is refused where work is shared, and is nothing here."""
    try:
        return launched()[:2]
    except UsageError:
        return 0, 1


class Plain(Console):
    """A terminal that no file's words can command."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The pieces of `renderable`, what is text in them made harmless."""
        for piece in super().render(renderable, options):
            yield piece if piece.control else Segment(piece.text.translate(SHOWN), piece.style)


@dataclass
class Screen:
    """One command's output: `say`, `warn`, `progress`, and at the end `result`.

    Of several processes that draw or train together only the first prints anything.
    """

    quiet: Annotated[bool, common("--quiet", "-q", help="Print only the files that were written, and warnings.")] = (
        False
    )
    as_json: Annotated[bool, common("--json", help="Print the result, or the error, as JSON, for scripts.")] = False

    def __post_init__(self) -> None:
        self.mute = helps()
        self.quiet = self.quiet or self.mute
        self.err = Plain(stderr=True, highlight=False)
        self.out = Plain(highlight=False)

    def say(self, message: str, style: str = "") -> None:
        """A remark in passing, silent with --quiet; one that begins with `Warning: ` is a warning."""
        warning = message.removeprefix(WARNING)
        if warning != message:
            self.warn(warning)
            return
        if not self.mute:
            tell(say=message)
        if not self.quiet:
            _print(self.err, Text(message, style))

    def warn(self, message: str) -> None:
        """Something that may spoil the result; shown in any case."""
        if self.mute:
            return
        tell(warn=message)
        _print(self.err, Text.assemble((WARNING, "bold yellow"), message))

    def ask(self, question: str) -> str:
        """What the person types, without blanks around it; nothing where nobody is there to be asked."""
        if self.quiet or self.as_json or not (self.err.is_terminal and sys.stdin and sys.stdin.isatty()):
            return ""
        self.err.print(Text(f"{question} ", "bold"), end="")
        try:
            return input().strip()
        except EOFError:
            return ""

    def warn_of_unknown(self, base: Base, texts: Sequence[str], learnt: str = "") -> None:
        """A warning where `base` was not taught a word of what it is to draw, and none `learnt` it since."""
        for remark in base.remarks(texts, learnt):
            self.warn(remark)

    def warn_of_lines(self, base: Base, lines: Mapping[str, Sequence[str]], learnt: str = "") -> None:
        """As `warn_of_unknown`, a warning for each of the lines of a list, by its place: the first `LINES` of them."""
        concerned = [(place, remarks) for place, texts in lines.items() if (remarks := base.remarks(texts, learnt))]
        for place, remarks in concerned[:LINES]:
            self.warn(f"{place}: {'; '.join(remarks)}")
        if more := concerned[LINES:]:
            self.warn(f"the same kind of thing in {len(more):,} more lines, the last of them {more[-1][0]}")

    def result(self, data: Mapping[str, Any], shown: RenderableType | Sequence[Path | str] = ()) -> None:
        """The outcome: `data` with --json, otherwise `shown` (a table, or paths one per line)."""
        if self.mute:
            return
        tell(result=data)
        if self.as_json:
            _print_json(data)
        elif isinstance(shown, Sequence) and not isinstance(shown, str):
            for line in shown:
                typer.echo(str(line))
        else:
            self.out.print(shown)

    @contextmanager
    def working(self, what: str) -> Iterator[None]:
        """A spinner beside `what` while something without steps goes on."""
        tell(what=what, share=None, note="", left=None)
        if self.quiet or not self.err.is_terminal:
            yield
            return
        with self.err.status(Text(what, "dim")):
            yield

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[float, str], None]]:
        """A bar with the time left, moved by calling what it yields: `(share done in [0, 1], note)`.

        Where nobody watches (a log file), a line with the time left at each tenth of the way instead, and at each
        minute.
        """
        with self.drawing(what) as (move, _):
            yield move

    @contextmanager
    def drawing(self, what: str) -> Iterator[tuple[Callable[[float, str], None], Callable[[Image], None]]]:
        """As `progress`; what it yields second shows a picture, where the terminal can: the newest ones in a row."""
        watched = told_of(what)
        with self._drawing(what) as (move, show):

            def both(share: float, note: str) -> None:
                if not self.mute:
                    watched(share, note)
                move(share, note)

            yield both, show

    @contextmanager
    def _drawing(self, what: str) -> Iterator[tuple[Callable[[float, str], None], Callable[[Image], None]]]:
        if self.quiet:
            yield lambda share, note: None, lambda picture: None
        elif self.err.is_terminal:
            bar = _Pictures(
                SpinnerColumn(finished_text="[green]✓[/]"),
                TextColumn("{task.description}"),
                BarColumn(bar_width=32, complete_style="magenta", finished_style="green"),
                TextColumn("{task.fields[note]}", style="cyan"),
                TextColumn("{task.fields[left]}", style="dim"),
                console=self.err,
            )
            with bar:
                task = bar.add_task(what, total=1.0, visible=False, note="", left="")

                def move(share: float, note: str) -> None:
                    bar.update(task, completed=share, note=note, visible=True)
                    bar.update(task, left=_time_left(bar.tasks[0].time_remaining, share < 1))

                yield move, bar.show if self.err.color_system == "truecolor" else lambda picture: None
        else:
            shown, first = -1, 0.0
            began = said = time.monotonic()

            def line(share: float, note: str) -> None:
                nonlocal shown, first, said
                tenth, now = int(share * 10 + 1e-6), time.monotonic()
                if shown < 0:
                    first = share
                if tenth > shown or now - said >= EVERY:
                    long = now - began >= FORESEEN and first < share < 1
                    left = f", {_time_left((now - began) * (1 - share) / (share - first), True)}" if long else ""
                    shown, said = tenth, now
                    _print(self.err, Text(f"{what}: {note}{left}"))

            yield line, lambda picture: None


class _Pictures(Progress):
    """A bar below the newest pictures, as many as stand in a row, made of half blocks."""

    SIDE = 16  # characters

    def __init__(self, *columns: ProgressColumn, console: Console) -> None:
        self._newest: deque[Text] = deque(maxlen=max(1, min(8, (console.width + 1) // (self.SIDE + 1))))
        super().__init__(*columns, console=console)

    def show(self, picture: Image) -> None:
        """Add a picture to the row; the oldest gives way."""
        self._newest.append(in_blocks(picture, self.SIDE))

    def get_renderables(self) -> Iterable[RenderableType]:
        if self._newest:
            row = Table.grid(padding=(0, 1))
            row.add_row(*self._newest)
            yield row
        yield from super().get_renderables()


class Steps:
    """The progress of work that goes through several steps, each with a bar of its own."""

    def __init__(self, screen: Screen) -> None:
        self._screen, self._stack, self._what = screen, ExitStack(), ""
        self._move: Callable[[float, str], None]

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, *about: object) -> None:
        self.close()

    def show(self, what: str, share: float, note: str) -> None:
        """How far the step called `what` is, a share in [0,1]; another name begins another step."""
        if what != self._what:
            self.close()
            self._what = what
            self._move = self._stack.enter_context(self._screen.progress(what))
        self._move(share, note)
        if share >= 1:
            self.close()

    def close(self) -> None:
        """The step that is shown is over."""
        self._stack.close()
        self._what = ""


def _time_left(seconds: float | None, unfinished: bool) -> str:
    return f"{duration(seconds)} left" if unfinished and seconds is not None else ""


def duration(seconds: float) -> str:
    """`seconds` in words: '8 s', '2 min 05 s', '1 h 10 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _print(console: Console, text: Text) -> None:
    """Wrap at words for a person's terminal; leave lines whole in a pipe or a log."""
    console.print(text, soft_wrap=not console.is_terminal)


def _print_json(data: Mapping[str, Any]) -> None:
    # Paths in it must stay what they are where the output has not all letters.
    whole = "utf" in (getattr(sys.stdout, "encoding", None) or "utf-8").lower()
    typer.echo(json.dumps(data, indent=2, ensure_ascii=not whole, default=str).translate(ESCAPED))


def in_blocks(picture: Image, columns: int = 24) -> Text:
    """A picture made of half blocks, two pixels in each character, square, for a terminal with all colours."""
    from styledrop_cli.io.images import checkered

    raw = checkered(picture).convert("RGB").resize((columns, columns)).tobytes()
    colours = [Color.from_rgb(*raw[at : at + 3]) for at in range(0, len(raw), 3)]
    text = Text()
    for top in range(0, len(colours), 2 * columns):
        for upper in range(top, top + columns):
            text.append("▀", Style(color=colours[upper], bgcolor=colours[upper + columns]))
        text.append("\n")
    return text


# ---- errors and the exit code -------------------------------------------------------------------


def run(app: typer.Typer, arguments: Sequence[str] | None = None) -> int:
    """Run `app` and return the exit code: 0, 1 failure, 2 usage, 130 stopped with Ctrl-C.

    The one place that prints errors: for people to standard error and, with --json, as an object to standard output.
    STYLEDROP_TRACEBACK=1 shows where any of them came from.
    """
    helper = f"{place()[0]}" if helps() else ""
    given = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in takewhile(lambda one: one != "--", given) and not helper  # also where a command is not read
    with warnings.catch_warnings():
        if not is_on(TRACEBACK):
            warnings.simplefilter("ignore")  # Libraries' remarks to programmers.
        try:
            code = app(arguments, prog_name="styledrop", standalone_mode=False)
            code = code if isinstance(code, int) else 0
            sys.stdout.flush()  # what cannot be written is found now, and not when nothing can be said of it any more
        except (KeyboardInterrupt, typer.Abort):
            code = INTERRUPTED
        except Exception as error:
            if is_on(TRACEBACK):
                traceback.print_exc()
            message, hint, code = _explain(error, given)
            tell(error=message, hint=hint)
            _show_error(message, hint, f"Error in process {helper}: " if helper else "Error: ")
            if as_json:
                _print_json_error(message, hint, code)
    if code == INTERRUPTED and not helper:
        _show_error("stopped", None, label="")
        if as_json:
            _print_json_error("stopped", None, code)
    return code


def _explain(error: Exception, given: Sequence[str]) -> tuple[str, str | None, int]:
    """What to say about `error`, and the exit code it stands for."""
    if isinstance(error, StyledropError):
        return error.message, error.hint, error.exit_code
    if hasattr(error, "format_message"):  # Typer's own: an unknown option, a missing argument.
        return *explain(error, _lower_first(error.format_message()), given), getattr(error, "exit_code", 2)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "there is not enough memory for this", "close other programs, or say --device cpu", 1
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"cannot use {error.filename}: {error.strerror[:1].lower()}{error.strerror[1:]}", None, 1
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):  # of the output, `> file`
        return "the disk is full", "make room on it", 1
    words = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    return f"something unexpected happened: {words}", f"{TRACEBACK}=1 in front shows where", 1


def _lower_first(message: str) -> str:
    message = message.replace(": Value error, ", ": ")
    return (message[:1].lower() + message[1:]).rstrip(".")


def _show_error(message: str, hint: str | None, label: str = "Error: ") -> None:
    console = Plain(stderr=True, highlight=False)
    message = message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]} ..."
    _print(console, Text.assemble((label, "bold red"), message))
    if hint:
        _print(console, Text.assemble(("Hint:  ", "bold cyan"), hint))


def _print_json_error(message: str, hint: str | None, code: int) -> None:
    with suppress(OSError):  # that nothing can be written may be what the error is about
        _print_json({"error": message, "hint": hint, "exit_code": code})
