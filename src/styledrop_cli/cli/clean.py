"""`styledrop clean`: what finished work has left behind, and removing it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal as file_size
from rich.table import Table
from rich.text import Text

from styledrop_cli.cli import console, options
from styledrop_cli.errors import UsageError


def clean(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="Where to look, in all folders below it, too.")
    ] = Path(),
    *,
    unfinished: Annotated[
        bool, options.flag("Also what stopped work needs to go on: it starts over then.", "--unfinished")
    ] = False,
    yes: Annotated[bool, options.flag("Remove without asking.", "--yes", "-y")] = False,
    screen: console.Screen,
) -> None:
    """Remove what finished work has left behind.

    Looks for the folders of train and iterate, lists what can go and how large
    it is, and asks. What goes: checkpoints whose adapter is there, and what was
    drawn to pick from. Adapters, pictures, sheets, curves and recipes stay.
    sweep --checkpoints needs checkpoints, and iterate draws again what is gone.

      styledrop clean
      styledrop clean --yes
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", "name the folder in which you work, or none for this one")
    from styledrop_cli.io.leftovers import leftovers_in

    every = list(leftovers_in(folder))
    wanted = [one for one in every if one.finished or unfinished]
    waiting = [one for one in every if one not in wanted]
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for one in every:
        mark = "" if one.finished else "stopped half way" + (": stays, unless --unfinished" if one in waiting else "")
        table.add_row(Text(f"{one.folder}"), f"{len(one.files)} files", file_size(one.size), mark)
    total, number = sum(one.size for one in wanted), sum(len(one.files) for one in wanted)
    if every and not screen.quiet:
        screen.err.print(table)
    said = {"folders": [str(one.folder) for one in wanted], "files": [path for one in wanted for path in one.files]}
    if not wanted:
        screen.say("there is nothing to remove")
    elif not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"nobody is here to confirm that {number} files are to be removed", "confirm with --yes")
        if not typer.confirm(f"Remove {number} files, {file_size(total)}?", err=True):
            screen.say("all of it stays")
            raise typer.Exit(1)
    for one in wanted:
        one.remove()
    if wanted:
        screen.say(f"{file_size(total)} are free again")
    screen.result(said | {"freed": total if wanted else 0}, [])
