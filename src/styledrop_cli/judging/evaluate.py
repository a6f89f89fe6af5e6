"""Draw pictures and score them: the one place for what checkpoints, settings, rounds and reports are chosen by.

The same prompts and seeds are drawn with whatever is compared and by the base alone. A ``Judge`` measures both, and a
score says how far the first are from the second (StyleDrop, arXiv 2306.00983, 4.1, has its Text and Style alone).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from styledrop_cli.adapters.examples import TrainingViews, known_contents, tokenize_views
from styledrop_cli.adapters.file import open_adapter, references_of
from styledrop_cli.adapters.header import AdapterFile
from styledrop_cli.base.base import Base
from styledrop_cli.devices import autocast, generator
from styledrop_cli.io.images import square, to_tensor
from styledrop_cli.judging.scores import ClipScorer, Judge, Measurements, Scores, StyleCalibration, scores, thumbnails
from styledrop_cli.models.adapter import Adapter
from styledrop_cli.settings import SampleSettings, TrainSettings

if TYPE_CHECKING:
    from PIL.Image import Image

DRAWN_TOGETHER = 24  # pictures of a shard
CROPS = 8  # of the references, whose style is the most that a picture can have
PLAIN_EACH = 2  # pictures that the base alone draws of each prompt, to compare with
PLAIN_SEED = 1_000_003  # of the first of them: hardly ever a compared picture's own, as from one seed both draw alike

Take = Callable[[int, Tensor], None]  # a shard: the number of its first picture, its ids [B,H,W]


# ---- the judge ----


@dataclass(frozen=True)
class References:
    """What pictures were drawn after.

    ``examples`` are the references as ids, ``shown`` ``[R,3,S,S]`` in [0,1] as pictures. ``style`` is an adapter's own
    in words, ``sampling`` how the base draws beside it.
    """

    examples: TrainingViews
    shown: Tensor
    style: str
    sampling: SampleSettings

    @classmethod
    def of_adapter(cls, base: Base, file: AdapterFile) -> References:
        """Those that an adapter learnt a style from.

        Raises ModelError if it lacks them, or is of another base, UsageError if it learnt an object.
        """
        open_adapter(base, file)
        sampling = base.sampling(**file.header.recommended)
        return replace(cls.of_examples(base, references_of(file)), style=file.header.style, sampling=sampling)

    @classmethod
    @torch.no_grad()
    def of_examples(cls, base: Base, examples: TrainingViews) -> References:
        """The references among the pictures that are learnt from."""
        with autocast(base.device):
            shown = base.pictures(examples.whole.long().to(base.device), base.sizes[0]).float()
        return cls(examples, shown, "", base.sampling())

    @classmethod
    def of_pictures(cls, base: Base, images: Sequence[Image], contents: list[str]) -> References:
        """Given pictures and what each shows, cut into views as a training does."""
        settings = TrainSettings()
        views = tokenize_views(base, list(images), contents, settings.views, generator(settings.seed))
        shown = torch.stack([to_tensor(square(image, base.sizes[0])) for image in images]).to(base.device)
        return cls(TrainingViews(views, contents, len(images)), shown, "", base.sampling())

    @classmethod
    def joined(cls, parts: Sequence[References]) -> References:
        """All of them as one, in the words and scales of the first that has a style."""
        first = next((part for part in parts if part.style), parts[0])
        ids: list[Tensor] = []
        owners: list[Tensor] = []
        contents: list[str] = []
        for part in parts:
            given = part.examples.views["views.picture"] < part.examples.references
            owners.append(part.examples.views["views.picture"][given] + len(contents))
            ids.append(part.examples.own_views)
            contents += part.contents
        views = {"views.ids": torch.cat(ids), "views.picture": torch.cat(owners)}
        shown = torch.cat([part.shown for part in parts])
        return replace(first, examples=TrainingViews(views, contents, len(contents)), shown=shown)

    @property
    def contents(self) -> list[str]:
        """What each reference shows, in words."""
        return self.examples.contents[: self.examples.references]

    @torch.no_grad()
    def crops(self, base: Base) -> Tensor:
        """Some crops of the references as the base's tokens show them: ``[K,3,S,S]`` in [0,1]."""
        ids = self.examples.own_views
        some = ids[torch.linspace(0, len(ids) - 1, min(CROPS + 1, len(ids))).round().long()]
        some = some[1:] if len(some) > 1 else some  # the first is the whole picture
        with autocast(base.device):
            return base.pictures(some.long().to(base.device), base.sizes[0]).float()


def judge_of(
    base: Base,
    clip_scorer: ClipScorer,
    references: References | None,
    prompts: Sequence[str],
    calibration: StyleCalibration | None = None,
    others: Sequence[str] | None = None,
) -> Judge:
    """A judge of pictures drawn for ``prompts``, which say no style, after ``references`` or after none.

    Of the references' contents those leak that ``known_contents`` has. What a picture might show instead of what was
    asked for is ``others``, or else all that the base was taught. ``calibration`` is the ``clip_scorer``'s own.
    """
    others = base.contents if others is None else others
    if references is None:  # grey stands for the reference that is not there; nothing is said of it
        shown = torch.full((1, 3, base.sizes[0], base.sizes[0]), 0.5, device=base.device)
        return Judge(clip_scorer, prompts, others, shown, [], torch.zeros(1, 2, 2), calibration)
    own = known_contents(base, references.contents)
    crops = references.crops(base) if calibration else None
    return Judge(clip_scorer, prompts, others, references.shown, own, references.examples.own_views, calibration, crops)


# ---- drawing and scoring ----


@dataclass(frozen=True)
class Drawing:
    """N pictures to draw, each with the prompt it is judged by, without a style, the text it is drawn from, a seed.

    ``full_precision`` draws as ``generate`` does, to the last bit; else arithmetic is as fast as the device allows.
    """

    prompts: list[str]
    texts: list[str]
    seeds: list[int]
    sampling: SampleSettings
    adapter: Adapter | None = None
    full_precision: bool = False

    @classmethod
    def of_each(
        cls,
        prompts: Sequence[str],
        texts: Sequence[str],
        seeds: Sequence[int],
        sampling: SampleSettings,
        full_precision: bool = False,
    ) -> Drawing:
        """P prompts with K seeds each, prompt by prompt; ``texts`` are the prompts with their styles."""
        asked, told = ([one for one in some for _ in seeds] for some in (prompts, texts))
        return cls(asked, told, [*seeds] * len(prompts), sampling, full_precision=full_precision)

    @property
    def shards(self) -> list[slice]:
        """The pictures that are drawn together, in order."""
        return [slice(i, i + DRAWN_TOGETHER) for i in range(0, len(self.prompts), DRAWN_TOGETHER)]

    @torch.no_grad()
    def sample(self, base: Base, shard: slice) -> Tensor:
        """Draw a shard: ids int16 ``[B,H,W]``."""
        with autocast(base.device, not self.full_precision):
            ids = base.sample(self.texts[shard], self.seeds[shard], self.sampling, self.adapter)
        return ids.to("cpu", torch.int16)


@dataclass(frozen=True)
class Evaluated:
    """N pictures: their ``ids`` ``[N,H,W]``, themselves uint8 ``[N,3,S,S]``, and what is said of each.

    ``scores`` are empty for pictures that were compared with nothing.
    """

    ids: Tensor
    pictures: Tensor
    measured: Measurements
    thumbnails: Tensor
    scores: list[Scores]


def evaluate(
    base: Base,
    judge: Judge,
    drawing: Drawing,
    plain: Measurements | None = None,
    *,
    draw: Callable[[Take], None] | None = None,
    on_drawn: Callable[[int], None] = lambda count: None,
    from_pixels: bool = False,
) -> Evaluated:
    """Draw, measure, and score against ``plain``, what ``judge`` measured in the base's own pictures, N of them.

    ``draw`` calls what it is given with each shard's first number and ids, in any order; without it all are drawn here,
    one after the other. Measuring goes on beside the drawing of the next shard. ``on_drawn`` hears how many pictures
    more are drawn. ``from_pixels`` measures copying by the ids that the tokenizer reads off the pictures, as it must
    for given ones, not by those that were drawn.
    """
    parts: dict[int, Future[Evaluated]] = {}
    with ThreadPoolExecutor(1) as pool:

        def take(first: int, ids: Tensor) -> None:
            prompts = drawing.prompts[first : first + len(ids)]
            parts[first] = pool.submit(_measured, base, judge, ids, prompts, drawing.full_precision, from_pixels)
            on_drawn(len(ids))

        if draw is None:
            for shard in drawing.shards:
                take(shard.start, drawing.sample(base, shard))
        else:
            draw(take)
        done = [parts[first].result() for first in sorted(parts)]
    measured = Measurements.cat([part.measured for part in done])
    return Evaluated(
        torch.cat([part.ids for part in done]),
        torch.cat([part.pictures for part in done]),
        measured,
        torch.cat([part.thumbnails for part in done]),
        scores(measured, plain) if plain is not None else [],
    )


@torch.no_grad()
def _measured(
    base: Base, judge: Judge, ids: Tensor, prompts: list[str], full_precision: bool, from_pixels: bool
) -> Evaluated:
    with autocast(base.device, not full_precision):
        pictures = base.pictures(ids.long().to(base.device), base.sizes[0]).float()
    if from_pixels:
        ids = base.tokenizer.encode(pictures).to("cpu", torch.int16)
    shown = (pictures * 255).round().to("cpu", torch.uint8)
    return Evaluated(ids, shown, judge.measure(pictures, ids, prompts), thumbnails(pictures), [])
