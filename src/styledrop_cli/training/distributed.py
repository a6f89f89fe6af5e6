"""The other processes of a run, which ``accelerate launch`` or ``torchrun`` started beside this one.

Who only draws shares a folder with the others and says no word to them: what is on disk is the state. Who trains takes
each step together with them, and everything that they then say to each other passes through here. The first process
alone writes and speaks. A process that is alone goes through the same functions, and they do nothing.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from types import FrameType
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from styledrop_cli.environment import LAUNCHED, launched
from styledrop_cli.errors import StyledropError, UsageError

PATIENCE = 5.0  # seconds, or twice what a piece of work took here: so long without news, others' shares are done here
# A process that dies is noticed at once; this is for one that hangs, or whose machine is off the network. It has to be
# longer than what the first does while the others wait: writing, measuring, test pictures.
LONGEST_WAIT = timedelta(minutes=30)
Place = tuple[int, int]  # this process's number, and how many there are


class LostProcessError(StyledropError):
    """Another process of this run died, or nothing has been heard of it for long."""

    def __init__(self, hint: str = "What it said itself tells why.") -> None:
        super().__init__("another process of this run died, stopped, or cannot be reached any more", hint)


def take_place() -> Place:
    """The number of this process among those that ``accelerate launch`` or ``torchrun`` started, and how many.

    Taken out of the environment: accelerate would wait for the others where nothing is shared. Each process gets a CUDA
    card of its own where there are any.

    Raises UsageError if the environment makes no sense.
    """
    number, of, local = launched()
    for name in LAUNCHED:
        os.environ.pop(name, None)
    if of > 1 and torch.cuda.is_available():
        torch.cuda.set_device(local % torch.cuda.device_count())
    return number, of


# ---- drawing: a folder in common -----------------------------------------------------------------


def wait_for_others(left: Callable[[], int], patience: float) -> None:
    """Wait until nothing is ``left`` for the others to do, or for ``patience`` seconds nothing of it has been done."""
    remaining, since = left(), time.monotonic()
    while remaining and time.monotonic() - since < patience:
        time.sleep(0.2)
        if (now := left()) < remaining:
            remaining, since = now, time.monotonic()


# ---- training: every step in common --------------------------------------------------------------


@contextmanager
def together(place: Place, device: torch.device) -> Iterator[None]:
    """In it, all processes train as one: each calls the same functions, in the same order.

    Raises LostProcessError, in all that are left, if one of them dies. Ctrl-C is the first's to hear: it ends after a
    whole step, and the others with it.
    """
    number, of = place
    if of < 2:
        yield
        return
    with _heard():
        backend = "nccl" if device.type == "cuda" else "gloo"
        try:
            dist.init_process_group(backend, rank=number, world_size=of, timeout=LONGEST_WAIT)
        except ValueError as error:  # MASTER_ADDR and MASTER_PORT
            why = str(error).removeprefix("Error initializing torch.distributed using env:// rendezvous: ")
            raise UsageError(
                f"WORLD_SIZE is {of}, and where the other processes are is not known: {why}",
                "begin it with accelerate launch or torchrun, or unset WORLD_SIZE",
            ) from error
    # Where one dies, the launcher ends the others so, within a tenth of a second.
    before = signal.signal(signal.SIGTERM, _ended)
    try:
        with uninterrupted() if number else nullcontext():
            yield
        dist.destroy_process_group()
    except LostProcessError:
        before = signal.SIG_IGN  # it ends by itself, once it has said so
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _ended(number: int, frame: FrameType | None) -> NoReturn:
    raise LostProcessError


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back Ctrl-C until the block is done, so that no step is left half taken."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or handler is not signal.default_int_handler:
        yield
        return
    held: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if held:
            raise KeyboardInterrupt


def place() -> Place:
    """The number of this process among those that train together, and how many; (0, 1) outside of ``together``."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def is_first() -> bool:
    """Whether this is the process that writes and speaks."""
    return place()[0] == 0


def own_rows(batch: Any) -> Any:
    """The rows of a batch that are this process's, of a tensor or of each tensor in a tuple."""
    number, of = place()
    if isinstance(batch, tuple):
        return tuple(own_rows(one) for one in batch)
    return batch[number * len(batch) // of : (number + 1) * len(batch) // of] if batch is not None else None


def refuse_uneven(batch_size: int, hint: str) -> None:
    """Raise UsageError if a batch cannot be dealt out evenly."""
    of = place()[1]
    if batch_size % of:
        raise UsageError(f"{batch_size} pictures a step are not to be dealt out evenly among {of} processes", hint)


def add_up(tensors: Sequence[Tensor]) -> None:
    """Put the sum over all processes in the place of each of ``tensors``, in one message."""
    _in_one_message(tensors, dist.all_reduce)


def take_from_first(tensors: Sequence[Tensor]) -> None:
    """Put what the first process has in the place of each of ``tensors``, in one message."""
    _in_one_message(tensors, lambda flat: dist.broadcast(flat, 0))


def told_by_first(value: float, device: torch.device) -> float:
    """What the first process has for ``value``; all wait for it."""
    if place()[1] < 2:
        return value  # and no card is waited for
    told = torch.tensor([value], dtype=torch.float64, device=device)
    take_from_first([told])
    return float(told)


def _in_one_message(tensors: Sequence[Tensor], send: Callable[[Tensor], object]) -> None:
    if place()[1] < 2:
        return
    flat = torch.cat([t.detach().flatten() for t in tensors])
    with _heard():
        send(flat)
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.detach().copy_(part.view_as(tensor))


def gathered(own: Tensor) -> Tensor:
    """The rows ``[b,...]`` of all processes, ``[B,...]``; each has as many. Gradients find their way back to each."""
    if place()[1] < 2:
        return own
    whole: Tensor = _Gathered.apply(own)  # type: ignore[no-untyped-call]
    return whole


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(place()[1])]
        with _heard():
            dist.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        whole = gradient.clone(memory_format=torch.contiguous_format)
        with _heard():
            dist.all_reduce(whole)
        part: Tensor = own_rows(whole)
        return part


@contextmanager
def _heard() -> Iterator[None]:
    """What torch raises when another process does not answer, in our words."""
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError from error
