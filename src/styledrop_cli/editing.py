"""Given pictures changed by a base and perhaps adapters: a part drawn anew, sides added, all of it in another style.

Muse, arXiv 2301.00704, 3: what is to stay goes into the network as ids, what is to be drawn as masked ones; nothing is
trained or inverted for it. A picture of any size and shape is worked on in square windows, each scaled to what the
base draws. Super-resolution has no part in it: it draws whole pictures, and would change what is to stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from styledrop_cli.base import Base
from styledrop_cli.devices import generator
from styledrop_cli.errors import UsageError
from styledrop_cli.images import LARGE, square, to_image, to_tensor
from styledrop_cli.pipeline import Drawers, Mixture, Wanted
from styledrop_cli.sampling.decoding import LogitsFn, decode
from styledrop_cli.settings import LARGEST_SEED, SampleSettings

if TYPE_CHECKING:
    from PIL.Image import Image

OnStep = Callable[[float], None]
Sides = tuple[int, int, int, int]  # left, top, right, bottom, in pixels

CONTEXT = 1.5  # a window's side, in sides of what is drawn in it
FEWEST_KNOWN = 0.25  # of a window's pixels, to draw all in one
MOST_SPOTS = 8  # that are drawn each in windows of its own
SPOT_GRID = 64  # cells along the canvas's longer side, between which spots are told apart
SHIFTS = 16  # positions that a window may have within its own side
SMOOTHINGS = 8
FINE = 1024  # pixels along a side, in which the colours of a larger window are looked at
OFF = 0.08  # of a colour's range: by so much at most a tokenizer is taken to miss it
FARTHER = (
    2.0  # the square around a picture and its new sides at most, in the picture's shorter sides, to be drawn whole
)
MOST_AROUND = 4  # of a picture's shorter side, added to one of its sides
AGAIN = 0.08  # of the ids, drawn again in each iteration of mask-free editing (Muse, 3)
ANOTHER_MASK = 0x2545F4914F6CDD1D  # so that what is masked is not chosen by the numbers that draw it
ANOTHER_WINDOW = 0x9E3779B97F4A7C15 >> 2


# ---- where to draw ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """A square of a canvas, in pixels, and its part that is drawn there: ``target``, bool ``[side,side]``."""

    left: int
    top: int
    side: int
    target: Tensor

    @property
    def inside(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.top, self.top + self.side), slice(self.left, self.left + self.side)


def plan(unknown: Tensor, least: int, most: int) -> list[Window]:
    """Windows in which all that is ``unknown``, bool ``[H,W]``, is drawn, one after the other.

    Each knows what those before it drew. A spot that fits has one window around it, ``CONTEXT`` times as large, of
    ``least`` to ``most`` pixels a side; where much is unknown, each covers as much of it as leaves half of it known,
    or knows as much as it can. ``most`` is at most the shorter of H and W.
    """
    unknown, windows = unknown.clone(), []
    for spot in _spots(unknown):
        while spot.any():
            left, top, side = _around(spot, unknown, least, most) or _where_most_is_known(spot, unknown, most)
            inside = slice(top, top + side), slice(left, left + side)
            windows.append(Window(left, top, side, spot[inside].clone()))
            unknown[inside] &= ~spot[inside]
            spot[inside] = False
    return windows


def _spots(unknown: Tensor) -> list[Tensor]:
    """What is ``unknown`` ``[H,W]`` as parts that do not touch, the largest first; all of it, where they are many."""
    height, width = unknown.shape
    cell = max(1, -(-max(height, width) // SPOT_GRID))
    coarse = F.max_pool2d(unknown[None, None].float(), cell, ceil_mode=True)
    labels = coarse * torch.arange(1, coarse.numel() + 1).view_as(coarse)
    while not torch.equal(spread_out := F.max_pool2d(labels, 3, 1, 1) * coarse, labels):
        labels = spread_out
    numbers, sizes = labels[labels > 0].unique(return_counts=True)
    if len(numbers) > MOST_SPOTS:
        return [unknown.clone()] if len(numbers) else []
    fine = labels[0, 0].repeat_interleave(cell, 0).repeat_interleave(cell, 1)[:height, :width]
    return [(fine == numbers[index]) & unknown for index in sizes.argsort(descending=True, stable=True)]


def _around(spot: Tensor, unknown: Tensor, least: int, most: int) -> tuple[int, int, int] | None:
    """Left, top and side of one window around a spot; None where it does not fit, or would know too little."""
    rows, columns = (spot.any(axis).nonzero()[[0, -1], 0].tolist() for axis in (1, 0))
    length = max(rows[1] - rows[0], columns[1] - columns[0]) + 1
    side = min(max(round(CONTEXT * length), least), most)
    if length > side:
        return None
    top, left = (
        min(max((first + last + 1 - side) // 2, 0), whole - side)
        for (first, last), whole in zip((rows, columns), spot.shape, strict=True)
    )
    missing = unknown[top : top + side, left : left + side].float().mean()
    return (left, top, side) if missing <= 1 - FEWEST_KNOWN or spot.shape == (side, side) else None


def _where_most_is_known(spot: Tensor, unknown: Tensor, side: int) -> tuple[int, int, int]:
    """Left, top and side of the window that draws most of a spot while half of it is known, or that knows most."""
    height, width = spot.shape
    step = max(1, side // SHIFTS)
    tops, lefts = (torch.tensor(sorted({*range(0, n - side + 1, step), n - side})) for n in (height, width))

    def counts(mask: Tensor) -> Tensor:
        sums = F.pad(mask.long().cumsum(0).cumsum(1), (1, 0, 1, 0))
        low, high = sums[tops], sums[tops + side]
        return high[:, lefts + side] - high[:, lefts] - low[:, lefts + side] + low[:, lefts]

    drawn, missing, half = counts(spot), counts(unknown), side * side // 2
    score = torch.where(missing <= half, drawn, half - missing)
    score[drawn == 0] = -side * side
    # Of equals the one in the middle: what nothing is known of begins there.
    aside = (tops + (side - height) / 2).square()[:, None] + (lefts + (side - width) / 2).square()
    best = int(torch.where(score == score.max(), aside, torch.inf).argmin())
    return int(lefts[best % len(lefts)]), int(tops[best // len(lefts)]), side


# ---- seams --------------------------------------------------------------------------------------


def spread(values: Tensor, known: Tensor) -> Tensor:
    """``values`` ``[C,H,W]`` where they are ``known``, bool ``[H,W]``, and a smooth surface through these elsewhere.

    It comes close to the membrane that solves Laplace's equation between them (Poisson image editing, Perez et al.
    2003, in its form that corrects what was pasted), from coarse to fine. Zeros if nothing is known.
    """
    if known.all() or not known.any():
        return values * known
    made = _enlarged(spread(*_shrunk(values, known, 2)), known.shape)
    for _ in range(SMOOTHINGS):
        around = F.avg_pool2d(F.pad(torch.where(known, values, made)[None], (1, 1, 1, 1), mode="replicate"), 3, 1)[0]
        made = torch.where(known, values, around)
    return made


def joined(new: Tensor, view: Tensor, known: Tensor, reach: float) -> Tensor:
    """``new`` ``[3,H,W]`` in [0,1] with its colours shifted so that it joins ``view`` where that is ``known``.

    The tokenizer shows what is known a little differently, and all that is drawn beside it likewise: it is shifted by
    as much as at the seam, up to ``OFF``. What differs by more shows something else there, and is made to join within
    ``reach`` pixels.
    """
    factor = _factor(known, FINE)
    off, seen = _shrunk(view - new, known, factor)
    radius = max(1, round(reach / factor))
    near = seen[None].float()  # from 1 at the seam to 0 beyond the reach: half of what is around a pixel there is known
    for size, pad in (((2 * radius + 1, 1), (radius, 0)), ((1, 2 * radius + 1), (0, radius))):
        near = F.avg_pool2d(near, size, 1, pad, count_include_pad=False)
    near = near.mul(2).clamp(max=1)
    shift = torch.lerp(spread(off.clamp(-OFF, OFF), seen), spread(off, seen), near)
    return (new + _enlarged(shift, known.shape)).clamp_(0, 1)


def _factor(known: Tensor, most: int) -> int:
    """By how much to shrink a square so that its side has at most so many pixels."""
    return -(-known.shape[0] // most)


def _shrunk(values: Tensor, known: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """The means of what is known in squares of ``factor`` pixels, and where anything is."""
    if factor == 1:
        return values, known
    shares = F.avg_pool2d(known[None].float(), factor, ceil_mode=True)
    return F.avg_pool2d(values * known, factor, ceil_mode=True) / shares.clamp(min=1e-6), shares[0] > 0


def _enlarged(values: Tensor, shape: torch.Size) -> Tensor:
    """``[C,h,w]`` as ``[C,*shape]``, in between linear."""
    return values if values.shape[1:] == shape else F.interpolate(values[None], shape, mode="bilinear")[0]


def _scaled(picture: Tensor, side: int) -> Tensor:
    """A square picture ``[3,S,S]`` in [0,1] as ``[3,side,side]``."""
    if picture.shape[-1] == side:
        return picture
    return F.interpolate(picture[None], (side, side), mode="bicubic", antialias=True)[0].clamp(0, 1)


# ---- drawing ------------------------------------------------------------------------------------


def check_mask(picture: Image, mask: Image) -> Tensor:
    """Where a mask says to draw anew, bool ``[H,W]``: where it is white, or nearer to white than to black.

    Raises UsageError if it is not as large as the picture, or nowhere white.
    """
    if mask.size != picture.size:
        sizes = (f"{width} x {height} px" for width, height in (mask.size, picture.size))
        raise UsageError("the mask is {}, the picture {}".format(*sizes), "Make a mask of the picture's size.")
    unknown = to_tensor(mask).mean(0) >= 0.5
    if not unknown.any():
        raise UsageError("the mask is nowhere white: there is nothing to draw", "Paint white what is to be drawn anew.")
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
    mixture: Mixture,
    wanted: Sequence[Wanted],
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
    mixture: Mixture,
    wanted: Sequence[Wanted],
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
    mixture: Mixture,
    wanted: Sequence[Wanted],
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
    mixture: Mixture,
    wanted: Sequence[Wanted],
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
            guide = base.guide(drawers.texts(pictures), settings, drawers.speakers(pictures))

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
    base: Base, mixture: Mixture, wanted: Sequence[Wanted], canvas: Tensor, windows: list[Window], on_step: OnStep
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
            seen = (_shrunk(one[:, *inside] / 255, known, _factor(known, FINE)) for one in canvases)
            ids = torch.cat([_ids_of(base, _scaled(spread(*one), base.sizes[0])) for one in seen])
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
    drawers: Drawers,
    pictures: Sequence[Wanted],
    seeds: list[int],
    ids: Tensor,
    part: Callable[[int, Tensor], None],
) -> Tensor:
    """Ids ``[B,H,W]`` of ``pictures``, those drawn that are masked."""
    if not (ids == base.mask_id).any():
        return ids
    settings = pictures[0].settings
    ids = base.sample(drawers.texts(pictures), seeds, settings, drawers.speakers(pictures), part, ids=ids)
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


def _some(grid: int, share: float, chance: torch.Generator) -> Tensor:
    """Which ids, bool ``[grid,grid]``, are chosen: a share of them, rounded."""
    ranks = torch.rand(grid * grid, generator=chance).argsort().argsort()
    return (ranks < round(share * grid * grid)).view(grid, grid)


def _settings(wanted: Sequence[Wanted]) -> SampleSettings:
    """How all of them are drawn; raises ValueError where they differ in it."""
    (settings,) = {replace(one.settings, seed=0) for one in wanted}
    return settings


def _chunks(base: Base, wanted: Sequence[Wanted]) -> Iterator[range]:
    """Which of them are drawn at once."""
    for start in range(0, len(wanted), base.batch):
        yield range(start, min(start + base.batch, len(wanted)))


def _part(on_step: OnStep, before: float, each: float) -> Callable[[int, Tensor], None]:
    """``on_step`` for a part of the way that begins at ``before`` and whose every step is ``each``."""
    return lambda step, ids: on_step(min(1.0, before + each * (step + 1)))
