"""Seams: the colours of what is drawn anew are shifted so that it joins what is known around it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SMOOTHINGS = 8
FINE = 1024  # pixels along a side, in which the colours of a larger window are looked at
OFF = 0.08  # of a colour's range: by so much at most a tokenizer is taken to miss it


def spread(values: Tensor, known: Tensor) -> Tensor:
    """``values`` ``[C,H,W]`` where they are ``known``, bool ``[H,W]``, and a smooth surface between them elsewhere.

    Made from coarse to fine, it comes close to the solution of Laplace's equation (Perez et al. 2003, Poisson image
    editing, in its form that corrects what was pasted). Zeros if nothing is known.
    """
    if known.all() or not known.any():
        return values * known
    made = _enlarged(spread(*_shrunk(values, known, 2)), known.shape)
    for _ in range(SMOOTHINGS):
        around = F.avg_pool2d(F.pad(torch.where(known, values, made)[None], (1, 1, 1, 1), mode="replicate"), 3, 1)[0]
        made = torch.where(known, values, around)
    return made


def continued(view: Tensor, known: Tensor) -> Tensor:
    """A square ``view`` ``[3,S,S]`` where it is ``known``, spread out over the rest, at most ``FINE`` pixels a side."""
    return spread(*_shrunk(view, known, _factor(known)))


def joined(new: Tensor, view: Tensor, known: Tensor, reach: float) -> Tensor:
    """``new`` ``[3,H,W]`` in [0,1] with its colours shifted so that it joins ``view`` where that is ``known``.

    The tokenizer shows what is known a little differently, and what is drawn beside it likewise: all of that is shifted
    by the difference at the seam, up to ``OFF``. Where it differs by more, something else is shown, and it is made to
    join within ``reach`` pixels.
    """
    factor = _factor(known)
    off, seen = _shrunk(view - new, known, factor)
    radius = max(1, round(reach / factor))
    near = seen[None].float()  # from 1 at the seam to 0 beyond the reach: half of what is around a pixel there is known
    for size, pad in (((2 * radius + 1, 1), (radius, 0)), ((1, 2 * radius + 1), (0, radius))):
        near = F.avg_pool2d(near, size, 1, pad, count_include_pad=False)
    near = near.mul(2).clamp(max=1)
    shift = torch.lerp(spread(off.clamp(-OFF, OFF), seen), spread(off, seen), near)
    return (new + _enlarged(shift, known.shape)).clamp_(0, 1)


def _factor(known: Tensor) -> int:
    """By how much to shrink a square so that its side has at most ``FINE`` pixels."""
    return -(-known.shape[0] // FINE)


def _shrunk(values: Tensor, known: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """The means of what is known in squares of ``factor`` pixels, and where anything is."""
    if factor == 1:
        return values, known
    shares = F.avg_pool2d(known[None].float(), factor, ceil_mode=True)
    return F.avg_pool2d(values * known, factor, ceil_mode=True) / shares.clamp(min=1e-6), shares[0] > 0


def _enlarged(values: Tensor, shape: torch.Size) -> Tensor:
    """``[C,h,w]`` as ``[C,*shape]``, in between linear."""
    return values if values.shape[1:] == shape else F.interpolate(values[None], shape, mode="bilinear")[0]
