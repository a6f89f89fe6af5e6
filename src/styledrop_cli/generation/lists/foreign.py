"""What other programs read in a prompt and this one does not: it is found, so that it is not drawn as words."""

from __future__ import annotations

import re
from operator import itemgetter

from styledrop_cli.generation.lists.options import KEYS, OPTIONS
from styledrop_cli.io.text_files import short

LITERAL = "a backslash in front of a sign keeps it as it is"
SMALL = "write it in small letters"
NO_WEIGHTS = f"leave it out: --lambda-b pushes towards all of the prompt; {LITERAL}"
NO_FILES = f"write the words themselves, or {{red|blue}}; {LITERAL}"

LETTER = r"[^\W\d_]"
DECIMAL = r"[+-]?(?:\d+\.\d*|\.\d+)"
NUMBER = rf"(?:{DECIMAL}|[+-]?\d+)"
# Of one digit or with a point: (AD:79) is prose, and so is [exit: 5].
SHARE = rf"(?:\s*{DECIMAL}|[+-]?\d)\s*"
QUOTES = "\"'“”‘’«»"
DASHES = "‐‑‒–—―−﹘﹣－"
NUMBERED = "|".join(sorted((name for name, key in KEYS.items() if OPTIONS[key] is not str), key=len, reverse=True))
TEXTS = "|".join(name for name, key in KEYS.items() if OPTIONS[key] is str)
SIGN = rf"[{{}}|()\[\]<>:+_{DASHES}-]"  # what a backslash keeps
# What was kept; of a bracket all that is in it.
ESCAPED = re.compile(
    rf"\\(?:\((?:[^()\\]|\\[^()])*\\?\)|\[(?:[^\[\]\\]|\\[^\[\]])*\\?\]|<(?:[^<>\\]|\\[^<>])*\\?>|{SIGN})"
)

# What each construct is, what to do about it here, and the patterns that find it. They search other people's texts of
# any length: none may try all of a text anew at each of its letters.
CONSTRUCTS = {
    "names an adapter inside a prompt": (
        "name adapters as --mix a.safetensors:0.6 --mix b.safetensors:0.4, and how much of them with --strength; "
        + LITERAL,
        r"(?i:<(?:lora|lyco|hypernet|embed|embedding)\s*:[^<>]*>)",
    ),
    "is an instruction": (
        NO_FILES,
        r"<[a-zA-Z]\w*(?:\[[^\[\]<>]*\])?:(?!//)[^<>]*>",
        r"\{%|\{[@~](?=[^{}]*\|)",
    ),
    "names an embedding inside a prompt": (
        f"styles come from adapter files: the first argument, or --mix; {LITERAL}",
        r"(?i:(?<!\w)embedding:\S+)",
    ),
    "changes a prompt while it is drawn": (
        f"write one prompt; {LITERAL}",
        rf"\[(?=[^\[\]]*{LETTER})(?:[^\[\]:]*+:){{2,}}+(?<!\d:\d\d:)\s*{NUMBER}(?:\s*,\s*{NUMBER})*\s*%?\s*\]",
        rf"\[[^\[\]]*{LETTER}:\d+\]|\[[^\[\]]*{LETTER}\s*:{SHARE}\]",
    ),
    "goes to and fro between words": (
        f"write {{red|blue}} for one of several; {LITERAL}",
        r"\[[^\[\]{}]*\|[^\[\]{}]*\]",
    ),
    "weighs words": (
        NO_WEIGHTS,
        rf"\([^()]{{0,500}}{LETTER}\w{{0,50}}[^\w\s():]{{0,5}}\s{{0,5}}:{SHARE}\)",
        rf"(?<![\w:;-])(?:\(\((?=[^()]*{LETTER})[^()]*\)+|\[\[(?=[^\[\]]*{LETTER})[^\[\]]*\]+)",
        rf"\((?=[^()]*{LETTER})[^()]*+\)(?:\d*\.\d+|\++(?!\w)|--+(?![\w-]))",
        rf"(?<!{LETTER}){LETTER}++\d*+:\d*\.\d+(?!\w|\.\d)",
        rf"(?<!{LETTER}){LETTER}{{3,}}+\+\++(?!\w)",
    ),
    "makes one of several words likelier": (
        "write a word twice to have it twice as often: {red|red|blue}",
        rf"[{{|]\s*{NUMBER}::",
    ),
    "weighs parts of a prompt": (NO_WEIGHTS, rf"(?<!\S){NUMBER}::|::\s*{NUMBER}(?!\w)|(?<=\w)::(?=[\s,]|$)"),
    "joins texts": (f"write one prompt; styles are mixed with --mix; {LITERAL}", r"\.(?:blend|and|swap)\("),
    "takes several words at once": (
        f"write them as braces behind each other: {{red|blue}} {{round|square}}; {LITERAL}",
        r"\{\s*\d*\s*-?\s*\d*\s*\$\$",
    ),
    "is a variable": (NO_FILES, r"\$\{"),
    "names a file of words": (NO_FILES, r"(?<!\w)__[^\s_](?:[^\s]*?[^\s_])?__(?!\.\w)"),
    "joins prompts": (f"{SMALL}; styles are mixed with --mix", r"(?<=\S)\s+AND(?:_[A-Z]+)?\s+(?=\S)"),
    "parts a prompt": (
        f"leave it out, or {SMALL}",
        rf"(?<![\w{QUOTES}-])(?:BREAK|ADD(?:COMM|COL|ROW|BASE))(?![\w{QUOTES}-])",
    ),
    "says what to keep away from": (f"say it with --negative; {LITERAL}", r"(?i:(?<!\w)negative prompt:)"),
    "says settings": (
        f"say them as options, behind the prompt: --steps 20 --seed 5; {LITERAL}",
        r"(?i:(?<!\w)steps:\s*\d+,\s*\w[\w ]*:)",
    ),
    "is an option with the wrong dash": (
        "write options with hyphens, behind the prompt: --seed 5, -n 3",
        rf"(?i:(?<!\S)-?[{DASHES}]{{1,2}}-?(?:{NUMBERED}|n)(?:\s*=\s*|\s+)?[+-]?\.?\d[\d.]*)",
        # A dash behind it closes what it opens: "a stair –steps of marble– at night".
        rf"(?i:(?<!\S)-?[{DASHES}]{{1,2}}-?(?:{TEXTS})(?:\s*=\s*|\s+)(?=\S)(?!.{{0,80}}\w[{DASHES}](?:\W|$)))",
        rf"(?i:(?<!\S)-(?:{NUMBERED})(?:\s*=\s*|\s+)[+-]?\.?\d[\d.]*)",
    ),
}
PATTERNS = [(re.compile(one), what) for what, (_, *patterns) in CONSTRUCTS.items() for one in patterns]
SHOUTED = ("joins prompts", "parts a prompt")  # a word that counts in capitals alone, and not among capitals


def literal(text: str) -> str:
    """A text without the backslashes that keep signs as they are."""
    return re.sub(rf"\\({SIGN})", r"\1", text)


def foreign(text: str) -> tuple[int, str, str] | None:
    """The first construct of another program's in a text: its character, from 0, what is wrong with it, and a hint."""
    read = ESCAPED.sub(lambda kept: "x" * len(kept[0]), text)
    hits = []
    for pattern, what in PATTERNS:
        if hit := next((one for one in pattern.finditer(read) if not (what in SHOUTED and _among_capitals(one))), None):
            said = short(text[hit.start() : hit.end()].strip())
            hits.append((hit.start(), f"'{said}' {what}, which styledrop does not support", CONSTRUCTS[what][0]))
    return min(hits, key=itemgetter(0)) if hits else None


def _among_capitals(word: re.Match[str]) -> bool:
    """Whether no word next to this one is in small letters."""
    beside = word.string[: word.start()].split()[-1:] + word.string[word.end() :].split()[:1]
    return not beside or " ".join(beside).isupper()
