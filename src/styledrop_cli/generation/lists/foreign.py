"""What other programs read in a prompt, and this one does not: found, so that it is not drawn as words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from operator import itemgetter

from styledrop_cli.io.text_files import OPTIONS, as_text, short

LITERAL = "a backslash in front of a sign keeps it as it is"
SMALL = "write it in small letters"
LETTER = r"[^\W\d_]"
DECIMAL = r"[+-]?(?:\d+\.\d*|\.\d+)"
NUMBER = rf"(?:{DECIMAL}|[+-]?\d+)"
# Of one digit or with a point: (AD:79) is prose, and so is [exit: 5].
SHARE = rf"(?:\s*{DECIMAL}|[+-]?\d)\s*"
QUOTES = "\"'“”‘’«»"
DASHES = "‐‑‒–—―−﹘﹣－"
WRITTEN = {key.replace("_", sign): kind for key, kind in OPTIONS.items() for sign in "-_"}
NUMBERED = "|".join(sorted((name for name, kind in WRITTEN.items() if kind is not str), key=len, reverse=True))
TEXTS = "|".join(name for name, kind in WRITTEN.items() if kind is str)
SIGN = rf"[{{}}|()\[\]<>:+_{DASHES}-]"  # what a backslash keeps
# What was kept; of a bracket all that is in it.
ESCAPED = re.compile(
    rf"\\(?:\((?:[^()\\]|\\[^()])*\\?\)|\[(?:[^\[\]\\]|\\[^\[\]])*\\?\]|<(?:[^<>\\]|\\[^<>])*\\?>|{SIGN})"
)


@dataclass(frozen=True)
class Construct:
    """A ``pattern`` of another program's, ``what`` it is, and the ``hint`` what does it here."""

    pattern: re.Pattern[str]
    what: str
    hint: str
    shouted: bool = False  # a word that counts in capitals alone, where those beside it are not in capitals, too


def _weight(pattern: str) -> Construct:
    hint = f"leave it out: --lambda-b pushes towards all of the prompt; {LITERAL}"
    return Construct(re.compile(pattern), "weighs words, which nothing here does", hint)


def _dashed(pattern: str) -> Construct:
    hint = "write options with hyphens, behind the prompt: --seed 5, -n 3"
    return Construct(re.compile(pattern, re.IGNORECASE), "begins with a dash that begins no option", hint)


INSTRUCTION = "is an instruction, which nothing here reads", f"write the words themselves, or {{red|blue}}; {LITERAL}"
# Of other people's texts of any length: nothing here may try all of a text anew at each of its letters.
CONSTRUCTS = (
    Construct(
        re.compile(r"<(?:lora|lyco|hypernet|embed|embedding)\s*:[^<>]*>", re.IGNORECASE),
        "names an adapter inside a prompt",
        "name adapters as --mix a.safetensors:0.6 --mix b.safetensors:0.4, and how much of them with --strength; "
        + LITERAL,
    ),
    Construct(re.compile(r"<[a-zA-Z]\w*(?:\[[^\[\]<>]*\])?:(?!//)[^<>]*>"), *INSTRUCTION),
    Construct(
        re.compile(r"(?<!\w)embedding:\S+", re.IGNORECASE),
        "names an embedding inside a prompt",
        f"styles come from adapter files: the first argument, or --mix; {LITERAL}",
    ),
    Construct(
        re.compile(
            rf"\[(?=[^\[\]]*{LETTER})(?:[^\[\]:]*+:){{2,}}+(?<!\d:\d\d:)\s*{NUMBER}(?:\s*,\s*{NUMBER})*\s*%?\s*\]"
            rf"|\[[^\[\]]*{LETTER}:\d+\]|\[[^\[\]]*{LETTER}\s*:{SHARE}\]"
        ),
        "changes a prompt while it is drawn, which nothing here does",
        f"write one prompt; {LITERAL}",
    ),
    Construct(
        re.compile(r"\[[^\[\]{}]*\|[^\[\]{}]*\]"),
        "goes to and fro between words, which nothing here does",
        f"write {{red|blue}} for one of several; {LITERAL}",
    ),
    _weight(rf"\([^()]{{0,500}}{LETTER}\w{{0,50}}[^\w\s():]{{0,5}}\s{{0,5}}:{SHARE}\)"),
    _weight(rf"(?<![\w:;-])(?:\(\((?=[^()]*{LETTER})[^()]*\)+|\[\[(?=[^\[\]]*{LETTER})[^\[\]]*\]+)"),
    _weight(rf"\((?=[^()]*{LETTER})[^()]*+\)(?:\d*\.\d+|\++(?!\w)|--+(?![\w-]))"),
    _weight(rf"(?<!{LETTER}){LETTER}++\d*+:\d*\.\d+(?!\w|\.\d)"),
    _weight(rf"(?<!{LETTER}){LETTER}{{3,}}+\+\++(?!\w)"),
    Construct(
        re.compile(rf"[{{|]\s*{NUMBER}::"),
        "makes one of several words likelier, which nothing here does",
        "write a word twice to have it twice as often: {red|red|blue}",
    ),
    Construct(
        re.compile(rf"(?<!\S){NUMBER}::|::\s*{NUMBER}(?!\w)|(?<=\w)::(?=[\s,]|$)"),
        "weighs parts of a prompt, which nothing here does",
        f"leave it out: --lambda-b pushes towards all of the prompt; {LITERAL}",
    ),
    Construct(
        re.compile(r"\.(?:blend|and|swap)\("),
        "joins texts, which nothing here does",
        f"write one prompt; styles are mixed with --mix; {LITERAL}",
    ),
    Construct(
        re.compile(r"\{\s*\d*\s*-?\s*\d*\s*\$\$"),
        "takes several words at once, which nothing here does",
        f"write them as braces behind each other: {{red|blue}} {{round|square}}; {LITERAL}",
    ),
    Construct(re.compile(r"\$\{"), "is a variable, which nothing here has", INSTRUCTION[1]),
    Construct(re.compile(r"\{%|\{[@~](?=[^{}]*\|)"), *INSTRUCTION),
    Construct(
        re.compile(r"(?<!\w)__[^\s_](?:[^\s]*?[^\s_])?__(?!\.\w)"),
        "names a file of words, which nothing here does",
        f"write the words themselves: {{robin|owl|wren}}; {LITERAL}",
    ),
    Construct(
        re.compile(r"(?<=\S)\s+AND(?:_[A-Z]+)?\s+(?=\S)"),
        "joins prompts, which nothing here does",
        f"{SMALL}; styles are mixed with --mix",
        shouted=True,
    ),
    Construct(
        re.compile(rf"(?<![\w{QUOTES}-])(?:BREAK|ADD(?:COMM|COL|ROW|BASE))(?![\w{QUOTES}-])"),
        "parts a prompt, which nothing here does",
        f"leave it out, or {SMALL}",
        shouted=True,
    ),
    Construct(
        re.compile(r"(?<!\w)negative prompt:", re.IGNORECASE),
        "says what to keep away from, which a prompt cannot",
        f"say it with --negative; {LITERAL}",
    ),
    Construct(
        re.compile(r"(?<!\w)steps:\s*\d+,\s*\w[\w ]*:", re.IGNORECASE),
        "says settings, which a prompt cannot",
        f"say them as options, behind the prompt: --steps 20 --seed 5; {LITERAL}",
    ),
    # A dash behind it closes what it opens: "a stair –steps of marble– at night".
    _dashed(rf"(?<!\S)-?[{DASHES}]{{1,2}}-?(?:{NUMBERED}|n)(?:\s*=\s*|\s+)?[+-]?\.?\d[\d.]*"),
    _dashed(rf"(?<!\S)-?[{DASHES}]{{1,2}}-?(?:{TEXTS})(?:\s*=\s*|\s+)(?=\S)(?!.{{0,80}}\w[{DASHES}](?:\W|$))"),
    _dashed(rf"(?<!\S)-(?:{NUMBERED})(?:\s*=\s*|\s+)[+-]?\.?\d[\d.]*"),
)


def literal(text: str) -> str:
    """A text without the backslashes that keep signs as they are."""
    return re.sub(rf"\\({SIGN})", r"\1", text)


def as_typed(value: object) -> str:
    """A text in one line, in which a backslash keeps a sign as it is. Raises ValueError as a ``Reader`` does."""
    text = as_text(value)
    if problem := foreign(text):
        raise ValueError(f"says what only other programs read: {problem[1]}: {problem[2]}")
    return literal(text)


def foreign(text: str) -> tuple[int, str, str] | None:
    """The first construct of another program's in a text: its character, from 0, what is wrong with it, and a hint."""
    read = ESCAPED.sub(lambda kept: "x" * len(kept[0]), text)
    hits = [
        (found.start(), f"'{short(text[found.start() : found.end()].strip())}' {one.what}", one.hint)
        for one in CONSTRUCTS
        if (found := next((hit for hit in one.pattern.finditer(read) if not (one.shouted and _shouted(hit))), None))
    ]
    return min(hits, key=itemgetter(0)) if hits else None


def _shouted(word: re.Match[str]) -> bool:
    """Whether no word next to this one is in small letters."""
    beside = word.string[: word.start()].split()[-1:] + word.string[word.end() :].split()[:1]
    return not beside or " ".join(beside).isupper()
