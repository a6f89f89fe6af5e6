"""Pictures in the colours of a palette.

A picture's own main colours are found, and each is given one of the palette's: the nearest, but so that colours that
touch stay as far apart as before, and the lighter one lighter. Then each pixel moves with its colour. Between two areas
it is a blend of their new colours, as it was one of their old ones (a guided filter, He et al. 2010: in each small
window the new colours are a linear function of the old ones), and texture finer than that window stays, in lightness.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from styledrop_cli.io.colour import clusters, from_oklab, oklab
from styledrop_cli.io.images import to_image, to_tensor
from styledrop_cli.io.palette import Palette
from styledrop_cli.settings import SampleSettings

OWN = 8  # main colours of a picture, at most, that are told apart
NEAR = 0.22  # what the distance to a colour's new one counts, beside the edges
FARTHER = 0.1  # what it counts that an edge becomes stronger, beside that it becomes weaker
FLIP = 0.05  # OKLab: from this difference in lightness on it matters which of two colours is the lighter one
BETWEEN = 0.1  # OKLab: so far from the line between two colours at most is a blend of them
TURNS = 20  # of taking colours, at most

# In shares of a side.
BORDER = 0.015  # this far from each other two pixels are on both sides of a border
WINDOW = 0.02  # how far around a pixel the filter looks
FINE = 0.06  # how far around it texture is told from shading
NOISE = 1e-4  # OKLab, squared: differences in a window that are no edge
TEXTURE = 0.5  # how much of the texture stays


def palette_in(settings: SampleSettings) -> Palette | None:
    """The palette that pictures of these settings are drawn in; None where there is none, or it has no strength."""
    return Palette.read(settings.palette) if settings.palette and settings.palette_strength else None


def coloured(picture: Tensor, settings: SampleSettings) -> Tensor:
    """A picture ``[3,H,W]`` in [0,1] as the palette of its settings has it; without one, as it is.

    It is moved as its file would be, in 8 bits: so the same comes of what was drawn before without a palette.
    """
    palette = palette_in(settings)
    return picture if palette is None else moved(to_tensor(to_image(picture)), palette, settings.palette_strength)


@torch.no_grad()
def moved(picture: Tensor, palette: Palette, strength: float) -> Tensor:
    """A picture ``[3,H,W]`` in [0,1] with its colours moved to the palette's by ``strength`` in [0,1].

    0 returns it as it is. At 1 what is of one colour has one of the palette's.
    """
    if not strength:
        return picture
    own = oklab(picture.permute(1, 2, 0).float())
    height, width = own.shape[:2]
    centres, _ = clusters(own.reshape(-1, 3), OWN)
    labels = torch.cdist(own.reshape(-1, 3), centres).argmin(1).view(height, width)
    labels = _without_transitions(own, centres, labels)
    wanted = oklab(torch.tensor(palette.colours, dtype=torch.float32) / 255)
    new = wanted[assigned(centres, labels, wanted)]
    side = min(height, width)
    both = _guided(torch.cat([new, centres[:, :1]], 1)[labels], own, max(1, round(WINDOW * side)))
    made, usual = both.split([3, 1], -1)
    made[..., :1] += TEXTURE * _texture(own[..., :1] - usual, labels, max(1, round(FINE * side)))
    return from_oklab(torch.lerp(own, made, strength)).permute(2, 0, 1)


def assigned(centres: Tensor, labels: Tensor, wanted: Tensor) -> Tensor:
    """Which of the ``wanted`` colours ``[P,3]`` each of a picture's ``centres`` ``[K,3]`` becomes, ``[K]``; OKLab.

    ``labels`` ``[H,W]`` says where each is. What is minimised has two parts. A colour is to go to one near it, by its
    share of the picture. And two that touch are to be as far apart as they were, by their share of all borders, in the
    measure of the palette (a pale picture is to have the whole contrast of a strong palette); lighter and darker
    changed places count as far apart in the wrong direction. Each colour in turn takes what costs least, from several
    beginnings, of which the best end is kept.
    """
    number = len(centres)
    apart, gaps = torch.cdist(centres, centres), torch.cdist(wanted, wanted)
    lighter = centres[:, None, 0] - centres[:, 0]
    lighter = torch.where(lighter.abs() > FLIP, lighter.sign(), 0)[:, :, None, None]
    turned = lighter * (wanted[:, None, 0] - wanted[:, 0]).sign() < 0  # [K,K,P,P]
    off = torch.where(turned, -gaps, gaps) - (gaps.max() / apart.max().clamp(min=FLIP)) * apart[:, :, None, None]
    between = _touching(labels, number)[:, :, None, None] * off.square() * torch.where(off > 0, FARTHER, 1.0)
    shares = labels.flatten().bincount(minlength=number) / labels.numel()
    away = torch.cdist(centres, wanted)
    alone = NEAR * shares[:, None] * away.square()  # [K,P]
    by_light = wanted[:, 0].argsort(stable=True)
    ranks = (centres[:, 0] - centres[:, 0].min()) / (centres[:, 0].max() - centres[:, 0].min()).clamp(min=FLIP)
    starts = [away.argmin(1), by_light[(ranks * (len(wanted) - 1)).round().long()]]
    starts += [torch.full((number,), index) for index in range(len(wanted))]
    every = torch.arange(number)
    ends: list[tuple[float, Tensor]] = []
    for chosen in starts:
        for _ in range(TURNS):
            before = chosen.clone()
            for k in range(number):
                chosen[k] = (alone[k] + 2 * between[k, every, :, chosen].sum(0)).argmin()
            if torch.equal(before, chosen):
                break
        pairs = between[every[:, None], every, chosen[:, None], chosen]
        ends.append((float(alone[every, chosen].sum() + pairs.sum()), chosen))
    return min(ends, key=lambda end: end[0])[1]


def _without_transitions(own: Tensor, centres: Tensor, labels: Tensor) -> Tensor:
    """``labels`` ``[H,W]`` in which a soft edge between two areas is of these alone.

    In the middle of an edge colours are such as a third area has, and would be moved as that is: a seam of a third
    colour. Where a label is only a thin band, and its colour between those of two areas beside it, the nearer of the
    two takes it. A thin line of a colour of its own is none of this.
    """
    radius = max(1, round(WINDOW * min(labels.shape)))
    masks = F.one_hot(labels, len(centres)).float()
    broad = _most(1 - _most(1 - masks, radius), radius)  # what is left of each where thin bands are taken away
    beside = _most(broad, 2 * radius) > 0
    thin = broad.gather(-1, labels[..., None])[..., 0] == 0
    colours, beside, old = own[thin], beside[thin], labels[thin]
    nearest, best = old.clone(), torch.full(old.shape, BETWEEN)
    for a in range(len(centres)):
        for b in range(a):
            line = centres[b] - centres[a]
            share = ((colours - centres[a]) @ line / line.square().sum()).clamp(0, 1)
            off = (colours - centres[a] - share[:, None] * line).norm(dim=1)
            taken = beside[:, a] & beside[:, b] & (off < best)
            best = torch.where(taken, off, best)
            nearest = torch.where(taken, torch.where(share < 0.5, a, b), nearest)
    return labels.masked_scatter(thin, nearest)


def _touching(labels: Tensor, number: int) -> Tensor:
    """How much of all borders in ``labels`` ``[H,W]`` is one between two of them, ``[K,K]``, in all 1."""
    reach = max(1, round(BORDER * min(labels.shape)))
    both = torch.cat(
        [
            torch.stack([labels[:, reach:].flatten(), labels[:, :-reach].flatten()]),
            torch.stack([labels[reach:].flatten(), labels[:-reach].flatten()]),
        ],
        1,
    )
    counts = (both[0] * number + both[1]).bincount(minlength=number**2).view(number, number).float()
    counts = counts + counts.T
    counts.fill_diagonal_(0)
    return counts / counts.sum().clamp(min=1)


def _mean(maps: Tensor, radius: int) -> Tensor:
    """The mean over the square window around each pixel of ``[H,W,C]``; beyond the edges there is nothing."""
    for side in (0, 1):
        places = torch.arange(maps.shape[side])
        first, last = (places - radius).clamp(min=0), (places + radius + 1).clamp(max=len(places))
        sums = torch.cat([torch.zeros_like(maps.narrow(side, 0, 1)), maps], side).cumsum(side, dtype=torch.float64)
        each = (last - first).view(-1, 1, 1) if side == 0 else (last - first).view(1, -1, 1)
        maps = ((sums.index_select(side, last) - sums.index_select(side, first)) / each).float()
    return maps


def _guided(values: Tensor, guide: Tensor, radius: int) -> Tensor:
    """``values`` ``[H,W,C]`` with the edges of ``guide`` ``[H,W,3]``; no value beyond those around the pixel."""
    middle = guide.mean((0, 1))  # near zero single precision is enough
    guide = guide - middle
    mean, value = _mean(guide, radius), _mean(values, radius)
    outer = (guide[..., :, None] * guide[..., None, :]).flatten(2)
    spread = _mean(outer, radius).unflatten(2, (3, 3)) - mean[..., :, None] * mean[..., None, :]
    cross = _mean((guide[..., :, None] * values[..., None, :]).flatten(2), radius).unflatten(2, (3, -1))
    cross = cross - mean[..., :, None] * value[..., None, :]
    slope = _inverse(spread + NOISE * torch.eye(3)) @ cross
    offset = value - (mean[..., None, :] @ slope)[..., 0, :]
    slope = _mean(slope.flatten(2), radius).unflatten(2, (3, -1))
    made = (guide[..., None, :] @ slope)[..., 0, :] + _mean(offset, radius)
    inside: Tensor = made.clamp(-_most(-values, 2 * radius), _most(values, 2 * radius))
    return inside


def _inverse(matrices: Tensor) -> Tensor:
    """The inverses of symmetric matrices ``[...,3,3]``: for so many small ones much faster than a solver."""
    rows = matrices.unbind(-2)
    crossed = torch.stack([torch.linalg.cross(rows[(i + 1) % 3], rows[(i + 2) % 3]) for i in range(3)], -1)
    inverses: Tensor = crossed / (rows[0] * crossed[..., 0]).sum(-1)[..., None, None]
    return inverses


def _most(values: Tensor, radius: int) -> Tensor:
    """The largest in the square window around each pixel of ``[H,W,C]``."""
    rows = values.permute(2, 0, 1)[None]
    for kernel, pad in (((2 * radius + 1, 1), (radius, 0)), ((1, 2 * radius + 1), (0, radius))):
        rows = F.max_pool2d(rows, kernel, 1, pad)
    return rows[0].permute(1, 2, 0)


def _texture(rest: Tensor, labels: Tensor, fine: int) -> Tensor:
    """What in ``rest`` ``[H,W,1]`` is more or less than around it: in the window, of the same one of ``labels``."""
    made = torch.zeros_like(rest)
    for label in range(int(labels.max()) + 1):
        here = (labels == label)[..., None].float()
        sums, share = _mean(torch.cat([rest * here, here], -1), fine).split(1, -1)
        made += here * (rest - sums / share.clamp(min=1e-6))
    return made
