"""`styledrop inspect`: what a file says of itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.filesize import decimal as file_size
from rich.table import Table
from rich.text import Text

from styledrop_cli.cli import console, options
from styledrop_cli.cli.options import flag
from styledrop_cli.errors import ModelError, StyledropError, UsageError

ADAPTER = b"\0\0\0\0{"  # at the fifth byte: a length below 4 GB, then JSON; its first bytes may look like a picture
SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
LONGEST = 160  # characters of a value that the table shows
MOST = 100  # entries of one list


def inspect(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="An adapter (a file, or a saved style), a picture drawn by generate, or the folder of a base model.",
            **options.of_any_file,
        ),
    ],
    *,
    reset: Annotated[
        bool,
        flag("Undo what styledrop sweep --save wrote into an adapter: it is again what its training wrote.", "--reset"),
    ] = False,
    screen: console.Screen,
) -> None:
    """Show what is in an adapter, a generated picture or a base model.

    A picture holds the settings that draw it again; an adapter holds its style,
    what it was trained on, and how. The content of the file decides what it is,
    not its name.

      styledrop inspect adapter.safetensors
      styledrop inspect styledrop-out/a-cat-1.png
      styledrop inspect adapter.safetensors --reset
    """
    if not file.exists():
        raise StyledropError(f"there is nothing at {file}", "check the spelling of the path")
    if not (file.is_dir() or file.is_file()):
        raise StyledropError(f"{file} is no ordinary file", "name a file, or a model's folder")
    if reset:
        _reset(file, screen)
    about = _model(file) if file.is_dir() else _picture(file) or _svg(file) or _adapter(file)
    shown: RenderableType = _table(file, about)
    pictures = [value for value in about.values() if isinstance(value, str) and value.startswith("data:image/")]
    if pictures and not screen.as_json and screen.out.color_system == "truecolor":
        from styledrop_cli.io.images import from_base64

        beside = Table.grid(padding=(0, 3))
        beside.add_row(Text("\n").join(console.in_blocks(from_base64(one)) for one in pictures), shown)
        shown = beside
    screen.result(about, shown)


def _reset(file: Path, screen: console.Screen) -> None:
    """Let an adapter be again what its training wrote."""
    if file.is_dir() or _picture(file):
        raise UsageError(f"--reset is for an adapter, and {file} is none", "leave it out, or name an adapter")
    from styledrop_cli.adapters.header import load_adapter, write_as_trained

    adapter = load_adapter(file)
    before = adapter.header.as_trained
    if not before:
        screen.say(f"{file} is what its training wrote: nothing was saved into it since")
        return
    source = None
    if before["step"] != adapter.header.step:
        from styledrop_cli.judging.sweep import checkpoints_of

        source = checkpoints_of(adapter).get(before["step"])
        if source is None:
            raise ModelError(f"the checkpoint that {file} was, step {before['step']}, is not in {file}.run any more")
    write_as_trained(file, source)
    values = ", ".join(f"{name} {value:g}" for name, value in before["recommended"].items())
    screen.say(f"{file} is again what its training wrote, and recommends {values or 'nothing'}")


def _adapter(file: Path) -> dict[str, Any]:
    from styledrop_cli.adapters.header import load_adapter

    return {**load_adapter(file).header.to_json(), "file_size": file_size(file.stat().st_size)}


def _picture(file: Path) -> dict[str, Any] | None:
    """The settings inside a picture; None if the file is no picture."""
    from styledrop_cli.io.images import read_png_settings

    with file.open("rb") as start:
        first = start.read(9)
    if first[4:] == ADAPTER or not first.startswith(SIGNATURES):
        return None
    settings = read_png_settings(file)
    if settings is None:
        raise StyledropError(
            f"{file} holds no settings of styledrop",
            "only PNGs that styledrop generate wrote do, and only until another program saves them",
        )
    return settings


def _svg(file: Path) -> dict[str, Any] | None:
    """What is inside an SVG file of ours; None if it is none."""
    if file.suffix.lower() != ".svg":
        return None
    from styledrop_cli.generation.svg import read_svg_settings

    settings = read_svg_settings(file)
    if settings is None:
        raise StyledropError(f"{file} holds no settings of styledrop", "only an SVG that styledrop wrote does")
    return settings


def _model(folder: Path) -> dict[str, Any]:
    """The configuration of a base model and the sizes of its files."""
    from styledrop_cli.io.files import read_json

    try:
        about = read_json(folder / "config.json")
        sizes = {part.name: part.stat().st_size for part in sorted(folder.glob("*.safetensors"))}
    except (OSError, ValueError):
        about, sizes = None, {}
    if not isinstance(about, dict) or not sizes:
        raise ModelError(
            f"{folder} is no base model",
            "a base model's folder holds config.json and *.safetensors files",
        )
    return {**about, "files": {name: file_size(size) for name, size in sizes.items()}}


def _table(file: Path, about: Mapping[str, Any]) -> Table:
    table = Table(title=Text(str(file), "bold"), title_justify="left", box=None, show_header=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _first(about):
        if name == "merged" and isinstance(value, list):
            for index, one in enumerate(value[:MOST]):
                table.add_row("merged from" if index == 0 else "", Text(_in_words(one)))
        elif isinstance(value, Mapping) and value:
            for index, (inner, its_value) in enumerate(_first(value)):
                label = Text(_cut(name.replace("_", " ")) if index == 0 else "")
                table.add_row(label, Text.assemble((f"{_cut(inner)}  ", "dim"), _in_words(its_value)))
        else:
            table.add_row(Text(_cut(name.replace("_", " "))), Text(_in_words(value)))
    return table


def _first(about: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What the table shows of `about`, and how much more there is."""
    yield from islice(about.items(), MOST)
    if len(about) > MOST:
        yield "...", f"{len(about) - MOST:,} more"


def _in_words(value: Any) -> str:
    """`value` for a person's eyes; what is long is cut, what is no text is measured."""
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return _cut(", ".join(f"{name} {_in_words(inner)}" for name, inner in value.items()))
    if isinstance(value, list | tuple):
        if len(value) > 8 or (value and isinstance(value[0], list)):
            return f"a list of {len(value)}"
        return _cut(", ".join(map(_in_words, value)))
    if isinstance(value, str) and value.startswith("data:"):
        return f"a small picture ({file_size(len(value))})"
    text = str(value)
    return f"{text[:12]}..." if re.fullmatch("[0-9a-f]{64}", text) else _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST].rstrip()} ..."
