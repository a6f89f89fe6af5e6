"""Several processes at one work, started by ``accelerate launch`` or ``torchrun``.

Processes that only draw share a folder and exchange no messages: what is on disk is the state. Processes that train
take every step together, and each message between them passes through the functions here, which are called as in
torch.distributed. Rank 0 alone writes files and prints. In a process that is alone they all do nothing.

Why not accelerate's own: it wraps the network in DistributedDataParallel, which exchanges gradients inside
``backward``. There a process that died is a plain RuntimeError, like any fault of the program, and no clear message can
be given. It also waits for all processes that were launched, while in rounds of feedback rank 0 trains alone and the
others draw.
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

PATIENCE = 5.0  # seconds without news (or twice what a piece of work took) after which others' shares are done here
# For a process that hangs or is off the network; one that dies is noticed at once. Longer than what rank 0 does while
# the others wait: writing, measuring, test pictures.
LONGEST_WAIT = timedelta(minutes=30)
Place = tuple[int, int]  # rank and world size


class LostProcessError(StyledropError):
    """Another process of this run died, or has not answered for long."""

    def __init__(self, hint: str = "What it said itself tells why.") -> None:
        super().__init__("another process of this run died, stopped, or cannot be reached any more", hint)


def take_place() -> Place:
    """Rank and world size as the launcher set them; they are taken out of the environment, see above.

    Each process gets a CUDA card of its own where there are any. Raises UsageError if the variables make no sense.
    """
    rank, world_size, local_rank = launched()
    for name in LAUNCHED:
        os.environ.pop(name, None)
    if world_size > 1 and torch.cuda.is_available():
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    return rank, world_size


def wait_for_others(left: Callable[[], int], patience: float) -> None:
    """Wait until nothing is ``left`` to do for other processes, or for ``patience`` seconds nothing was done."""
    remaining, since = left(), time.monotonic()
    while remaining and time.monotonic() - since < patience:
        time.sleep(0.2)
        if (now := left()) < remaining:
            remaining, since = now, time.monotonic()


@contextmanager
def together(place: Place, device: torch.device) -> Iterator[None]:
    """In it, all processes train as one: each calls the same functions, in the same order.

    If one dies, all others raise LostProcessError. Rank 0 alone hears Ctrl-C, and ends after a whole step; the others
    end with it.
    """
    rank, world_size = place
    if world_size < 2:
        yield
        return
    with _lost_process_errors():
        backend = "nccl" if device.type == "cuda" else "gloo"
        try:
            dist.init_process_group(backend, rank=rank, world_size=world_size, timeout=LONGEST_WAIT)
        except ValueError as error:  # MASTER_ADDR and MASTER_PORT
            why = str(error).removeprefix("Error initializing torch.distributed using env:// rendezvous: ")
            raise UsageError(
                f"WORLD_SIZE is {world_size}, and where the other processes are is not known: {why}",
                "begin it with accelerate launch or torchrun, or unset WORLD_SIZE",
            ) from error
    # When one dies, the launcher sends SIGTERM to the others within a tenth of a second.
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        with uninterrupted() if rank else nullcontext():
            yield
        dist.destroy_process_group()
    except LostProcessError:
        before = signal.SIG_IGN  # or the message could not be printed
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
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


def rank_and_world_size() -> Place:
    """Which of the processes that train together this is, and how many they are; (0, 1) outside ``together``."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return rank_and_world_size()[0] == 0


def own_rows(batch: Any) -> Any:
    """The rows of a batch that are this process's, of a tensor or of each tensor in a tuple."""
    rank, world_size = rank_and_world_size()
    if isinstance(batch, tuple):
        return tuple(own_rows(one) for one in batch)
    return batch[rank * len(batch) // world_size : (rank + 1) * len(batch) // world_size] if batch is not None else None


def refuse_uneven(batch_size: int, hint: str) -> None:
    """Raise UsageError if a batch cannot be split evenly."""
    world_size = rank_and_world_size()[1]
    if batch_size % world_size:
        raise UsageError(f"{batch_size} pictures a step cannot be split evenly among {world_size} processes", hint)


def all_reduce(tensors: Sequence[Tensor]) -> None:
    """Replace each of ``tensors`` by its sum over all processes, in one message."""
    _in_one_message(tensors, dist.all_reduce)


def broadcast(tensors: Sequence[Tensor]) -> None:
    """Replace each of ``tensors`` by what rank 0 has, in one message."""
    _in_one_message(tensors, lambda flat: dist.broadcast(flat, 0))


def broadcast_number(value: float, device: torch.device) -> float:
    """What rank 0 has for ``value``; all wait for it."""
    if rank_and_world_size()[1] < 2:
        return value  # without waiting for a card
    sent = torch.tensor([value], dtype=torch.float64, device=device)
    broadcast([sent])
    return float(sent)


def wait_for_everyone(device: torch.device) -> None:
    """Wait until rank 0 is here."""
    broadcast_number(0, device)


def _in_one_message(tensors: Sequence[Tensor], send: Callable[[Tensor], object]) -> None:
    if rank_and_world_size()[1] < 2:
        return
    flat = torch.cat([t.detach().flatten() for t in tensors])
    with _lost_process_errors():
        send(flat)
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.detach().copy_(part.view_as(tensor))


def all_gather(own: Tensor) -> Tensor:
    """The rows ``[b,...]`` of all processes, as many of each, as ``[B,...]``. Gradients flow back to each process."""
    if rank_and_world_size()[1] < 2:
        return own
    whole: Tensor = _AllGather.apply(own)  # type: ignore[no-untyped-call]
    return whole


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        world_size = rank_and_world_size()[1]
        parts = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(world_size)]
        with _lost_process_errors():
            dist.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        whole = gradient.clone(memory_format=torch.contiguous_format)
        all_reduce([whole])
        part: Tensor = own_rows(whole)
        return part


@contextmanager
def _lost_process_errors() -> Iterator[None]:
    """Turn what torch raises when another process does not answer into LostProcessError."""
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError from error
