"""Where to draw: the square windows in which a base draws what is unknown of a picture of any size and shape."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

CONTEXT = 1.5  # a window's side, in sides of what is drawn in it
FEWEST_KNOWN = 0.25  # of a window's pixels, to draw all in one
MOST_SPOTS = 8  # that are drawn each in windows of its own
SPOT_GRID = 64  # cells along the canvas's longer side, between which spots are told apart
SHIFTS = 16  # positions that a window may have within its own side


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

    Each sees what those before it drew. A spot that fits has one window around it, ``CONTEXT`` times as large, of
    ``least`` to ``most`` pixels a side. Where more is unknown, windows of ``most`` pixels draw as much as leaves half
    of the window known, or else see as much as they can. ``most`` is at most the shorter of H and W.
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
        return [unknown.clone()]
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
    # Among equal ones the most central is taken, so that a canvas of which nothing is known is drawn from the middle.
    aside = (tops + (side - height) / 2).square()[:, None] + (lefts + (side - width) / 2).square()
    best = int(torch.where(score == score.max(), aside, torch.inf).argmin())
    return int(lefts[best % len(lefts)]), int(tops[best // len(lefts)]), side
