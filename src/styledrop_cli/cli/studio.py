"""`styledrop studio`: a page in the browser on which everything everyday is done."""

from __future__ import annotations

import signal
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from styledrop_cli.cli import checks, console, options
from styledrop_cli.errors import StyledropError

FOLDER = Path("styledrop-studio")
WORKER = (sys.executable, "-m", "styledrop_cli.cli.worker")
LOOK = 0.5  # seconds: how often it is looked whether the page is still served
RETURN = 2.5  # seconds that a tab left open by an earlier studio has to come back before a new one is opened


def studio(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="The folder in which everything lies that is made.")
    ] = FOLDER,
    *,
    port: Annotated[
        int, options.option("The port of the page.", metavar="<0 to 65535>", shown="the one it had, or a free one")
    ] = 0,
    headless: Annotated[
        bool, options.flag("Open no browser: for scripts, which find every request in /api/openapi.json.", "--headless")
    ] = False,
    opened: Annotated[bool, options.flag("Open the page in the browser.", "--open/--no-open")] = True,
    model: options.Model = "pocket",
    screen: console.Screen,
) -> None:
    """Do it all on a page: learn styles, draw, pick what you like, improve.

    Serves a page on this machine alone, with no network, until Ctrl-C. What
    the page does are commands of styledrop, and it shows them. Everything lies
    in FOLDER; styles are those of styledrop styles. A studio that was stopped
    or killed goes on where it was.

      styledrop studio
      styledrop studio pictures-for-ann --no-open
      styledrop studio --headless --port 8765
    """
    checks.refuse_outside(port=(port, 0, 65535))
    checks.refuse_unwritable(folder)
    checks.refuse_busy(folder)
    from styledrop_cli.studio.server import Studio

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever started it in the background ends it as Ctrl-C
    with Studio(folder, WORKER, model, port) as made:
        screen.result({"url": made.url, "secret": made.secret, "folder": folder}, [made.url])
        sys.stdout.flush()  # a script that reads it in a pipe waits for it
        screen.say(f"The studio is at that address until Ctrl-C. What it makes lies in {folder}.")
        if opened and not headless and not (made.again and made.comes_back(RETURN)):
            webbrowser.open(made.url)
        while made.alive:
            made.wait(LOOK)
    raise StyledropError("the page's server has stopped", "Start the same command again: nothing is lost.")
