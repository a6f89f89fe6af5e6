"""StyleDrop's guidance: how the passes of one step become one set of logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from styledrop_cli.models.adapter import on_rows
from styledrop_cli.models.layers import AdapterFn
from styledrop_cli.models.transformer import Condition, MaskedTransformer

# (ids [B,H,W], progress in [0,1]) -> logits [B,H,W,K]
LogitsFn = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Scales:
    """``lambda_a`` pushes from the base towards the adapter, ``lambda_b`` from the negative text towards the prompt.

    ``lambda_b`` is one less than the guidance scale of aMUSEd and diffusers. With ``ramp`` both grow linearly from
    zero at the first step to their full value at the last (Muse, arXiv 2301.00704, 2.7). ``plausible`` is how likely a
    token must be at least, relative to the likeliest, to the adapted network or the base; 0 leaves all (the paper).
    """

    lambda_a: float = 0.0
    lambda_b: float = 5.0
    ramp: bool = False
    plausible: float = 0.0

    def at(self, progress: float) -> tuple[float, float]:
        """Both scales at ``progress`` in [0,1] through the steps."""
        factor = progress if self.ramp else 1.0
        return self.lambda_a * factor, self.lambda_b * factor


def combine(adapted: Tensor, base: Tensor | None, negative: Tensor | None, lambda_a: float, lambda_b: float) -> Tensor:
    """StyleDrop eq. 4: ``Ghat(v,t) + A (Ghat(v,t) - G(v,t)) + B (G(v,t) - G(v,n))``, all ``[B,H,W,K]``.

    ``base`` may be missing when both scales are zero, ``negative`` when ``lambda_b`` is.
    """
    logits = adapted
    if lambda_a:
        assert base is not None
        logits = logits + lambda_a * (adapted - base)
    if lambda_b:
        assert base is not None and negative is not None
        logits = logits + lambda_b * (base - negative)
    return logits


def only_plausible(guided: Tensor, passes: Sequence[Tensor], share: float) -> Tensor:
    """``guided`` logits ``[B,H,W,K]`` without the tokens that none of ``passes`` finds plausible.

    What two networks say of tokens that neither would draw is noise, and scales above one raise it above all else.
    A token is plausible if it is at least ``share`` as likely as the likeliest (arXiv 2210.15097, eq. 3).
    """
    if not share:
        return guided
    plausible = torch.zeros_like(guided, dtype=torch.bool)
    for logits in passes:
        plausible |= logits >= logits.amax(-1, keepdim=True) + math.log(share)
    return guided.masked_fill(~plausible, -torch.inf)


def guided(
    transformer: MaskedTransformer,
    prompt: Condition,
    negative: Condition,
    adapter: AdapterFn | None,
    scales: Scales,
    adapted: Condition | None = None,
) -> LogitsFn:
    """Build the function that ``decode`` calls. All passes a step needs run as one batch; the others do not run.

    ``adapted`` is the prompt as the adapter reads it, where that differs from ``prompt``.
    """
    joined: dict[int, Condition] = {}

    def logits(ids: Tensor, progress: float) -> Tensor:
        lambda_a, lambda_b = scales.at(progress)
        lambda_a = lambda_a if adapter is not None else 0.0
        rows = len(ids)
        branches: list[Condition] = [prompt if adapted is None else adapted]
        if adapter is not None and (lambda_a or lambda_b):
            branches.append(prompt)
        if lambda_b:
            branches.append(negative)
        if len(branches) not in joined:
            joined[len(branches)] = Condition.cat(branches)
        partial = on_rows(adapter, rows) if adapter is not None and len(branches) > 1 else adapter
        batch = ids.repeat(len(branches), 1, 1)
        parts: Sequence[Tensor] = transformer(batch, joined[len(branches)], partial).float().split(rows)
        base = parts[1] if adapter is not None and len(parts) > 1 else parts[0]
        whole = combine(parts[0], base, parts[-1], lambda_a, lambda_b)
        return only_plausible(whole, (parts[0], base), scales.plausible) if lambda_a or lambda_b else whole

    return logits
