"""`styledrop styles`: the library of styles, and what is done with it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import RenderableType
from rich.filesize import decimal as file_size
from rich.table import Table
from rich.text import Text

from styledrop_cli.adapters import library
from styledrop_cli.cli import checks, console, each_style, options
from styledrop_cli.cli.inspect import inspect
from styledrop_cli.errors import ModelError, StyledropError, UsageError
from styledrop_cli.generation.lists.prompt_file import Line
from styledrop_cli.settings import SampleSettings

if TYPE_CHECKING:
    from styledrop_cli.adapters.header import AdapterFile

PROMPTS = ("a cat", "a house")
OUTPUT = Path("styledrop-styles")
THUMBNAIL = 8  # characters wide
# What only some of the actions take.
TAKEN_BY = {
    "--name": ("import",),
    "--prompt": ("sheet",),
    "--model": ("sheet",),
    "--seed": ("sheet",),
    "--output": ("sheet", "export"),
    "--overwrite": ("export", "import"),
    "--yes": ("remove",),
}


def styles(
    what: Annotated[
        Literal["list", "sheet", "show", "rename", "remove", "export", "import"],
        typer.Argument(
            metavar="WHAT",
            help="list shows what there is, sheet draws the same prompts in every style, show tells what is in one, "
            "rename gives one another name, remove deletes, export copies out, import copies adapter files in.",
        ),
    ],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME...]",
            help="Names of styles; for rename the old one and the new one, for import files.",
            autocompletion=options.adapters_like,
        ),
    ] = None,
    *,
    name: Annotated[
        str | None,
        options.option("The name that an imported file gets.", "--name", metavar="NAME", shown="made of the file's"),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        options.option("A prompt of the sheet. Repeat it for more.", metavar="PROMPT", shown=" and ".join(PROMPTS)),
    ] = None,
    output: Annotated[
        Path | None,
        options.output("PLACE", "The file or folder for export; the folder for sheet.", shown=f"this folder; {OUTPUT}"),
    ] = None,
    overwrite: options.Overwrite = False,
    yes: Annotated[bool, options.flag("Remove without asking.", "--yes", "-y")] = False,
    model: Annotated[
        str | None, options.common(options.MODEL, metavar="NAME|FOLDER", shown="each style's own, or pocket")
    ] = None,
    seed: options.FirstSeed = 0,
    device: options.Device = "auto",
    screen: console.Screen,
) -> None:
    """See, draw, rename, remove, copy out and take in the styles that are kept by name.

    A style is kept with --save-as when it is trained, or with import. Its name
    then stands for its file in every command. They lie in a folder of your
    own, which list prints; STYLEDROP_STYLES sets another one. rename and remove
    take the checkpoints of its training along.

      styledrop styles list
      styledrop styles import adapter.safetensors --name ink
      styledrop styles sheet --prompt "a cat"
      styledrop styles rename ink black-ink
      styledrop styles export black-ink -o shared.safetensors
      styledrop styles remove black-ink
    """
    _refuse_options(what, {"--name": name, "--prompt": prompt, "--model": model, "--seed": seed, "--output": output,
                           "--overwrite": overwrite, "--yes": yes})  # fmt: skip
    said = names or []
    if what == "list":
        if said:
            raise UsageError(f"list shows all styles, not only {said[0]}", "leave the name out")
        _list(screen)
    elif what == "sheet":
        _sheet(said, prompt or list(PROMPTS), seed, output or OUTPUT, model, device, screen)
    elif not said:
        raise UsageError(f"styles {what} needs a name", "see them all: styledrop styles list")
    elif what == "show":
        inspect(library.style_of(_only(said, what)), reset=False, screen=screen)
    elif what == "rename":
        _rename(said, screen)
    elif what == "remove":
        _remove(list(dict.fromkeys(said)), yes, screen)
    elif what == "export":
        _export(list(dict.fromkeys(said)), output, overwrite, screen)
    else:
        _import([Path(one) for one in said], name, overwrite, screen)


def _refuse_options(what: str, given: Mapping[str, Any]) -> None:
    """Refuse options that the action does not take."""
    for option, value in given.items():
        if value and what not in TAKEN_BY[option]:
            raise UsageError(f"{option} is for {' and '.join(TAKEN_BY[option])}", f"leave it out: styles {what}")


def _only(names: Sequence[str], what: str) -> str:
    if len(names) > 1:
        raise UsageError(f"styles {what} takes one name, not {len(names)}: {', '.join(names)}", "name one style")
    return names[0]


# ---- list ----


def _list(screen: console.Screen) -> None:
    """Show every style; one that cannot be read is shown with what is wrong with it."""
    folder = library.folder()
    rows = [_row(name) for name in library.names()]
    pictures = screen.out.color_system == "truecolor" and not screen.as_json
    table = Table(box=None, padding=(0, 2, 1 if pictures else 0, 0), pad_edge=False)
    for column in ("", "name", "style", "base", "size", "made")[not pictures :]:
        table.add_column(column, no_wrap=column not in ("style",), justify="right" if column == "size" else "left")
    for row in rows:
        words = row["error"] or (f"the object {row['style']}" if row["learns"] == "object" else row["style"])
        cells: list[RenderableType] = [Text(row["name"], "bold"), Text(words, "red" if row["error"] else "")]
        cells += [Text(row["base"]), file_size(row["size"]), row["created"][:10]]
        table.add_row(*([_thumbnail(row["thumbnail"])] if pictures else []), *cells)
    unfinished = library.unfinished()
    public = [{key: value for key, value in row.items() if key != "thumbnail"} for row in rows]
    screen.result({"folder": folder, "styles": public, "unfinished": unfinished}, table if rows else [])
    if not rows:
        screen.say('there are no styles yet; keep one:  styledrop train ref.png --style "..." --save-as NAME')
    for one in unfinished:
        screen.say(f"{one}: its training was stopped half way; the same command goes on with it", "dim")
    screen.say(f"they lie in {folder}", "dim")


def _row(name: str) -> dict[str, Any]:
    from styledrop_cli.adapters.header import read_header

    file = library.file_of(name)
    row: dict[str, Any] = {"name": name, "file": file, "size": library.size(name), "error": None}
    try:
        header = read_header(file)
    except StyledropError as error:
        return row | {"error": error.message, "style": "", "learns": "", "base": "", "created": "", "thumbnail": ""}
    said = {"style": header.name, "learns": header.learns, "base": str(header.base.get("name", ""))}
    return row | said | {"created": header.created, "thumbnail": header.thumbnail}


def _thumbnail(address: str) -> RenderableType:
    from styledrop_cli.io.images import from_base64

    try:
        return console.in_blocks(from_base64(address), THUMBNAIL)
    except StyledropError:
        return ""


# ---- sheet ----


def _sheet(
    names: Sequence[str],
    prompts: Sequence[str],
    seed: int,
    output: Path,
    model: str | None,
    device: str,
    screen: console.Screen,
) -> None:
    """Draw the same prompts in every style, or in those that are named."""
    texts = checks.checked_prompts(prompts, "styledrop styles sheet --prompt")
    SampleSettings(seed=seed)
    checks.refuse_unwritable(output)
    wanted = {name: library.style_of(name) for name in names} or {one: library.file_of(one) for one in library.names()}
    files: dict[str, AdapterFile] = {}
    with screen.working("reading the styles"):
        for name, path in wanted.items():
            try:
                files |= each_style.read_styles({name: path})
            except (ModelError, UsageError) as error:
                if names:
                    raise
                screen.warn(f"left out: {error.message}")
    if not files:
        raise UsageError("there is no style to draw in", "keep one with --save-as, or styledrop styles import FILE")
    pictures = [(Line(text, {}, f"'{text[:40]}'"), text, seed) for text in texts]
    drawn = each_style.Wanted(pictures, None, {})
    each_style.draw_styles(screen, files, drawn, output, model=model, device=device, skip=True)


# ---- rename, remove, export, import ----


def _rename(names: Sequence[str], screen: console.Screen) -> None:
    if len(names) != 2:
        raise UsageError(f"rename takes two names, not {len(names)}", "styledrop styles rename OLD NEW")
    file = library.rename(*names)
    screen.say(f"{names[0]} is called {names[1]} now")
    screen.result({"name": names[1], "file": file}, [])


def _remove(names: Sequence[str], yes: bool, screen: console.Screen) -> None:
    """Delete styles; asks first, unless it was told not to. What is not there is said before any is deleted."""
    total = sum(map(library.removable, names))
    what = f"{', '.join(names)} ({file_size(total)})"
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"nobody is here to confirm that {what} is to be removed", "confirm it with --yes")
        if not typer.confirm(f"Remove {what}?", err=True):
            screen.say(f"{', '.join(names)}: all stay")
            raise typer.Exit(1)
    freed = sum(map(library.remove, names))
    screen.say(f"{file_size(freed)} are free again")
    screen.result({"removed": list(names), "freed": freed}, [])


def _export(names: Sequence[str], output: Path | None, overwrite: bool, screen: console.Screen) -> None:
    """Copy adapter files out of the library, as NAME.safetensors or to the file that was named."""
    from styledrop_cli.io.files import atomic_write, read_bytes

    files = [library.style_of(name) for name in names]
    one_file = output is not None and output.name.endswith(checks.ADAPTER) and not output.is_dir()
    if one_file and len(files) > 1:
        raise UsageError(f"{output} is one file, and {len(files)} styles are to be copied", "name a folder with -o")
    folder = output or Path()
    targets = [output if one_file and output else folder / file.name for file in files]
    for target in targets:
        checks.refuse_output(target, overwrite, suffix=checks.ADAPTER)
    for file, target in zip(files, targets, strict=True):
        atomic_write(target, read_bytes(file, None))
    screen.result({"files": targets}, targets)


def _import(files: Sequence[Path], name: str | None, overwrite: bool, screen: console.Screen) -> None:
    """Copy adapter files into the library; all of them are looked at before any is copied."""
    from styledrop_cli.adapters.header import read_header

    if name is not None and len(files) > 1:
        raise UsageError(f"--name is one name, and there are {len(files)} files", "import them one by one")
    wanted: dict[str, Path] = {}
    for file in files:
        read_header(file)
        called = name or library.name_from(file.name.removesuffix(checks.ADAPTER))
        if called in wanted:
            raise UsageError(f"{wanted[called]} and {file} would both be called '{called}'", "name one with --name")
        library.refuse_taken(called, overwrite)
        wanted[called] = file
    saved = {called: library.save(file, called, overwrite) for called, file in wanted.items()}
    screen.result({"styles": [{"name": one, "file": path} for one, path in saved.items()]}, list(saved))
    screen.say(f'draw with it:  styledrop generate {next(iter(saved))} "a cat"', "dim")
