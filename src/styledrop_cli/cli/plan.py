"""What `--dry-run` shows: what a command would do, how long that takes here, and which files it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from rich.table import Table
from rich.text import Text

from styledrop_cli.cli import console
from styledrop_cli.cli.options import flag

DryRun = Annotated[
    bool,
    flag("Check everything, say what would be done, how long it takes and what is written, and do none of it.",
         "--dry-run"),
]  # fmt: skip


def show(screen: console.Screen, said: Mapping[str, str], seconds: float, files: Sequence[Path]) -> None:
    """The result of a command that did nothing: what is ``said`` by name, the time, and the ``files``."""
    rows = {**said, "time": f"about {console.duration(seconds)}, as fast as this computer is now"}
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for name, value in {**rows, "files": "\n".join(map(str, files))}.items():
        table.add_row(name, Text(value))
    screen.result({"dry_run": {**said, "seconds": round(seconds, 1), "files": list(files)}}, table)
