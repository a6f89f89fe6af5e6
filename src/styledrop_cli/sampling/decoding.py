"""Parallel decoding: a grid of masked ids is filled in a dozen steps, the surest first or in an even order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from styledrop_cli.sampling.masking import masked_after

Generators = torch.Generator | Sequence[torch.Generator]
# (ids [B,H,W], which are masked [B,H,W], progress in [0,1]) -> logits [M,K] of the M masked ones, in their order.
LogitsFn = Callable[[Tensor, Tensor, float], Tensor]
NOISES = ("position", "token")
ORDERS = ("confidence", "halton")
TINY = 1e-20


def decode(
    ids: Tensor,
    logits_fn: LogitsFn,
    *,
    mask_id: int,
    steps: int,
    temperature: float | tuple[float, float],
    generator: Generators,
    schedule: str = "cosine",
    noise: str = "position",
    order: str = "confidence",
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Fill every ``mask_id`` of ``ids`` ``[B,H,W]``; ids that are known at the start never change.

    ``logits_fn(ids, masked, progress)`` gives logits ``[M,K]`` of the M masked ids alone, progress running from 0 at
    the first step to 1 at the last. ``temperature`` is MaskGIT's choice temperature: it perturbs only which tokens stay
    masked, never the token drawn; a number falls linearly to 0, a pair runs from the first value to the second.

    ``generator`` is one for the batch or one a picture, so that a picture does not depend on its neighbours. Both draw
    on the generator's device. One for the batch draws upstream's noise in upstream's order, bit for bit, and so does
    one a picture with ``noise`` "token" (upstream with a batch of one); with "position" it draws one number a position
    instead of one for each of its K tokens. Upstream: diffusers ``AmusedScheduler``.

    ``order`` is how the ids to keep are chosen: by "confidence" (MaskGIT), or spread evenly over the grid, wherever the
    network is sure, in "halton" order (arXiv 2503.17076), each picture's shifted by its own generator.

    Raises ValueError for fewer than one step, a wrong number of generators, an unknown noise or order.
    """
    if steps < 1:
        raise ValueError(f"decoding takes at least 1 step, not {steps}")
    if noise not in NOISES:
        raise ValueError(f"unknown noise {noise!r}; known: {', '.join(NOISES)}")
    if order not in ORDERS:
        raise ValueError(f"unknown order {order!r}; known: {', '.join(ORDERS)}")
    if not isinstance(generator, torch.Generator) and len(generator) != len(ids):
        raise ValueError(f"{len(generator)} generators for {len(ids)} pictures")
    first, last = temperature if isinstance(temperature, tuple) else (temperature, 0.0)
    temperatures = torch.linspace(first, last, steps)
    grid, tokens = ids.shape, ids[0].numel()
    ids = ids.flatten(1)
    start = (ids == mask_id).float().mean(-1)
    ranks = _shifted_ranks(grid, generator).to(ids.device) if order == "halton" else None
    for step in range(steps):
        progress = step / max(steps - 1, 1)
        unknown = ids == mask_id
        probabilities = logits_fn(ids.view(grid), unknown.view(grid), progress).softmax(-1)
        drawn = _draw_tokens(probabilities, unknown, generator, noise)
        filled = ids.masked_scatter(unknown, drawn)
        if step == steps - 1:
            ids = filled
        else:
            planned = [masked_after(step, steps, tokens, schedule, float(share)) for share in start]
            keep_masked = torch.tensor(planned, device=ids.device).clamp(max=unknown.sum(-1) - 1).clamp(min=1)
            likely = probabilities.gather(-1, drawn[:, None])[:, 0].clamp(min=TINY).log()
            sure = torch.zeros(unknown.shape, dtype=likely.dtype, device=ids.device).masked_scatter(unknown, likely)
            sure = sure + temperatures[step].item() * _gumbel(sure, generator) if ranks is None else -ranks
            sure = torch.where(unknown, sure, torch.finfo(sure.dtype).max)
            threshold = sure.sort(-1).values.gather(1, keep_masked[:, None])
            ids = torch.where(sure < threshold, mask_id, filled)
        if on_step is not None:
            on_step(step, ids.view(grid))
    return ids.view(grid)


def correct(ids: Tensor, drawn: Tensor, logits_fn: LogitsFn, *, mask_id: int, below: float) -> Tensor:
    """Look once more at the ids ``[B,H,W]`` that were ``drawn``, bool ``[B,H,W]``, now that all around them is there.

    An id is drawn with few others in sight, or beside those of the same step, and is never taken back. Here one half
    of them is masked, as the black squares of a board, then the other: an id that the network now finds less than
    ``below`` times as likely as the likeliest is replaced by that one. A corrector step (Lezama et al., ICLR 2023),
    for which the network is its own critic.
    """
    rows, columns = (torch.arange(side, device=ids.device) for side in ids.shape[1:])
    board = (rows[:, None] + columns) % 2
    for half in (0, 1):
        masked = drawn & (board == half)
        if masked.any():
            logits = logits_fn(ids.masked_fill(masked, mask_id), masked, 1.0)
            here = ids[masked]
            unlikely = logits.gather(-1, here[:, None])[:, 0] < logits.amax(-1) + math.log(below)
            ids = ids.masked_scatter(masked, torch.where(unlikely, logits.argmax(-1), here))
    return ids


def halton_ranks(height: int, width: int) -> Tensor:
    """When each place of a grid ``[H,W]`` has its turn, 0 to H*W-1, so that those so far are spread evenly over it.

    By the Halton sequence of bases 2 and 3: its points in their order, each place at the first that falls into it.
    """
    ranks: dict[tuple[int, int], int] = {}
    point = 1
    while len(ranks) < height * width:
        spot = int(_radical_inverse(point, 2) * height), int(_radical_inverse(point, 3) * width)
        ranks.setdefault(spot, len(ranks))
        point += 1
    return torch.tensor([[ranks[row, column] for column in range(width)] for row in range(height)])


def _radical_inverse(number: int, base: int) -> float:
    """The digits of ``number`` mirrored at the point: 6 = 110 in base 2 becomes 0.011 = 0.375."""
    inverse, scale = 0.0, 1.0
    while number:
        number, digit = divmod(number, base)
        scale /= base
        inverse += digit * scale
    return inverse


def _shifted_ranks(grid: torch.Size, generator: Generators) -> Tensor:
    """``halton_ranks`` for ``grid`` ``[B,H,W]`` as float ``[B,N]``, each picture's moved around by chance."""
    batch, height, width = grid
    ranks = halton_ranks(height, width)
    each = [generator] * batch if isinstance(generator, torch.Generator) else generator
    moves = [[int(torch.randint(side, (), generator=g, device=g.device)) for side in (height, width)] for g in each]
    return torch.stack([ranks.roll(move, (0, 1)).flatten() for move in moves]).float()


def _draw_tokens(probabilities: Tensor, unknown: Tensor, generator: Generators, noise: str) -> Tensor:
    """One token ``[M]`` for each of ``probabilities`` ``[M,K]``, which belong to the M ``unknown`` ones of ``[B,N]``.

    Noise is drawn for known positions too, as upstream does: what is known has no say in the noise of the others.
    """
    codes = probabilities.shape[-1]
    if isinstance(generator, torch.Generator):
        return _race(probabilities, unknown.flatten(), generator)
    if noise == "token":
        parts = probabilities.split(unknown.sum(-1).tolist())
        return torch.cat([_race(p, row, g) for p, row, g in zip(parts, unknown, generator, strict=True)])
    # Inverse transform: one number a position, where upstream draws one for each of its K tokens.
    sums = probabilities.cumsum(-1)
    uniform = torch.stack([torch.rand(unknown.shape[1], generator=g, device=g.device) for g in generator])
    wanted = uniform.to(sums.device)[unknown][:, None] * sums[:, -1:]
    return torch.searchsorted(sums, wanted, right=True)[:, 0].clamp(max=codes - 1)


def _race(probabilities: Tensor, unknown: Tensor, generator: torch.Generator) -> Tensor:
    """``torch.multinomial`` of one sample a row, its noise drawn for all of ``unknown`` ``[N]``, known or not."""
    every = torch.empty(len(unknown), probabilities.shape[-1], device=generator.device)
    times = every.exponential_(1, generator=generator).to(probabilities.device)[unknown]
    return (probabilities / times).argmax(-1)


def _gumbel(like: Tensor, generator: Generators) -> Tensor:
    """Gumbel noise in the shape of ``like`` ``[B,N]``."""
    if isinstance(generator, torch.Generator):
        uniform = torch.empty(like.shape, device=generator.device).uniform_(0, 1, generator=generator)
        return -(-(uniform.clamp(min=TINY).log())).clamp(min=TINY).log().to(like.device)
    return torch.cat([_gumbel(row[None], g) for row, g in zip(like, generator, strict=True)])
