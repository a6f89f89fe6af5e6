"""The changes themselves: ids of what is to stay go into the network beside masked ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from styledrop_cli.base.base import Base
from styledrop_cli.devices import generator
from styledrop_cli.errors import UsageError
from styledrop_cli.generation.editing.seams import continued, joined
from styledrop_cli.generation.editing.windows import Window, plan
from styledrop_cli.generation.pipeline import LoadedStyleMix, PictureRequest, StyleMix
from styledrop_cli.io.images import LARGE, square, to_image, to_tensor
from styledrop_cli.sampling.decoding import LogitsFn, decode
from styledrop_cli.settings import LARGEST_SEED, SampleSettings

if TYPE_CHECKING:
    from PIL.Image import Image

OnStep = Callable[[float], None]
Sides = tuple[int, int, int, int]  # left, top, right, bottom, in pixels

# The square around a picture and its new sides at most, in the picture's shorter sides, to be drawn whole.
FARTHER = 2.0
MOST_AROUND = 4  # of a picture's shorter side, added to one of its sides
AGAIN = 0.08  # of the ids, drawn again in each iteration of mask-free editing (Muse, 3)
ANOTHER_MASK = 0x2545F4914F6CDD1D  # so that what is masked is not chosen by the numbers that draw it
ANOTHER_WINDOW = 0x9E3779B97F4A7C15 >> 2


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


def inpaint(
    base: Base,
    mixture: StyleMix,
    wanted: Sequence[PictureRequest],
    picture: Image,
    mask: Image,
    on_step: OnStep = lambda share: None,
) -> Iterator[tuple[int, Image]]:
    """Draw anew where ``mask`` is white, yielding ``(which of wanted, picture)``; all else stays, bit for bit.

    All that is ``wanted`` has the same settings. ``on_step`` is told what share in [0,1] of all steps is taken. Raises
    as ``check_mask`` does, ModelError if an adapter is not this base's.
    """
    unknown = check_mask(picture, mask)
    most = min(picture.size)
    windows = plan(unknown, min(base.sizes[0], most), most)
    return _fill(base, mixture, wanted, _canvas(picture, (0, 0, 0, 0)), windows, on_step)


def outpaint(
    base: Base,
    mixture: StyleMix,
    wanted: Sequence[PictureRequest],
    picture: Image,
    sides: Sides,
    on_step: OnStep = lambda share: None,
) -> Iterator[tuple[int, Image]]:
    """Draw what lies around a picture, as ``inpaint`` does; the picture stays in its place, bit for bit.

    Raises as ``check_sides`` does, ModelError if an adapter is not this base's.
    """
    check_sides(picture, sides)
    left, top, right, bottom = sides
    (width, height), shorter = picture.size, min(picture.size)
    whole = max(width + 2 * max(left, right), height + 2 * max(top, bottom))
    alone = whole <= FARTHER * shorter
    # A picture shows its thing in the middle: where a square around the picture is not too far, it is drawn whole.
    ahead = ((whole - width) // 2, (whole - height) // 2) if alone else (left, top)
    room = (*ahead, whole - width - ahead[0], whole - height - ahead[1]) if alone else sides
    canvas = _canvas(picture, room)
    unknown = torch.ones(canvas.shape[1:], dtype=torch.bool)
    unknown[ahead[1] : ahead[1] + height, ahead[0] : ahead[0] + width] = False
    windows = [Window(0, 0, whole, unknown)] if alone else plan(unknown, shorter, shorter)
    box = (ahead[0] - left, ahead[1] - top, ahead[0] + width + right, ahead[1] + height + bottom)
    return ((index, made.crop(box)) for index, made in _fill(base, mixture, wanted, canvas, windows, on_step))


def restyle(
    base: Base,
    mixture: StyleMix,
    wanted: Sequence[PictureRequest],
    picture: Image,
    share: float,
    on_step: OnStep = lambda share: None,
) -> Iterator[tuple[int, Image]]:
    """Draw a ``share`` in [0,1] of a picture's ids anew, chosen by chance, yielding ``(which of wanted, picture)``.

    Of the picture the middle square is taken, at the base's smallest size; what comes is its largest.
    """
    ids = _ids_of(base, to_tensor(square(picture, base.sizes[0])))
    drawers, settings = mixture.open(base), _settings(wanted)
    for chunk in _chunks(base, wanted):
        seeds = [wanted[index].seed for index in chunk]
        chances = [generator(seed ^ ANOTHER_MASK) for seed in seeds]
        masked = torch.stack([_some(base.grid, share, one) for one in chances]).to(base.device)
        rows = ids.expand(len(chunk), -1, -1).masked_fill(masked, base.mask_id)
        part = _part(on_step, chunk.start / len(wanted), len(chunk) / len(wanted) / settings.steps)
        rows = _drawn(base, drawers, [wanted[index] for index in chunk], seeds, rows, part)
        yield from zip(chunk, _shown(base, rows), strict=True)


def resample(
    base: Base,
    mixture: StyleMix,
    wanted: Sequence[PictureRequest],
    picture: Image,
    iterations: int,
    on_step: OnStep = lambda share: None,
    on_ids: Callable[[int, Tensor], None] = lambda iteration, ids: None,
) -> Iterator[tuple[int, Image]]:
    """Draw a picture's ids anew, a few at a time, so that it comes to show what is said (Muse, 3: mask-free editing).

    In each iteration a share ``AGAIN`` of them is chosen by chance and drawn at once, at the scales and the ``top_k``
    of the settings; ``on_ids`` is told of the ids ``[B,H,W]`` after it. Squares and sizes as in ``restyle``.
    """
    ids = _ids_of(base, to_tensor(square(picture, base.sizes[0])))
    drawers = mixture.open(base)
    # A guide may remember what it said a step ago, but here other ids are asked for each time.
    settings = replace(_settings(wanted), guidance_every=1, guidance_from=0.0, guidance_to=1.0)
    for chunk in _chunks(base, wanted):
        pictures = [wanted[index] for index in chunk]
        draws = [generator(one.seed) for one in pictures]
        chances = [generator(one.seed ^ ANOTHER_MASK) for one in pictures]
        part = _part(on_step, chunk.start / len(wanted), len(chunk) / len(wanted) / iterations)
        rows = ids.repeat(len(chunk), 1, 1)
        with torch.no_grad(), base.arithmetic(settings.precision):
            guide = base.guide(drawers.texts(pictures), settings, drawers.shares(pictures))

            def in_full(ids: Tensor, masked: Tensor, progress: float, guide: LogitsFn = guide) -> Tensor:
                return guide(ids, masked, 1.0)  # scales that grow have grown

            for iteration in range(iterations):
                masked = torch.stack([_some(base.grid, AGAIN, one) for one in chances]).to(base.device)
                rows = decode(
                    rows.masked_fill(masked, base.mask_id),
                    in_full,
                    mask_id=base.mask_id,
                    steps=1,
                    temperature=0.0,
                    generator=draws,
                    noise=settings.noise,
                )
                on_ids(iteration, rows)
                part(iteration, rows)
        base.done_with("transformer")
        yield from zip(chunk, _shown(base, rows), strict=True)


def _fill(
    base: Base,
    mixture: StyleMix,
    wanted: Sequence[PictureRequest],
    canvas: Tensor,
    windows: list[Window],
    on_step: OnStep,
) -> Iterator[tuple[int, Image]]:
    """Draw the targets of ``windows``, one after the other, on ``canvas``, uint8 ``[3,H,W]``."""
    drawers, settings = mixture.open(base), _settings(wanted)
    unknown = torch.zeros(canvas.shape[1:], dtype=torch.bool)
    for window in windows:
        unknown[window.inside] |= window.target
    for chunk in _chunks(base, wanted):
        pictures = [wanted[index] for index in chunk]
        canvases, missing = [canvas.clone() for _ in chunk], unknown.clone()
        for number, window in enumerate(windows):
            inside = window.inside
            known = ~missing[inside]
            # What is not known yet has no say in the ids beside it: they see what is known, spread out.
            seen = (continued(one[:, *inside] / 255, known) for one in canvases)
            ids = torch.cat([_ids_of(base, _scaled(one, base.sizes[0])) for one in seen])
            touched = F.adaptive_max_pool2d((~known)[None].float(), base.grid)[0] > 0
            seeds = [one.seed ^ (number * ANOTHER_WINDOW & LARGEST_SEED) for one in pictures]
            before = (chunk.start * len(windows) + len(chunk) * number) / (len(wanted) * len(windows))
            part = _part(on_step, before, len(chunk) / (len(wanted) * len(windows) * settings.steps))
            ids = ids.masked_fill(touched.to(base.device), base.mask_id)
            ids = _drawn(base, drawers, pictures, seeds, ids, part)
            for one, made in zip(canvases, _decoded(base, ids), strict=True):
                view = one[:, *inside]
                new = joined(_scaled(made, window.side), view / 255, known, window.side / base.grid)
                one[:, *inside] = torch.where(window.target, new.mul(255).round().to(torch.uint8), view)
            missing[inside] &= ~window.target
        yield from ((index, to_image(one.float() / 255)) for index, one in zip(chunk, canvases, strict=True))


def _drawn(
    base: Base,
    drawers: LoadedStyleMix,
    pictures: Sequence[PictureRequest],
    seeds: list[int],
    ids: Tensor,
    part: Callable[[int, Tensor], None],
) -> Tensor:
    """Ids ``[B,H,W]`` of ``pictures``, those drawn that are masked."""
    if not (ids == base.mask_id).any():
        return ids
    settings = pictures[0].settings
    ids = base.sample(drawers.texts(pictures), seeds, settings, drawers.shares(pictures), part, ids=ids)
    base.done_with("transformer")
    return ids


@torch.no_grad()
def _ids_of(base: Base, picture: Tensor) -> Tensor:
    """Ids ``[1,H,W]`` of a picture ``[3,S,S]`` in [0,1], as large as the base's smallest."""
    ids: Tensor = base.tokenizer.encode(picture[None].to(base.device))
    return ids


def _decoded(base: Base, ids: Tensor) -> Iterator[Tensor]:
    """What ids ``[B,H,W]`` show, each ``[3,S,S]`` in [0,1] on the CPU; one by one, as ``pipeline.draw`` does."""
    for row in ids:
        yield base.pictures(row[None], base.sizes[-1])[0].cpu()
    base.done_with("tokenizer")


def _shown(base: Base, ids: Tensor) -> Iterator[Image]:
    return map(to_image, _decoded(base, ids))


def _canvas(picture: Image, sides: Sides) -> Tensor:
    """A picture with room around it, uint8 ``[3,H,W]``."""
    left, top, right, bottom = sides
    return F.pad((to_tensor(picture) * 255).round().to(torch.uint8), (left, right, top, bottom))


def _scaled(picture: Tensor, side: int) -> Tensor:
    """A square picture ``[3,S,S]`` in [0,1] as ``[3,side,side]``."""
    if picture.shape[-1] == side:
        return picture
    return F.interpolate(picture[None], (side, side), mode="bicubic", antialias=True)[0].clamp(0, 1)


def _some(grid: int, share: float, chance: torch.Generator) -> Tensor:
    """Which ids, bool ``[grid,grid]``, are chosen: a share of them, rounded."""
    ranks = torch.rand(grid * grid, generator=chance).argsort().argsort()
    return (ranks < round(share * grid * grid)).view(grid, grid)


def _settings(wanted: Sequence[PictureRequest]) -> SampleSettings:
    """How all of them are drawn; raises ValueError where they differ in it."""
    (settings,) = {replace(one.settings, seed=0) for one in wanted}
    return settings


def _chunks(base: Base, wanted: Sequence[PictureRequest]) -> Iterator[range]:
    """Which of them are drawn at once."""
    for start in range(0, len(wanted), base.batch):
        yield range(start, min(start + base.batch, len(wanted)))


def _part(on_step: OnStep, before: float, each: float) -> Callable[[int, Tensor], None]:
    """``on_step`` for a part of the way that begins at ``before`` and whose every step is ``each``."""
    return lambda step, ids: on_step(min(1.0, before + each * (step + 1)))
