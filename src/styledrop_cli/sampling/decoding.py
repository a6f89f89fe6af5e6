"""Parallel decoding: a grid of masked ids is filled in a dozen steps, the surest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from styledrop_cli.sampling.masking import masked_after

Generators = torch.Generator | Sequence[torch.Generator]
TINY = 1e-20


def decode(
    ids: Tensor,
    logits_fn: Callable[[Tensor, float], Tensor],
    *,
    mask_id: int,
    steps: int,
    temperature: float | tuple[float, float],
    generator: Generators,
    schedule: str = "cosine",
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Fill every ``mask_id`` of ``ids`` ``[B,H,W]``; ids that are known at the start never change.

    ``logits_fn(ids, progress)`` gives logits ``[B,H,W,K]``, progress running from 0 at the first step to 1 at the
    last. ``temperature`` is MaskGIT's choice temperature: it perturbs only which tokens stay masked, never the
    token drawn; a number falls linearly to 0, a pair runs from the first value to the second.

    ``generator`` is one for the batch (upstream's order of draws, bit for bit) or one a picture, so that a picture
    does not depend on its neighbours. Both draw on the generator's device. Upstream: diffusers ``AmusedScheduler``.

    Raises ValueError for fewer than one step or a wrong number of generators.
    """
    if steps < 1:
        raise ValueError(f"decoding takes at least 1 step, not {steps}")
    if not isinstance(generator, torch.Generator) and len(generator) != len(ids):
        raise ValueError(f"{len(generator)} generators for {len(ids)} pictures")
    first, last = temperature if isinstance(temperature, tuple) else (temperature, 0.0)
    temperatures = torch.linspace(first, last, steps)
    grid, tokens = ids.shape, ids[0].numel()
    ids = ids.flatten(1)
    start = (ids == mask_id).float().mean(-1)
    for step in range(steps):
        progress = step / max(steps - 1, 1)
        probabilities = logits_fn(ids.view(grid), progress).flatten(1, 2).softmax(-1)
        unknown = ids == mask_id
        drawn = torch.where(unknown, _draw_tokens(probabilities, generator), ids)
        if step == steps - 1:
            ids = drawn
        else:
            planned = [masked_after(step, steps, tokens, schedule, float(share)) for share in start]
            keep_masked = torch.tensor(planned, device=ids.device).clamp(max=unknown.sum(-1) - 1).clamp(min=1)
            sure = probabilities.gather(-1, drawn[..., None])[..., 0].clamp(min=TINY).log()
            sure = sure + temperatures[step].item() * _gumbel(sure, generator)
            sure = torch.where(unknown, sure, torch.finfo(sure.dtype).max)
            threshold = sure.sort(-1).values.gather(1, keep_masked[:, None])
            ids = torch.where(sure < threshold, mask_id, drawn)
        if on_step is not None:
            on_step(step, ids.view(grid))
    return ids.view(grid)


def _draw_tokens(probabilities: Tensor, generator: Generators) -> Tensor:
    """One token a position ``[B,N]`` from ``[B,N,K]``; every position draws, known ones too, as upstream."""
    if isinstance(generator, torch.Generator):
        flat = probabilities.reshape(-1, probabilities.shape[-1]).to(generator.device)
        return torch.multinomial(flat, 1, generator=generator).view(probabilities.shape[:2]).to(probabilities.device)
    # Inverse transform: one number a position, where multinomial draws one for each of its K tokens.
    sums = probabilities.cumsum(-1)
    drawn = [torch.rand(probabilities.shape[1], generator=g, device=g.device) for g in generator]
    wanted = torch.stack(drawn).to(sums.device)[..., None] * sums[..., -1:]
    return torch.searchsorted(sums, wanted, right=True)[..., 0].clamp(max=probabilities.shape[-1] - 1)


def _gumbel(like: Tensor, generator: Generators) -> Tensor:
    """Gumbel noise in the shape of ``like`` ``[B,N]``."""
    if isinstance(generator, torch.Generator):
        uniform = torch.empty(like.shape, device=generator.device).uniform_(0, 1, generator=generator)
        return -(-(uniform.clamp(min=TINY).log())).clamp(min=TINY).log().to(like.device)
    return torch.cat([_gumbel(row[None], g) for row, g in zip(like, generator, strict=True)])
