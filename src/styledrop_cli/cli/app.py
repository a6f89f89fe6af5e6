"""`styledrop`: the table of commands, and the way in and out."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from styledrop_cli import __version__
from styledrop_cli.cli import console, options
from styledrop_cli.cli.alphabet import alphabet
from styledrop_cli.cli.clean import clean
from styledrop_cli.cli.convert import convert
from styledrop_cli.cli.doctor import doctor
from styledrop_cli.cli.edit import edit
from styledrop_cli.cli.generate import generate
from styledrop_cli.cli.inspect import inspect
from styledrop_cli.cli.iterate import iterate
from styledrop_cli.cli.kit import kit
from styledrop_cli.cli.merge import merge
from styledrop_cli.cli.models import models
from styledrop_cli.cli.pretrain import pretrain
from styledrop_cli.cli.pull import pull
from styledrop_cli.cli.push import push
from styledrop_cli.cli.report import report
from styledrop_cli.cli.score import score
from styledrop_cli.cli.streams import open_streams
from styledrop_cli.cli.studio import studio
from styledrop_cli.cli.styles import styles
from styledrop_cli.cli.sweep import sweep
from styledrop_cli.cli.tokenize import tokenize
from styledrop_cli.cli.train import train
from styledrop_cli.cli.vary import vary

HELP = """
[bold]One picture in, a style out.[/] Learn a style from one picture and draw new things in it.

  styledrop train [cyan]ref.png[/] --style [cyan]"watercolor"[/]
  styledrop generate [cyan]adapter.safetensors "a cat" "a teapot"[/]
"""

INSIDE, SHARING = "Looking inside", "Sharing"  # these have few options, and no recipes

# The function, its name, its other name, and where it stands in the help.
COMMANDS = (
    (train, "train", "fine-tune", "Everyday"),
    (generate, "generate", "sample", "Everyday"),
    (edit, "edit", None, "Everyday"),
    (vary, "vary", None, "Everyday"),
    (iterate, "iterate", None, "Everyday"),
    (score, "score", None, "Everyday"),
    (sweep, "sweep", None, "Everyday"),
    (report, "report", None, "Everyday"),
    (alphabet, "alphabet", None, "Everyday"),
    (kit, "kit", None, "Everyday"),
    (studio, "studio", None, "Everyday"),
    (push, "push", None, SHARING),
    (pull, "pull", None, SHARING),
    (tokenize, "tokenize", None, INSIDE),
    (inspect, "inspect", None, INSIDE),
    (styles, "styles", None, INSIDE),
    (models, "models", None, INSIDE),
    (doctor, "doctor", None, INSIDE),
    (convert, "convert", None, INSIDE),
    (merge, "merge", None, INSIDE),
    (clean, "clean", None, INSIDE),
    (pretrain, "pretrain", None, "For makers of base models"),
)

SHARED = {"train", "fine-tune", "generate", "sample", "iterate", "pretrain"}  # what several processes do together

app = typer.Typer(
    name="styledrop",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
for function, name, other_name, panel in COMMANDS:
    command = options.command(function, recipe=panel not in (INSIDE, SHARING))
    app.command(name, cls=options.Command, rich_help_panel=panel)(command)
    if other_name:
        app.command(other_name, cls=options.Command, hidden=True)(command)


@app.callback(invoke_without_command=True, help=HELP)
def start(
    context: typer.Context,
    version: Annotated[bool, options.flag("Print the version.", "--version")] = False,
) -> None:
    """Show the help when nothing was asked for. What several processes do not share is the first one's alone."""
    if console.helps() and context.invoked_subcommand not in SHARED:
        raise typer.Exit
    if version:
        typer.echo(f"styledrop {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """The `styledrop` program: never returns, exits with `console.run`'s code."""
    if "OMP_WAIT_POLICY" not in os.environ:
        # Threads that wait for each other spin a million times before they sleep: beside any other busy program, a
        # picture took three to six times as long. A thousand times costs nothing where it is quiet.
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if not os.environ.get("TERMINAL_WIDTH", "").isdecimal():  # typer reads it, and falls over what is no number
        os.environ.pop("TERMINAL_WIDTH", None)
    open_streams()
    several = console.place()[1] > 1
    code = console.run(app, arguments)
    if several:
        # Torch's threads that speak with the other processes may still be there, and C++ aborts a program that ends
        # before them: everything is written by now, so it goes without any tidying up.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
