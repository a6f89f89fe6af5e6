"""Rows after a round of feedback: the same pool of pictures, picked by CLIP, by chance, or by who knows the truth."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F

from paired.judges import Judges
from paired.rows import CODE, Reference, Row, Studio, code_hashes
from styledrop_cli.adapters.header import read_header
from styledrop_cli.feedback.pickers import BestPicker, Candidates, Picker, RandomPicker
from styledrop_cli.feedback.rounds import ADAPTER, PLAIN, POOL, Rounds
from styledrop_cli.io.files import file_hash
from styledrop_cli.settings import RoundSettings, SampleSettings, TrainSettings

# What a round depends on besides its settings and the adapter it goes on from.
ROUND_CODE = (*CODE, "feedback/rounds.py", "feedback/pickers.py", "feedback/pool.py")
ENOUGH = 10  # what a person picks (StyleDrop, App. B.2)
CHANCE_SEED = 0
PICKERS = ("clip", "random", "truth")


class Nobody:
    """Watches a round and says nothing."""

    def say(self, message: str) -> None:
        """Not passed on."""

    def drawing(self, what: str, share: float, note: str) -> None:
        """Not shown."""

    def learning(self, share: float, note: str) -> None:
        """Not shown."""

    def round_done(self, number: int, sheet: Path, planned: bool) -> bool:
        """No more than what is planned."""
        return planned


class TruePicker:
    """Stands in for a careful person: knows what the style's own artist would have drawn, and picks ten.

    A picture's mark is the probability that it shows the thing asked for, plus that it is in the style, plus the
    cosine of its style features and the true picture's, by judges that do not grade the result.
    """

    name = "truth"

    def __init__(self, studio: Studio, judges: Judges, reference: Reference) -> None:
        self._studio, self._judges, self._reference = studio, judges, reference

    def marks(self, candidates: Candidates) -> list[float]:
        """The mark of each picture; of what no true picture is known, -1."""
        studio, judges = self._studio, self._judges
        things = {words: thing for thing, words in studio.art.words.items()}
        size = candidates.pictures.shape[-1]
        marks = [-1.0] * len(candidates.prompts)
        look = judges.looks.index(self._reference.style.name)
        for prompt in dict.fromkeys(candidates.prompts):
            if (thing := things.get(prompt)) is None:
                continue
            rows = [i for i, p in enumerate(candidates.prompts) if p == prompt]
            seen = judges.see(candidates.pictures[rows].float() / 255)
            known = judges.see(studio.true(self._reference, [thing], size))
            likeness = F.cosine_similarity(seen.features, known.features)
            total = seen.content[:, judges.things.index(thing)] + seen.style[:, look] + likeness
            for i, mark in zip(rows, total.tolist(), strict=True):
                marks[i] = mark
        return marks

    def pick(self, candidates: Candidates, keep: int, folder: Path) -> list[int]:
        marks = self.marks(candidates)
        ranked = candidates.in_turn(sorted(range(len(marks)), key=lambda i: (-marks[i], i)))
        best_of_prompt = ranked[: len(set(candidates.prompts))]
        return sorted(best_of_prompt, key=lambda i: -marks[i])[:ENOUGH]


@dataclass(frozen=True)
class Feedback:
    """Makes rows of the second round, which one of ``PICKERS`` picked for."""

    studio: Studio
    judges: Judges  # not those that grade

    def row(self, who: str, training: TrainSettings, sampling: SampleSettings, settings: RoundSettings) -> Row:
        """One round of feedback after ``adapted(training)``, picked by ``who``: clip, random or truth."""
        studio = self.studio

        def row(reference: Reference, things: list[str], seeds: list[int]) -> torch.Tensor:
            path = self.adapter(who, reference, training, settings)
            # A round recommends scales of its own; they give way only to those that were asked for.
            recommended = read_header(path).recommended.items()
            own = {n: v for n, v in recommended if getattr(sampling, n) == getattr(training, n)}
            scaled = replace(sampling, **own)
            return studio.draw(reference.style.text, things, seeds, scaled, path)

        return row

    def adapter(self, who: str, reference: Reference, training: TrainSettings, settings: RoundSettings) -> Path:
        """The second round's adapter, trained now or before with the same code and settings."""
        studio = self.studio
        start = studio.adapter(reference, replace(training, superres_steps=0))
        depends = {
            "start": file_hash(start),
            "code": code_hashes(ROUND_CODE),
            "settings": asdict(settings),
        }
        name = hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:16]
        of_all = studio.work / "rounds" / name
        folder = of_all / who
        path = folder / "round-2" / ADAPTER
        if not path.exists():
            self._share_pool(of_all, folder)
            picker = self._picker(who, reference)
            rounds = Rounds(studio.base, start, folder, settings, [picker], Nobody(), studio.base, None, False, (0, 1))
            rounds.go(2)
            studio.say(f"{reference.style.name}, {reference.thing}: round 2 by {who}")
        return path

    def _picker(self, who: str, reference: Reference) -> Picker:
        if who == "truth":
            return TruePicker(self.studio, self.judges, reference)
        return BestPicker() if who == "clip" else RandomPicker(CHANCE_SEED)

    @staticmethod
    def _share_pool(of_all: Path, folder: Path) -> None:
        """What one picker was shown is not drawn again for the next."""
        for other in sorted(of_all.glob(f"*/round-2/{POOL}")):
            root = other.parents[1]
            if root != folder:
                for part in (PLAIN, f"round-2/{POOL}"):
                    shutil.copytree(root / part, folder / part, dirs_exist_ok=True)
                return
