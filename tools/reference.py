"""Write docs/reference: a page for each command, made from the same texts as its --help, and the studio's requests.

    python tools/reference.py docs/reference

`make reference` does it; a test compares the pages with what the commands say now.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from styledrop_cli.cli.app import app
from styledrop_cli.studio.schema import openapi

HEAD = "<!-- Made from the help of the commands by tools/reference.py (make reference). Do not edit by hand. -->"
INDEX, REQUESTS = "README.md", "openapi.json"  # the second: what scripts may ask of `styledrop studio`
PLAIN = {"int": "whole number", "float": "number", "str": "text", "Path": "path"}  # typer's names of types, in words
DEFAULT = re.compile(r"\s*\[(?:default: (?P<value>.*)|required)\]$")


def pages() -> dict[str, str]:
    """The text of each page by its file name."""
    commands = typer.main.get_group(app).commands
    shown = {name: command for name, command in commands.items() if not command.hidden}
    requests = json.dumps(openapi(), indent=1, ensure_ascii=False) + "\n"
    made = {f"{name}.md": _page(name, command) for name, command in shown.items()}
    return made | {INDEX: _index(shown), REQUESTS: requests}


def _index(commands: dict[str, Any]) -> str:
    parts = [HEAD, "# Every command", "What each command takes and does. Tasks are in the [guide](../guide/README.md)."]
    panels: dict[str, list[str]] = {}
    for name, command in commands.items():
        row = f"| [`{name}`]({name}.md) | {_cell(_split(command.help)[0][0])} |"
        panels.setdefault(command.rich_help_panel or "Commands", []).append(row)
    parts += [f"## {panel}\n\n| command | |\n|---|---|\n" + "\n".join(rows) for panel, rows in panels.items()]
    return "\n\n".join(parts) + "\n"


def _page(name: str, command: Any) -> str:
    context = typer.Context(command, info_name=f"styledrop {name}")
    prose, examples = _split(command.help)
    usage = " ".join(["styledrop", name, *command.collect_usage_pieces(context)])
    parts = [HEAD, f"# styledrop {name}", prose[0], f"```text\n{usage}\n```", *prose[1:]]
    if examples:
        parts.append("```\n" + "\n".join(examples) + "\n```")
    tables: dict[str, list[tuple[str, str, str]]] = {}
    for parameter in command.get_params(context):
        is_argument = parameter.param_type_name == "argument"
        panel = getattr(parameter, "rich_help_panel", None) or ("Arguments" if is_argument else "Options")
        tables.setdefault(panel, []).append(_row(*parameter.get_help_record(context)))
    for panel in sorted(tables, key=lambda panel: panel.startswith("Common options")):
        parts.append(f"## {panel}")
        rows = "\n".join(f"| {given} | {meaning} | {default} |" for given, meaning, default in tables[panel])
        parts.append(f"| | what it does | default |\n|---|---|---|\n{rows}")
    return "\n\n".join(parts) + "\n"


def _split(text: str) -> tuple[list[str], list[str]]:
    """The paragraphs of a command's help, and the commands that it shows as examples."""
    prose: list[str] = []
    examples: list[str] = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if paragraph.startswith("  "):
            examples += inspect.cleandoc(paragraph).split("\n")
        else:
            prose.append(_escaped(" ".join(paragraph.split())))
    return prose, examples


def _row(given: str, said: str) -> tuple[str, str, str]:
    """An option or argument, what it does, and its default, as cells of a table."""
    found = DEFAULT.search(said)
    meaning = said[: found.start()] if found else said
    value = found["value"] if found else ""
    default = "required" if found and value is None else (value or "").strip("()")
    return f"`{_piped(' '.join(_plain(given)))}`", _cell(meaning), _cell(default)


def _plain(given: str) -> Iterator[str]:
    """The words of an option's record, types in words: "-n, --number <int>" ends in "whole number"."""
    for word in given.split():
        if word.startswith("<") and word.endswith(">"):
            inner = word[1:-1]
            inner = inner[5:-1] if inner.startswith("list[") else inner
            yield f"<{PLAIN.get(inner, inner)}>" if "|" not in inner else inner
        else:
            yield word


def _piped(text: str) -> str:
    return text.replace("|", r"\|")


def _escaped(text: str) -> str:
    """Plain text as Markdown that shows the same."""
    return re.sub(r"([<*])", r"\\\1", text)


def _cell(text: str) -> str:
    return _piped(_escaped(" ".join(text.split())))


def main() -> None:
    """Write all pages into the folder that is named, and remove those of commands that are gone."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    made = pages()
    for old in folder.glob("*.md"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
