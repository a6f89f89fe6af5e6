"""How alike two styles are to a CLIP, once it is known how alike pictures are to it anyhow.

A raw cosine with the reference says as much of what both show as of how it is drawn: a CLIP was taught to tell
subjects apart. A bank of pictures, the same subjects in many other styles, says what is to be taken off. First the
directions in which pictures of one style differ are shrunk (within-class covariance normalization, Hatch et al.,
Interspeech 2006): they are the subjects. Then two pictures count as alike only as far as they are more so than each is
to its nearest ones in the bank (CSLS, arXiv 1710.04087, eq. 6, with the bank on both sides).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from styledrop_cli.io.contact_sheet import read_tiles
from styledrop_cli.judging.scores import ClipScorer
from styledrop_cli.progress import Counter, OnProgress, unheard

BANK = Path(__file__).with_name("bank.webp")  # a row for each style, a column for each subject
SIDE = 64  # pixels of a picture in it
NEIGHBOURS = 10  # k of CSLS
RIDGE = 0.3  # added to the covariance, as a share of its mean eigenvalue
TOGETHER = 64  # pictures of it that are looked at together


class Calibration:
    """What one CLIP sees in the bank, and likenesses by it."""

    def __init__(self, clip_scorer: ClipScorer, on_progress: OnProgress = unheard) -> None:
        tiles = read_tiles(BANK, SIDE)
        styles, subjects = tiles.shape[:2]
        counter = Counter(on_progress, styles * subjects)
        parts = []
        for chunk in tiles.flatten(0, 1).split(TOGETHER):
            parts.append(clip_scorer.picture_embeds(chunk.float() / 255).double().cpu())
            counter.add(len(chunk))
        bank = torch.cat(parts).view(styles, subjects, -1)
        self._raw = bank.flatten(0, 1)
        self._mean = bank.mean((0, 1))
        apart = (bank - bank.mean(1, keepdim=True)).flatten(0, 1)
        values, vectors = torch.linalg.eigh(apart.T @ apart / len(apart))
        self._shrink = vectors * (values.clamp(min=0) + RIDGE * values.mean()).rsqrt()
        self._bank = self._seen(self._raw)

    def likeness(self, pictures: Tensor, references: Tensor) -> Tensor:
        """How far each of the embeddings ``pictures`` ``[N,E]`` has the style of the nearest reference ``[R,E]``.

        In [-4,4], and 0 where they are as alike as each is to its nearest pictures of other styles: with x' the shrunk
        embeddings and r(x) the mean cosine of x' and its 10 nearest in the bank, the largest of
        2 cos(x', y') - r(x) - r(y)  over the references y. ``[N]``.
        """
        ours, theirs = self._seen(pictures), self._seen(references)
        alike = 2 * ours @ theirs.T - self._usual(ours)[:, None] - self._usual(theirs)
        return alike.amax(-1).float()

    def seen(self, pictures: Tensor, texts: Tensor) -> Tensor:
        """The share of the bank's pictures with a lower cosine to each text than its picture has, ``[N]`` in [0,1].

        ``pictures`` and ``texts`` are embeddings ``[N,E]`` of length 1, a text for each picture.
        """
        pictures, texts = pictures.double().cpu(), texts.double().cpu()
        return (self._raw @ texts.T < (pictures * texts).sum(-1)).double().mean(0).float()

    def _seen(self, embeds: Tensor) -> Tensor:
        return F.normalize((embeds.double().cpu() - self._mean) @ self._shrink, dim=-1)

    def _usual(self, seen: Tensor) -> Tensor:
        return (seen @ self._bank.T).topk(min(NEIGHBOURS, len(self._bank))).values.mean(-1)
