"""Edits: a part of a picture is drawn anew, or sides are added, or all of it in another style or a little otherwise.

What is to stay goes into the network as ids, what is to be drawn as masked ones (Muse, arXiv 2301.00704, 3). Nothing is
trained or inverted for it. A picture of any size and shape is worked on in square windows, each scaled to what the base
draws. Super-resolution has no part in it but in variations: it draws whole pictures, and would change what is to stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from styledrop_cli.base.base import Base
from styledrop_cli.devices import generator
from styledrop_cli.errors import UsageError
from styledrop_cli.generation.editing.seams import continued, joined
from styledrop_cli.generation.editing.windows import Window, plan
from styledrop_cli.generation.palette import coloured
from styledrop_cli.generation.pipeline import LoadedStyleMix, PictureRequest, StyleMix
from styledrop_cli.io.files import file_hash
from styledrop_cli.io.images import (
    LARGE,
    OnMessage,
    load_mask,
    load_picture,
    load_transparency,
    quietly,
    square,
    to_image,
    to_tensor,
)
from styledrop_cli.sampling.decoding import LogitsFn, decode
from styledrop_cli.settings import LARGEST_SEED, exact

if TYPE_CHECKING:
    from PIL.Image import Image

OnStep = Callable[[float], None]  # is told what share in [0,1] of all steps is taken
Sides = tuple[int, int, int, int]  # left, top, right, bottom, in pixels
SIDES = ("left", "top", "right", "bottom")

# How each edit is drawn best, where that differs from how a picture is; looked at on pocket. All begin beside what is
# known, where the base is surest: in an even order colours change within a thing. What is drawn in a mask needs a
# stronger push towards the words. What is around a picture has only to go on: with any push, parts of things appear
# there. Muse resamples with a guidance scale of 4, which is our 3, among the 3 likeliest tokens. A variation has the
# scales of its picture; in an even order it has stray specks.
SUITS: dict[str, dict[str, Any]] = {
    "inpaint": {"lambda_b": 3.5, "order": "confidence"},
    "outpaint": {"lambda_b": 0.0, "order": "confidence"},
    "restyle": {"order": "confidence"},
    "mask-free": {"lambda_b": 3.0, "top_k": 3, "top_p": 1.0},
    "vary": {"order": "confidence"},
}

MOST_WHOLE = 2.0  # sides of the square around a picture and its new sides, in its shorter side, to be drawn whole
MOST_AROUND = 4  # of a picture's shorter side, added to one of its sides
PATCH = 4  # ids of a side, about, of the patches in which a variation differs
FRAYED = 0.7  # how far single ids are taken for, or left out of, a patch: 0 not at all
AGAIN = 0.08  # of the ids, drawn again in each iteration of mask-free editing (Muse, 3)
ANOTHER_MASK = 0x2545F4914F6CDD1D  # so that what is masked is not chosen by the numbers that draw it
ANOTHER_WINDOW = 0x9E3779B97F4A7C15 >> 2


@dataclass(frozen=True)
class Edit:
    """What is done to a ``picture``: ``name`` is a key of ``SUITS``, ``how`` its mask, sides, share or iterations.

    ``about`` is what the file of each result says of the edit, ``remark`` what the person who asked should know.
    """

    name: str
    picture: Image
    how: Any
    about: dict[str, Any]
    remark: str = ""

    def suits(self, base: Base) -> dict[str, Any]:
        """The settings that it is drawn with best."""
        if self.name == "vary" and self.how == 1:  # nothing is known of it: it is drawn as any picture
            return {}
        return SUITS[self.name] if base.spec.edits_suit or self.name == "mask-free" else {}

    def draw(
        self, base: Base, mixture: StyleMix, wanted: Sequence[PictureRequest], on_step: OnStep = lambda share: None
    ) -> Iterator[tuple[int, Image]]:
        """Draw all that is ``wanted``, of the same settings, yielding ``(which of them, picture)``.

        Raises UsageError for what does not fit the picture, ModelError if an adapter is not this base's.
        """
        drawing = _Drawing(base, mixture, wanted, on_step)
        ways: dict[str, Callable[..., Iterator[tuple[int, Image]]]] = {
            "inpaint": drawing.inpaint,
            "outpaint": drawing.outpaint,
            "restyle": drawing.restyle,
            "mask-free": drawing.resample,
            "vary": drawing.vary,
        }
        return ways[self.name](self.picture, self.how)


def edit_of(
    path: Path,
    *,
    mask: Path | None = None,
    sides: Sides | None = None,
    share: float | None = None,
    iterations: int | None = None,
    much: float | None = None,
    on_message: OnMessage = quietly,
) -> Edit | None:
    """The edit that one of these asks for; with none of them, of where the picture is transparent, None if nowhere.

    ``share`` restyles, ``much`` varies so much. ``on_message`` is told what of a picture could not be read as it is
    meant. Raises PictureError if a picture cannot be read, UsageError for sides, a share or iterations out of range and
    where nothing or all would be drawn anew.
    """
    picture = load_picture(path, on_message)
    side = min(picture.size)
    middle = (
        "" if picture.width == picture.height else f"{path} is not square: its middle, {side} x {side} px, is taken"
    )

    def edit(name: str, how: Any, remark: str = "", **more: Any) -> Edit:
        about = {"edit": name, "picture": path.name, "picture_sha256": file_hash(path)}
        return Edit(name, picture, how, about | more, remark)

    if sides is not None:
        check_sides(picture, sides)
        return edit("outpaint", sides, sides=dict(zip(SIDES, sides, strict=True)))
    for name, asked in (("restyle", share), ("vary", much)):
        if asked is None:
            continue
        if not 0 <= asked <= 1:
            raise UsageError(
                f"{exact(asked)} is no share of a picture", "Give one between 0, nothing, and 1, all of it."
            )
        return edit(name, asked, middle, share=float(asked))
    if iterations is not None:
        if iterations < 1:
            raise UsageError(f"{iterations} iterations draw nothing", "Give 1 or more; 100 are usual.")
        return edit("mask-free", iterations, middle, iterations=iterations)
    area = load_mask(mask, on_message) if mask is not None else load_transparency(path)
    if area is None:
        return None
    unknown = check_mask(picture, area)
    if unknown.all():
        raise UsageError(
            f"{f'the mask {mask} is white' if mask is not None else f'{path} is transparent'} all over: "
            "nothing of the picture would stay",
            "Make black or transparent in a mask what is to stay; to draw all of it anew, restyle it by 1 "
            "(--restyle 1).",
        )
    new = float(unknown.float().mean())
    part = f"{new:.0%}" if 0.005 <= new < 0.995 else f"{new:.3%}"
    more = {"mask_sha256": file_hash(mask)} if mask is not None else {}
    return edit("inpaint", area, f"{part} of {path} is drawn anew", **more)


def check_mask(picture: Image, mask: Image) -> Tensor:
    """Where a mask says to draw anew, bool ``[H,W]``: where it is white, or nearer to white than to black.

    Raises UsageError if it is not as large as the picture, or nowhere white.
    """
    if mask.size != picture.size:
        sizes = (f"{width} x {height} px" for width, height in (mask.size, picture.size))
        raise UsageError("the mask is {}, the picture {}".format(*sizes), "Make a mask of the picture's size.")
    white = to_tensor(mask).mean(0)
    unknown = white >= 0.5
    if not unknown.any():
        raise UsageError(
            f"the mask is nowhere white: there is nothing to draw (its brightest is {float(white.max()):.0%} of white)",
            "Paint white what is to be drawn anew: what is black or transparent stays.",
        )
    return unknown


def check_sides(picture: Image, sides: Sides) -> None:
    """Raise UsageError for sides that add nothing to a picture, or too much."""
    if not any(sides):
        raise UsageError("no side gets any pixels: there is nothing to draw", "Say how many, for example left=64.")
    most = MOST_AROUND * min(picture.size)
    left, top, right, bottom = sides
    width, height = picture.width + left + right, picture.height + top + bottom
    if min(sides) < 0 or max(sides) > most:
        wrong = min(sides) if min(sides) < 0 else max(sides)
        raise UsageError(
            f"a side gets 0 to {most:,} pixels, {MOST_AROUND} times this picture's shorter side, not {wrong:,}",
            "Outpaint what comes out once more to go on.",
        )
    if width * height > LARGE:
        raise UsageError(f"{width:,} x {height:,} px are too many: at most {LARGE:,} pixels in all", "Add fewer.")


class _Drawing:
    """All that is ``wanted`` of one edit, drawn; each way yields ``(which of wanted, picture)``.

    Raises ValueError if what is wanted has several settings.
    """

    def __init__(self, base: Base, mixture: StyleMix, wanted: Sequence[PictureRequest], on_step: OnStep) -> None:
        self.base, self.mixture, self.wanted, self.on_step = base, mixture, wanted, on_step
        (self.settings,) = {replace(one.settings, seed=0) for one in wanted}

    def inpaint(self, picture: Image, mask: Image) -> Iterator[tuple[int, Image]]:
        """Draw anew where ``mask`` is white; all else stays, bit for bit. Raises as ``check_mask`` does."""
        unknown = check_mask(picture, mask)
        most = min(picture.size)
        return self._fill(_canvas(picture, (0, 0, 0, 0)), plan(unknown, min(self.base.sizes[0], most), most))

    def outpaint(self, picture: Image, sides: Sides) -> Iterator[tuple[int, Image]]:
        """Draw what lies around a picture; it stays in its place, bit for bit. Raises as ``check_sides`` does."""
        check_sides(picture, sides)
        left, top, right, bottom = sides
        (width, height), shorter = picture.size, min(picture.size)
        whole = max(width + 2 * max(left, right), height + 2 * max(top, bottom))
        alone = whole <= MOST_WHOLE * shorter
        # A base draws its subject in the middle: a square around the picture, if it is not too large, is drawn whole.
        ahead = ((whole - width) // 2, (whole - height) // 2) if alone else (left, top)
        room = (*ahead, whole - width - ahead[0], whole - height - ahead[1]) if alone else sides
        canvas = _canvas(picture, room)
        unknown = torch.ones(canvas.shape[1:], dtype=torch.bool)
        unknown[ahead[1] : ahead[1] + height, ahead[0] : ahead[0] + width] = False
        windows = [Window(0, 0, whole, unknown)] if alone else plan(unknown, shorter, shorter)
        box = (ahead[0] - left, ahead[1] - top, ahead[0] + width + right, ahead[1] + height + bottom)
        return ((index, made.crop(box)) for index, made in self._fill(canvas, windows))

    def restyle(self, picture: Image, share: float) -> Iterator[tuple[int, Image]]:
        """Draw a ``share`` in [0,1] of a picture's ids anew, chosen by chance.

        Of the picture the middle square is taken, at the base's smallest size; what comes is its largest.
        """
        for first, rows in self._redrawn(picture, share, self._some):
            yield from enumerate(map(to_image, self._shown(rows)), first)

    def vary(self, picture: Image, share: float) -> Iterator[tuple[int, Image]]:
        """Draw a ``share`` in [0,1] of a picture's ids anew, chosen by chance in soft patches, at the settings' size.

        So one part of the picture after the other comes out otherwise, where single ids would be held to what stands
        between them. Squares as in ``restyle``. With super-resolution it draws the larger picture, as ever.
        """
        base, settings, drawers = self.base, self.settings, self.mixture.open(self.base)
        for first, rows in self._redrawn(picture, share, self._patches):
            if settings.superres_steps:
                pictures = self.wanted[first : first + len(rows)]
                texts, shares = drawers.texts(pictures), drawers.shares(pictures, "superres")
                rows = base.refine(rows, texts, [one.seed for one in pictures], settings, shares)
            yield from enumerate(map(to_image, self._shown(rows, settings.size)), first)

    def _redrawn(
        self, picture: Image, share: float, chosen: Callable[[float, Sequence[torch.Generator]], Tensor]
    ) -> Iterator[tuple[int, Tensor]]:
        """Ids ``[B,H,W]`` of a picture, those drawn anew that are ``chosen``, and the number of the first of them."""
        ids = self._ids(to_tensor(square(picture, self.base.sizes[0])))
        drawers, steps = self.mixture.open(self.base), self.settings.steps
        for first, pictures in self._batches():
            masked = chosen(share, [generator(one.seed ^ ANOTHER_MASK) for one in pictures])
            rows = ids.expand(len(pictures), -1, -1).masked_fill(masked, self.base.mask_id)
            step_taken = self._steps(first * steps, len(pictures), steps)
            yield first, self._draw(drawers, pictures, [one.seed for one in pictures], rows, step_taken)

    def resample(self, picture: Image, iterations: int) -> Iterator[tuple[int, Image]]:
        """Draw a picture's ids anew, a few at a time, so that it comes to show the prompt (Muse, 3: mask-free editing).

        In each iteration a share ``AGAIN`` of them is chosen by chance and drawn at once, at the scales and the
        ``top_k`` of the settings. Squares and sizes as in ``restyle``.
        """
        base, drawers = self.base, self.mixture.open(self.base)
        ids = self._ids(to_tensor(square(picture, base.sizes[0])))
        # A guide may remember what it said a step ago, but here other ids are asked for each time.
        settings = replace(self.settings, guidance_every=1, guidance_from=0.0, guidance_to=1.0)
        for first, pictures in self._batches():
            draws = [generator(one.seed) for one in pictures]
            chances = [generator(one.seed ^ ANOTHER_MASK) for one in pictures]
            step_taken = self._steps(first * iterations, len(pictures), iterations)
            rows = ids.repeat(len(pictures), 1, 1)
            with torch.no_grad(), base.arithmetic(settings.precision):
                guide = base.guide(drawers.texts(pictures), settings, drawers.shares(pictures))

                def in_full(ids: Tensor, masked: Tensor, progress: float, guide: LogitsFn = guide) -> Tensor:
                    return guide(ids, masked, 1.0)  # scales that grow have grown

                for iteration in range(iterations):
                    rows = decode(
                        rows.masked_fill(self._some(AGAIN, chances), base.mask_id),
                        in_full,
                        mask_id=base.mask_id,
                        steps=1,
                        temperature=0.0,
                        generator=draws,
                        noise=settings.noise,
                    )
                    step_taken(iteration, rows)
            base.done_with("transformer")
            yield from enumerate(map(to_image, self._shown(rows)), first)

    def _fill(self, canvas: Tensor, windows: list[Window]) -> Iterator[tuple[int, Image]]:
        """Draw the targets of ``windows``, one after the other, on ``canvas``, uint8 ``[3,H,W]``."""
        base, drawers = self.base, self.mixture.open(self.base)
        steps = len(windows) * self.settings.steps
        unknown = torch.zeros(canvas.shape[1:], dtype=torch.bool)
        for window in windows:
            unknown[window.inside] |= window.target
        for first, pictures in self._batches():
            canvases, missing = [canvas.clone() for _ in pictures], unknown.clone()
            for number, window in enumerate(windows):
                inside = window.inside
                known = ~missing[inside]
                # What is not known yet has no say in the ids beside it: they see what is known, spread out.
                seen = (continued(one[:, *inside] / 255, known) for one in canvases)
                ids = torch.cat([self._ids(_scaled(one, base.sizes[0])) for one in seen])
                touched = F.adaptive_max_pool2d((~known)[None].float(), base.grid)[0] > 0
                ids = ids.masked_fill(touched.to(base.device), base.mask_id)
                seeds = [one.seed ^ (number * ANOTHER_WINDOW & LARGEST_SEED) for one in pictures]
                before = first * steps + len(pictures) * number * self.settings.steps
                ids = self._draw(drawers, pictures, seeds, ids, self._steps(before, len(pictures), steps))
                for one, made in zip(canvases, self._shown(ids), strict=True):
                    view = one[:, *inside]
                    new = joined(_scaled(made, window.side), view / 255, known, window.side / base.grid)
                    one[:, *inside] = torch.where(window.target, new.mul(255).round().to(torch.uint8), view)
                missing[inside] &= ~window.target
            yield from ((first + index, to_image(one.float() / 255)) for index, one in enumerate(canvases))

    def _batches(self) -> Iterator[tuple[int, Sequence[PictureRequest]]]:
        """Those that are drawn at once, and the number of the first."""
        for first in range(0, len(self.wanted), self.base.batch):
            yield first, self.wanted[first : first + self.base.batch]

    def _steps(self, before: int, each: int, of_one: int) -> Callable[[int, Tensor], None]:
        """Tells ``on_step`` of steps that count ``each``, with ``before`` taken; a picture has ``of_one`` in all."""
        return lambda step, ids: self.on_step((before + each * (step + 1)) / (len(self.wanted) * of_one))

    def _draw(
        self,
        drawers: LoadedStyleMix,
        pictures: Sequence[PictureRequest],
        seeds: list[int],
        ids: Tensor,
        step_taken: Callable[[int, Tensor], None],
    ) -> Tensor:
        """Ids ``[B,H,W]`` of ``pictures``, those drawn that are masked."""
        if not (ids == self.base.mask_id).any():
            return ids
        texts, shares = drawers.texts(pictures), drawers.shares(pictures)
        ids = self.base.sample(texts, seeds, self.settings, shares, step_taken, ids=ids)
        self.base.done_with("transformer")
        return ids

    @torch.no_grad()
    def _ids(self, picture: Tensor) -> Tensor:
        """Ids ``[1,H,W]`` of a picture ``[3,S,S]`` in [0,1], as large as the base's smallest."""
        ids: Tensor = self.base.tokenizer.encode(picture[None].to(self.base.device))
        return ids

    def _shown(self, ids: Tensor, size: int | None = None) -> Iterator[Tensor]:
        """What ids ``[B,H,W]`` show, each ``[3,S,S]`` in [0,1] on the CPU; one by one, as ``pipeline.draw`` does."""
        for row in ids:
            yield coloured(self.base.pictures(row[None], size or self.base.sizes[-1])[0].cpu(), self.settings)
        self.base.done_with("tokenizer")

    def _some(self, share: float, chances: Sequence[torch.Generator]) -> Tensor:
        """Which ids are chosen for each of the ``chances``, bool ``[B,H,W]``: a share of them, rounded."""
        number = self.base.grid**2
        return self._lowest(share, [torch.rand(number, generator=chance) for chance in chances])

    def _patches(self, share: float, chances: Sequence[torch.Generator]) -> Tensor:
        """As ``_some``, but those that are chosen stand together in patches with frayed edges."""
        grid = self.base.grid
        coarse = max(2, grid // PATCH)
        heights = []
        for chance in chances:
            field = torch.rand(1, 1, coarse, coarse, generator=chance)
            smooth = F.interpolate(field, (grid, grid), mode="bicubic", align_corners=False).flatten()
            heights.append(smooth + FRAYED * torch.rand(grid * grid, generator=chance))
        return self._lowest(share, heights)

    def _lowest(self, share: float, heights: Sequence[Tensor]) -> Tensor:
        """Where each of the ``heights``, ``[H*W]``, is among a share of the lowest, rounded: bool ``[B,H,W]``."""
        grid = self.base.grid
        ranks = torch.stack([one.argsort().argsort() for one in heights])
        return (ranks < round(share * grid * grid)).view(-1, grid, grid).to(self.base.device)


def _canvas(picture: Image, sides: Sides) -> Tensor:
    """A picture with room around it, uint8 ``[3,H,W]``."""
    left, top, right, bottom = sides
    return F.pad((to_tensor(picture) * 255).round().to(torch.uint8), (left, right, top, bottom))


def _scaled(picture: Tensor, side: int) -> Tensor:
    """A square picture ``[3,S,S]`` in [0,1] as ``[3,side,side]``."""
    if picture.shape[-1] == side:
        return picture
    return F.interpolate(picture[None], (side, side), mode="bicubic", antialias=True)[0].clamp(0, 1)
