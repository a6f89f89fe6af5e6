"""What a pool offers, and who picks from it: a CLIP or chance here, a person in ``cli/picking.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from styledrop_cli.devices import generator
from styledrop_cli.judging.evaluate import Evaluated
from styledrop_cli.judging.scores import Scores, flaws


@dataclass(frozen=True)
class Candidates:
    """A pool as a picker sees it: N pictures, uint8 ``[N,3,S,S]``, each with its prompt, its scores and its flaw.

    ``flaws`` are empty for what may be picked by a machine, else ``empty`` or ``like 12``, the picture it repeats.
    """

    prompts: list[str]
    pictures: Tensor
    scores: list[Scores]
    flaws: list[str]

    @classmethod
    def of(cls, prompts: list[str], drawn: Evaluated) -> Candidates:
        """The pictures of a pool that were ``drawn``, each for its one of ``prompts``."""
        numbers = range(1, len(prompts) + 1)
        found = flaws(drawn.thumbnails, prompts, best_first(drawn.scores), numbers)
        return cls(prompts, drawn.pictures, drawn.scores, found)

    def in_turn(self, order: Sequence[int]) -> list[int]:
        """Flawless pictures, one a prompt, then the next of each; within a turn and a prompt, in the given order."""
        turns: dict[str, int] = {}
        ranked = []
        for place, index in enumerate(order):
            if not self.flaws[index]:
                turn = turns[self.prompts[index]] = turns.get(self.prompts[index], -1) + 1
                ranked.append((turn, place, index))
        return [index for _, _, index in sorted(ranked)]


def best_first(scores: Sequence[Scores]) -> list[int]:
    """The places of ``scores``, by their totals."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i].total, i))


class Picker(Protocol):
    """Whoever picks the pictures to learn from."""

    name: str

    def pick(self, candidates: Candidates, keep: int, folder: Path) -> list[int]:
        """At least one and about ``keep`` of the pool, by their places; ``folder`` is the round's, for notes."""


class BestPicker:
    """The best of each prompt by its score, so that what is learnt from stays diverse; then the next best."""

    name = "clip"

    def pick(self, candidates: Candidates, keep: int, folder: Path) -> list[int]:
        return candidates.in_turn(best_first(candidates.scores))[:keep]


class RandomPicker:
    """Any picture of each prompt, by chance: the control."""

    name = "random"

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def pick(self, candidates: Candidates, keep: int, folder: Path) -> list[int]:
        order = torch.randperm(len(candidates.prompts), generator=generator(self._seed)).tolist()
        return candidates.in_turn(order)[:keep]
