"""The things a base was taught, by all their names, and how a prompt that names others is read.

``things.jsonl`` of a model folder has a line a thing: ``{"thing": "dog", "words": ["a dog", "a puppy"], "zh": ["狗"],
"kinds": ["corgi", "poodle"]}``: what it is called in captions, the usual name first, its Chinese names, and words that
no caption has for things that it is nearest to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from styledrop_cli.base.prompt_tokens import quoted, shortened, words
from styledrop_cli.errors import ModelError
from styledrop_cli.io.files import atomic_write, parse_json, read_text, to_json

THINGS = "things.jsonl"
MOST_LINES = 20_000  # of what a base was taught: words, contents or things
MOST_KINDS = 10_000  # of a thing
LONGEST_NAME = 200  # characters
# How alike two summaries must be (cosine) for one thing to stand for another that no table knows. Of 455 words,
# WordNet's kinds and benchmarks/outside_words_dev.txt, 289 are that near to a thing, 66 % of them to a right one; of
# those between 0.6 and 0.65 only 38 %. They were words that the table mostly knows, for want of others.
NEAR = 0.6
NAMED = 3  # of the nearest things, where none is near
ARTICLES = frozenset({"a", "an"})
# Words that carry no content of their own and so need not have been taught.
FILLERS = frozenset("a an the and of in on with at by to for from style styles two three".split())
MISSPELT = 2  # letters more or less that a misspelt word has
MEANT = 3  # words that a remark asks about
# Where what a prompt shows is over: the last word before one of these is what is drawn.
_BEHIND = re.compile(
    r"\b(?:in|on|with|at|by|to|for|from|of|under|over|near|beside|behind|before|inside|above|below|between|through|"
    r"against|without|like|that|which|who|wearing|holding|eating|riding|made|drawn|painted|style)\b",
    re.IGNORECASE,
)
_TOGETHER = re.compile(r"\band\b|\bor\b|[,;&+]", re.IGNORECASE)
_IN = re.compile(r"\s+in\b|,?\s+\w+ style\b", re.IGNORECASE)  # a style or a place is behind it
_APART = re.compile(f"{_TOGETHER.pattern}|{_BEHIND.pattern}", re.IGNORECASE)
# Words for how many, before the thing.
_SEVERAL = re.compile(
    r"\s*(?:(?:an?|the|some)\s+(?:\w+\s+)?(?:pair|couple|few|group|bunch|pile|herd|flock|row|pack|lot|dozen)\s+(?:of\s+)?"
    r"|(?:two|three|four|five|six|seven|eight|nine|ten|twelve|several|many|both|lots of|dozens of|[2-9]|[1-9]\d+)\s+)"
    r"{1,2}",
    re.IGNORECASE,
)
_OURS = frozenset({"the", "some", "my", "your", "our", "these", "those", "all"})
_PLURALS = {"mice": "mouse", "men": "man", "women": "woman", "geese": "goose", "teeth": "tooth", "children": "child"}
_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")
# Chinese beside the names: how many there are, the words that measure them, colours, and what joins two names.
_HAN = re.compile(r"[\u3400-\u9fff]+(?:[、·][\u3400-\u9fff]+)*")
_MANY = {"一": "a", "两": "two", "二": "two", "三": "three"}
_MEASURES = "只个条辆朵棵座头匹把张艘架件本颗块杯架间幢片"
_COLOURS = {
    "红": "red", "橙": "orange", "黄": "yellow", "绿": "green", "蓝": "blue", "紫": "purple", "粉": "pink",
    "棕": "brown", "黑": "black", "白": "white", "灰": "grey",
}  # fmt: skip
_JOINED = "[和与跟及、]"


@dataclass(frozen=True)
class Thing:
    """Something that a base draws: what it is, its names in captions ("a dog"), its Chinese names, and its kinds."""

    thing: str
    words: tuple[str, ...]
    zh: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """How a prompt is read: its ``text``, the thing that stands ``instead`` of a word, and what is ``nearest`` to one.

    ``nearest`` are the names nearest to a word for which nothing is near enough. Both by the word as it was typed.
    ``single`` is how several of a thing were said, and the one that is drawn: ("two cats", "a cat").
    """

    text: str
    instead: dict[str, str] = field(default_factory=dict)
    nearest: dict[str, list[str]] = field(default_factory=dict)
    single: tuple[str, str] | None = None


class KnownThings:
    """The ``things`` a base was taught, and its ``words``; ``summarise`` is its encoder's ``B`` texts to ``[B,P]``.

    It is None where the encoder knows no more words than the base: then only the table of kinds says what is near.
    ``contents`` are the names of things that it was shown one of in a picture: it draws one of them and not several.
    """

    def __init__(
        self,
        things: Sequence[Thing],
        known: Collection[str],
        summarise: Callable[[list[str]], Tensor] | None,
        contents: Sequence[str] = (),
    ) -> None:
        self.things, self.contents = things, contents
        self._known = known
        self._summarise = summarise
        self._read: dict[str, Reading] = {}

    def unknown(self, text: str) -> list[str]:
        """The words of a text, in English, that were never taught, each once, in order; none where that is not told."""
        if not self._known:
            return []
        said = dict.fromkeys(words(self.in_english(text)))
        return [w for w in said if w not in self._known and w not in FILLERS and not w.isdigit()]

    def read(self, text: str) -> Reading:
        """A prompt as its encoder is given it: in English as far as names go, the nearest thing for what is unknown.

        Several of a thing are read as one, where the base was only shown single ones.
        """
        if not (self.things or self.contents):
            return Reading(text)
        if text not in self._read:
            one, single = self._as_one(self.in_english(text))
            self._read[text] = replace(self._nearest(one) if self.things else Reading(one), single=single)
        return self._read[text]

    def remarks(self, base: str, texts: Sequence[str], learnt: str, so: str) -> list[str]:
        """What a person should know before the ``base`` of that name draws ``texts``, a sentence each.

        They name the words that it was never taught, but for those ``learnt`` since, and say what it draws instead;
        ``so`` says what follows from words that it does not understand at all.
        """
        made = [remark for text in dict.fromkeys(texts) if (remark := self._of_several(base, text))]
        said = set(words(learnt))
        ones = " ".join(self._as_one(self.in_english(text))[0] for text in texts)
        unknown = [word for word in self.unknown(ones) if word not in said]
        if not unknown:
            return made
        placed = set()
        for reading in map(self.read, dict.fromkeys(texts)):
            sentences = {word: f"; it draws what is nearest: {name}" for word, name in reading.instead.items()}
            for word, names in reading.nearest.items():
                nearest = " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
                sentences[word] = f", and nothing that it knows is near; say {nearest}"
            for word, sentence in sentences.items():
                if word.lower() in unknown and word.lower() not in placed:
                    meant = f" (did you mean {one}?)" if (one := self.meant(word)) else ""
                    made.append(f"{base} was never taught '{word}'{sentence}{meant}")
                placed.add(word.lower())
        if rest := [word for word in unknown if word not in placed]:
            alike = list(dict.fromkeys(one for word in rest if (one := self.meant(word))))
            ask = f" (did you mean {', '.join(alike[:MEANT])}?)" if alike else ""
            made.append(f"{base} does not know {quoted(rest)}{ask}; {so}")
        return made

    def meant(self, word: str) -> str | None:
        """The known word that ``word`` may be a misspelling of: "cat" for "kat"; a thing's, if one is as near."""
        sound = _sound(word)
        if len(word) < 3 or not sound:
            return None
        for known in (self._nouns, self._known):
            alike = [one for one in known if abs(len(one) - len(word)) <= MISSPELT and _slip(sound, _sound(one))]
            if alike:
                return min(alike, key=lambda one: (_sound(one) != sound, abs(len(one) - len(word)), one))
        return None

    @property
    def names(self) -> list[str]:
        """The usual name of each known thing."""
        return list(dict.fromkeys([*self.contents, *(thing.words[0] for thing in self.things)]))

    def called(self, word: str) -> list[str]:
        """The names of the things that a word, or part of it, is a name or a kind of, in English or Chinese."""
        asked = word.strip().lower()
        asked = _parted(asked)[1] or asked
        forms = {asked, _PLURALS.get(asked, asked), *_singulars(asked)}
        other = {thing.words[0]: (*thing.words, *thing.zh, *thing.kinds) for thing in self.things}
        return [
            name
            for name in self.names
            if asked and any(form in one.lower() for form in forms for one in (name, *other.get(name, ())))
        ]

    @cached_property
    def usual(self) -> dict[str, str]:
        """The usual name of a thing, by each of its names."""
        return {name: thing.words[0] for thing in reversed(self.things) for name in thing.words}

    # ---- how many ----

    @cached_property
    def _nouns(self) -> dict[str, str]:
        """The names of all known things, by what they are without an article."""
        names = [*self.contents, *(name for thing in self.things for name in thing.words)]
        return {_parted(name)[1].lower(): name for name in reversed(names)}

    def _of_several(self, base: str, text: str) -> str:
        """What is said of a text that asks for more than one thing, or nothing."""
        if single := self.read(text).single:
            return f"{base} draws one thing in a picture: '{single[0]}' is read as '{single[1]}'"
        asked = _IN.split(text, maxsplit=1)[0]
        parts = [part.strip() for part in _APART.split(self.in_english(asked)) if part.strip()]
        named = [part for part in parts if self.thing_at_end(words(part))]
        if self.contents and len(named) > 1:
            apart = ", then ".join(f'"{part}"' for part in named)
            return f"{base} draws one thing in a picture, not '{shortened(asked)}': draw {apart}"
        return ""

    def thing_at_end(self, said: Sequence[str]) -> tuple[int, str] | None:
        """Where the longest name of a known thing begins that words end with, one or several of it, and that name."""
        for start in range(len(said)):
            noun = " ".join(said[start:])
            for one in _ones(noun):
                if one in self._nouns:
                    return start, self._nouns[one]
        return None

    def _as_one(self, text: str) -> tuple[str, tuple[str, str] | None]:
        """The text with one of a thing in place of several, and what was so replaced, by what; without, as it is."""
        counted = _SEVERAL.match(text)
        start = counted.end() if counted else 0
        heads = _heads(text[start:])
        if not self.contents or len(heads) != 1:
            return text, None
        end = start + heads[0][1].end()
        said = text[start:end].split()
        found = self.thing_at_end([word.lower() for word in said])
        if found is None:
            return text, None
        before, name = said[: found[0]], found[1]
        article, noun = _parted(name)
        many = bool(counted) or " ".join(said[found[0] :]).lower() != noun.lower()
        if not (article and many):  # what is called by a plural, as scissors, is one thing as it is
            return text, None
        if before and before[0].lower() in _OURS:
            before = before[1:]
        one = " ".join([_article(before[0] if before else noun), *before, noun]) if before else name
        return f"{one}{text[end:]}", (text[:end].strip(), one)

    # ---- Chinese ----

    def in_english(self, text: str) -> str:
        """The text with its Chinese names of known things in English, where nothing but such stands between two signs.

        "狗和一只红色的猫" is "a dog and a red cat"; what holds any other word is left as it is.
        """
        if not self._chinese or not _HAN.search(text):
            return text
        return " ".join(_HAN.sub(lambda run: self._translated(run.group()), text).split())

    def _translated(self, run: str) -> str:
        named = [self._one.fullmatch(part) for part in re.split(_JOINED, run)]
        if not all(named):
            named = [self._one.fullmatch(run)]  # a name that has one of the signs inside
        return f" {' and '.join(self._in_words(found) for found in named if found)} " if all(named) else run

    def _in_words(self, found: re.Match[str]) -> str:
        many, colour, name = found["many"], found["colour"], self._chinese[found["name"]]
        article, noun = _parted(name)
        if many in (None, "一"):
            if not colour:
                return name
            return (
                f"{_article(_COLOURS[colour])} {_COLOURS[colour]} {noun}" if article else f"{_COLOURS[colour]} {noun}"
            )
        parts = [_MANY[many], _COLOURS.get(colour or "", ""), _plural(noun)]
        return " ".join(part for part in parts if part)

    @cached_property
    def _chinese(self) -> dict[str, str]:
        return {name: thing.words[0] for thing in reversed(self.things) for name in reversed(thing.zh)}

    @cached_property
    def _one(self) -> re.Pattern[str]:
        names = "|".join(map(re.escape, sorted(self._chinese, key=len, reverse=True)))
        colours = "".join(_COLOURS)
        return re.compile(
            rf"(?:(?P<many>[{''.join(_MANY)}])[{_MEASURES}]?)?(?:(?P<colour>[{colours}])色?的?)?(?P<name>{names})"
        )

    # ---- what was never taught ----

    def _nearest(self, text: str) -> Reading:
        """The text with each thing that was never taught replaced by what it is nearest to, if anything is near."""
        made, instead, nearest = [], {}, {}
        end = 0
        for before, found in _heads(text):
            word = found.group().lower()
            one = next((w for w in (word, *_singulars(word)) if w in self._known or w in FILLERS), None)
            if one is not None or not self._known:
                continue
            name, near = self._thing_for(word)
            if name is None:
                if near:
                    nearest[found.group()] = near
                continue
            noun, start = _parted(name)[1], found.start()
            if any(w in self._kinds for w in _singulars(word)) and word not in self._kinds:
                noun = _plural(noun)
            elif before and before.group().lower() in ARTICLES:
                start, noun = before.start(), name
            made += [text[end:start], noun]
            end, instead[found.group()] = found.end(), name
        return Reading("".join([*made, text[end:]]), instead, nearest)

    def _thing_for(self, word: str) -> tuple[str | None, list[str]]:
        """The name of what stands for a word, or None and the names nearest to it."""
        for one in (word, *_singulars(word)):
            if one in self._kinds:
                return self._kinds[one], []
        if self._summarise is None:
            return None, []
        likeness = F.normalize(self._summarise([f"{_article(word)} {word}"]).float(), dim=-1) @ self._summaries.T
        best = likeness[0].topk(min(len(self.things), 4 * NAMED))
        names = list(dict.fromkeys(self._names[index] for index in best.indices.tolist()))
        return (names[0] if float(best.values[0]) >= NEAR else None), names[:NAMED]

    @cached_property
    def _kinds(self) -> dict[str, str]:
        return {kind: thing.words[0] for thing in reversed(self.things) for kind in thing.kinds}

    @cached_property
    def _names(self) -> list[str]:
        """The usual name of what each row of ``_summaries`` is a name of."""
        return [thing.words[0] for thing in self.things for _ in thing.words]

    @cached_property
    @torch.no_grad()
    def _summaries(self) -> Tensor:
        assert self._summarise is not None
        names = [name for thing in self.things for name in thing.words]
        order = sorted(range(len(names)), key=lambda i: len(names[i]))  # those of a length are read together
        made = torch.cat(
            [self._summarise([names[i] for i in order[at : at + 256]]) for at in range(0, len(order), 256)]
        )
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order)] = torch.arange(len(order))
        return F.normalize(made.float(), dim=-1)[back.to(made.device)]


def name_one(known: KnownThings, text: str, other: str) -> bool:
    """Whether two texts, in English or Chinese, name one thing, by whichever of its names: "a puppy", "two dogs".

    In doubt they do: what is drawn in one of them may stand anywhere in the other, "a cat" in "a dog and a cat".
    """
    (drawn, said), (its, named) = (_named(known, known.read(one).text) for one in (text, other))
    return bool(drawn & named or its & said)


def _named(known: KnownThings, text: str) -> tuple[set[str], set[str]]:
    """What is drawn of a text, and all words of it: one of each thing, and a known thing's usual name besides."""
    drawn: set[str] = set()
    every = {one for word in words(text) for one in _ones(word)}
    for _, head in _heads(text):
        drawn |= set(_ones(head.group().lower()))
        if found := known.thing_at_end(words(text[: head.end()])):
            drawn.add(known.usual.get(found[1], found[1]))
    return drawn, every | drawn


def _heads(text: str) -> list[tuple[re.Match[str] | None, re.Match[str]]]:
    """The words that say what is drawn, each with the word before it: the last of each part, before any preposition."""
    heads, start = [], 0
    for stop in [*(found.span() for found in _TOGETHER.finditer(text)), (len(text), len(text))]:
        behind = _BEHIND.search(text, start, stop[0])
        found = list(_WORD.finditer(text, start, behind.start() if behind else stop[0]))
        if found:
            heads.append((found[-2] if len(found) > 1 else None, found[-1]))
        start = stop[1]
        if behind and behind.group().lower() in ("in", "style"):
            break  # the style is not looked at
    return heads


def _parted(name: str) -> tuple[str, str]:
    """A name's article, or "", and the rest."""
    first, _, rest = name.partition(" ")
    return (first, rest) if first.lower() in ARTICLES and rest else ("", name)


def _article(word: str) -> str:
    return "an" if word[:1].lower() in "aeiou" else "a"


def _plural(noun: str) -> str:
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun if noun.endswith("s") and not noun.endswith("ss") else f"{noun}es"
    return f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2:-1] not in "aeiou" else f"{noun}s"


def _singulars(word: str) -> list[str]:
    """What a word may be the plural of."""
    endings = (("ies", "y"), ("ves", "f"), ("ves", "fe"), ("es", ""), ("s", ""))
    return [word.removesuffix(end) + instead for end, instead in endings if word.endswith(end) and len(word) > 3]


def _ones(noun: str) -> list[str]:
    """A noun, and what it may be the plural of."""
    return [noun, _PLURALS.get(noun, noun), *_singulars(noun)]


def _sound(word: str) -> str:
    """A word as it is heard, about: letters that are mistaken for each other are one, doubled consonants too."""
    heard = word.lower().replace("ph", "f").replace("ck", "c").translate(str.maketrans("kzyq", "csic"))
    return re.sub(r"([^aeiou])\1+", r"\1", heard)


def _slip(one: str, other: str) -> bool:
    """Whether two words, as they are heard, are the same but for a slip: a letter too many, too few, or two swapped.

    Short words have many right neighbours ("goat", "boat"), so they must sound the same, and only long ones may have
    another letter in place of one.
    """
    shorter, longer = sorted((one, other), key=len)
    if one == other or len(shorter) < 4 or len(longer) - len(shorter) > 1:
        return one == other
    same = next((at for at, (a, b) in enumerate(zip(shorter, longer, strict=False)) if a != b), len(shorter))
    if len(longer) > len(shorter):
        return shorter[same:] == longer[same + 1 :]
    swapped = shorter[same + 1 : same + 2] + shorter[same : same + 1] + shorter[same + 2 :]
    return swapped == longer[same:] or (len(one) > 5 and shorter[same + 1 :] == longer[same + 1 :])


# ---- the files ----


def known_in(folder: Path) -> KnownThings:
    """What the model in a folder was taught, by its lists alone; raises ModelError for lists that cannot be read."""

    def summarise(texts: list[str]) -> Tensor:
        raise ModelError(f"the text encoder of {folder} is not loaded")  # nothing that is asked of the lists needs it

    words_known = frozenset(read_lines(folder / "words.txt"))
    return KnownThings(read_things(folder / THINGS), words_known, summarise, read_lines(folder / "contents.txt"))


def read_lines(path: Path) -> list[str]:
    """The lines of a file, none where there is none; raises ModelError if it cannot be read or has too many."""
    try:
        lines = read_text(path).splitlines() if path.exists() else []
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    if len(lines) > MOST_LINES:
        raise ModelError(f"{path} has {len(lines):,} lines, and at most {MOST_LINES:,} are read")
    return lines


def read_things(path: Path) -> list[Thing]:
    """The things of a file, none where there is none; raises ModelError for a file that is not as it should be."""
    lines = read_lines(path)
    return [_thing(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _thing(line: str, where: str) -> Thing:
    try:
        entry = parse_json(line)
        thing, listed = entry["thing"], [entry["words"], entry.get("zh", []), entry.get("kinds", [])]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{where}: needs a JSON object with 'thing' and 'words' ({error})") from error
    whole = all(isinstance(names, list) and len(names) <= MOST_KINDS for names in listed) and bool(listed[0])
    texts = [thing, *listed[0], *listed[1], *listed[2]] if whole else [None]
    if not all(isinstance(text, str) and text.strip() and len(text) <= LONGEST_NAME for text in texts):
        raise ModelError(f"{where}: 'thing' must be a name, 'words' a list of at least one, 'zh' and 'kinds' lists")
    said, zh, kinds = (tuple(names) for names in listed)
    return Thing(thing, said, zh, kinds)


def write_things(path: Path, things: Sequence[Thing]) -> None:
    """Write what ``read_things`` reads."""
    lines = ({name: value for name, value in asdict(thing).items() if value} for thing in things)
    atomic_write(path, "".join(f"{to_json(line)}\n" for line in lines).encode())
