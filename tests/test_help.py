"""The help of every command is kept in tests/help/, so that a review sees every change of the command line.

`make help-snapshots` writes the files anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import typer

from conftest import Run
from styledrop_cli.cli.app import app

FOLDER = Path(__file__).parent / "help"
COMMANDS = [name for name, command in typer.main.get_group(app).commands.items() if not command.hidden]
WRITE = os.environ.get("STYLEDROP_HELP_SNAPSHOTS") == "write"


@pytest.mark.parametrize("command", ["styledrop", *COMMANDS])
def test_the_help_is_what_was_reviewed(styledrop: Run, command: str) -> None:
    shown = styledrop(*([] if command == "styledrop" else [command]), "--help").out
    lines = "".join(f"{line.rstrip()}\n" for line in shown.strip("\n").splitlines())
    file = FOLDER / f"{command}.txt"
    if WRITE:
        file.write_text(lines, encoding="utf-8")
    assert lines == file.read_text(encoding="utf-8"), "look at the change, then keep it: make help-snapshots"


def test_no_help_is_left_of_a_command_that_is_gone() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {"styledrop", *COMMANDS}
