"""What a pool has to choose from, and who picks it without being a person: a CLIP and chance.

A person looks the same from here: a ``Picker``. Those that one is behind are in ``cli/picking.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from styledrop_cli.devices import generator
from styledrop_cli.feedback.pool import Drawn, Plan
from styledrop_cli.judging.scores import Scores, empty, repeats, scores


@dataclass(frozen=True)
class Candidates:
    """A pool as a picker sees it: N pictures, uint8 ``[N,3,S,S]``, each with its prompt, its scores and its flaw.

    ``flaws`` are empty for what may be picked by a machine, else ``empty`` or ``like 12``, the picture it repeats.
    """

    prompts: list[str]
    pictures: Tensor
    scores: list[Scores]
    flaws: list[str]

    def in_turn(self, order: Sequence[int]) -> list[int]:
        """Flawless pictures, one a prompt, then the next of each; within a turn and a prompt, in the given order."""
        turns: dict[str, int] = {}
        ranked = []
        for place, index in enumerate(order):
            if not self.flaws[index]:
                turn = turns[self.prompts[index]] = turns.get(self.prompts[index], -1) + 1
                ranked.append((turn, place, index))
        return [index for _, _, index in sorted(ranked)]


def candidates_of(drawn: Drawn, plain: Drawn, plan: Plan) -> Candidates:
    """The pool ``drawn`` by ``plan``, scored against the base's ``plain`` pictures of the same prompts."""
    found = scores(drawn.seen, plain.seen.means(len(plan.prompts), plan.per_prompt))
    order = sorted(range(len(found)), key=lambda i: (-found[i].total, i))
    same = repeats(drawn.small, plan.of_each, order)
    nothing = empty(drawn.small).tolist()
    flaws = ["empty" if e else "" if of is None else f"like {of + 1}" for e, of in zip(nothing, same, strict=True)]
    return Candidates(plan.of_each, drawn.pictures, found, flaws)


class Picker(Protocol):
    """Whoever picks the pictures to learn from."""

    name: str

    def pick(self, candidates: Candidates, keep: int, folder: Path) -> list[int]:
        """At least one and about ``keep`` of the pool, by their places; ``folder`` is the round's, for notes."""


class BestPicker:
    """The best of each prompt by its score, so that what is learnt from stays diverse; then the next best."""

    name = "clip"

    def pick(self, candidates: Candidates, keep: int, folder: Path) -> list[int]:
        totals = [s.total for s in candidates.scores]
        return candidates.in_turn(sorted(range(len(totals)), key=lambda i: (-totals[i], i)))[:keep]


class RandomPicker:
    """Chance, the control: any picture of each prompt."""

    name = "random"

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def pick(self, candidates: Candidates, keep: int, folder: Path) -> list[int]:
        order = torch.randperm(len(candidates.prompts), generator=generator(self._seed)).tolist()
        return candidates.in_turn(order)[:keep]
