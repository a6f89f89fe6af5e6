"""The rows of the table: each a function from a reference, things and seeds to pictures.

A reference is one picture of one thing in one held-out style. Procedural styles draw the outlines of fluent-emoji-flat
for every other reference, and noto's for those between; a true picture is what the same style with the same random
parameters makes of the same family's outline of the thing asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import styledrop_cli
from paired.art import Art, Look
from paired.families import HELD_OUT, HeldOut
from paired.openmoji import OPENMOJI
from paired.renders import round_trip, shrunk
from styledrop_cli.adapters.header import load_adapter
from styledrop_cli.base.base import Base
from styledrop_cli.base.prompt_tokens import with_style
from styledrop_cli.devices import autocast, generator
from styledrop_cli.errors import UsageError
from styledrop_cli.generation.pipeline import PictureRequest, StyleMix
from styledrop_cli.io.files import file_hash
from styledrop_cli.io.images import save_png, to_image
from styledrop_cli.io.tensors import read_tensors, save_tensors
from styledrop_cli.settings import SUPERRES_STEPS, SampleSettings, TrainSettings
from styledrop_cli.training.adapter import train_adapter

# No prompt is any reference's thing; the first of each come first in a shorter run.
PROMPTS = (
    "cat-face", "house", "automobile", "mushroom", "guitar", "fish", "rocket", "pineapple", "teapot", "butterfly",
)  # fmt: skip
REFERENCES = {
    "stained glass": ("owl", "sailboat", "tulip", "crown"),
    "risograph": ("dog-face", "airplane", "strawberry", "bell"),
    "OpenMoji": ("fox", "tractor", "light-bulb", "watermelon"),
    "cross stitch": ("penguin", "castle", "cherries", "umbrella"),
    "gold": ("elephant", "bicycle", "rose", "key"),
}
# The rows that others are compared with.
BASE, FIRST, REAL, TOKENIZED = "base", "round 1", "real", "real, tokenized"
OUTLINES = ("fluent-emoji-flat", "noto")
REFERENCE_SIZE = 256
BATCH = 16
# What an adapter depends on besides its settings.
CODE = (
    "training/adapter.py", "training/loop.py", "adapters/examples.py", "adapters/file.py",
    "judging/evaluate.py", "judging/probes.py", "judging/prompts.py", "judging/scores.py", "base/base.py",
    "base/prompt_tokens.py", "models/*.py", "sampling/*.py",
)  # fmt: skip
DRAWING = (
    "adapters/file.py", "base/base.py", "base/prompt_tokens.py", "base/sample.py", "generation/pipeline.py",
    "models/*.py", "sampling/*.py",
)  # fmt: skip


@dataclass(frozen=True)
class Reference:
    """One picture to learn from: the thing it shows, whose outline that is, and the seed of its random parameters."""

    style: HeldOut
    thing: str
    family: str
    seed: int


Row = Callable[[Reference, list[str], list[int]], Tensor]


def references(style: HeldOut, count: int, art: Art) -> list[Reference]:
    """The first ``count`` references of a style; raises UsageError if there are fewer."""
    things = [t for t in REFERENCES[style.name] if t in art.things]
    if len(things) < count:
        raise UsageError(f"there are {len(things)} references of {style.name}, not {count}", "Ask for fewer.")
    first = 100 * list(HELD_OUT).index(style.name)
    families = OUTLINES if style.draw else (OPENMOJI,)
    return [Reference(style, t, families[i % len(families)], first + i) for i, t in enumerate(things[:count])]


def code_hashes(patterns: Sequence[str]) -> list[str]:
    """Hashes of the package's files that match ``patterns``."""
    home = Path(styledrop_cli.__file__).parent
    return [file_hash(path) for pattern in patterns for path in sorted(home.glob(pattern))]


@dataclass
class Studio:
    """Everything that draws: its methods make the rows."""

    base: Base
    art: Art
    looks: dict[str, Look]
    work: Path
    size: int
    say: Callable[[str], None]

    def true(self, reference: Reference, things: Sequence[str], size: int | None = None) -> Tensor:
        """What the reference's own style makes of ``things``, ``[B,3,size,size]``; as large as references are."""
        look, ground = self.looks[reference.style.name], torch.ones(1, 3, REFERENCE_SIZE, REFERENCE_SIZE)
        pictures = [
            look(self.art.rgba([(reference.family, thing)], REFERENCE_SIZE), ground, generator(reference.seed))
            for thing in things
        ]
        return shrunk(torch.cat(pictures), size or REFERENCE_SIZE)

    # ---- rows: pictures [P*K,3,S,S], the seeds of the first prompt first ----

    def plain(self, reference: Reference, things: list[str], seeds: list[int]) -> Tensor:
        """The base, told nothing of a style."""
        return self.draw("", things, seeds, self.base.sampling(size=self.size), None)

    def told(self, reference: Reference, things: list[str], seeds: list[int]) -> Tensor:
        """The base, told the style's name."""
        return self.draw(reference.style.text, things, seeds, self.base.sampling(size=self.size), None)

    def adapted(self, training: TrainSettings, sampling: SampleSettings) -> Row:
        """An adapter trained on the reference, and drawn with; without super-resolution where that has no part."""
        training = self.trained(training, sampling)

        def row(reference: Reference, things: list[str], seeds: list[int]) -> Tensor:
            return self.draw(reference.style.text, things, seeds, sampling, self.adapter(reference, training))

        return row

    def trained(self, training: TrainSettings, sampling: SampleSettings) -> TrainSettings:
        """The settings that an adapter is trained with: with super-resolution where that has a part in drawing."""
        refined = sampling.superres_steps and self.size != self.base.sizes[0]
        return replace(training, superres_steps=SUPERRES_STEPS if refined else 0)

    def real(self, reference: Reference, things: list[str], seeds: list[int]) -> Tensor:
        """The true pictures."""
        return self.true(reference, things, self.size).repeat_interleave(len(seeds), 0)

    @torch.no_grad()
    def tokenized(self, reference: Reference, things: list[str], seeds: list[int]) -> Tensor:
        """The true pictures as the tokenizer shows them: no generator that speaks in its ids comes nearer."""
        small, base = self.base.sizes[0], self.base
        if self.size == small or base.superres is not None:
            shown = round_trip(base, self.true(reference, things, self.size))
        else:
            ids = base.tokenizer.encode(self.true(reference, things, small).to(base.device))
            shown = base.pictures(ids, self.size).cpu()
        return shown.repeat_interleave(len(seeds), 0)

    # ---- what the rows are made of ----

    def picture(self, reference: Reference) -> Path:
        """The reference as a file."""
        path = self.work / "references" / f"{reference.style.name}-{reference.thing}.png".replace(" ", "-")
        save_png(to_image(self.true(reference, [reference.thing])[0]), path)
        return path

    def adapter_file(self, reference: Reference, training: TrainSettings) -> Path:
        """Where the adapter of a reference is kept; its name is a hash of what it depends on, code and settings too."""
        picture = self.picture(reference)
        depends = {
            "base": self.base.hash,
            "tokenizer": file_hash(self.base.folder / "tokenizer.safetensors"),
            "code": code_hashes(CODE),
            "picture": file_hash(picture),
            "content": self.art.words[reference.thing],
            "style": reference.style.text,
            "settings": asdict(training),
        }
        return self._kept("adapters", depends)

    def _kept(self, folder: str, depends: dict[str, Any]) -> Path:
        name = hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:16]
        return self.work / folder / f"{name}.safetensors"

    def adapter(self, reference: Reference, training: TrainSettings) -> Path:
        """The adapter of a reference, trained now or before."""
        path = self.adapter_file(reference, training)
        if not path.exists():
            done = train_adapter(
                self.base,
                pictures=[self.picture(reference)],
                style=reference.style.text,
                contents=[self.art.words[reference.thing]],
                settings=training,
                output=path,
            )
            self.say(f"{reference.style.name}, {reference.thing}: step {done.step} after {done.seconds:.0f} s")
        return path

    def draw(
        self, style: str, things: list[str], seeds: list[int], sampling: SampleSettings, adapter: Path | None
    ) -> Tensor:
        """Pictures of ``things`` with the style's words, a seed each; ``adapter`` is a file.

        They are kept in the work folder, in 256 steps a channel, and not drawn again.
        """
        wanted = [PictureRequest(self.art.words[thing], seed, sampling, style) for thing in things for seed in seeds]
        depends = {
            "base": self.base.hash,
            "code": code_hashes(DRAWING),
            "adapter": file_hash(adapter) if adapter else "",
            "texts": [with_style(one.prompt, style) for one in wanted],
            "seeds": seeds,
            "settings": asdict(sampling),
        }
        path = self._kept("pictures", depends)
        if not path.exists():
            pictures = drawn(self.base, wanted, StyleMix.of(load_adapter(adapter) if adapter else None))
            save_tensors(path, {"pictures": (pictures * 255).round().to(torch.uint8)}, {})
        return read_tensors(path)[0]["pictures"].float() / 255


@torch.no_grad()
def drawn(base: Base, wanted: Sequence[PictureRequest], mixture: StyleMix) -> Tensor:
    """One picture each, all of equal settings, ``[B,3,size,size]`` in [0,1]."""
    parts = []
    drawers, sampling = mixture.open(base), wanted[0].settings
    for start in range(0, len(wanted), BATCH):
        chunk = wanted[start : start + BATCH]
        texts, seeds = drawers.texts(chunk), [one.seed for one in chunk]
        with autocast(base.device):
            ids = base.sample(texts, seeds, sampling, drawers.shares(chunk))
            if base.superres is not None and sampling.superres_steps and sampling.size == base.sizes[-1]:
                ids = base.refine(ids, texts, seeds, sampling, drawers.shares(chunk, "superres"))
            parts.append(base.pictures(ids, sampling.size).float().cpu())
    return torch.cat(parts)
