"""Files of prompts: text, TOML or a table, each prompt with options of its own."""

from __future__ import annotations

import csv
import io
import re
import shlex
import tomllib
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from styledrop_cli.errors import UsageError
from styledrop_cli.generation.lists.entries import READERS, Entries
from styledrop_cli.generation.lists.options import KEYS
from styledrop_cli.generation.lists.wildcards import BraceError, parse
from styledrop_cli.io.files import parse_json
from styledrop_cli.io.text_files import (
    CONTROLS,
    LONGEST,
    plain,
    read_stdin,
    read_text,
    refuse_large,
    short,
    unix,
)

KIND = "list of prompts"
SUFFIXES = {".txt", ".toml", ".csv", ".tsv"}
OTHERS = {".json": "JSON", ".jsonl": "JSON", ".ndjson": "JSON", ".yaml": "YAML", ".yml": "YAML"}

INSTEAD = 'write a prompt a line; or .toml: prompts = ["a cat", "a dog"]; or .csv with a column "prompt"'

# The names of the options in each format.
FLAGS = {"-n": "number"} | {f"--{name}": key for name, key in KEYS.items() if "_" not in name}
TOML_KEYS = {"text": "text"} | KEYS
COLUMNS = {"prompt": "text"} | TOML_KEYS

FLAG = r"(?:--[^\W\d_]|-[a-zA-Z](?=[\s=\d]|$))"
FIRST_FLAG = re.compile(rf"(?<!\S){FLAG}")
OPTION_INSIDE = re.compile(r"(?<!\S)(?:--[^\W\d_][\w-]*|-n(?=[\s=\d]|$))")
WHOLLY_QUOTED = re.compile(rf"""\s*(?:"([^"]*)"|'([^']*)')(?=\s*$|\s+{FLAG})""")
SHORT = re.compile(r"(-[a-zA-Z])=?(\d.*)")
# Where a shell finds a word, or else a quote or a backslash without its end; ``shlex`` does not say where.
WORD = re.compile(r"""(?:[^\s"'\\]++|\\.|"(?:[^"\\]++|\\.)*"|'[^']*')++|(?P<open>["'\\]).*""")


@dataclass(frozen=True)
class Line:
    """One prompt of a file: its ``text``, wildcards as written, and the ``options`` that it sets, keyed as ``OPTIONS``.

    ``where`` is its place for messages: "prompts.txt, line 3".
    """

    text: str
    options: Mapping[str, Any]
    where: str


def read_lines(path: Path) -> list[Line]:
    """The prompts in a file: TOML, CSV (or TSV) by its suffix, otherwise text, a prompt a line; "-" is standard input.

    Raises UsageError if it cannot be read, is larger than ``LARGEST``, holds none or more than ``MOST``, or if anything
    in it is wrong.
    """
    if str(path) == "-":
        return text_lines(read_stdin(KIND), "standard input")
    text = read_text(path, KIND, "name a file of prompts, a prompt a line")
    suffix = path.suffix.lower()
    if suffix in OTHERS:
        raise UsageError(f"{path} is {OTHERS[suffix]}, which cannot be read as a list of prompts", INSTEAD)
    read = {".toml": toml_lines, ".csv": csv_lines, ".tsv": csv_lines}.get(suffix, text_lines)
    return read(text, str(path))


def text_lines(text: str, source: str) -> list[Line]:
    """The prompts in a text, a line each, with options behind them as on the command line: ``a cat --seed 5 -n 3``.

    Blank lines and those that begin with # are left out. Only what follows the first option is split as a shell would,
    so that a prompt's apostrophes stay what they are; quotes around all of it are taken off. ``source`` names the text
    in messages. Raises UsageError as ``read_lines`` does.
    """
    refuse_large(len(text), source, KIND)
    if what := _other_format(unix(text)):
        raise UsageError(f"{source} is {what}, and no text with a prompt a line", INSTEAD)
    reading = _Prompts(source, "prompt", "option")
    for number, raw in enumerate(unix(text).split("\n"), 1):
        row = CONTROLS.sub(" ", raw)
        if not row.strip() or row.lstrip().startswith("#"):
            continue
        if quoted := WHOLLY_QUOTED.match(row):
            (start, end), behind = quoted.span(quoted.lastindex or 0), quoted.end()
        else:
            flag = FIRST_FLAG.search(row)
            start, end = 0, flag.start() if flag else len(row)
            behind = end
        place = f"line {number}"
        options = _flags(reading, row, behind, place)
        reading.prompt(row[start:end], options, place, f"{place}, column", start + 1)
    return reading.all("say in each line what to draw: a cat")


def _other_format(text: str) -> str:
    """What a text is that is not meant as a prompt a line: JSON, TOML or CSV; empty if it may be one."""
    rows = [row for row in text.split("\n") if row.strip()]
    for one in (text, *rows[:1]):  # as a whole, or an entry a line
        with suppress(ValueError):
            if isinstance(parse_json(one), list | dict):
                return "JSON"
    with suppress(ValueError, RecursionError):
        if {"prompt", "prompts"} & tomllib.loads(text).keys():
            return "TOML (its name must end so: prompts.toml)"
    cells = [cell.strip(' "').lower() for cell in re.split("[,;\t]", rows[0])] if rows else []
    if len(cells) > 1 and "prompt" in cells and all(cell in COLUMNS for cell in cells):
        return "CSV (its name must end so: prompts.csv)"
    return ""


def _flags(reading: _Prompts, row: str, start: int, place: str) -> dict[str, Any]:
    """The options in ``row`` from character ``start`` on."""
    options: dict[str, Any] = {}
    found = deque(WORD.finditer(row, start))
    while found:
        word = found.popleft()
        at = f"{place}, column {word.start() + 1}"
        if word["open"]:
            what = "nothing follows this \\" if word["open"] == "\\" else f"this {word['open']} is never closed"
            reading.wrong(at, what, 'put a value that has an apostrophe in quotes: "a cat\'s"')
            break
        if not FIRST_FLAG.match(word[0]):
            what = f"'{short(word[0])}' belongs to no option"
            reading.wrong(at, what, "put a value of several words in quotes")
            break
        name, equals, value = SHORT.sub(r"\1=\2", word[0]).partition("=")  # -n3 is -n=3
        column = word.start() + len(name) + 2
        key = reading.key(name, FLAGS, options, at)
        if not equals:
            if found and found[0]["open"]:
                continue
            if not found or FIRST_FLAG.match(found[0][0]):
                if key:
                    reading.wrong(at, f"{name} has no value", f'write it behind: {name} 3, or {name} "two words"')
                continue
            value, column = found[0][0], found.popleft().start() + 1
        if key:
            reading.value(options, key, name, unquoted(value), f"{place}, column {column}")
    return options


def unquoted(word: str) -> str:
    """A word as a shell passes it on; one that is longer than any text may be is left as it is."""
    return shlex.split(word)[0] if len(word) <= LONGEST + 2 and re.search(r"[\"'\\]", word) else word


def toml_lines(text: str, source: str) -> list[Line]:
    """The prompts in a TOML file: ``[[prompt]]`` tables, ``prompts = [...]``, and options for all of them above."""
    reading = _Prompts(source, "prompt", "key", READERS | {"text": _as_written})
    defaults, entries = reading.toml(text, ("prompts", "prompt"), KEYS, 'text = "a cat"')
    for entry, place, places in entries:
        table = {"text": entry} if isinstance(entry, str) else entry
        if not isinstance(table, dict) or "text" not in table:
            reading.wrong(place, "this prompt has no text", 'write text = "a cat"')
            continue
        own = reading.table(table, TOML_KEYS, place, places)
        if "text" in own:
            spot = f"{places.get('text', place)}, character"
            reading.prompt(own.pop("text"), {**defaults, **own}, place, spot)
    return reading.all('say what to draw: prompts = ["a cat", "a dog"]')


def _as_written(value: object) -> str:
    """A text with all its blanks, so that places in it can be counted."""
    if not isinstance(value, str):
        raise ValueError(f"must be text, in quotes, not {short(value)}")
    return value


def csv_lines(text: str, source: str) -> list[Line]:
    """The prompts in a table: a row of column names, then a prompt a row; empty cells say nothing."""
    head = text.lstrip().partition("\n")[0]
    rows = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=head.count), skipinitialspace=True, strict=True)
    reading = _Prompts(source, "prompt", "column")
    names: list[str] = []
    columns: list[str] = []  # the option of each name
    number = 1  # of the line in which the next row begins
    try:
        for row in rows:
            place, number = f"line {number}", rows.line_num + 1
            cells = [plain(cell) for cell in row]
            if not any(cells):
                continue
            if names:
                reading.row(names, columns, cells, place)
                continue
            names = cells
            for at, name in enumerate(names, 1):
                spot = f"{place}, column {at}"
                columns.append(reading.key(name.lower(), COLUMNS, columns, spot) if name else "")
            if not reading.count and "text" not in columns:
                what = "there is no column 'prompt'"
                reading.wrong(f"{place}, column 1", what, "name the columns in the first row")
            if reading.count:
                break  # what stands below means nothing
    except csv.Error as error:
        reading.wrong(f"line {number}", f"this is no row of a table: {error}", 'write quotes in a cell twice: ""')
    return reading.all("write a row for each prompt below the names of the columns")


class _Prompts(Entries[Line]):
    """The prompts of one file while it is read."""

    def row(self, names: list[str], columns: list[str], cells: list[str], place: str) -> None:
        """Add the prompt of one row of a table, below the ``names`` of its ``columns``."""
        options: dict[str, Any] = {}
        for at, (name, key, cell) in enumerate(zip_longest(names, columns, cells, fillvalue=""), 1):
            if cell and not key:
                what = f"'{short(cell)}' is below no column's name"
                self.wrong(f"{place}, column {at}", what, "put a cell in quotes if it holds what parts cells")
            elif cell and key != "text":
                self.value(options, key, name, cell, f"{place}, column {name}")
        at = columns.index("text")
        text = cells[at] if at < len(cells) else ""
        self.prompt(text, options, place, f"{place}, column {names[at]}, character")

    def prompt(self, text: str, options: Mapping[str, Any], place: str, spot: str, first: int = 1) -> None:
        """Add a prompt; ``spot`` and a number, for its first character ``first``, name a place in it."""
        prompt = plain(text)
        if not prompt:
            self.wrong(f"{spot} {first}", "there is no prompt", "say what to draw: a cat")
        elif len(prompt) > LONGEST:
            self.wrong(f"{spot} {first}", f"a prompt of more than {LONGEST:,} characters", "say it in fewer words")
        else:
            try:
                parse(text)
            except BraceError as error:
                self.wrong(f"{spot} {first + error.at}", str(error), error.hint)
            if self.kind != "option" and (option := OPTION_INSIDE.search(text)):  # in a line it was quoted on purpose
                what = f"an option stands inside the prompt: {option[0]}"
                self.wrong(f"{spot} {first + option.start()}", what, f"give it a {self.kind} of its own")
        self.add(Line(prompt, options, f"{self.source}, {place}"))
