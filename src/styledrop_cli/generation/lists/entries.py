"""Reading the entries of a list in any format: their options, where they stand, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from styledrop_cli.errors import UsageError
from styledrop_cli.generation.lists.foreign import foreign, literal
from styledrop_cli.generation.lists.options import NUMBERS, Reader
from styledrop_cli.io.palette import check_palette
from styledrop_cli.io.text_files import MOST, Problems, as_text, key_places, read_toml, short, table_rows


def filled_text(value: object) -> str:
    """A text in one line that is not empty."""
    if not (text := as_text(value)):
        raise ValueError("is empty")
    return text


def typed_text(value: object) -> str:
    """A text in one line, perhaps empty, in which a backslash keeps a sign as it is."""
    text = as_text(value)
    if problem := foreign(text):
        raise ValueError(f"cannot be drawn as it is: {problem[1]}: {problem[2]}")
    return literal(text)


def palette(value: object) -> str:
    """What a palette may be, as a text or a list of colours; whether a picture is one is seen later."""
    said = ",".join(map(str, value)) if isinstance(value, list) else filled_text(value)
    try:
        check_palette(said)
    except UsageError as error:
        raise ValueError(f"cannot be used: {error.message}; {error.hint}") from None
    return said


READERS: dict[str, Reader] = NUMBERS | {
    "name": filled_text,
    "style": typed_text,
    "negative": typed_text,
    "palette": palette,
}


Entry = TypeVar("Entry")


class Entries(Problems, Generic[Entry]):
    """The entries that were ``found`` in a list so far, and all that is wrong with it; ``readers`` read what is set.

    ``noun`` is what an entry is ("prompt"), ``kind`` what an option's name is in this format ("option", "key",
    "column"). A ``place`` is one in the list, "line 3, column 12"; ``who`` begins a message.
    """

    def __init__(self, source: str, noun: str, kind: str, readers: Mapping[str, Reader] = READERS) -> None:
        super().__init__(source)
        self.noun, self.kind, self.readers = noun, kind, readers
        self.found: list[Entry] = []

    def key(self, name: str, keys: Mapping[str, str], taken: Collection[str], place: str, who: str = "") -> str:
        """The option that ``keys`` has for a ``name``; empty, and a problem, if there is none or it is ``taken``."""
        key = keys.get(name, "")
        if key and key not in taken:
            return key
        if key:
            self.wrong(place, f"{who}{name} is given twice", "leave one of them out")
            return ""
        what = f"{who}there is no {self.kind} '{short(name)}'{self.similar(name, keys)}"
        hint = f"{self.kind}s: {', '.join(one for one in keys if '_' not in one)}"
        self.wrong(place, what, hint + ("; put a prompt with such dashes in quotes" if self.kind == "option" else ""))
        return ""

    def value(self, options: dict[str, Any], key: str, name: str, value: object, place: str, who: str = "") -> None:
        """Set the option ``key``, called ``name`` in the list, if it can have this ``value``."""
        try:
            options[key] = self.readers[key](value)
        except ValueError as error:
            self.wrong(place, f"{who}{name} {error}", "give it another value, or leave it out")

    def table(
        self,
        table: Mapping[str, object],
        keys: Mapping[str, str],
        place: str,
        places: Mapping[str, str],
        who: str = "",
    ) -> dict[str, Any]:
        """What a TOML table sets; ``places`` are its keys', ``place`` is its own."""
        options: dict[str, Any] = {}
        for name, value in table.items():
            at = places.get(name, place)
            if key := self.key(name, keys, options, at, who):
                self.value(options, key, name, value, at, who)
        return options

    def toml(
        self, text: str, lists: Sequence[str], keys: Mapping[str, str], example: str
    ) -> tuple[dict[str, Any], Iterator[tuple[object, str, dict[str, str]]]]:
        """What stands above all entries of a TOML file, by ``keys``, and each entry of its ``lists``.

        An entry comes with its place and its keys' places. Raises UsageError for what is no TOML, and too many entries.
        """
        data = read_toml(text, self.source, f"a [[{self.noun}]] for each {self.noun}", example)
        rows = text.split("\n")
        places = key_places(rows, range(len(rows)))
        listed: dict[str, list[object]] = {}
        for name in lists:
            listed[name] = entries = data.pop(name, [])
            if not isinstance(entries, list):
                hint = f"write [[{self.noun}]] above each {self.noun}"
                self.wrong(places.get(name, "line 1"), f"{name} is no list of {self.noun}s", hint)
                listed[name] = []
        defaults = self.table(data, {**keys, **dict.fromkeys(lists, "")}, f"above the {self.noun}s", places)
        return defaults, (
            (entry, f"line {where.start + 1}" if where else f"{self.noun} {number}", key_places(rows, where))
            for name, entries in listed.items()
            for number, (entry, where) in enumerate(zip(entries, table_rows(rows, name, len(entries)), strict=True), 1)
        )

    def add(self, entry: Entry) -> None:
        """Add an entry; raises UsageError for more than ``MOST``."""
        if len(self.found) == MOST:
            raise UsageError(f"{self.source} holds more than {MOST:,} {self.noun}s", "make several files of it")
        self.found.append(entry)

    def all(self, hint: str) -> list[Entry]:
        """The entries; UsageError if anything is wrong or, with a ``hint``, if there are none."""
        self.refuse()
        if not self.found:
            raise UsageError(f"{self.source} holds no {self.noun}s", hint)
        return self.found
