"""What a person writes to draw many pictures: files of prompts, wildcards in them, and patterns for file names.

Standard library only, so that a command can refuse a wrong file at once. Whatever is wrong with a file is said in one
UsageError, a place and a sentence for each of the first ``SHOWN`` problems.
"""

from __future__ import annotations

import csv
import io
import math
import re
import tomllib
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, lru_cache
from hashlib import sha256
from itertools import count
from pathlib import Path
from string import Formatter
from typing import Any

from styledrop_cli.errors import UsageError
from styledrop_cli.settings import LARGEST_SEED, SampleSettings

LARGEST = 5_000_000  # bytes of a file
MOST = 100_000  # prompts in it
LONGEST = 10_000  # characters of a prompt
DEEPEST = 50  # braces in braces
SHOWN = 5  # problems that one error tells of

# What a line can set beside its prompt.
OPTIONS: dict[str, type] = {
    "number": int,
    "name": str,
    "style": str,
    "negative": str,
    "seed": int,
    "strength": float,
    "lambda_a": float,
    "lambda_b": float,
    "steps": int,
    "temperature": float,
}
RANGES = SampleSettings.RANGES | {"number": (1, 1000)}

# How options are called in each format.
DASHED = {key.replace("_", "-"): key for key in OPTIONS}
FLAGS = {"-n": "number"} | {f"--{name}": key for name, key in DASHED.items()}
KEYS = {"text": "text"} | {key: key for key in OPTIONS} | DASHED
COLUMNS = {"prompt": "text"} | KEYS

CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
FLAG = r"(?:--[^\W\d_]|-n(?=\s|$))"
FIRST_FLAG = re.compile(rf"(?<!\S){FLAG}")
WHOLLY_QUOTED = re.compile(rf"""\s*(?:"([^"]*)"|'([^']*)')(?=\s*$|\s+{FLAG})""")
# A word as a shell splits it off, or else a quote or a backslash without its end.
TOKEN = re.compile(r"""(?:[^\s"'\\]++|\\.|"(?:[^"\\]++|\\.)*"|'[^']*')++|(?P<open>["'\\]).*""")
QUOTED = re.compile(r"""\\(.)|"((?:[^"\\]++|\\.)*)"|'([^']*)'""")
TABLE = re.compile(r"""\s*\[\[\s*["']?(prompts?)["']?\s*\]\]""")
TABLE_KEY = re.compile(r"""\s*\[*\s*(?:"([^"]*)"|'([^']*)'|([\w-]+))\s*[=.\]]""")
TOML_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


# ---- files of prompts ----


@dataclass(frozen=True)
class Line:
    """One prompt of a file: its ``text``, wildcards as written, and the ``options`` that it sets, keyed as ``OPTIONS``.

    ``where`` is its place for messages: "prompts.txt, line 3".
    """

    text: str
    options: Mapping[str, Any]
    where: str


def read_lines(path: Path) -> list[Line]:
    """The prompts in a file: TOML, CSV (or TSV) by its suffix, otherwise text, a prompt a line.

    Raises UsageError if it cannot be read, is larger than ``LARGEST``, holds none or more than ``MOST``, or if anything
    in it is wrong.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)  # a pipe has no size to ask for
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path} cannot be read: {reason}", "name a file of prompts, a prompt a line") from None
    if len(data) > LARGEST:
        raise _too_large(str(path))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        rows = _unix(error.object[: error.start].decode()).split("\n")
        place = f"{path}, line {len(rows)}, column {len(rows[-1]) + 1}"
        raise UsageError(f"{place}: these bytes are no text in UTF-8", "save the file as UTF-8") from None
    read = {".toml": _toml_lines, ".csv": _csv_lines, ".tsv": _csv_lines}.get(path.suffix.lower(), text_lines)
    return read(text, str(path))


def text_lines(text: str, source: str) -> list[Line]:
    """The prompts in a text, a line each, with options behind them as on the command line: ``a cat --seed 5 -n 3``.

    Blank lines and those that begin with # are left out. Only what follows the first option is split as a shell would,
    so that a prompt's apostrophes stay what they are; quotes around all of it are taken off. ``source`` names the text
    in messages. Raises UsageError as ``read_lines`` does.
    """
    if len(text) > LARGEST:
        raise _too_large(source)
    reading = _Reading(source, "option", FLAGS)
    for number, raw in enumerate(_unix(text).split("\n"), 1):
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
            name, equals, word = word.partition("=")
            at = f"{place}, column {column}"
            key = reading.key(name, options, at)
            column += len(name) + 1
            if not equals:
                continue
        elif not name:
            what = f"'{_short(word)}' belongs to no option"
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
    text = _unix(text)
    rows = text.split("\n")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = TOML_PLACE.search(str(error))
        line, column = (found[1], found[2]) if found and found[1] else (len(rows), len(rows[-1]) + 1)
        what = TOML_PLACE.sub("", str(error))
        what = f"{source}, line {line}, column {column}: {what[:1].lower()}{what[1:]}"
        raise UsageError(what, 'write texts in quotes, a key a line: text = "a cat"') from None
    except (RecursionError, ValueError):  # what the reader itself does not take
        what = f"{source} has brackets too deep in brackets, or a number of thousands of digits"
        raise UsageError(what, "write a [[prompt]] for each prompt") from None
    reading = _Reading(source, "key", {name: key for name, key in KEYS.items() if key != "text"})
    heads = [(at, found[1]) for at, row in enumerate(rows) if (found := TABLE.match(row))]
    ends = [at for at, _ in heads] + [len(rows)]
    places = _key_places(rows, 0, len(rows))
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
        spans = [(at, end) for (at, head), end in zip(heads, ends[1:], strict=True) if head == list_name]
        if isinstance(entries, list):
            for number, entry in enumerate(entries, 1):
                # A head may also stand inside a text: then none is trusted.
                span = spans[number - 1] if len(spans) == len(entries) else None
                place = f"line {span[0] + 1}" if span else f"prompt {number}"
                places = _key_places(rows, *span) if span else {}
                _table(reading, {"text": entry} if isinstance(entry, str) else entry, defaults, place, places)
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


def _key_places(rows: list[str], start: int, end: int) -> dict[str, str]:
    """Where each key stands that begins one of these rows, or the table of its name."""
    places: dict[str, str] = {}
    for number in range(start, end):
        if found := TABLE_KEY.match(rows[number]):
            key = found.lastindex or 0
            places.setdefault(found[key], f"line {number + 1}, column {found.start(key) + 1}")
    return places


def _csv_lines(text: str, source: str) -> list[Line]:
    """The prompts in a table: a row of column names, then a prompt a row; empty cells say nothing."""
    text = _unix(text)
    head = text.lstrip().partition("\n")[0]
    cells_of = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=head.count), skipinitialspace=True, strict=True)
    reading = _Reading(source, "column", COLUMNS)
    header: list[str] = []
    columns: list[str] = []
    number = 1  # of the line in which the next row begins
    try:
        for row in cells_of:
            place, number = f"line {number}", cells_of.line_num + 1
            cells = [_plain(cell) for cell in row]
            if not any(cells):
                continue
            if header:
                _row(reading, header, columns, cells, place)
                continue
            header = cells
            for at, name in enumerate(header, 1):
                columns.append(reading.key(name.lower(), columns, f"{place}, column {at}") if name else "")
            if not reading.problems and "text" not in columns:
                reading.wrong(f"{place}, column 1", "there is no column 'prompt'", "name the columns in the first row")
            if reading.problems:
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
            what = f"'{_short(cell)}' is below no column's name"
            reading.wrong(f"{place}, column {at + 1}", what, "put a cell in quotes if it holds what parts cells")
    reading.line(text, options, place, f"{place}, column {header[columns.index('text')]}, character")


class _Reading:
    """What was found in a file so far: its lines, and what is wrong with them.

    ``names`` are those of the options in this format, where each is a ``kind`` ("option", "key", "column"). A place is
    one in the file: "line 3, column 12".
    """

    def __init__(self, source: str, kind: str, names: Mapping[str, str]) -> None:
        self.source, self.kind, self.names = source, kind, names
        self.lines: list[Line] = []
        self.problems = 0
        self._said: list[str] = []
        self._hints: list[str] = []

    def wrong(self, place: str, what: str, hint: str) -> None:
        """Something is wrong at a place; only the first few are kept in words."""
        self.problems += 1
        if len(self._said) < SHOWN:
            self._said.append(f"{self.source}, {place}: {what}")
            self._hints.append(hint)

    def key(self, name: str, taken: Collection[str], place: str) -> str:
        """The option that ``name`` means; empty, and a problem, if there is none or it is ``taken``."""
        key = self.names.get(name, "")
        if key and key not in taken:
            return key
        if key:
            self.wrong(place, f"{name} is given twice", "leave one of them out")
            return ""
        near = get_close_matches(name[:40], self.names, 1) if self.problems < SHOWN else []  # slow
        what = f"there is no {self.kind} '{_short(name)}'" + "".join(f"; did you mean '{one}'?" for one in near)
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
        plain = _plain(text)
        if not plain:
            self.wrong(f"{spot} {first}", "there is no prompt", "say what to draw: a cat")
        elif len(plain) > LONGEST:
            self.wrong(f"{spot} {first}", f"a prompt of more than {LONGEST:,} characters", "say it in fewer words")
        else:
            try:
                _parse(text)
            except _BraceError as error:
                self.wrong(f"{spot} {first + error.at}", str(error), BRACES)
        if len(self.lines) == MOST:
            raise UsageError(f"{self.source} holds more than {MOST:,} prompts", "make several files of it")
        self.lines.append(Line(plain, options, f"{self.source}, {place}"))

    def done(self, hint: str) -> list[Line]:
        """The lines, if nothing is wrong; UsageError otherwise, or with ``hint`` if there are none."""
        if self.problems:
            more = [f"and {self.problems - SHOWN:,} more"] if self.problems > SHOWN else []
            raise UsageError("\n".join(self._said + more), "; ".join(dict.fromkeys(self._hints)))
        if not self.lines:
            raise UsageError(f"{self.source} holds no prompts", hint)
        return self.lines


def _checked(key: str, value: object) -> Any:
    """The value of an option, typed; ValueError, which says what it must be, if it cannot have this one."""
    kind = OPTIONS.get(key, str)
    if kind is str:
        if not isinstance(value, str):
            raise ValueError(f"must be text, in quotes, not {_short(value)}")
        plain = value if key == "text" else _plain(value)  # places in a text are counted as it was written
        if key != "text" and len(plain) > LONGEST:
            raise ValueError(f"has more than {LONGEST:,} characters")
        if key == "name" and not plain:
            raise ValueError("is empty")
        return plain
    number: Any
    try:
        number = kind(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if isinstance(number, bool) or not isinstance(number, int if kind is int else (int, float)):
        raise ValueError(f"must be a {'whole ' if kind is int else ''}number, not '{_short(value)}'")
    least, most = RANGES[key]
    if not least <= number <= most:  # nor is NaN
        raise ValueError(f"must be between {least:,} and {most:,}, not {_short(value)}")
    return kind(number)


def _too_large(source: str) -> UsageError:
    return UsageError(f"{source} is too large for a list of prompts: more than {LARGEST:,} bytes", "make it several")


def _unix(text: str) -> str:
    """A text without a byte order mark, its lines ended alike: those that an editor counts."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _plain(text: str) -> str:
    """A text in one line, without control characters and with single blanks."""
    return " ".join(CONTROLS.sub(" ", text).split())


def _short(value: object) -> str:
    """A value as a message quotes it."""
    try:
        text = _plain(str(value))
    except ValueError:  # Python writes no integer of thousands of digits
        return "a very long number"
    return text if len(text) <= 40 else f"{text[:40]}..."


# ---- wildcards ----

BRACES = r"write \{, \| and \} for a brace or a bar itself"
BRACE = re.compile(r"\\([{|}])|[{|}]|[^\\{|}]+|\\")


@dataclass(frozen=True)
class _Run:
    """A stretch of a template: texts as they are, and for each wildcard the runs to choose from."""

    pieces: tuple[str | tuple[_Run, ...], ...]

    @cached_property
    def count(self) -> int:
        """How many variants there are."""
        return math.prod(sum(run.count for run in piece) for piece in self.pieces if not isinstance(piece, str))

    def variant(self, index: int) -> str:
        """One of the ``count`` variants; those of the last wildcard follow each other first."""
        texts = []
        for piece in reversed(self.pieces):
            if isinstance(piece, str):
                texts.append(piece)
                continue
            index, rest = divmod(index, sum(run.count for run in piece))
            for run in piece:
                if rest < run.count:
                    texts.append(run.variant(rest))
                    break
                rest -= run.count
        return "".join(reversed(texts))

    def filled(self, choose: Callable[[int], int]) -> str:
        """The variant that ``choose`` makes of it: called at each wildcard with how many runs there are."""
        return "".join(
            piece if isinstance(piece, str) else piece[choose(len(piece))].filled(choose) for piece in self.pieces
        )


@dataclass(frozen=True)
class Template:
    """A prompt with wildcards: ``a {red|blue|{dark|light} green} cat``, one of its alternatives at each brace.

    An alternative may be empty. A backslash makes a brace or a bar stand for itself; a bar outside braces does anyhow.
    Variants have single blanks.
    """

    text: str
    run: _Run

    @classmethod
    def read(cls, text: str, where: str) -> Template:
        """``text`` taken apart; UsageError, which begins with ``where``, for unbalanced braces or too deep ones."""
        try:
            return cls(text, _parse(text))
        except _BraceError as error:
            raise UsageError(f"{where}, column {error.at + 1}: {error}", BRACES) from None

    @property
    def is_plain(self) -> bool:
        """Whether there are no wildcards: there is one variant."""
        return all(isinstance(piece, str) for piece in self.run.pieces)

    @property
    def count(self) -> int:
        """How many variants there are, counted without making them: it may be more than any file holds."""
        return self.run.count

    def every(self) -> Iterator[str]:
        """All variants in the order written, one at a time; the last wildcard changes first."""
        return (" ".join(self.run.variant(index).split()) for index in range(self.count))

    def pick(self, seed: int) -> str:
        """One variant, decided by ``seed`` and the text alone; at each brace every alternative is as likely."""
        start = sha256(f"{seed} {self.text}".encode("utf-8", "surrogatepass")).digest()
        turns = count()

        def choose(n: int) -> int:
            # 256 bits: how uneven the remainder makes it cannot be noticed.
            return int.from_bytes(sha256(start + next(turns).to_bytes(8, "big")).digest(), "big") % n

        return " ".join(self.run.filled(choose).split())


class _BraceError(ValueError):
    """A brace without its other half, at character ``at``, from 0."""

    def __init__(self, at: int, what: str) -> None:
        super().__init__(what)
        self.at = at


def _parse(text: str) -> _Run:
    """The pieces of a template; _BraceError if its braces are unbalanced or more than ``DEEPEST`` deep."""
    levels: list[list[list[Any]]] = [[[]]]  # the alternatives at each open brace, the last one's pieces growing
    opened: list[int] = []
    for token in BRACE.finditer(text):
        mark, literal = token[0], token[1]
        if mark == "{":
            opened.append(token.start())
            levels.append([[]])
            if len(opened) > DEEPEST:
                raise _BraceError(token.start(), f"this {{ is inside {DEEPEST} others, which is too deep")
        elif mark == "}":
            if not opened:
                raise _BraceError(token.start(), "this } closes nothing")
            opened.pop()
            choice = tuple(_Run(tuple(pieces)) for pieces in levels.pop())
            levels[-1][-1].append(choice)
        elif mark == "|" and opened:
            levels[-1].append([])
        else:
            levels[-1][-1].append(literal or mark)
    if opened:
        raise _BraceError(opened[-1], "this { is never closed")
    return _Run(tuple(levels[0][0]))


# ---- names of files ----

FIELDS = ("prompt", "seed", "index", "name", "style")
LONGEST_SLUG = 48  # characters
LONGEST_STEM = 120  # bytes: every file system takes these with a suffix and a number
SIGNS = re.compile("[\u2190-\u21ff\u2300-\u2bff\U0001f000-\U0001faff]")  # arrows, dingbats and emoji
JOINERS = "\u200c\u200d"
# What no file's name may hold somewhere, and what turns the direction of writing around.
FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*\u2028-\u202e\u2066-\u2069\ud800-\udfff]+')
RESERVED = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])\s*(?:\.|$)", re.IGNORECASE)


def stem(pattern: str, *, prompt: str, seed: int, index: int, name: str | None = None, style: str = "") -> str:
    """A file's name without its suffix: ``pattern`` with its fields filled in, for example "{prompt}-{seed}".

    ``prompt`` and ``style`` become words joined by "-", and the prompt's stand for ``name`` where there is none. Texts
    are cut so that numbers are not. The result is a name on every system: never a path, hidden, empty or longer than
    ``LONGEST_STEM`` bytes. Raises UsageError if ``pattern`` is none.
    """
    parts = _parts(pattern)
    slug = _slug(prompt)
    values = {"prompt": slug, "name": name or slug, "style": _slug(style), "seed": seed, "index": index}
    made = ""
    for room in range(LONGEST_STEM, 0, -1):
        made = _file_name(_filled(parts, values, room))
        if len(made.encode()) <= LONGEST_STEM:
            return made
    return made.encode()[:LONGEST_STEM].decode(errors="ignore").rstrip(" .-")


def check_pattern(pattern: str) -> None:
    """Refuse a pattern that ``stem`` cannot fill in, or that gives different pictures one name.

    Raises UsageError for unknown fields and formats, braces that do not match, a pattern that has nothing to tell
    prompts or one prompt's pictures apart, and one that leaves no room for its fields.
    """
    parts = _parts(pattern)
    fields = {field for _, field, _ in parts}
    missing = []
    if not fields & {"prompt", "name", "index"}:
        missing.append(("prompts", "{prompt}, {name} or {index}"))
    if not fields & {"seed", "index"}:
        missing.append(("the pictures of one prompt", "{seed} or {index}"))
    if missing:
        what = " and ".join(what for what, _ in missing)
        hint = " and ".join(field for _, field in missing)
        raise UsageError(f"the pattern '{_short(pattern)}' does not tell {what} apart", f"add {hint}")
    largest = {**dict.fromkeys(FIELDS, "x"), "seed": LARGEST_SEED, "index": MOST * 1000}
    if len(_filled(parts, largest, 1).encode("utf-8", "replace")) > LONGEST_STEM:
        what = f"the pattern '{_short(pattern)}' makes names of more than {LONGEST_STEM} bytes"
        raise UsageError(what, "leave out some of its text")


@lru_cache
def _parts(pattern: str) -> tuple[tuple[str, str, str], ...]:
    """A pattern as texts, each with the field behind it (empty for none) and its format; UsageError if it is none."""
    hint = "fields: {prompt}, {seed}, {index}, {name}, {style}; {index:04} puts zeros in front, {{ is a brace itself"
    try:
        parsed = [(text, field, spec or "", kind) for text, field, spec, kind in Formatter().parse(pattern)]
    except ValueError as error:
        raise UsageError(f"the pattern '{_short(pattern)}' has a wrong brace: {error}", hint) from None
    parts = []
    for text, field, spec, conversion in parsed:
        if field is not None and field not in FIELDS:
            base = re.split(r"[.\[]", field)[0]
            what = f"only {{{base}}} alone" if base in FIELDS else f"no field {{{_short(field)}}}"
            raise UsageError(f"in the pattern '{_short(pattern)}' there can be {what}", hint)
        if conversion or not re.fullmatch(r"(?:0\d{1,2})?" if field in ("seed", "index") else "", spec):
            raise UsageError(f"in the pattern '{_short(pattern)}' {{{field}}} cannot have this format", hint)
        parts.append((text, field or "", spec))
    return tuple(parts)


def _filled(parts: tuple[tuple[str, str, str], ...], values: Mapping[str, Any], room: int) -> str:
    """A pattern's text with ``values`` in it, of each text at most ``room`` characters."""
    made = []
    for text, field, spec in parts:
        value = values[field] if field else ""
        made += [text, value[:room].rstrip("-") if isinstance(value, str) else format(value, spec)]
    return "".join(made)


def _slug(text: str) -> str:
    """The words of a text in lower case, with "-" between; "picture" if there are none."""

    def speaks(letter: str) -> bool:
        return letter.isalnum() or bool(SIGNS.match(letter))

    # Marks are a part of the letters that they stand above, below or behind; Python's \w leaves them out.
    kept = (
        letter if speaks(letter) or letter in JOINERS or unicodedata.category(letter)[0] == "M" else " "
        for letter in unicodedata.normalize("NFC", text).lower()
    )
    words = (word for word in "".join(kept).split() if any(map(speaks, word)))
    return "-".join(words)[:LONGEST_SLUG].strip("-") or "picture"


def _file_name(text: str) -> str:
    """A text as a name that every system takes, however long."""
    text = FORBIDDEN.sub("-", unicodedata.normalize("NFC", text))
    text = " ".join(re.sub(r"\.{2,}", ".", text).split()).strip(" .-")
    if RESERVED.match(text):  # Windows reads these as devices, whatever their suffix
        text = f"_{text}"
    return text or "picture"
