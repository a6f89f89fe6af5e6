"""What a person sees: remarks, progress, results and errors, and the exit code.

The result of a command (paths, a table, or JSON) goes to standard output, everything else to
standard error, so that every command can stand in a pipe.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
import unicodedata
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from functools import partial
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
from typer.core import TyperCommand

from styledrop_cli.errors import StyledropError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from styledrop_cli.base import Base

TRACEBACK = "STYLEDROP_TRACEBACK"
WARNING = "Warning: "
LONGEST_FILE = 1_000_000  # bytes of a file of prompts
LONGEST_MESSAGE = 2_000  # characters: what a message quotes may be as long as a file
# A terminal takes control characters for commands, and cannot show half a character: marks stand in their place.
SHOWN = {
    code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0), *range(0xD800, 0xE000)) if chr(code) not in "\n\t"
}
ESCAPED = {code: f"\\u{code:04x}" for code in SHOWN}  # the same in JSON, where they are still what they were
INTERRUPTED = 130  # what shells expect of a program stopped by Ctrl-C


# ---- options that most commands share -----------------------------------------------------------


class DeviceName(StrEnum):
    """What `--device` accepts."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


common = partial(typer.Option, rich_help_panel="Options of every command")
flag = partial(typer.Option, metavar="")  # a yes-or-no option needs no <bool> beside it in the help

Device = Annotated[DeviceName, common(help="Where to compute; auto takes the best there is.")]
Quiet = Annotated[bool, common("--quiet", "-q", metavar="", help="Say only what was written, and warnings.")]
Json = Annotated[bool, common("--json", metavar="", help="Print the result as JSON, for scripts.")]
model_option = partial(
    common,
    metavar="NAME|FOLDER",
    help="The base model: pocket, which is bundled, amused-256, amused-512, a folder, or owner/name on the hub.",
)
Model = Annotated[str, model_option()]
OwnModel = Annotated[str | None, model_option(show_default="the adapter's own, or pocket")]


class Command(TyperCommand):
    """A command whose usage line reads as it is typed: what it takes, then its options."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The pieces behind the command's name."""
        arguments = (one for one in self.params if one.param_type_name == "argument")
        return [*(one.metavar or one.name.upper() for one in arguments), "[OPTIONS]"]


def given(**options: Any) -> dict[str, Any]:
    """The options that were given, so that settings keep their own defaults for the others."""
    return {name: value for name, value in options.items() if value is not None}


def refuse_existing(output: Path, overwrite: bool = False) -> None:
    """Refuse to write over what is there.

    Raises:
        UsageError: `output` is a folder, or exists and `overwrite` was not asked for.
    """
    if output.is_dir():
        raise UsageError(f"{output} is a folder", "name a file with -o")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} is already there", "choose another name with -o, or say --overwrite")


def refuse_unwritable(folder: Path, option: str = "-o") -> None:
    """Refuse a folder that `option` names if nothing can be written in it, without making it.

    Raises:
        UsageError: a file is in its place, or it may not be written to.
    """
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise UsageError(f"{there} is a file", f"name a folder with {option}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"the folder {there} may not be written to", f"choose another place with {option}")


def refuse_busy(folder: Path) -> None:
    """Refuse a folder that another process works in, before anything is loaded; nothing is made.

    Raises:
        UsageError: one does, and this process is not one that helps it.
    """
    if not helps():
        from styledrop_cli import runs

        runs.refuse_busy(folder)


def refuse_outside(**numbers: tuple[float | None, float, float]) -> None:
    """Refuse numbers outside their ranges, all of them at once: `option=(value, least, most)`.

    Raises:
        UsageError: one of them is less, more or no number at all.
    """
    if problems := outside(**numbers):
        raise UsageError("; ".join(problems))


def outside(**numbers: tuple[float | None, float, float]) -> list[str]:
    """What `refuse_outside` says of each number that is outside its range."""
    return [
        f"--{name.replace('_', '-')} must be between {least:,} and {most:,}, not {value}"
        for name, (value, least, most) in numbers.items()
        if value is not None and not least <= value <= most
    ]


def plain_text(text: str, what: str, hint: str) -> str:
    """`text` without control characters and with single blanks; `what` it is and a `hint` are for the error.

    Raises:
        UsageError: it holds no letter, digit or sign: it says nothing.
    """
    kept = "".join(" " if unicodedata.category(letter) in ("Cc", "Cs") else letter for letter in text)
    plain = " ".join(kept.split())
    if not any(letter.isalnum() or unicodedata.category(letter) == "So" for letter in plain):
        raise UsageError(f"{what} says nothing: '{plain[:40]}'" if plain else f"{what} is empty", hint)
    return plain


def checked_prompts(prompts: Sequence[str], command: str) -> list[str]:
    """What to draw, as plain texts; `command` is what they were given to, as it was typed, for the hint.

    Raises:
        UsageError: there are none, one says nothing, or they are the words of one that was not quoted.
    """
    if not prompts:
        raise UsageError("there is nothing to draw", f'add a prompt: {command} "a cat"')
    plain = [plain_text(prompt, "a prompt", 'say what to draw: "a cat"') for prompt in prompts]
    if any(prompt in ("a", "an", "the") for prompt in plain):
        raise UsageError(f"{len(plain)} prompts: {', '.join(plain)}", 'put each prompt in quotes: "a cat"')
    return plain


def prompts_in(path: Path) -> list[str]:
    """The prompts in a file, a line each, each once; empty lines and those that begin with # are left out.

    Raises:
        UsageError: it cannot be read, holds none, or a line says nothing.
    """
    try:
        with path.open("rb") as file:  # it may be a pipe
            data = file.read(LONGEST_FILE + 1)
        if len(data) > LONGEST_FILE:
            raise UsageError(f"{path} is too large for a list of prompts", "give a text file, a prompt a line")
        lines = data.decode().splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the prompts in {path} cannot be read: {error}", "give a text file, a prompt a line"
        ) from None
    what = "say in each line what to draw: a cat"
    said = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    prompts = list(dict.fromkeys(plain_text(line, f"a prompt in {path}", what) for line in said))
    if not prompts:
        raise UsageError(f"{path} holds no prompts", what)
    return prompts


def checked_style(style: str | None) -> str | None:
    """What `--style` says instead of an adapter's own style, as a plain text; empty to drop it, None if not given.

    Raises:
        UsageError: it says nothing.
    """
    if not style or not style.strip():
        return style
    return plain_text(style, "--style", 'describe the style in a few words, or drop it with --style ""')


def checked_references(
    pictures: Sequence[Path], style: str, content: Sequence[str] | None
) -> tuple[str, list[str] | None]:
    """The style and the contents as plain texts, once all is found that can be wrong with references by themselves.

    Raises:
        UsageError: a text says nothing, or there are not as many contents as pictures.
        PictureError: a picture cannot be read.
    """
    from styledrop_cli.images import load_picture

    style = plain_text(style, "--style", 'describe the style in a few words: "watercolor"')
    what = 'say what the picture shows: "a cat"'
    content = [plain_text(text, "a --content", what) for text in content] if content else None
    if content and len(content) != len(pictures):
        raise UsageError(
            f"pictures: {len(pictures)}, --content texts: {len(content)}",
            "give one --content for each picture, in their order, or none",
        )
    for picture in pictures:
        load_picture(picture)
    return style, content


# ---- what a command says ------------------------------------------------------------------------


def helps() -> bool:
    """Whether this process works for the one that the person sees, which speaks for both (`accelerate launch`)."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 and int(os.environ.get("RANK", 0)) > 0


class Plain(Console):
    """A terminal that no file's words can command."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The pieces of `renderable`, what is text in them made harmless."""
        for piece in super().render(renderable, options):
            yield piece if piece.control else Segment(piece.text.translate(SHOWN), piece.style)


class Screen:
    """One command's way to speak: `say`, `warn`, `progress`, and at the end `result`. Who only `helps` is mute."""

    def __init__(self, quiet: bool = False, as_json: bool = False) -> None:
        self.mute = helps()
        self.quiet = quiet or self.mute
        self.as_json = as_json
        self.err = Plain(stderr=True, highlight=False)
        self.out = Plain(highlight=False)

    def say(self, message: str, style: str = "") -> None:
        """A remark in passing, silent with --quiet; one that begins with `Warning: ` is a warning."""
        warning = message.removeprefix(WARNING)
        if warning != message:
            self.warn(warning)
        elif not self.quiet:
            _print(self.err, Text(message, style))

    def warn(self, message: str) -> None:
        """Something that may spoil the result; shown in any case."""
        if self.mute:
            return
        _print(self.err, Text.assemble((WARNING, "bold yellow"), message))

    def warn_of_unknown(self, base: Base, texts: Sequence[str], learnt: str = "") -> None:
        """A warning where `base` was not taught a word of what it is to draw, and none `learnt` it since."""
        from styledrop_cli.text import quoted, words

        known = set(words(learnt))
        if unknown := [word for word in base.unknown_words(" ".join(texts)) if word not in known]:
            self.warn(f"{base.name} does not know {quoted(unknown)}; it may draw something else")

    def result(self, data: Mapping[str, Any], shown: RenderableType | Sequence[Path | str] = ()) -> None:
        """The outcome: `data` with --json, otherwise `shown` (a table, or paths one per line)."""
        if self.mute:
            return
        if self.as_json:
            typer.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str).translate(ESCAPED))
        elif isinstance(shown, Sequence) and not isinstance(shown, str):
            for line in shown:
                typer.echo(str(line))
        else:
            self.out.print(shown)

    @contextmanager
    def working(self, what: str) -> Iterator[None]:
        """A spinner beside `what` while something without steps goes on."""
        if self.quiet or not self.err.is_terminal:
            yield
            return
        with self.err.status(Text(what, "dim")):
            yield

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[float, str], None]]:
        """A bar with the time left, moved by calling what it yields: `(share done in [0, 1], note)`.

        Where nobody watches (a log file), a line at each tenth of the way instead.
        """
        with self.drawing(what) as (move, _):
            yield move

    @contextmanager
    def drawing(self, what: str) -> Iterator[tuple[Callable[[float, str], None], Callable[[Image], None]]]:
        """As `progress`; what it yields second shows a picture, where the terminal can: the newest ones in a row."""
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
            shown = -1

            def line(share: float, note: str) -> None:
                nonlocal shown
                if (tenth := int(share * 10 + 1e-6)) > shown:
                    shown = tenth
                    self.say(f"{what}: {note}")

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


def file_size(size: int) -> str:
    """`size` bytes in words: '820 bytes', '98 kB', '3.4 MB', '1.8 GB'."""
    if size < 1000:
        return f"{size} bytes"
    if size < 1_000_000:
        return f"{size / 1000:.0f} kB"
    return f"{size / 1_000_000:.1f} MB" if size < 1_000_000_000 else f"{size / 1_000_000_000:.1f} GB"


def located(screen: Screen, model: str | None, adapter: Path | None = None) -> str:
    """What `--model` names as a folder, fetched from the hub if need be; pocket stays pocket.

    Without a name it is the one that `adapter` was trained on, if that is a published one, or else pocket: a file from
    anywhere does not choose what is fetched.

    Raises:
        ModelError: there is no such model, or no such adapter.
        StyledropError: it cannot be fetched.
    """
    if model is None and adapter is not None:
        from styledrop_cli.checkpoints import read_header
        from styledrop_cli.hub import PUBLISHED

        own = str(read_header(adapter)["base"].get("name"))
        model = own if own in PUBLISHED else None
    model = model or "pocket"
    if model == "pocket":
        return model
    from styledrop_cli import hub

    if folder := hub.find(model):
        return str(folder)
    with screen.progress(f"fetching {model}") as move:
        return str(hub.locate(model, move, screen.say))


def _print(console: Console, text: Text) -> None:
    """Wrap at words for a person's terminal; leave lines whole in a pipe or a log."""
    console.print(text, soft_wrap=not console.is_terminal)


def in_blocks(picture: Image, columns: int = 24) -> Text:
    """A picture made of half blocks, two pixels in each character, square, for a terminal with all colours."""
    raw = picture.convert("RGB").resize((columns, columns)).tobytes()
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

    The one place that prints errors. STYLEDROP_TRACEBACK=1 shows where any of them came from.
    """
    helper = os.environ["RANK"] if helps() else ""
    with warnings.catch_warnings():
        if not os.environ.get(TRACEBACK):
            warnings.simplefilter("ignore")  # Libraries' remarks to programmers.
        try:
            code = app(arguments, prog_name="styledrop", standalone_mode=False)
            code = code if isinstance(code, int) else 0
        except (KeyboardInterrupt, typer.Abort):
            code = INTERRUPTED
        except BrokenPipeError:  # `styledrop ... | head`: nobody listens any more, which is fine.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
        except Exception as error:
            if os.environ.get(TRACEBACK):
                traceback.print_exc()
            message, hint, code = _explain(error)
            _show_error(message, hint, f"Error in process {helper}: " if helper else "Error: ")
    if code == INTERRUPTED and not helper:
        _show_error("stopped", None, label="")
    return code


def _explain(error: Exception) -> tuple[str, str | None, int]:
    """What to say about `error`, and the exit code it stands for."""
    if isinstance(error, StyledropError):
        return error.message, error.hint, error.exit_code
    if hasattr(error, "format_message"):  # Typer's own: an unknown option, a missing argument.
        context = getattr(error, "ctx", None)
        hint = f"{context.command_path} --help shows how it is used" if context else None
        return _lower_first(error.format_message()), hint, getattr(error, "exit_code", 2)
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
