"""Files of prompts: text, TOML or a table, each line with options of its own."""

from __future__ import annotations

import csv
import io
import re
import tomllib
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from styledrop_cli.errors import UsageError
from styledrop_cli.generation.lists.foreign import as_typed
from styledrop_cli.generation.lists.wildcards import BraceError, parse
from styledrop_cli.io.files import parse_json
from styledrop_cli.io.text_files import (
    CONTROLS,
    LONGEST,
    MOST,
    NUMBERS,
    OPTIONS,
    Problems,
    as_text,
    key_places,
    plain,
    read_stdin,
    read_text,
    read_toml,
    refuse_large,
    short,
    table_rows,
    unix,
)

KIND = "list of prompts"
SUFFIXES = {".txt", ".toml", ".csv", ".tsv"}
OTHERS = {".json": "JSON", ".jsonl": "JSON", ".ndjson": "JSON", ".yaml": "YAML", ".yml": "YAML"}

INSTEAD = 'write a prompt a line; or .toml: prompts = ["a cat", "a dog"]; or .csv with a column "prompt"'

# How options are called in each format.
DASHED = {key.replace("_", "-"): key for key in OPTIONS}
FLAGS = {"-n": "number"} | {f"--{name}": key for name, key in DASHED.items()}
KEYS = {"text": "text"} | {key: key for key in OPTIONS} | DASHED
COLUMNS = {"prompt": "text"} | KEYS

FLAG = r"(?:--[^\W\d_]|-[a-zA-Z](?=[\s=\d]|$))"
FIRST_FLAG = re.compile(rf"(?<!\S){FLAG}")
OPTION_INSIDE = re.compile(r"(?<!\S)(?:--[^\W\d_][\w-]*|-n(?=[\s=\d]|$))")
WHOLLY_QUOTED = re.compile(rf"""\s*(?:"([^"]*)"|'([^']*)')(?=\s*$|\s+{FLAG})""")
SHORT = re.compile(r"(-[a-zA-Z])=?(\d.*)")
# A word as a shell splits it off, or else a quote or a backslash without its end.
TOKEN = re.compile(r"""(?:[^\s"'\\]++|\\.|"(?:[^"\\]++|\\.)*"|'[^']*')++|(?P<open>["'\\]).*""")
QUOTED = re.compile(r"""\\(.)|"((?:[^"\\]++|\\.)*)"|'([^']*)'""")


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
    if what := OTHERS.get(path.suffix.lower()):
        raise UsageError(f"{path} is {what}, and no list of prompts that is read here", INSTEAD)
    read = {".toml": _toml_lines, ".csv": _csv_lines, ".tsv": _csv_lines}.get(path.suffix.lower(), text_lines)
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
    reading = _Reading(source, "option", FLAGS)
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
        reading.line(row[start:end], options, place, f"{place}, column", start + 1)
    return reading.done("say in each line what to draw: a cat")


def _other_format(text: str) -> str:
    """What a text is that is meant to be no prompts, a line each: JSON, TOML or CSV; empty if it may be."""
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


def _flags(reading: _Reading, row: str, start: int, place: str) -> dict[str, Any]:
    """The options in ``row`` from character ``start`` on."""
    options: dict[str, Any] = {}
    name = key = at = ""  # of the option whose value comes next
    for token in (*TOKEN.finditer(row, start), None):
        if name and key and (token is None or FIRST_FLAG.match(token[0])):
            reading.wrong(at, f"{name} has no value", f'write it behind: {name} 3, or {name} "two words"')
        if token is None:
            break
        word, column = token[0], token.start() + 1
        if token["open"]:
            what = "nothing follows this \\" if word[0] == "\\" else f"this {word[0]} is never closed"
            reading.wrong(f"{place}, column {column}", what, 'put a value that has an apostrophe in quotes: "a cat\'s"')
            break
        if FIRST_FLAG.match(word):
            if found := SHORT.fullmatch(word):  # -n3, -n=3
                word = f"{found[1]}={found[2]}"
            name, equals, word = word.partition("=")
            at = f"{place}, column {column}"
            key = reading.key(name, options, at)
            column += len(name) + 1
            if not equals:
                continue
        elif not name:
            what = f"'{short(word)}' belongs to no option"
            reading.wrong(f"{place}, column {column}", what, "put a value of several words in quotes")
            break
        if key:
            reading.value(options, key, name, QUOTED.sub(_unquoted, word), f"{place}, column {column}")
        name = ""
    return options


def _unquoted(quoted: re.Match[str]) -> str:
    """What a shell makes of something ``QUOTED``."""
    letter, double, single = quoted.groups("")
    return letter or single or re.sub(r'\\(["\\])', r"\1", double)


def _toml_lines(text: str, source: str) -> list[Line]:
    """The prompts in a TOML file: ``[[prompt]]`` tables, ``prompts = [...]``, and options for all of them above."""
    data = read_toml(text, source, "a [[prompt]] for each prompt", 'text = "a cat"')
    rows = text.split("\n")
    reading = _Reading(source, "key", {name: key for name, key in KEYS.items() if key != "text"})
    places = key_places(rows, range(len(rows)))
    defaults: dict[str, Any] = {}
    for name, value in data.items():
        place = places.get(name, "above the prompts")
        if name in ("prompt", "prompts"):
            if not isinstance(value, list):
                reading.wrong(place, f"{name} is no list of prompts", 'write prompts = ["a cat"]')
        elif key := reading.key(name, defaults, place):
            reading.value(defaults, key, name, value, place)
    reading.names = KEYS  # from here on a text, too
    for list_name in ("prompts", "prompt"):
        entries = data.get(list_name, [])
        if isinstance(entries, list):
            for number, (entry, where) in enumerate(
                zip(entries, table_rows(rows, list_name, len(entries)), strict=True), 1
            ):
                place = f"line {where.start + 1}" if where else f"prompt {number}"
                table = {"text": entry} if isinstance(entry, str) else entry
                _table(reading, table, defaults, place, key_places(rows, where))
    return reading.done('say what to draw: prompts = ["a cat", "a dog"]')


def _table(
    reading: _Reading, table: object, defaults: Mapping[str, Any], place: str, places: Mapping[str, str]
) -> None:
    """Add the prompt that ``table`` describes; ``places`` are its keys', ``place`` its own."""
    own: dict[str, Any] = {}
    if not isinstance(table, dict) or "text" not in table:
        reading.wrong(place, "this prompt has no text", 'write text = "a cat"')
        return
    for name, value in table.items():
        if key := reading.key(name, own, places.get(name, place)):
            reading.value(own, key, name, value, places.get(name, place))
    if (text := own.pop("text", None)) is not None:
        reading.line(text, {**defaults, **own}, place, f"{places.get('text', place)}, character")


def _csv_lines(text: str, source: str) -> list[Line]:
    """The prompts in a table: a row of column names, then a prompt a row; empty cells say nothing."""
    head = text.lstrip().partition("\n")[0]
    cells_of = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=head.count), skipinitialspace=True, strict=True)
    reading = _Reading(source, "column", COLUMNS)
    header: list[str] = []
    columns: list[str] = []
    number = 1  # of the line in which the next row begins
    try:
        for row in cells_of:
            place, number = f"line {number}", cells_of.line_num + 1
            cells = [plain(cell) for cell in row]
            if not any(cells):
                continue
            if header:
                _row(reading, header, columns, cells, place)
                continue
            header = cells
            for at, name in enumerate(header, 1):
                columns.append(reading.key(name.lower(), columns, f"{place}, column {at}") if name else "")
            if not reading.count and "text" not in columns:
                reading.wrong(f"{place}, column 1", "there is no column 'prompt'", "name the columns in the first row")
            if reading.count:
                break  # what stands below means nothing
    except csv.Error as error:
        reading.wrong(f"line {number}", f"this is no row of a table: {error}", 'write quotes in a cell twice: ""')
    return reading.done("write a row for each prompt below the names of the columns")


def _row(reading: _Reading, header: list[str], columns: list[str], cells: list[str], place: str) -> None:
    """Add the prompt of one row."""
    text = ""
    options: dict[str, Any] = {}
    for at, cell in enumerate(cells):
        key = columns[at] if at < len(columns) else ""
        if key == "text":
            text = cell
        elif key and cell:
            reading.value(options, key, header[at], cell, f"{place}, column {header[at]}")
        elif cell:
            what = f"'{short(cell)}' is below no column's name"
            reading.wrong(f"{place}, column {at + 1}", what, "put a cell in quotes if it holds what parts cells")
    reading.line(text, options, place, f"{place}, column {header[columns.index('text')]}, character")


class _Reading(Problems):
    """What was found in a file so far: its lines, and what is wrong with them.

    ``names`` are those of the options in this format, where each is a ``kind`` ("option", "key", "column").
    """

    def __init__(self, source: str, kind: str, names: Mapping[str, str]) -> None:
        super().__init__(source)
        self.kind, self.names = kind, names
        self.lines: list[Line] = []

    def key(self, name: str, taken: Collection[str], place: str) -> str:
        """The option that ``name`` means; empty, and a problem, if there is none or it is ``taken``."""
        key = self.names.get(name, "")
        if key and key not in taken:
            return key
        if key:
            self.wrong(place, f"{name} is given twice", "leave one of them out")
            return ""
        what = f"there is no {self.kind} '{short(name)}'{self.similar(name, self.names)}"
        hint = f"{self.kind}s: {', '.join(one for one in self.names if '_' not in one)}"
        self.wrong(place, what, hint + ("; put a prompt with such dashes in quotes" if self.kind == "option" else ""))
        return ""

    def value(self, options: dict[str, Any], key: str, name: str, value: object, place: str) -> None:
        """Set an option, called ``name`` here, if ``value`` is one that it can have."""
        try:
            options[key] = _checked(key, value)
        except ValueError as error:
            self.wrong(place, f"{name} {error}", "give it another value, or leave it out")

    def line(self, text: str, options: Mapping[str, Any], place: str, spot: str, first: int = 1) -> None:
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
        if len(self.lines) == MOST:
            raise UsageError(f"{self.source} holds more than {MOST:,} prompts", "make several files of it")
        self.lines.append(Line(prompt, options, f"{self.source}, {place}"))

    def done(self, hint: str) -> list[Line]:
        """The lines, if nothing is wrong; UsageError otherwise, or with ``hint`` if there are none."""
        self.refuse()
        if not self.lines:
            raise UsageError(f"{self.source} holds no prompts", hint)
        return self.lines


def _checked(key: str, value: object) -> Any:
    """The value of an option, typed; ValueError, which says what it must be, if it cannot have this one."""
    if key == "text":
        if not isinstance(value, str):
            raise ValueError(f"must be text, in quotes, not {short(value)}")
        return value  # places in it are counted as it was written
    if key in NUMBERS:
        if isinstance(value, str):  # as all is, outside TOML
            with suppress(ValueError):
                value = OPTIONS[key](value)
        return NUMBERS[key](value)
    if key == "name":
        if not (text := as_text(value)):
            raise ValueError("is empty")
        return text
    return as_typed(value)
