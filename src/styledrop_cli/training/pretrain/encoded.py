"""What a frozen network makes of every picture of a corpus, computed once and kept in the model folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from styledrop_cli.corpus.folder import Record, read_pictures
from styledrop_cli.devices import autocast
from styledrop_cli.io.tensors import read_tensors, save_tensors
from styledrop_cli.training.distributed import all_reduce, is_first, rank_and_world_size

ENCODED = 256  # pictures that a process reads and encodes at a time
AT_ONCE = 64


@torch.no_grad()
def encoded(
    encode: Callable[[Tensor], Tensor],
    records: list[Record],
    side: int,
    cache: Path,
    key: str,
    device: torch.device,
    check: Callable[[], None] = lambda: None,
    fits: Callable[[Tensor], bool] = lambda values: True,
) -> Tensor:
    """What ``encode`` makes of each picture ``[B,3,side,side]`` in [0,1]: ``[R,...]``, on the CPU.

    It is kept in the file ``cache`` and read from there if that has the same ``key``, which names the network, the same
    records, and values that are as ``fits`` wants them. ``check`` is called every ``ENCODED`` pictures and may raise to
    stop; what was encoded until then is kept.
    """
    key = f"{key} {len(records)} {records[0].path} {records[-1].path}"

    def kept(path: Path, number: int) -> Tensor | None:
        if not path.exists():
            return None
        tensors, metadata = read_tensors(path)
        there = tensors.get("encoded", torch.empty(0))
        return there if metadata.get("key") == key and len(there) == number and fits(there) else None

    if (whole := kept(cache, len(records))) is not None:
        return whole
    number, of = rank_and_world_size()
    like = encode(torch.zeros(1, 3, side, side, device=device))
    # Added up over the processes below, in a type that every backend can add up.
    dtype = torch.float32 if like.is_floating_point() else torch.int32
    total = torch.zeros(len(records), *like.shape[1:], dtype=dtype, device=device)
    pieces = []
    for start in range(ENCODED * number, len(records), ENCODED * of):
        check()
        here = total[start : start + ENCODED]
        piece = cache.with_name(f"{cache.stem}-{start:08d}{cache.suffix}")
        pieces.append(piece)
        if (values := kept(piece, len(here))) is not None:
            here.copy_(values)
            continue
        for at, chunk in enumerate(read_pictures(records[start : start + ENCODED], side).split(AT_ONCE)):
            with autocast(device):
                here[AT_ONCE * at :][: len(chunk)] = encode(chunk.to(device).float() / 255)
        if is_first() and len(here) < len(records):
            save_tensors(piece, {"encoded": here.to("cpu", like.dtype)}, {"key": key})
    all_reduce([total])  # each process has zeros where others encoded
    whole = total.to("cpu", like.dtype)
    if is_first():
        save_tensors(cache, {"encoded": whole}, {"key": key})
        for piece in pieces:
            piece.unlink(missing_ok=True)
    return whole
