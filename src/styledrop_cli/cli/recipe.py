"""Recipes: the options of commands in a TOML file, a table for each command, read with --config.

A key is an option's name without its dashes, or the name of what is written without an option. What stands on the
command line goes before what a recipe says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from styledrop_cli import __version__
from styledrop_cli.adapters import library
from styledrop_cli.cli.console import helps
from styledrop_cli.errors import UsageError
from styledrop_cli.io.files import atomic_write, to_text
from styledrop_cli.io.text_files import Problems, key_places, read_text, read_toml, short

NAME = "recipe.toml"  # in the folder of a run
CONFIG, SAVE = "config", "save_config"  # the parameters of a command that read a recipe and write one
# What is said for one run alone: never written into a recipe.
FOR_ONCE = {CONFIG, SAVE, "dry_run", "overwrite", "fresh", "quiet", "as_json", "context"}
NEVER = {CONFIG, SAVE, "context"}  # nor read from one
GIVEN = ("COMMANDLINE", "DEFAULT_MAP")  # where a value is from that somebody said
HINT = 'a key is an option without its dashes: lambda-b = 3, content = ["a cat"]'


@dataclass(frozen=True)
class Recipe:
    """What a ``command`` was given, by the keys of a recipe: texts, numbers, truth values, and lists of these."""

    command: str
    options: Mapping[str, Any]

    @classmethod
    def of(cls, context: typer.Context) -> Recipe:
        """What was given to the command that is run, on the command line and by a recipe."""
        names = {name: parameter for parameter in context.command.params if (name := parameter.name or "")}
        given = {
            key_of(parameter): _plain(context.params[name])
            for name, parameter in names.items()
            if name not in FOR_ONCE and getattr(context.get_parameter_source(name), "name", "") in GIVEN
        }
        return cls(command_of(context), given)

    @property
    def text(self) -> str:
        """The TOML file."""
        lines = [f"# styledrop {__version__}; styledrop {self.command} --config FILE does this again", ""]
        lines += [f"[{self.command}]", *(f"{key} = {_toml(value)}" for key, value in self.options.items())]
        return "\n".join(lines) + "\n"

    def write(self, path: Path) -> None:
        """Write it, atomically; StyledropError if that is not possible."""
        atomic_write(path, self.text.encode())

    @contextmanager
    def kept_in(self, folder: Path) -> Iterator[None]:
        """Leave it in the folder of a run, if that has made one, also where the run was stopped."""
        try:
            yield
        finally:
            from styledrop_cli.io.run_folder import LOCK

            if folder.is_dir() and {path.name for path in folder.iterdir()} - {LOCK} and not helps():
                self.write(folder / NAME)


def command_of(context: typer.Context) -> str:
    """The name of the command that is run, not its other name."""
    return str(getattr(context.command.callback, "__name__", context.info_name))


def key_of(parameter: Any) -> str:
    """What a recipe calls a parameter: its first long option, without dashes, or the name of an argument."""
    if parameter.param_type_name == "argument":
        return str(parameter.name)
    return str(next(one for one in parameter.opts if one.startswith("--"))).removeprefix("--")


def read_recipe(context: typer.Context, path: Path | None) -> Path | None:
    """Let what the recipe at ``path`` says for the command that is run stand where the command line says nothing.

    Raises UsageError for a file that cannot be read or holds nothing for this command, for keys that it does not know,
    each with its place and a question about the one that was meant, and for values of another kind.
    """
    if path is None or context.resilient_parsing:
        return path
    hint = "styledrop COMMAND --save-config FILE writes one"
    text = read_text(path, "recipe", hint)
    said = read_toml(text, str(path), "a table for each command", 'style = "watercolor"')
    command = command_of(context)
    group: Any = context.parent and context.parent.command
    tables = {one.callback.__name__ for one in group.commands.values()}
    rows = text.split("\n")
    problems = Problems(str(path))
    for name, value in said.items():
        if name not in tables or not isinstance(value, dict):
            what = (
                f"there is no command '{short(name)}'" if isinstance(value, dict) else f"'{short(name)}' is in no table"
            )
            problems.wrong(
                key_places(rows, range(len(rows))).get(name, "line 1"),
                what + (problems.similar(name, tables) if isinstance(value, dict) else ""),
                f"write [{command}] above what is for styledrop {command}",
            )
    problems.refuse()
    if command not in said:
        raise UsageError(
            f"{path} holds nothing for styledrop {command}, only for {', '.join(said) or 'nobody'}",
            f"write [{command}] above its options",
        )
    context.default_map = _values(context, said[command], problems, _places(rows, command))
    problems.refuse()
    return path


def _places(rows: list[str], command: str) -> dict[str, str]:
    """Where each key of a command's table is: "line 3, column 1"."""
    heads = [at for at, row in enumerate(rows) if row.strip().startswith("[")]
    start = next((at for at in heads if rows[at].strip().startswith(f"[{command}]")), 0)
    end = next((at for at in heads if at > start), len(rows))
    return key_places(rows, range(start + 1, end))


def _values(
    context: typer.Context, table: Mapping[str, Any], problems: Problems, places: Mapping[str, str]
) -> dict[str, Any]:
    """A command's parameters as its table sets them, by their names in the program."""
    read = [one for one in context.command.params if one.name not in NEVER and one.name != "help"]
    known = {key_of(one): one for one in read}
    known |= {name[2:]: one for one in read for name in one.opts if name.startswith("--")}
    found: dict[str, Any] = {}
    for key, value in table.items():
        place = places.get(key, "line 1")
        parameter: Any = known.get(key.replace("_", "-"), known.get(key))
        if parameter is None:
            what = f"styledrop {command_of(context)} has no option '{short(key)}'"
            problems.wrong(place, what + problems.similar(key.replace("_", "-"), known), HINT)
        elif problem := _unfit(parameter, value):
            problems.wrong(place, f"{key} {problem}, not {short(value)}", HINT)
        else:
            found[str(parameter.name)] = _as_typed(parameter, value)
    return found


def _several(parameter: Any) -> bool:
    return bool(getattr(parameter, "multiple", False) or parameter.nargs == -1)


def _unfit(parameter: Any, value: Any) -> str:
    """What a value must be that a parameter cannot have; nothing if it can."""
    if getattr(parameter, "is_flag", False):
        return "" if isinstance(value, bool) else "must be true or false"
    single = [value] if not isinstance(value, list) else value
    if not single or not all(isinstance(one, str | int | float) and not isinstance(one, bool) for one in single):
        return "must be a text in quotes or a number" + (", or a list of these" if _several(parameter) else "")
    return ""


def _as_typed(parameter: Any, value: Any) -> Any:
    """A value as it would be typed: the command line's own checks then say what is wrong with it."""
    if getattr(parameter, "is_flag", False):
        return value
    words = [str(one) for one in (value if isinstance(value, list) else [value])]
    return words if _several(parameter) else ",".join(words)


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Path):
        return library.called(value)  # a style's name is the same on every machine
    return value if isinstance(value, bool | int | float) else str(getattr(value, "value", value))


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):  # a text of TOML is one of JSON, but for the character that deletes
        return json.dumps(to_text(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
