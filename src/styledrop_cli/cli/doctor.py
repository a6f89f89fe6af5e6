"""`styledrop doctor`: what is here, what is wrong with it, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from styledrop_cli import __version__
from styledrop_cli.cli import console, options

if TYPE_CHECKING:
    from styledrop_cli.doctor import Finding

STYLES = {"fine": "", "note": "yellow", "wrong": "bold red"}


def doctor(
    *,
    model: options.Model = "pocket",
    thorough: Annotated[
        bool, options.flag("Also read every byte of the models in the cache: several gigabytes.", "--thorough")
    ] = False,
    screen: console.Screen,
) -> None:
    """Check the installation: what is wrong with it, and what to do about it.

    Looks at versions, every library, devices, memory and disks, the base
    models, the current folder, the environment and the terminal. Works even if
    torch does not. Lines marked `note` are worth knowing; if a line is marked
    `wrong`, the exit code is 1. Put its output into every bug report.

      styledrop doctor
      styledrop doctor --json
    """
    from styledrop_cli.doctor import examine

    with screen.working("looking at everything"):
        findings = [*examine(model, thorough=thorough), *_terminal(screen)]
    count = Counter(one.state for one in findings)
    about = {"version": __version__, "wrong": count["wrong"], "notes": count["note"]}
    screen.result(about | {"findings": [asdict(one) for one in findings]}, _shown(findings, count))
    if count["wrong"]:
        raise typer.Exit(1)


def _terminal(screen: console.Screen) -> list[Finding]:
    """What this terminal can show."""
    from styledrop_cli.doctor import NOTE, Finding

    out = screen.out
    if not out.is_terminal:
        return [Finding("terminal", "output", "no terminal: no colours and no progress bars")]
    colours = {None: "no colours", "standard": "16 colours", "eight_bit": "256 colours"}.get(out.color_system)
    pictures = "all colours, pictures too" if colours is None else f"{colours}, and so no pictures"
    about = f"{out.width} characters wide, {pictures}"
    if "utf" not in out.encoding.lower():
        advice = "some letters may be shown as ?: set PYTHONIOENCODING=utf-8, or use another terminal"
        return [Finding("terminal", "output", f"{about}, {out.encoding}", NOTE, advice)]
    return [Finding("terminal", "output", about)]


def _shown(findings: Sequence[Finding], count: Mapping[str, int]) -> Group:
    """A table with a heading for each section, and the ``count`` of each state; libraries that are fine share a row."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for section, group in groupby(findings, lambda one: one.section):
        table.add_row("", Text(section, "bold"))
        rows = list(group)
        if section == "libraries" and (fine := [one for one in rows if one.state == "fine"]):
            rows = [one for one in rows if one.state != "fine"]
            table.add_row("", Text("fine", "cyan"), Text(", ".join(f"{one.name} {one.found}" for one in fine)))
        for one in rows:
            state = "" if one.state == "fine" else one.state
            table.add_row(Text(state, STYLES[one.state]), Text(one.name, "cyan"), Text(one.found))
            if one.advice:
                table.add_row("", "", Text(f"-> {one.advice}", STYLES[one.state]))
    wrong, notes = count["wrong"], count["note"]
    what = f"{wrong} thing{'s are' if wrong > 1 else ' is'} wrong" if wrong else "nothing is wrong"
    return Group(table, "", Text(f"{what}, {notes} note{'s' * (notes != 1)}", STYLES["wrong" if wrong else "fine"]))
