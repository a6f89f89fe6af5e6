"""A picture without its ground: what is connected to the border and like it becomes transparent, with soft edges.

The ground is a field of colours that changes slowly, so that gradients and washes are followed, with a spread that is
measured in the picture, so that grain and texture belong to it. Colours are compared in Oklab
(https://bottosson.github.io/posts/oklab), where equal distances look equally large. At the edge each pixel is taken for
a mixture of the ground there and the thing beside it (the compositing equation): its share of the thing is the alpha
value, and the ground's share is taken out of its colour, so that no seam of the old ground is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from styledrop_cli.io import colour

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

LARGEST = 768  # pixels of a side: larger pictures are looked at in this size
FLOOR = np.array([1.2, 0.7, 0.7], np.float32)  # the least spread of a ground's Oklab times 100: what a JPEG leaves
WIDEST = np.array([9.0, 5.0, 5.0], np.float32)  # the largest: beyond it there is no one ground
FAR = 4.5  # in spreads: what is farther from the ground is no part of it
BORDER = 0.5  # so much of the border is like the ground at least
HOLE_NEAR = 0.45  # so far from the ground are holes in the mean, where its own end is at 1
LEAST, MOST = 0.003, 0.96  # the share of the picture that a thing has on a clear ground


@dataclass(frozen=True)
class _Ground:
    """A ground: its colours ``[H,W,3]`` in Oklab times 100, and which pixels are its part, by ``far`` over 1."""

    field: Floats
    away: Floats  # [H,W], how far pixels are from it, in the same units
    far: Floats  # [H,W], the same by what is usual there: 1 where a pixel is as far as the ground's part can be
    plain: float  # the spread, in units of FLOOR: 1 for one colour all over


def without_ground(image: Image.Image, holes: str = "safe") -> Image.Image | None:
    """The picture as ``RGBA``, transparent where its ground is; None where no clear ground is found.

    That is where the border has no colours of its own, or the picture is all ground. Areas of the ground's colour that
    the thing encloses, the hole of a handle, of the letter O, are taken out where that is "safe", "all" or "none". Safe
    is what the paint of the thing hardly has by chance: not a white ground's white.
    """
    whole = image.convert("RGB")
    scale = min(1.0, LARGEST / max(whole.size))
    small = (
        whole
        if scale == 1
        else whole.resize([max(1, round(side * scale)) for side in whole.size], Image.Resampling.BOX)
    )
    pixels = np.asarray(small, np.float32)
    ground = _ground_of(oklab(pixels))
    thing = ~_part_of(ground, holes) if ground is not None else None
    if ground is None or thing is None or not LEAST < thing.mean() < MOST:
        return None
    alpha, colours = _matte(pixels, ground, thing)
    made = Image.fromarray(np.dstack([colours, 255 * alpha]).round().clip(0, 255).astype(np.uint8), "RGBA")
    if scale == 1:
        return made
    # Inside the thing the picture has its own pixels; the edge is as it was found, larger.
    made = made.resize(whole.size, Image.Resampling.BICUBIC)
    alpha_large = made.getchannel("A")
    made.paste(whole, mask=alpha_large.point(lambda value: 255 if value >= 252 else 0))
    made.putalpha(alpha_large)
    return made


def _ground_of(lab: Floats) -> _Ground | None:
    """The ground of a picture in Oklab; None where its border has no one ground."""
    high, wide = lab.shape[:2]
    frame = np.zeros((high, wide), bool)
    band = max(2, min(high, wide) // 40)
    frame[:band], frame[-band:], frame[:, :band], frame[:, -band:] = True, True, True, True
    smooth = _blurred(lab, max(1.0, min(high, wide) / 220))
    field = _surface(lab, frame)
    part, spread = frame, FLOOR
    far = np.ones((high, wide), np.float32)
    for reach in (None, min(high, wide) / 6, min(high, wide) / 10):
        if reach:  # nearer to what the ground is at each place
            field = _spread_out(lab, part, reach, field)
        every = []
        for seen in (lab, smooth):
            away = np.abs(seen - field)
            # Of the border's pixels most are ground: of the nearer three quarters the middle.
            known = away[part]
            near = known[np.argsort((known / FLOOR).sum(1), kind="stable")[: max(8, len(known) * 3 // 4)]]
            spread = np.maximum(FLOOR if seen is lab else FLOOR * 0.8, 1.9 * np.median(near, 0)).astype(np.float32)
            if seen is lab:
                raw = spread
            every.append(np.sqrt(((away / spread) ** 2).sum(2)) / FAR)
        far = np.maximum(every[0] * 0.85, every[1])
        if (raw > WIDEST).any() or (far[frame] < 1).mean() < BORDER:
            return None
        part = _reached(far < 1)
        if not part.any():
            return None
    return _Ground(field, np.sqrt(((lab - field) ** 2).sum(2)), far, float((raw / FLOOR).max()))


def _part_of(ground: _Ground, holes: str) -> Mask:
    """Which pixels are ground: what is reached from the border, the holes, and no specks."""
    like = ground.far < 1
    part = _reached(like)
    if holes == "all" or (holes == "safe" and not _white(ground)):
        part |= _holes(ground, part, like & ~part)
    labels, sizes, strength = _measured(~part, ground.far)
    specks = (sizes < part.size / 20000) | (sizes < part.size / 3000) & (strength < 3)
    specks |= (sizes < part.size / 60) & (strength < 1.8)  # a darker corner, a stain
    specks[0] = False
    return part | specks[labels]


def _reached(like: Mask) -> Mask:
    """What of a mask is connected to the border of the picture, and not through gaps a pixel or two wide alone."""
    gap = max(1, min(like.shape) // 256)
    border = np.zeros(like.shape, bool)
    border[0], border[-1], border[:, 0], border[:, -1] = True, True, True, True
    core = _grown(like, -gap)
    part = _connected(core, core & border)
    for _ in range(2 * gap + 1):
        part = _grown(part, 1) & like
    return part


def _white(ground: _Ground) -> bool:
    """Whether a ground is plain white, or nearly: the colour of eyes, windows and highlights, too."""
    light, *hue = np.median(ground.field.reshape(-1, 3), 0)
    return bool(light > 95 and np.hypot(*hue) < 2.5 and ground.plain < 2)


def _holes(ground: _Ground, part: Mask, enclosed: Mask) -> Mask:
    """Which ``enclosed`` areas are ground seen through the thing: the hole of a handle, of the letter O.

    They are as near to the ground as the ground is to itself, not small, and have nothing in them, as an eye has.
    """
    labels, sizes, means = _measured(enclosed, ground.far)
    thing = ~part & ~enclosed
    holes = (means < HOLE_NEAR) & (sizes >= max(part.size / 500, (~part).sum() / 66))
    # What lies apart from the outside has an enclosed area around it.
    inside, its_sizes, _ = _measured(thing, ground.far)
    outside = np.zeros(len(its_sizes), bool)
    outside[inside[_grown(part, 2)]] = True
    apart = (~outside & (its_sizes > part.size / 5000))[inside] & thing
    holes[labels[_grown(apart, 2)]] = False
    holes[0] = False
    found: Mask = holes[labels] & enclosed
    return found


def _matte(pixels: Floats, ground: _Ground, thing: Mask) -> tuple[Floats, Floats]:
    """Alpha ``[H,W]`` in [0,1], and the thing's colours ``[H,W,3]`` in [0,255] without the ground's share."""
    width = _softness(ground, thing)
    reach, depth = max(1, round(width / 3)), round(2 * width) + 1
    outer = _grown(thing, reach)
    edge = outer & ~_grown(thing, -depth)
    behind = _spread_out(pixels, ~outer, 4.0 * reach, _filled(pixels, ~outer))
    # What is least like the ground nearby says the thing's colour: what is more like it may be mixed with it.
    clear = thing * (ground.far / np.maximum(_largest_around(ground.far * thing, depth), 1e-6)).clip(0, 1) ** 8
    before = _spread_out(pixels, clear, max(1.2, depth / 2.5), _filled(pixels, clear))
    apart = before - behind
    square = np.maximum((apart**2).sum(2), 1.0)
    share = ((pixels - behind) * apart).sum(2) / square
    # A colour that is no mixture of the two is the thing's own.
    other = np.sqrt(((pixels - behind - share[..., None] * apart) ** 2).sum(2) / square)
    share = np.maximum(share, (other - 0.15) / 0.25)
    noise = 3.0 * ground.plain  # of 255, about
    low = np.clip(1.5 * noise / np.sqrt(square), 0.03, 0.35)
    share = np.clip((share - low) / (1 - low - 0.06), 0, 1)
    share = np.where(thing, _without_dips(share, ~outer, edge), np.where(outer, share, 0))
    sure = square / (square + (4 * noise) ** 2)
    soft = _blurred(thing.astype(np.float32)[..., None], 0.6 * reach)[..., 0]
    alpha = np.where(edge, sure * share + (1 - sure) * soft, thing).astype(np.float32)
    unmixed = behind + (pixels - behind) / np.maximum(alpha, 0.25)[..., None]
    own = np.clip((alpha - 0.5) / 0.5, 0, 1)[..., None]
    colours = np.where(edge[..., None], own * unmixed.clip(0, 255) + (1 - own) * before, pixels)
    colours = np.where((alpha > 0)[..., None], colours, before)
    return alpha, colours.astype(np.float32)


def _without_dips(share: Floats, outside: Mask, edge: Mask) -> Floats:
    """The thing's ``share`` of each pixel of its ``edge``, which only grows on the way in.

    A light spot near the edge has something between it and the ground, so it is raised to that; beyond the edge it is
    1. (Morphological reconstruction, in steps.)
    """
    made = np.ones_like(share)
    levels = np.linspace(1, 0, 17)[1:]
    for level in levels:
        labels = _connected(outside | (edge & (share < level)), outside)
        made[labels] = level
    # Between the steps the value itself, where it is none of a dip.
    return np.where(np.abs(made - share) <= 1.5 / len(levels), share, made).astype(np.float32)


def _connected(mask: Mask, start: Mask) -> Mask:
    """What of a mask is connected to where it is to ``start``."""
    labels = components(mask)
    reached = np.zeros(labels.max() + 1, bool)
    reached[labels[start]] = True
    reached[0] = False
    found: Mask = reached[labels]
    return found


def _softness(ground: _Ground, thing: Mask) -> float:
    """How many pixels an edge takes from the ground to the thing: 1 to 2 where it is sharp.

    The median over the thing's outline of how far the colours beside it are from the ground, by how fast they change.
    """
    most = max(2, min(thing.shape) // 32)
    change = np.hypot(*np.gradient(ground.away))
    outline = thing & ~_grown(thing, -1)
    high, steep = (_largest_around(values, most)[outline] for values in (ground.away, change))
    return float(np.clip(np.median(high / np.maximum(steep, 1e-6)), 1, most)) if outline.any() else 1.0


# ---- tools ---------------------------------------------------------------------------------------


def oklab(pixels: Floats) -> Floats:
    """Colours in sRGB ``[...,3]``, in [0,255], as Oklab times 100: lightness, green to red, blue to yellow."""
    lab: Floats = 100 * colour.oklab(torch.from_numpy(pixels.astype(np.float32) / 255)).numpy()
    return lab


def _surface(lab: Floats, frame: Mask) -> Floats:
    """The colours of a ground ``[H,W,3]``, by those of the border: each channel a quadratic function of the place.

    Fitted so that what is unlike the rest, a thing that touches the border, has ever less to say.
    """
    high, wide = frame.shape
    y, x = np.mgrid[-1 : 1 : high * 1j, -1 : 1 : wide * 1j]
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1)
    known, seen = terms[frame], lab[frame].astype(np.float64)
    weight = np.ones(len(seen))
    middle = np.median(seen, 0)
    away = np.linalg.norm(seen - middle, axis=1)
    for _ in range(8):
        scale = max(1.0, 2 * float(np.median(away)))
        weight = 1 / (1 + (away / scale) ** 2) ** 2
        root = np.sqrt(weight)[:, None]
        # A little of the middle keeps the surface flat where the border says nothing.
        ridge = 0.02 * np.sqrt(weight.sum()) * np.eye(6)
        ridge[0] = 0
        found = np.linalg.lstsq(
            np.concatenate([known * root, ridge]),
            np.concatenate([(seen - middle) * root, np.zeros((6, 3))]),
            rcond=None,
        )[0]
        away = np.linalg.norm(seen - middle - known @ found, axis=1)
    made: Floats = (terms @ found + middle).astype(np.float32)
    return made


def _spread_out(values: Floats, weight: Mask | Floats, sigma: float, otherwise: Floats) -> Floats:
    """Weighted means of ``values`` ``[H,W,C]`` around each place; ``otherwise`` where there is next to no weight."""
    weights = np.asarray(weight, np.float32)[..., None]
    total = _blurred(weights, sigma)
    mean: Floats = (_blurred(values * weights, sigma) + 1e-3 * otherwise) / (total + 1e-3)
    return mean


def _filled(values: Floats, weight: Mask | Floats) -> Floats:
    """Weighted means from ever farther away, where there is no weight near."""
    weights = np.asarray(weight, np.float64).ravel() + 1e-9
    mean = np.average(values.reshape(-1, values.shape[2]), axis=0, weights=weights)
    made = np.broadcast_to(mean.astype(np.float32), values.shape)
    for sigma in (min(values.shape[:2]) / 8, min(values.shape[:2]) / 30):
        made = _spread_out(values, weight, sigma, made)
    return made


def _blurred(values: Floats, sigma: float) -> Floats:
    """``[H,W,C]`` blurred as by a Gaussian: by three means over boxes. Beyond the border the last pixel goes on."""
    if sigma < 2:
        reach = max(1, int(np.ceil(2.5 * sigma)))
        weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        for axis in (0, 1):
            padded = _padded(values, reach, axis)
            count = values.shape[axis]
            values = sum(
                w * np.take(padded, range(i, i + count), axis) for i, w in enumerate((weights / weights.sum()).tolist())
            )
        return values.astype(np.float32)
    reach = max(1, round((np.sqrt(4 * sigma * sigma + 1) - 1) / 2))
    for axis in (0, 1, 0, 1, 0, 1):
        sums = np.cumsum(_padded(values, reach, axis).astype(np.float64), axis)
        sums = np.concatenate([np.zeros_like(np.take(sums, [0], axis)), sums], axis)
        count = values.shape[axis]
        width = 2 * reach + 1
        values = (np.take(sums, range(width, width + count), axis) - np.take(sums, range(count), axis)) / width
    made: Floats = values.astype(np.float32)
    return made


def _padded(values: Floats, reach: int, axis: int) -> Floats:
    around = [(0, 0), (0, 0), (0, 0)]
    around[axis] = (reach, reach)
    return np.pad(values, around, mode="edge")


def _largest_around(values: Floats, reach: int) -> Floats:
    """The largest of the values ``[H,W]`` up to so many pixels away along both axes."""
    for axis in (0, 1):
        padded = _padded(values[..., None], reach, axis)[..., 0]
        count = values.shape[axis]
        values = np.max([np.take(padded, range(i, i + count), axis) for i in range(2 * reach + 1)], axis=0)
    return values


def _grown(mask: Mask, by: int) -> Mask:
    """A mask with so many pixels more at its edge, or fewer if ``by`` is below zero; the border is no edge."""
    if by < 0:
        return ~_grown(~mask, -by)
    for _ in range(by):
        more = mask.copy()
        more[1:] |= mask[:-1]
        more[:-1] |= mask[1:]
        more[:, 1:] |= mask[:, :-1]
        more[:, :-1] |= mask[:, 1:]
        mask = more
    return mask


def _measured(mask: Mask, values: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The connected parts of a mask, as ``components`` numbers them, how many pixels each has, and its mean value."""
    labels = components(mask)
    sizes = np.bincount(labels.ravel())
    return labels, sizes, np.bincount(labels.ravel(), values.ravel()) / np.maximum(sizes, 1)


def components(mask: Mask) -> NDArray[np.int64]:
    """The connected parts of a mask ``[H,W]``, numbered from 1; 0 is what is not in it.

    Rows are taken apart into runs of pixels; runs that touch have one number.
    """
    high, wide = mask.shape
    step = wide + 2
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8).ravel())  # a row's padding parts it from the next
    starts, ends = np.flatnonzero(edges == 1) + 1, np.flatnonzero(edges == -1) + 1
    # Runs of the next row that begin before this one's end, and end after its start.
    first, behind = np.searchsorted(ends, starts + step, "right"), np.searchsorted(starts, ends + step, "left")
    count = np.maximum(behind - first, 0)
    one = np.repeat(np.arange(len(starts)), count)
    other = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count) + np.repeat(first, count)
    root = np.arange(len(starts))
    while True:
        least = np.minimum(root[one], root[other])
        joined = root.copy()
        np.minimum.at(joined, root[one], least)
        np.minimum.at(joined, root[other], least)
        while (joined[joined] != joined).any():
            joined = joined[joined]
        if (joined == root).all():
            break
        root = joined
    numbers = np.unique(root, return_inverse=True)[1] + 1
    change = np.zeros(high * step + 1, np.int64)
    change[starts] += numbers
    change[ends] -= numbers
    return np.cumsum(change[:-1]).reshape(high, step)[:, 1:-1]
