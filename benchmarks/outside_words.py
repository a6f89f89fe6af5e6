"""What a base reads in place of words that it was never taught: how often it is one of the things accepted for it.

    python benchmarks/outside_words.py my-model/ examples/pocket/index.jsonl

The texts alone: nothing is drawn. ``outside_words.txt`` is the figure; ``outside_words_dev.txt`` is what settings may
be chosen by. (The second list was written after the encoder's mistakes on the first had been looked at, and they are
why there is a table: the first is no longer quite unseen.) The index says which thing an emoji is. A word that is a
thing's own name by now is counted apart: it is not outside.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from styledrop_cli.base.folder import load_text
from styledrop_cli.base.known_things import NEAR, THINGS, KnownThings, read_things
from styledrop_cli.base.prompt_tokens import words

HERE = Path(__file__).parent
Outcomes = dict[str, list[str]]


def accepted(path: Path, things_of: dict[str, set[str]]) -> list[tuple[str, set[str]]]:
    """The lines of a list: a word with its article, and the things that may stand for it."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            word, _, names = line.partition(":")
            split = names.split("|") if "|" in names or path.stem.endswith("_dev") else names.split()
            found.append((word, set().union(*(things_of[one.strip()] for one in split))))
    return found


@cache
def _reader(folder: Path, table: bool) -> KnownThings:
    things, text = read_things(folder / THINGS), load_text(folder, torch.device("cpu"))
    known = {word for thing in things for name in thing.words for word in words(name)}
    some = things if table else [replace(thing, kinds=()) for thing in things]
    return KnownThings(some, known, (lambda texts: text.encode(texts)[1]) if text.knows_english else None)


def things_called(index: Path, taught: set[str]) -> dict[str, set[str]]:
    """The things among those ``taught`` that a file's or a thing's name in the index stands for."""
    things_of: dict[str, set[str]] = defaultdict(set)
    for line in index.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        for name in (Path(entry["file"]).stem, entry["thing"]):
            for one in (name, name.removesuffix("-face")):
                things_of[one] |= {entry["thing"]} & taught
    return things_of


def read_as(folder: Path, index: Path, stem: str = "outside_words", *, table: bool = True) -> Outcomes:
    """The words of a list by how a model folder's text encoder reads them: "taught" (by this very name), "right",
    "wrong", "not known", "not near" anything, or that but "the first right" of what it names. ``table``: with the table
    of kinds.
    """
    things = read_things(folder / THINGS)
    things_of = things_called(index, {thing.thing for thing in things})
    reader = _reader(folder, table)
    names = {thing.words[0]: thing.thing for thing in things}
    outcome: Outcomes = defaultdict(list)
    for word, right in accepted(HERE / f"{stem}.txt", things_of):
        reading = reader.read(word)
        if not (reading.instead or reading.nearest):
            outcome["not known" if reader.unknown(word) else "taught"].append(word)
        elif reading.nearest:
            first = names[next(iter(reading.nearest.values()))[0]]
            outcome["not near, the first right" if first in right else "not near"].append(f"{word}: {first}")
        else:
            name = next(iter(reading.instead.values()))
            outcome["right" if names[name] in right else "wrong"].append(f"{word}: {name}")
    return outcome


def main() -> None:
    """Print both shares, with the table of kinds and by the encoder alone, and each word that was read otherwise."""
    folder, index = Path(sys.argv[1]), Path(sys.argv[2])
    for title, table in (("table and encoder", True), ("encoder alone", False)):
        for stem in ("outside_words", "outside_words_dev"):
            outcome = read_as(folder, index, stem, table=table)
            asked = sum(map(len, outcome.values())) - len(outcome["taught"])
            counts = ", ".join(f"{len(some)} {what}" for what, some in sorted(outcome.items()))
            print(f"{title}, {stem}, near from {NEAR}: {len(outcome['right']) / asked:.1%} of {asked} ({counts})")
            print(f"  wrong: {'; '.join(outcome['wrong'])}\n  not near: {'; '.join(outcome['not near'])}")


if __name__ == "__main__":
    main()
