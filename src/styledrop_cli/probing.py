"""Which checkpoint of a training is the right one: a few fixed test pictures, measured at each.

The loss on the one reference falls for as long as one trains; what a person wants is the style without the
reference's content. So the same prompts and seeds are drawn at every checkpoint and compared with what the base
draws for them without the adapter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from styledrop_cli.base import Base, Reconstruction
from styledrop_cli.devices import autocast
from styledrop_cli.images import contact_sheet, to_image
from styledrop_cli.models.adapter import Adapter
from styledrop_cli.settings import SampleSettings
from styledrop_cli.text import with_style

if TYPE_CHECKING:
    from PIL.Image import Image

PROBES = ("a cat", "a teapot", "a house", "a rocket", "a tree", "a fish", "an apple", "a car", "a flower", "a star")
MOST = 8
STEPS = 12


@dataclass(frozen=True)
class Scores:
    """What the test pictures of one checkpoint show, each a mean over them.

    ``object`` in [0,1]: CLIP's probability of what was asked for, among all that is asked for and the reference's own
    content; the style is left out of the texts. ``style``, at most 1: how far the picture has moved from the base's
    picture of the same prompt and seed (0) towards the reference (1), in CLIP's space. ``leak`` in [0,2]: how much
    likelier the reference's content has become, plus the share of the picture's 2x2 blocks of ids that are taken from
    the reference, both above the base's.
    """

    object: float
    style: float
    leak: float

    @property
    def total(self) -> float:
        """What the choice goes by."""
        return self.object + self.style - self.leak


class Probes:
    """The test pictures of one training: fixed prompts and seeds, drawn by the base once and at each checkpoint."""

    def __init__(
        self,
        base: Base,
        references: list[Reconstruction],
        views: Tensor,
        contents: list[str],
        style: str,
        sampling: SampleSettings,
    ) -> None:
        """``views`` are the references' ids ``[V,H,W]``, ``contents`` what they show, ``sampling`` the scales."""
        self._base, self._sampling = base, sampling
        taught = [p for p in PROBES if p in base.contents] or base.contents or list(PROBES)
        self.contents = ([p for p in taught if p not in contents] or taught)[:MOST]
        self._prompts = [with_style(content, style) for content in self.contents]
        self._blocks = _blocks(views.long()).unique()
        own = [c for c in dict.fromkeys(contents) if not base.unknown_words(c)]
        self._texts = base.text_embeds([*self.contents, *own])
        shown = base.pictures(torch.stack([r.ids for r in references]).to(base.device), base.sizes[0])
        self._shown = base.picture_embeds(shown)
        self._plain = self._draw(None)
        self._plain_embeds = base.picture_embeds(self._plain[1])
        self._plain_leak = self._leak(self._plain[0], self._plain_embeds)

    def measure(self, adapter: Adapter) -> tuple[Scores, Image]:
        """The scores of ``adapter`` and a sheet: the base's pictures, and the adapter's below."""
        ids, pictures = self._draw(adapter)
        embeds = self._base.picture_embeds(pictures)
        chances = self._base.chances(embeds, self._texts)
        start, now = ((e @ self._shown.T).max(-1).values for e in (self._plain_embeds, embeds))
        moved = ((now - start) / (1 - start).clamp(min=1e-3)).clamp(-1, 1)
        leak = self._leak(ids, embeds) - self._plain_leak
        scores = Scores(float(chances.diagonal().mean()), float(moved.mean()), float(leak.clamp(min=0).mean()))
        return scores, self._sheet(pictures)

    @torch.no_grad()
    def _draw(self, adapter: Adapter | None) -> tuple[Tensor, Tensor]:
        with autocast(self._base.device):
            ids = self._base.sample(self._prompts, list(range(len(self._prompts))), self._sampling, adapter)
            pictures = self._base.pictures(ids, self._base.sizes[0]).float()
        return ids, pictures

    def _leak(self, ids: Tensor, embeds: Tensor) -> Tensor:
        """Of each picture: the chance of the reference's contents, and the share of blocks taken from it."""
        likely = self._base.chances(embeds, self._texts)[:, len(self.contents) :].sum(-1)
        copied = torch.stack([_share_in(_blocks(row[None]), self._blocks) for row in ids.cpu()])
        return likely.cpu() + copied

    def _sheet(self, pictures: Tensor) -> Image:
        rows = [("base", self._plain[1]), ("adapter", pictures)]
        images = [to_image(p.cpu()) for _, part in rows for p in part]
        labels = [f"{content}, {who}" for who, _ in rows for content in self.contents]
        return contact_sheet(images, columns=len(self.contents), labels=labels, cell=128)


def _blocks(ids: Tensor) -> Tensor:
    """All 2x2 blocks of ``ids`` ``[V,H,W]`` that are not of one id, each as one number, ``[M]``."""
    parts = torch.stack([ids[:, :-1, :-1], ids[:, :-1, 1:], ids[:, 1:, :-1], ids[:, 1:, 1:]], -1).flatten(0, 2)
    parts = parts[(parts != parts[:, :1]).any(-1)]
    return (parts * torch.tensor([1, 2**15, 2**30, 2**45])).sum(-1)


def _share_in(some: Tensor, known: Tensor) -> Tensor:
    return torch.isin(some, known).float().mean() if len(some) else torch.tensor(0.0)
