"""What other programs read in a prompt, and this one does not: found, so that it is not drawn as words."""

from __future__ import annotations

import re
from dataclasses import dataclass

from styledrop_cli.lists.reading import OPTIONS, short

LITERAL = "a backslash before a bracket keeps it as it is"
SMALL = "write it in small letters"
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
LETTER = r"[^\W\d_]"
NAMES = "|".join(sorted({"n", *OPTIONS, *(name.replace("_", "-") for name in OPTIONS)}, key=len, reverse=True))


@dataclass(frozen=True)
class Construct:
    """A ``pattern`` of another program's, ``what`` it is, and the ``hint`` what does it here."""

    pattern: re.Pattern[str]
    what: str
    hint: str
    shouted: bool = False  # a word that counts in capitals alone, where not everything is in capitals


def _found(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\\){pattern}")


WEIGHT = f"leave it out: --lambda-b pushes towards all of the prompt; {LITERAL}"
CONSTRUCTS = (
    Construct(
        _found(r"<(?:lora|lyco|hypernet|embedding)\s*:[^<>]*>"),
        "names an adapter inside a prompt",
        "name adapters as --mix a.safetensors:0.6 --mix b.safetensors:0.4, and how much of them with --strength",
    ),
    Construct(
        re.compile(r"(?<!\S)embedding:\S+"),
        "names an embedding inside a prompt",
        "styles come from adapter files: the first argument, or --mix",
    ),
    Construct(
        _found(rf"\[[^\[\]]*:[^\[\]]*:\s*{NUMBER}\s*\]|\[[^\[\]]*{LETTER}\s*:\s*{NUMBER}\s*\]"),
        "changes a prompt while it is drawn, which nothing here does",
        f"write one prompt; {LITERAL}",
    ),
    Construct(
        _found(r"\[[^\[\]{}]*\|[^\[\]{}]*\]"),
        "goes to and fro between words, which nothing here does",
        f"write {{red|blue}} for one of several; {LITERAL}",
    ),
    Construct(
        _found(rf"\((?:[^()\\]|\\.)*{LETTER}[\"')\]]*\s*:\s*{NUMBER}\s*\)"),
        "weighs words, which nothing here does",
        WEIGHT,
    ),
    Construct(_found(r"\(\([^()]*\)\)|(?<!\\)\[\[[^\[\]]*\]\]"), "weighs words, which nothing here does", WEIGHT),
    Construct(_found(rf"\([^()]*{LETTER}[^()]*\)\d*\.\d+"), "weighs words, which nothing here does", WEIGHT),
    Construct(re.compile(rf"{LETTER}:\d*\.\d+(?!\S)"), "weighs words, which nothing here does", WEIGHT),
    Construct(re.compile(rf"{LETTER}{{3,}}\+\++(?!\S)"), "weighs words, which nothing here does", WEIGHT),
    Construct(
        _found(rf"[{{|]\s*{NUMBER}::"),
        "makes one of several words likelier, which nothing here does",
        "write a word twice to have it twice as often: {red|red|blue}",
    ),
    Construct(re.compile(rf"::\s*{NUMBER}(?!\S)"), "weighs parts of a prompt, which nothing here does", WEIGHT),
    Construct(
        _found(r"\{\s*\d*\s*-?\s*\d*\s*\$\$"),
        "takes several words at once, which nothing here does",
        "write them as braces behind each other: {red|blue} {round|square}",
    ),
    Construct(_found(r"\$\{"), "is a variable, which nothing here has", "write the words themselves, or {red|blue}"),
    Construct(
        _found(r"__[^\s_](?:[^\s]*?[^\s_])?__"),
        "names a file of words, which nothing here does",
        "write the words themselves: {robin|owl|wren}",
    ),
    Construct(
        re.compile(r"(?<=\S)\s+AND\s+(?=\S)"),
        "joins prompts, which nothing here does",
        f"{SMALL}; styles are mixed with --mix",
        shouted=True,
    ),
    Construct(
        re.compile(r"(?<!\S)BREAK(?!\S)"), "parts a prompt, which nothing here does", f"leave it out, or {SMALL}", True
    ),
    Construct(
        re.compile(rf"(?<!\S)[–—−]{{1,2}}(?:{NAMES})(?=[\s=]|\d|$)"),
        "begins with a dash that begins no option",
        "write options with hyphens: --seed 5, -n 3",
    ),
)


def literal(text: str) -> str:
    """A text without the backslashes that keep brackets as they are."""
    return re.sub(r"\\([()\[\]<>_])", r"\1", text)


def foreign(text: str) -> tuple[int, str, str] | None:
    """The first construct of another program's in a text: its character, from 0, what is wrong with it, and a hint."""
    capitals = text.isupper()
    hits = [
        (found.start(), f"'{short(found[0].strip())}' {one.what}", one.hint)
        for one in CONSTRUCTS
        if (found := one.pattern.search(text)) and not (one.shouted and capitals)
    ]
    return min(hits) if hits else None
