"""What an adapter learns from: pictures as ids, several views of each, and the text that goes with each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from styledrop_cli.base.base import Base
from styledrop_cli.base.prompt_tokens import words
from styledrop_cli.io.images import square, to_tensor
from styledrop_cli.settings import UNKNOWN_CONTENT

if TYPE_CHECKING:
    from PIL.Image import Image

SMALLEST_CROP = 0.75  # of the picture's side
REFERENCE_EVERY = 2  # turns
# Mirrored, these would be wrong.
LETTERED = frozenset("letter letters logo text word words number numbers digit sign wordmark monogram alphabet".split())


@dataclass(frozen=True)
class TrainingViews:
    """Pictures to learn from: P of them, the references first, in V views altogether.

    ``views`` holds, by the names that an adapter file gives them, ``views.ids`` int16 ``[V,h,w]``, ``views.picture``
    ``[V]``, the picture that each is of, in order, and perhaps ``views.superres`` ``[V,2h,2w]``. ``contents`` is what
    the P pictures show, in words; the first ``references`` of them are given pictures, the others were picked.
    ``weights`` say how often each reference is learnt from beside the others; empty, all are alike.
    """

    views: dict[str, Tensor]
    contents: list[str]
    references: int
    weights: tuple[float, ...] = ()

    def with_picks(self, ids: Tensor, contents: Sequence[str]) -> TrainingViews:
        """These references, without earlier picks, and newly picked ids ``[N,h,w]``, each its own only view."""
        given = self.views["views.picture"] < self.references
        owners = torch.arange(self.references, self.references + len(ids))
        views = {
            "views.ids": torch.cat([self.views["views.ids"][given], ids.to(torch.int16)]),
            "views.picture": torch.cat([self.views["views.picture"][given], owners]),
        }
        return TrainingViews(views, [*self.contents[: self.references], *contents], self.references, self.weights)

    @property
    def own_views(self) -> Tensor:
        """The references' views, ``[V',h,w]``."""
        return self.views["views.ids"][self.views["views.picture"] < self.references]

    @property
    def whole(self) -> Tensor:
        """The first view of each reference, which is the whole of it: ``[R,h,w]``."""
        owners = self.views["views.picture"]
        return torch.stack([self.views["views.ids"][owners == i][0] for i in range(self.references)])

    def rows(self, turns: Tensor, draws: torch.Generator) -> Tensor:
        """One view of the picture at each of the ``turns`` ``[B]`` (0, 1, 2, ...), drawn at random: rows ``[B]``.

        The pictures come in turn, so that a small batch leaves none out. Where some were picked, every other turn
        is a reference's: that keeps the style from drifting with what is picked.
        """
        owner, owners = self.owners(turns), self.views["views.picture"]
        count = torch.bincount(owners, minlength=len(self.contents))
        first = count.cumsum(0) - count
        return first[owner] + torch.randint(2**31, turns.shape, generator=draws) % count[owner]

    def owners(self, turns: Tensor) -> Tensor:
        """The picture whose turn it is at each of the ``turns`` ``[B]``, which rise: ``[B]``."""
        picked = len(self.contents) - self.references
        if not picked:
            return self._references_at(turns)
        nth = turns // REFERENCE_EVERY
        others = turns - nth - 1
        given = self._references_at(nth)
        return torch.where(turns % REFERENCE_EVERY == 0, given, self.references + others % picked)

    def _references_at(self, turns: Tensor) -> Tensor:
        return turns_by_weight(self.weights, turns) if self.weights else turns % self.references


def turns_by_weight(weights: Sequence[float], turns: Tensor) -> Tensor:
    """Whose turn it is at each of the ``turns`` ``[B]`` (0, 1, 2, ..., rising), of those with ``weights``: ``[B]``.

    The k-th turn of one with weight w is due at (k + 1/2) / w, and all come in the order in which they are due (stride
    scheduling, Waldspurger and Weihl 1995). So each has had its share of any number of turns, to within
    (R + 1) / 2 for R of them; equal ones come one after the other.
    """
    w = torch.tensor(weights, dtype=torch.float64)
    first, last = int(turns.min()), int(turns.max())
    # Those due before ``begin`` are turns before the first: they need only be counted.
    begin, end = ((turn + shift * len(w)) / w.sum() for turn, shift in ((first, -1), (last + 1, 1)))
    before, until = ((at * w + 0.5).floor().clamp(min=0).long() for at in (begin, end))
    due = [(torch.arange(a, b) + 0.5) / x for a, b, x in zip(before.tolist(), until.tolist(), w, strict=True)]
    owner = torch.arange(len(w)).repeat_interleave(until - before)
    # Equal times in the order of the references: they stand one behind the other, and the sort is stable.
    order = torch.cat(due).argsort(stable=True)
    return owner[order[turns - before.sum()]]


@torch.no_grad()
def tokenize_views(
    base: Base,
    images: list[Image],
    contents: list[str],
    views: int,
    draws: torch.Generator,
    large: bool = False,
    finer: bool = True,
) -> dict[str, Tensor]:
    """Random crops of each picture, tokenized once, by the names that an adapter file gives them.

    ``views.ids`` int16 ``[P*views,h,w]``, ``views.picture`` the picture each is of ``[P*views]``. If
    ``large``, the crops are cut at the base's larger size and shrunk; ``views.superres`` ``[P*views,2h,2w]`` are the
    same ones for super-resolution, where ``finer``. Crops cover at least 3/4 of the side;
    half of them are mirrored, but not where the content names letters or a logo. The first view of each picture is
    the whole of it.
    """
    side = base.sizes[-1] if large else base.sizes[0]
    parts: list[Tensor] = []
    larger: list[Tensor] = []
    for image, content in zip(images, contents, strict=True):
        whole = to_tensor(square(image, 2 * base.sizes[0]))
        mirror = not LETTERED & set(words(content))
        crops = [_random_crop(whole, side, mirror and i > 0, i == 0, draws) for i in range(views)]
        for chunk in torch.stack(crops).split(2 * base.batch):
            if large and finer:
                larger.append(base.tokenizer.encode(chunk.to(base.device)).to("cpu", torch.int16))
            if large:
                chunk = F.interpolate(chunk, size=(base.sizes[0],) * 2, mode="bilinear", antialias=True)
            parts.append(base.tokenizer.encode(chunk.to(base.device)).to("cpu", torch.int16))
    owners = torch.arange(len(images)).repeat_interleave(views)
    named = {"views.ids": torch.cat(parts), "views.picture": owners}
    return named | ({"views.superres": torch.cat(larger)} if larger else {})


def _random_crop(whole: Tensor, side: int, mirror: bool, complete: bool, draws: torch.Generator) -> Tensor:
    full = whole.shape[-1]
    scale, x, y, flip = torch.rand(4, generator=draws).tolist()
    size = full if complete else round(full * (SMALLEST_CROP + (1 - SMALLEST_CROP) * scale))
    left, top = round(x * (full - size)), round(y * (full - size))
    crop = whole[None, :, top : top + size, left : left + size]
    crop = F.interpolate(crop, size=(side, side), mode="bilinear", antialias=True, align_corners=False)[0]
    return crop.flip(-1) if mirror and flip < 0.5 else crop


@torch.no_grad()
def known_contents(base: Base, contents: Sequence[str]) -> list[str]:
    """Of what references show, each content that can be told in another picture, once.

    One that nobody named, or whose words the base was never taught, would be found in any picture or in none.
    """
    return [one for one in dict.fromkeys(contents) if one != UNKNOWN_CONTENT and not base.unknown_words(one)]


@torch.no_grad()
def best_guesses(base: Base, pictures: Tensor) -> list[tuple[str, float]]:
    """What each of ``pictures`` ``[B,3,S,S]`` in [0,1] shows among all that the base was taught, and how sure that is.

    By the base's CLIP; the second is a probability in [0,1], which says little by itself (``BaseSpec.guess_from``).
    """
    chances = base.chances(base.picture_embeds(pictures), base.content_embeds).float().cpu()
    return [(base.contents[int(best)], float(sure)) for sure, best in zip(*chances.max(-1), strict=True)]


def guess(base: Base, image: Image) -> tuple[str, float] | None:
    """What a picture shows, and how sure that is; None where the base has nothing to guess by."""
    if not base.contents or base.clip.visual is None:
        return None
    picture = to_tensor(square(image, base.clip.config.image_size))[None].to(base.device)
    return best_guesses(base, picture)[0]


def sure_guess(base: Base, image: Image) -> tuple[str, float] | None:
    """``guess``; None where guesses so sure are not known to be right mostly."""
    found = guess(base, image) if base.spec.guess_from is not None else None
    return found if found and found[1] >= (base.spec.guess_from or 0) else None


def guess_content(base: Base, image: Image, path: Path, on_message: Callable[[str], None]) -> str:
    """What a picture shows, by a sure guess of the base's CLIP, or else ``UNKNOWN_CONTENT``; said aloud."""
    if guessed := sure_guess(base, image):
        on_message(f"{path.name} shows {guessed[0]}, it seems ({guessed[1]:.0%}); say otherwise with --content.")
        return guessed[0]
    on_message(
        f"Warning: {base.name} cannot tell what {path.name} shows, and takes it for '{UNKNOWN_CONTENT}'. Say it with "
        '--content, such as --content "a bird": what is not named is learnt as part of the style.'
    )
    return UNKNOWN_CONTENT
