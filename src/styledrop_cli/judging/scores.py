"""What a CLIP makes of pictures drawn after a reference: are they what was asked for, in its style, and not copies?

CLIP's likeness to the reference rewards copying it, and a prompt that names the style is half fulfilled by the style
alone. So the object (the prompt without its style), the style, and the leak of the reference's own content are measured
apart. And a small CLIP that has never seen a style is a poor judge of both: beside what it says of the object stands
whether the contours are still those of the base's own picture, and beside the style the colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from styledrop_cli.base.prompt_tokens import words

CONTOURS = 16  # places of a side
SHADES = 6  # of each colour channel in a palette
THUMBNAIL = 16  # pixels of a side: what is alike at this size is alike at a glance
EMPTY = 0.02  # standard deviation of a thumbnail's values in [0,1]: below this, nothing is drawn
ALIKE = 0.02  # mean distance of two thumbnails' values: below this, they are one picture twice


class ClipScorer(Protocol):
    """A CLIP: the base's own, or any `clip_scorer.Scorer`."""

    def picture_embeds(self, pictures: Tensor) -> Tensor:
        """Pictures ``[B,3,S,S]`` in [0,1] of any size to embeddings ``[B,E]`` of length 1."""

    def text_embeds(self, texts: list[str]) -> Tensor:
        """``B`` texts to embeddings ``[B,E]`` of length 1."""

    def chances(self, pictures: Tensor, texts: Tensor) -> Tensor:
        """Which of ``texts`` ``[T,E]`` each of ``pictures`` ``[B,E]`` shows: probabilities ``[B,T]``."""


class StyleCalibration(Protocol):
    """What takes off a likeness what any two pictures have in common: ``csls.Calibration``."""

    def likeness(self, pictures: Tensor, references: Tensor) -> Tensor:
        """How far each of the embeddings ``[N,E]`` has the style of the nearest reference's ``[R,E]``: ``[N]``."""

    def seen(self, pictures: Tensor, texts: Tensor) -> Tensor:
        """The share of known pictures that are less like each of the texts ``[N,E]`` than its picture ``[N,E]``."""


@dataclass(frozen=True)
class Measurements:
    """What was seen in each of N pictures, ``[N]`` each.

    ``text`` in [-1,1]: cosine with what was asked for, the style left out. ``object`` in [0,1]: the probability that
    this is what it shows, among everything that the judge knows. ``likeness`` in [-1,1]: cosine with the nearest
    reference. ``csls`` in [-4,4]: that likeness as the judge's calibration measures it, NaN without one. ``palette`` in
    [0,1]: how far the colours are the nearest reference's (Bhattacharyya coefficient of their histograms). ``content``
    in [0,1]: the probability of the reference's own content. ``copied`` in [0,1]: the share of the picture's 2x2 blocks
    of ids, flat ones left out, that the reference has too. And ``contours`` ``[N,256]``: how much changes from pixel to
    pixel, and where. ``seen`` in [0,1]: the share of pictures of other things that are less like what was asked for,
    NaN without a calibration.
    """

    text: Tensor
    object: Tensor
    likeness: Tensor
    csls: Tensor
    palette: Tensor
    content: Tensor
    copied: Tensor
    contours: Tensor
    seen: Tensor

    @classmethod
    def cat(cls, parts: Sequence[Measurements]) -> Measurements:
        """One after the other."""
        return cls(*(torch.cat([getattr(p, name) for p in parts]) for name in cls.__dataclass_fields__))

    def means(self, groups: int, each: int) -> Measurements:
        """Of N pictures in as many ``groups``, one after the other, the mean of each group, ``each`` times over."""
        values = (getattr(self, name).unflatten(0, (groups, -1)).mean(1) for name in self.__dataclass_fields__)
        return Measurements(*(v.repeat_interleave(each, 0) for v in values))

    def rows(self, places: Sequence[int]) -> Measurements:
        """Those of the pictures at ``places``, which may repeat."""
        return Measurements(*(getattr(self, name)[list(places)] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Scores:
    """How good pictures are for learning a style from, or a mean over some.

    ``object`` in [0,1]: the probability of what was asked for. ``shape`` in [-1,1]: whether its contours are where the
    base draws them. ``style`` in [-1,1]: how far the picture has moved from the base's of the same prompt (0) towards
    the reference (1), in CLIP's space and in its colours. ``leak`` in [0,2]: how much likelier the reference's content
    has become, plus the share of the picture's blocks of ids that are the reference's, both above the base's.
    """

    object: float
    shape: float
    style: float
    leak: float

    @property
    def total(self) -> float:
        """What a choice among pictures of one prompt and setting goes by."""
        return self.object + self.shape + self.style - self.leak

    @property
    def balance(self) -> float:
        """What a choice among settings goes by, in [0,1]: the subject and the style must both be there.

        The harmonic mean of (object + shape) / 2 and style - leak, each within [0,1]. A sum would have one make up for
        the other: it is highest without any adapter or, with more weight on the style, for copies (docs/lab/tuning.md).
        """
        subject, style = (min(max(v, 0.0), 1.0) for v in ((self.object + self.shape) / 2, self.style - self.leak))
        return 2 * subject * style / (subject + style) if subject + style else 0.0


class Judge:
    """Measures pictures with one CLIP: which prompts they may be of, and the references that they may copy."""

    def __init__(
        self,
        clip_scorer: ClipScorer,
        prompts: Sequence[str],
        others: Sequence[str],
        references: Tensor,
        reference_contents: Sequence[str],
        reference_ids: Tensor,
        calibration: StyleCalibration | None = None,
        crops: Tensor | None = None,
    ) -> None:
        """``prompts`` say no style, ``others`` are what a picture might show instead.

        ``references`` ``[R,3,S,S]`` are pictures in [0,1], ``reference_contents`` what they show in words, as far as
        that may leak, ``reference_ids`` ``[V,H,W]`` their ids, in as many views as there are. ``calibration`` is the
        ``clip_scorer``'s own, and ``crops`` ``[K,3,S,S]`` of the references say what is the most that it can measure.
        """
        self._clip_scorer, self._calibration = clip_scorer, calibration
        texts = list(dict.fromkeys([*prompts, *reference_contents, *others]))
        self._places = {text: i for i, text in enumerate(texts)}
        self._texts = clip_scorer.text_embeds(texts)
        self._own = torch.tensor([self._places[text] for text in reference_contents], dtype=torch.long)
        self._references, self._palettes = clip_scorer.picture_embeds(references), palettes(references)
        # What crops of the references have of their style, NaN where nothing calibrates.
        self.own_csls = float("nan")
        if calibration is not None and crops is not None:
            self.own_csls = float(calibration.likeness(clip_scorer.picture_embeds(crops), self._references).mean())
        self._blocks = blocks(reference_ids.long()).unique()
        # "a red cat" is a cat too: what only says less of the same is no other answer.
        said = [set(words(text)) for text in texts]
        self._rivals = torch.tensor([[i == j or not b <= a for j, b in enumerate(said)] for i, a in enumerate(said)])

    @torch.no_grad()
    def measure(self, pictures: Tensor, ids: Tensor, prompts: Sequence[str]) -> Measurements:
        """Measure pictures ``[N,3,S,S]`` in [0,1] with ids ``[N,H,W]``, drawn for N of the judge's ``prompts``."""
        embeds = self._clip_scorer.picture_embeds(pictures)
        wanted = torch.tensor([self._places[prompt] for prompt in prompts])
        chances = self._clip_scorer.chances(embeds, self._texts).float().cpu()
        rows, nothing = torch.arange(len(wanted)), torch.full((len(embeds),), torch.nan)
        texts = self._texts[wanted.to(self._texts.device)]
        own = torch.zeros_like(chances, dtype=torch.bool)
        own[:, self._own] = True
        own[rows, wanted] = False  # asked for by name, the reference's content is no leak
        among = chances / (chances * (self._rivals[wanted] | own)).sum(-1, keepdim=True).clamp(min=1e-9)
        return Measurements(
            text=(embeds * texts).sum(-1).float().cpu(),
            object=among[rows, wanted],
            likeness=(embeds @ self._references.T).amax(-1).float().cpu(),
            csls=self._calibration.likeness(embeds, self._references) if self._calibration else nothing,
            palette=(palettes(pictures) @ self._palettes.T).amax(-1).cpu(),
            content=(among * own).sum(-1),
            copied=torch.stack([share_in(blocks(row[None].long()), self._blocks) for row in ids.cpu()]),
            contours=contours(pictures).cpu(),
            seen=self._calibration.seen(embeds, texts) if self._calibration else nothing,
        )

    @torch.no_grad()
    def near(self, pictures: Tensor) -> Tensor:
        """The ``csls`` of pictures ``[N,3,S,S]`` in [0,1] to each reference alone, ``[N,R]``; NaN as that is."""
        if self._calibration is None:
            return torch.full((len(pictures), len(self._references)), torch.nan)
        embeds, calibration = self._clip_scorer.picture_embeds(pictures), self._calibration
        return torch.stack([calibration.likeness(embeds, one[None]) for one in self._references], 1)


def scores(now: Measurements, plain: Measurements) -> list[Scores]:
    """The scores of pictures ``now`` against what the base drew in their place, both of N pictures.

    object = now.object, shape = cos(now.contours, plain.contours), style = the mean over likeness and palette of
    (now - plain) / (1 - plain), leak = max(0, now.content - plain.content + now.copied - plain.copied).
    """

    def moved(after: Tensor, before: Tensor) -> Tensor:
        return ((after - before) / (1 - before).clamp(min=1e-3)).clamp(-1, 1)

    shape = F.cosine_similarity(now.contours, plain.contours, dim=-1)
    style = (moved(now.likeness, plain.likeness) + moved(now.palette, plain.palette)) / 2
    leak = (now.content + now.copied - plain.content - plain.copied).clamp(min=0)
    return [Scores(*map(float, row)) for row in zip(now.object, shape, style, leak, strict=True)]


def mean(some: Sequence[Scores]) -> Scores:
    """The mean of each score; of nothing, an error."""
    return Scores(*(sum(getattr(s, name) for s in some) / len(some) for name in Scores.__dataclass_fields__))


def contours(pictures: Tensor) -> Tensor:
    """Where the lightness of ``pictures`` ``[B,3,S,S]`` in [0,1] changes: ``[B,256]``, less each picture's mean."""
    grey = F.interpolate(pictures.float().mean(1, keepdim=True), (4 * CONTOURS, 4 * CONTOURS), mode="area")
    across, down = F.pad(grey.diff(dim=-1), (0, 1)), F.pad(grey.diff(dim=-2), (0, 0, 0, 1))
    places = F.avg_pool2d((across**2 + down**2).sqrt(), 4).flatten(1)
    return places - places.mean(1, keepdim=True)


def palettes(pictures: Tensor) -> Tensor:
    """The colours of ``pictures`` ``[B,3,S,S]`` in [0,1]: roots of the shares of 6x6x6 colours, ``[B,216]``."""
    shades = (pictures.float() * SHADES).long().clamp(0, SHADES - 1)
    colours = ((shades[:, 0] * SHADES + shades[:, 1]) * SHADES + shades[:, 2]).flatten(1)
    counts = torch.zeros(len(pictures), SHADES**3, device=pictures.device)
    counts.scatter_add_(1, colours, torch.ones_like(colours, dtype=counts.dtype))
    return (counts / colours.shape[1]).sqrt()


def blocks(ids: Tensor) -> Tensor:
    """All 2x2 blocks of ``ids`` ``[V,H,W]`` that are not of one id, each as one number, ``[M]``."""
    parts = torch.stack([ids[:, :-1, :-1], ids[:, :-1, 1:], ids[:, 1:, :-1], ids[:, 1:, 1:]], -1).flatten(0, 2)
    parts = parts[(parts != parts[:, :1]).any(-1)]
    return (parts * torch.tensor([1, 2**15, 2**30, 2**45])).sum(-1)


def share_in(some: Tensor, known: Tensor) -> Tensor:
    """The share of ``some`` values that are ``known``; of none, 0."""
    return torch.isin(some, known).float().mean() if len(some) else torch.tensor(0.0)


def thumbnails(pictures: Tensor) -> Tensor:
    """Pictures ``[B,3,S,S]`` in [0,1], very small and flat: ``[B,3*16*16]``."""
    return F.interpolate(pictures.float(), (THUMBNAIL, THUMBNAIL), mode="area").flatten(1).cpu()


def flaws(small: Tensor, groups: Sequence[object], order: Sequence[int], names: Sequence[object]) -> list[str]:
    """What is wrong with the pictures of the ``thumbnails`` ``[N,D]``: ``empty``, ``like NAME`` or nothing.

    Only pictures of one group (a prompt) are compared; of two alike the one that comes later in ``order`` is the copy.
    """
    found = ["empty" if flat else "" for flat in small.unflatten(1, (3, -1)).std(-1).amax(-1) < EMPTY]
    kept: dict[object, list[int]] = {}
    for place in order:
        others = kept.setdefault(groups[place], [])
        if others:
            distance = (small[others] - small[place]).abs().mean(-1)
            nearest = int(distance.argmin())
            if distance[nearest] < ALIKE:
                found[place] = found[place] or f"like {names[others[nearest]]}"
                continue
        others.append(place)
    return found
