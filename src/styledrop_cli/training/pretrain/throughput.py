"""How fast a part is trained, and what a step of it is made of."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from styledrop_cli.devices import autocast
from styledrop_cli.training.distributed import own_rows, rank_and_world_size
from styledrop_cli.training.loop import Progress, Speed, rows

MARGIN = 5.0  # seconds that a call keeps for ending
GUESSED = 10.0  # seconds that work is taken to last until it was done once
SHORT = 120.0  # seconds: in a shorter call, a rehearsal, both count in proportion, and it may end a little late


class CallOverError(Exception):
    """The time of this call is over; what was done is on the disk."""


@dataclass
class Call:
    """One call of the command, which may have to end after so many ``seconds`` of the clock.

    ``took`` is the longest time that each kind of work took that has to fit in before the end.
    """

    seconds: float | None = None
    began: float = field(default_factory=time.monotonic)
    took: dict[str, float] = field(default_factory=dict)

    def over(self, *kinds: str, spare: float = MARGIN) -> bool:
        """Whether no time is left for work of these ``kinds`` and ``spare`` seconds."""
        if self.seconds is None:
            return False
        scale = min(1.0, self.seconds / SHORT)
        needed = sum(1.5 * self.took.get(kind, scale * GUESSED) for kind in kinds) + scale * spare
        return time.monotonic() + needed > self.began + self.seconds

    def check(self) -> None:
        """Raise CallOverError if the call is over, unless there are several processes: none can leave the others."""
        if rank_and_world_size()[1] < 2 and self.over():
            raise CallOverError

    @contextmanager
    def measured(self, kind: str) -> Iterator[None]:
        """Take the time of work of this ``kind``."""
        began = time.monotonic()
        yield
        self.took[kind] = max(self.took.get(kind, 0.0), time.monotonic() - began)


def flops_a_picture(task: nn.Module, batch: Any, device: torch.device) -> float:
    """FLOPs a picture of a step's forward and backward pass, counted on a real ``batch``.

    A copy of the task takes the step: gradients, buffers and randomness stay as they are. Of several processes all
    call it.
    """
    own = own_rows(batch)
    counter = FlopCounterMode(display=False)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), counter, autocast(device):
        copy.deepcopy(task)(own).backward()
    return counter.get_total_flops() / rows(own)


class Meter:
    """The speed of a training since ``mark`` was last called; its first step is left out.

    ``flops`` are those a picture, ``rate`` is what the machine can do in a second.
    """

    def __init__(self, flops: float, rate: float, pictures: int) -> None:
        self.flops, self.rate, self.pictures = flops, rate, pictures
        self._since: tuple[int, float] | None = None

    def speed(self, progress: Progress) -> Speed | None:
        """The speed at this ``progress``; None after a first step."""
        if self._since is None:
            self.mark(progress)
            return None
        steps, seconds = progress.step - self._since[0], progress.seconds - self._since[1]
        if seconds <= 0:
            return progress.speed
        each = steps * self.pictures / seconds
        return Speed(each, each * self.flops, each * self.flops / self.rate)

    def mark(self, progress: Progress) -> None:
        """Begin anew."""
        self._since = progress.step, progress.seconds
