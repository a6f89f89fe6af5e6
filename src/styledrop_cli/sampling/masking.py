"""How much of the grid is masked: while training, and after each decoding step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SCHEDULES = ("cosine", "linear")
TOLD = ("left", "share", "masked")  # how a network is told the step
TOLD_OF_ALL = 1000.0  # "masked", of a grid that is masked all over


def mask_ratio(progress: Tensor, schedule: str = "cosine") -> Tensor:
    """Share of tokens masked at ``progress`` in [0,1]: 1 at the start, 0 at the end.

    ``cosine``: ``cos(pi/2 * progress)`` (MaskGIT, arXiv 2202.04200, 3.3). With a uniform progress this is Muse's
    training distribution, the density ``2/pi * (1 - r^2)^-0.5`` with mean 0.64.
    """
    if schedule == "cosine":
        return torch.cos(progress * math.pi / 2)
    if schedule == "linear":
        return 1 - progress
    raise ValueError(f"unknown mask schedule {schedule!r}; known: {', '.join(SCHEDULES)}")


def steps_left(share: Tensor, steps: int, schedule: str = "cosine") -> Tensor:
    """How many of ``steps`` are left after the one at which a ``share`` in [0,1] of the grid is masked, whole numbers.

    What a network is told that asks for the step: while drawing it runs from ``steps - 1`` to 0.
    """
    progress = share.clamp(0, 1).acos() * 2 / math.pi if schedule == "cosine" else 1 - share
    return (steps - 1 - (progress * steps).round()).clamp(0, steps - 1)


def step_told(left: float | Tensor, steps: int, told: str = "left", schedule: str = "cosine") -> float | Tensor:
    """What a network that asks for the step is told where so many of ``steps`` are ``left`` after it.

    ``told`` is one of ``TOLD``: Meissonic's pipeline tells the number itself, from ``steps - 1`` down to 0 ("left");
    Muddit's which share of all steps that is, from below 1 down to 0 ("share"); and Meissonic's training script 1000
    times the share of the grid that is still masked at that step ("masked").
    """
    if told == "left":
        return left
    if told == "share":
        return left / steps
    return TOLD_OF_ALL * mask_ratio(1 - torch.as_tensor(left + 1.0) / steps, schedule)


def random_mask(batch: int, tokens: int, generator: torch.Generator, schedule: str = "cosine") -> Tensor:
    """A training mask ``[B,N]``, True where an id is hidden; at least one a row, the count drawn by the schedule."""
    ratio = mask_ratio(torch.rand(batch, generator=generator), schedule)
    count = (ratio * tokens).round().clamp(min=1)
    order = torch.rand(batch, tokens, generator=generator).argsort(-1)
    return order < count[:, None]


def masked_after(step: int, steps: int, tokens: int, schedule: str = "cosine", start: float = 1.0) -> int:
    """How many of ``tokens`` the schedule leaves masked after ``step`` (0-based); ``start`` is the share at first.

    Computed in fp32 as upstream does (fp64 gives one token more in places).
    """
    ratio = mask_ratio(torch.tensor((step + 1) / steps, dtype=torch.float32), schedule) * start
    return int((tokens * ratio).floor())
