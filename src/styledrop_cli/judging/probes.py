"""Which checkpoint of a training is the right one: a few fixed test pictures, measured at each.

The loss on the one reference falls for as long as one trains; what a person wants is the style without the
reference's content. So the same prompts and seeds are drawn at every checkpoint and compared with what the base
draws for them without the adapter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from styledrop_cli.adapters.examples import known_contents
from styledrop_cli.base.base import Base
from styledrop_cli.base.prompt_tokens import with_style
from styledrop_cli.devices import autocast
from styledrop_cli.io.contact_sheet import contact_sheet
from styledrop_cli.io.images import to_image
from styledrop_cli.judging.scores import Judge, Measurements, Scores, mean, scores
from styledrop_cli.models.adapter import Adapter
from styledrop_cli.settings import SampleSettings

if TYPE_CHECKING:
    from PIL.Image import Image

PROBES = ("a cat", "a teapot", "a house", "a rocket", "a tree", "a fish", "an apple", "a car", "a flower", "a star")
MOST = 8
STEPS = 12


class Probes:
    """The test pictures of one training: fixed prompts and seeds, drawn by the base once and at each checkpoint."""

    def __init__(
        self,
        base: Base,
        shown: Tensor,
        views: Tensor,
        contents: list[str],
        style: str,
        sampling: SampleSettings,
    ) -> None:
        """Of the references: ``shown`` their ids ``[P,H,W]``, ``views`` those of many crops ``[V,H,W]``, ``contents``.

        ``sampling`` holds the scales to draw with.
        """
        self._base, self._sampling = base, sampling
        taught = [p for p in PROBES if p in base.contents] or base.contents or list(PROBES)
        self.contents = ([p for p in taught if p not in contents] or taught)[:MOST]
        self._prompts = [with_style(content, style) for content in self.contents]
        own = known_contents(base, contents)
        with autocast(base.device):
            pictures = base.pictures(shown.long().to(base.device), base.sizes[0]).float()
        self._judge = Judge(base, self.contents, [], pictures, own, views)
        self._plain, self._plain_seen = self._draw(None)

    def measure(self, adapter: Adapter) -> tuple[Scores, Image]:
        """The scores of ``adapter`` and a sheet: the base's pictures, and the adapter's below."""
        pictures, seen = self._draw(adapter)
        return mean(scores(seen, self._plain_seen)), self._sheet(pictures)

    @torch.no_grad()
    def _draw(self, adapter: Adapter | None) -> tuple[Tensor, Measurements]:
        with autocast(self._base.device):
            ids = self._base.sample(self._prompts, list(range(len(self._prompts))), self._sampling, adapter)
            pictures = self._base.pictures(ids, self._base.sizes[0]).float()
        return pictures, self._judge.see(pictures, ids, self.contents)

    def _sheet(self, pictures: Tensor) -> Image:
        rows = [("base", self._plain), ("adapter", pictures)]
        images = [to_image(p.cpu()) for _, part in rows for p in part]
        labels = [f"{content}, {who}" for who, _ in rows for content in self.contents]
        return contact_sheet(images, columns=len(self.contents), labels=labels, cell=128)
