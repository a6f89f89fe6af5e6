"""Convolutions of large pictures in strips of rows, so that of a layer only its input and its output are ever whole.

A group norm in front is told the mean and the deviation of the whole picture, so that the strips do not show. The
result is that of the whole at once, but for rounding (``docs/results/meissonic.md``).

Shapes: a layer's input is ``[B,C,H,W]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGE = 2**26  # numbers that a layer reads of one picture; above it, it works in strips (at 1024 px and beyond)
STRIP = 2**23  # numbers that it reads at once


def is_large(x: Tensor) -> bool:
    """Whether a layer that reads ``x`` works in strips: never where it learns."""
    return not torch.is_grad_enabled() and x[0].numel() > LARGE


def convolve(
    layer: nn.Conv2d, x: Tensor, norm: nn.GroupNorm | None = None, into: Tensor | None = None, add: bool = False
) -> Tensor:
    """A convolution that keeps the size, behind a group norm and SiLU if there is a ``norm``.

    In strips it is written ``into`` a tensor, which may be ``x``, or added to what is there.
    """
    if not is_large(x):
        whole: Tensor = layer(x if norm is None else F.silu(norm(x)))
        return whole
    height, halo = x.shape[2], layer.kernel_size[0] // 2
    affine = None if norm is None else _affine(norm, x)

    def strip(first: int, last: int) -> Tensor:
        above, below = max(first - halo, 0), min(last + halo, height)
        part = x[:, :, above:below]
        if affine is not None:
            part = F.silu(torch.addcmul(affine[1], part, affine[0]), inplace=True)
        part = F.pad(part, (0, 0, above - (first - halo), last + halo - below))  # only the picture's own edges
        return F.conv2d(part, layer.weight, layer.bias, padding=(0, halo))

    return _joined(strip, x, height, into, add)


def halve(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A 3x3 convolution of stride 2, with a row and a column of zeros behind the last ones."""
    if not is_large(x):
        whole: Tensor = layer(F.pad(x, (0, 1, 0, 1)))
        return whole
    height = x.shape[2]

    def strip(first: int, last: int) -> Tensor:
        part = x[:, :, 2 * first : 2 * last + 1]
        out: Tensor = layer(F.pad(part, (0, 1, 0, int(2 * last == height))))
        return out

    return _joined(strip, x, height // 2)


def double(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """A transposed 4x4 convolution ``weight`` ``[I,O,4,4]`` of stride 2 and padding 1: ``[B,O,2H,2W]``."""
    if not is_large(x):
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1)
    height = x.shape[2]

    def strip(first: int, last: int) -> Tensor:
        above, below = max(first // 2 - 1, 0), min(last // 2 + 1, height)
        made = F.conv_transpose2d(x[:, :, above:below], weight, bias, stride=2, padding=1)
        return made[:, :, first - 2 * above : last - 2 * above]

    return _joined(strip, x, 2 * height)


def _joined(
    strip: Callable[[int, int], Tensor], x: Tensor, rows: int, into: Tensor | None = None, add: bool = False
) -> Tensor:
    """What ``strip`` makes of the output's rows from one number to another, for all of its ``rows``, in one tensor.

    A strip is written when the next one is made, which reads a row of it where ``into`` is ``x``.
    """
    out, waiting = into, None
    for first, last in [*_bounds(x, rows), (rows, rows)]:
        made = strip(first, last) if first < last else x
        if out is None:
            out = made.new_empty((*made.shape[:2], rows, made.shape[3]))
        if waiting is not None:
            place, done = waiting
            out[:, :, place] = out[:, :, place] + done if add else done
        waiting = slice(first, last), made
    assert out is not None
    return out


def _bounds(x: Tensor, rows: int) -> Iterator[tuple[int, int]]:
    """The first row of each strip, and the one behind its last: even numbers, but for the end."""
    number = -(-x[0].numel() // STRIP)
    each = max(2, rows // number // 2 * 2)
    for first in range(0, rows, each):
        yield first, min(first + each, rows)


def _affine(norm: nn.GroupNorm, x: Tensor) -> tuple[Tensor, Tensor]:
    """By what ``norm`` multiplies each channel of ``x``, and what it adds: ``[B,C,1,1]`` each."""
    groups, rows = norm.num_groups, len(x)
    means, scales = [], []
    for one in x.chunk(groups, 1):  # a group by itself: only so much is ever normalised for nothing
        size = one[0, 0].numel()
        _, mean, scale = torch.native_group_norm(one.contiguous(), None, None, rows, one.shape[1], size, 1, norm.eps)
        means.append(mean)
        scales.append(scale)
    each = x.shape[1] // groups
    mean, scale = (torch.cat(values, 1).repeat_interleave(each, 1) for values in (means, scales))
    scale = scale * norm.weight
    shift = torch.addcmul(norm.bias, -scale, mean)
    return scale[:, :, None, None], shift[:, :, None, None]
