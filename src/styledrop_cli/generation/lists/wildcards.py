"""Wildcards: one prompt that stands for several, as in ``a {red|blue} cat``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import count
from typing import Any

from styledrop_cli.errors import UsageError
from styledrop_cli.generation.lists.foreign import SIGN, foreign

DEEPEST = 50  # braces in braces
BRACES = r"write \{, \| and \} for a brace or a bar itself"
BRACE = re.compile(rf"\\({SIGN})|[{{|}}]|[^\\{{|}}]+|\\")
OPEN_SIGN = re.compile(rf"(?<!\\)(?:{SIGN})")


@dataclass(frozen=True)
class Run:
    """A stretch of a template: texts as they are, and for each wildcard the runs to choose from."""

    pieces: tuple[str | tuple[Run, ...], ...]

    @cached_property
    def count(self) -> int:
        """How many variants there are."""
        return math.prod(sum(run.count for run in piece) for piece in self.pieces if not isinstance(piece, str))

    def variant(self, index: int) -> str:
        """The variant of a number below ``count``; the last wildcard changes first."""
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
        """The variant that ``choose`` makes: it is told how many runs a wildcard has, and gives the number of one."""
        return "".join(
            piece if isinstance(piece, str) else piece[choose(len(piece))].filled(choose) for piece in self.pieces
        )


@dataclass(frozen=True)
class Template:
    """A prompt with wildcards: ``a {red|blue|{dark|light} green} cat``, one of its alternatives at each brace.

    An alternative may be empty. A backslash makes a brace, a bar or another sign stand for itself; a bar outside braces
    always does. Variants have single blanks.
    """

    text: str
    run: Run

    @classmethod
    def read(cls, text: str, where: str) -> Template:
        """``text`` taken apart; UsageError, which begins with ``where``, where ``parse`` raises."""
        try:
            return cls(text, parse(text))
        except BraceError as error:
            raise UsageError(f"{where}, column {error.at + 1}: {error}", error.hint) from None

    @property
    def count(self) -> int:
        """How many variants there are, counted without making them: it may be more than any file holds."""
        return self.run.count

    def every(self) -> Iterator[str]:
        """All variants, made one at a time; the last wildcard changes first."""
        return (" ".join(self.run.variant(index).split()) for index in range(self.count))

    def pick(self, seed: int) -> str:
        """One variant, decided by ``seed`` and the text alone; at each brace every alternative is as likely."""
        start = sha256(f"{seed} {self.text}".encode("utf-8", "surrogatepass")).digest()
        turns = count()

        def choose(number: int) -> int:  # 256 bits: how uneven the remainder makes it cannot be noticed
            return int.from_bytes(sha256(start + next(turns).to_bytes(8, "big")).digest(), "big") % number

        return " ".join(self.run.filled(choose).split())


class BraceError(ValueError):
    """A brace without its other half, or what only other programs read, at character ``at``, from 0."""

    def __init__(self, at: int, what: str, hint: str = BRACES) -> None:
        super().__init__(what)
        self.at, self.hint = at, hint


def escaped(text: str) -> str:
    """``text`` with backslashes, so that it is a template of itself alone."""
    made = re.sub(rf"([{{}}]|(?<=\\)(?:{SIGN}))", r"\\\1", text)
    while (problem := foreign(made)) and (sign := OPEN_SIGN.search(made, problem[0])):
        made = f"{made[: sign.start()]}\\{made[sign.start() :]}"
    return made


def parse(text: str) -> Run:
    """A template taken apart.

    Raises BraceError for braces that are unbalanced or more than ``DEEPEST`` deep, and what only other programs read.
    """
    if problem := foreign(text):
        raise BraceError(*problem)
    levels: list[list[list[Any]]] = [[[]]]  # the alternatives at each open brace, the last one's pieces growing
    opened: list[int] = []
    for token in BRACE.finditer(text):
        mark, literal = token[0], token[1]
        if mark == "{":
            opened.append(token.start())
            levels.append([[]])
            if len(opened) > DEEPEST:
                raise BraceError(token.start(), f"this {{ is inside {DEEPEST} others, which is too deep")
        elif mark == "}":
            if not opened:
                raise BraceError(token.start(), "this } closes nothing")
            opened.pop()
            choice = tuple(Run(tuple(pieces)) for pieces in levels.pop())
            levels[-1][-1].append(choice)
        elif mark == "|" and opened:
            levels[-1].append([])
        else:
            levels[-1][-1].append(literal or mark)
    if opened:
        raise BraceError(opened[-1], "this { is never closed")
    return Run(tuple(levels[0][0]))
