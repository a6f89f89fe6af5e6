"""StyleDrop's guidance: how the passes of one step become one set of logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from styledrop_cli.models.adapter import on_rows
from styledrop_cli.models.layers import AdapterFn
from styledrop_cli.models.transformer import Condition, TokenTransformer
from styledrop_cli.sampling.decoding import LogitsFn


@dataclass(frozen=True)
class Scales:
    """``lambda_a`` pushes from the base towards the adapter, ``lambda_b`` from the negative text towards the prompt.

    ``lambda_b`` is one less than the guidance scale of aMUSEd and diffusers. With ``ramp`` both grow linearly from
    zero at the first step to their full value at the last (Muse, arXiv 2301.00704, 2.7). ``plausible`` is how likely a
    token must be at least, relative to the likeliest, to the adapted network or the base; 0 leaves all (the paper).
    Both are zero before ``start`` and after ``stop`` (a limited interval, arXiv 2404.07724). What guidance adds is
    computed at every ``every``-th of the steps that have any, and held between.
    """

    lambda_a: float = 0.0
    lambda_b: float = 5.0
    ramp: bool = False
    plausible: float = 0.0
    every: int = 1
    start: float = 0.0
    stop: float = 1.0

    def at(self, progress: float) -> tuple[float, float]:
        """Both scales at ``progress`` in [0,1] through the steps."""
        if not self.start <= progress <= self.stop:
            return 0.0, 0.0
        factor = progress if self.ramp else 1.0
        return self.lambda_a * factor, self.lambda_b * factor


def combine(adapted: Tensor, base: Tensor | None, negative: Tensor | None, lambda_a: float, lambda_b: float) -> Tensor:
    """StyleDrop eq. 4: ``Ghat(v,t) + A (Ghat(v,t) - G(v,t)) + B (G(v,t) - G(v,n))``, all ``[...,K]``.

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


def plausibility_filter(guided: Tensor, passes: Sequence[Tensor], share: float) -> Tensor:
    """``guided`` logits ``[...,K]`` without the tokens that none of ``passes`` finds plausible.

    What two networks say of tokens that neither would draw is noise, and scales above one raise it above all else.
    A token is plausible if it is at least ``share`` as likely as the likeliest (arXiv 2210.15097, eq. 3).
    """
    if not share:
        return guided
    plausible = torch.zeros_like(guided, dtype=torch.bool)
    for logits in passes:
        plausible |= logits >= logits.amax(-1, keepdim=True) + math.log(share)
    return guided.masked_fill(~plausible, -torch.inf)


def top_k_top_p(logits: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """``logits`` ``[M,K]`` of the ``top_k`` likeliest tokens (0: all) and, of these, the fewest that make up ``top_p``.

    The likeliest stays in any case. Top-p is nucleus sampling (arXiv 1904.09751).
    """
    if top_k and top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -torch.inf)
    if top_p < 1:
        ordered, order = logits.sort(descending=True)
        shares = ordered.softmax(-1)
        enough = shares.cumsum(-1) - shares >= top_p  # what stands before makes up as much
        enough[:, 0] = False
        logits = logits.masked_fill(torch.zeros_like(enough).scatter(-1, order, enough), -torch.inf)
    return logits


@dataclass(frozen=True)
class Branch:
    """One of the adapted networks that draw together: the prompt as it reads it, its adapter, its share of the logits.

    Without an adapter it is the base. Shares add up to 1.
    """

    condition: Condition
    adapter: AdapterFn | None
    share: float = 1.0


@dataclass(frozen=True)
class _Held:
    """What a step's passes said, at the places ``[B,H,W]`` then masked: rows ``[M,K]`` to be added and scaled later."""

    masked: Tensor
    to_adapted: Tensor | None  # Ghat(v,t) - G(v,t); None where both are one
    to_prompt: Tensor | None  # G(v,t) - G(v,n); None where lambda_b is 0

    def added_to(self, adapted: Tensor, masked: Tensor, scales: Scales, lambda_a: float, lambda_b: float) -> Tensor:
        """Guided logits of the places ``masked`` now, all of which were masked then."""
        still = masked[self.masked]
        base = adapted if self.to_adapted is None else adapted - self.to_adapted[still]
        logits = adapted
        if lambda_a and self.to_adapted is not None:
            logits = logits + lambda_a * self.to_adapted[still]
        if lambda_b and self.to_prompt is not None:
            logits = logits + lambda_b * self.to_prompt[still]
        return plausibility_filter(logits, (adapted, base), scales.plausible)


def guided(
    transformer: TokenTransformer,
    prompt: Condition,
    negative: Condition,
    branches: Sequence[Branch],
    scales: Scales,
    steps: int = 1,
    told: Callable[[float], float | Tensor] = float,
    *,
    in_turn: bool = False,
) -> LogitsFn:
    """Build the function that ``decode`` calls. All passes a step needs run as one batch or, with ``in_turn``, one
    after the other; the others do not run.

    Logits are computed where ids are masked, and nowhere else. ``prompt`` is what the base is told. ``branches`` are
    mixed into Ghat by their shares (StyleDrop, 3.4: ``(1 - g) l_style + g l_content``); without any the base is alone.

    ``steps`` is how many there are, and ``told`` makes of the number that are left after one what the network is told.

    With ``scales.every`` above 1 the function remembers what the last guided step said, and is good for one decoding:
    to be called once a step, in order, with masks that only shrink.
    """
    joined: dict[int, Condition] = {}
    adapters = [branch.adapter for branch in branches]
    alone = adapters[0] if adapters else None
    held: _Held | None = None
    turn = 0  # of the steps with guidance, how many there were

    def logits(ids: Tensor, masked: Tensor, progress: float) -> Tensor:
        nonlocal held, turn
        lambda_a, lambda_b = scales.at(progress)
        lambda_a = lambda_a if branches else 0.0
        reuse = None
        if lambda_a or lambda_b:
            reuse = held if turn % scales.every else None
            turn += 1
        rows = len(ids)
        conditions = [branch.condition for branch in branches] or [prompt]
        own = len(conditions)
        if reuse is None and branches and (lambda_a or lambda_b):
            conditions.append(prompt)
        if reuse is None and lambda_b:
            conditions.append(negative)
        if len(conditions) not in joined and not in_turn:
            joined[len(conditions)] = prompt.cat(conditions)
        left = told(float(round((1 - progress) * (steps - 1))))
        parts: Sequence[Tensor]
        if in_turn:
            each = zip(conditions, [*adapters, None, None], strict=False)
            parts = [transformer(ids, one.at(left), adapter, masked).float() for one, adapter in each]
        else:
            batch, where = (grid.repeat(len(conditions), 1, 1) for grid in (ids, masked))
            adapter = on_rows(adapters, rows) if branches and len(conditions) > 1 else alone
            every = transformer(batch, joined[len(conditions)].at(left), adapter, where).float()
            parts = every.chunk(len(conditions))
        adapted = parts[0]
        if own > 1:
            adapted = torch.stack([branch.share * part for branch, part in zip(branches, parts, strict=False)]).sum(0)
        if reuse is not None:
            return reuse.added_to(adapted, masked, scales, lambda_a, lambda_b)
        base = parts[own] if branches and len(parts) > own else adapted
        if scales.every > 1 and len(parts) > own:
            apart, pushed = base is not adapted, bool(lambda_b)
            held = _Held(masked, adapted - base if apart else None, base - parts[-1] if pushed else None)
        whole = combine(adapted, base, parts[-1], lambda_a, lambda_b)
        return plausibility_filter(whole, (adapted, base), scales.plausible) if lambda_a or lambda_b else whole

    return logits
