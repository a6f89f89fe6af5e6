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

    ``lambda_b`` is one less than the guidance scale of aMUSEd and diffusers. ``guard`` pushes the adapted network away
    from what it would draw if it were asked for its reference's content. With ``ramp`` all grow linearly from zero at
    the first step to their full value at the last (Muse, arXiv 2301.00704, 2.7). ``plausible`` is how likely a token
    must be at least, relative to the likeliest, to the adapted network or the base; 0 leaves all (the paper). All are
    zero before ``start`` and after ``stop`` (a limited interval, arXiv 2404.07724). What guidance adds is computed at
    every ``every``-th of the steps that have any, and held between.
    """

    lambda_a: float = 0.0
    lambda_b: float = 5.0
    ramp: bool = False
    plausible: float = 0.0
    every: int = 1
    start: float = 0.0
    stop: float = 1.0
    guard: float = 0.0

    def at(self, progress: float) -> tuple[float, float, float]:
        """``lambda_a``, ``lambda_b`` and ``guard`` at ``progress`` in [0,1] through the steps."""
        if not self.start <= progress <= self.stop:
            return 0.0, 0.0, 0.0
        factor = progress if self.ramp else 1.0
        return self.lambda_a * factor, self.lambda_b * factor, self.guard * factor


def combine(
    adapted: Tensor,
    base: Tensor | None,
    negative: Tensor | None,
    lambda_a: float,
    lambda_b: float,
    away: Tensor | None = None,
    guard: float = 0.0,
) -> Tensor:
    """StyleDrop eq. 4: ``Ghat(v,t) + A (Ghat(v,t) - G(v,t)) + B (G(v,t) - G(v,n))``, all ``[...,K]``.

    Ours is what the guard adds, ``C (Ghat(v,t) - Ghat(v,c))``. ``away`` is the adapted network's answer to its
    reference's content c in the same style: what both share, the style, is not pushed away. ``base`` may be missing
    when ``lambda_a`` and ``lambda_b`` are zero, ``negative`` when ``lambda_b`` is, ``away`` when ``guard`` is.
    """
    logits = adapted
    if lambda_a:
        assert base is not None
        logits = logits + lambda_a * (adapted - base)
    if lambda_b:
        assert base is not None and negative is not None
        logits = logits + lambda_b * (base - negative)
    if guard:
        assert away is not None
        logits = logits + guard * (adapted - away)
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
class Guarded:
    """Something that a branch's reference shows: as the branch reads it, and for which of the ``B`` pictures, bool
    ``[B]``, it is to be kept out.
    """

    condition: Condition
    rows: Tensor


@dataclass(frozen=True)
class Branch:
    """One of the adapted networks that draw together: the prompt as it reads it, its adapter, its share of the logits.

    Without an adapter it is the base. Shares add up to 1. ``guarded`` are the contents that the guard keeps out.
    """

    condition: Condition
    adapter: AdapterFn | None
    share: float = 1.0
    guarded: Sequence[Guarded] = ()


@dataclass(frozen=True)
class _Held:
    """What a step's passes said, at the places ``[B,H,W]`` then masked: rows ``[M,K]`` to be added and scaled later."""

    masked: Tensor
    to_adapted: Tensor | None  # Ghat(v,t) - G(v,t); None where both are one
    to_prompt: Tensor | None  # G(v,t) - G(v,n); None where lambda_b is 0
    from_content: Tensor | None  # Ghat(v,t) - Ghat(v,c); None where nothing is kept out

    def added_to(self, adapted: Tensor, masked: Tensor, scales: Scales, progress: float) -> Tensor:
        """Guided logits of the places ``masked`` now, all of which were masked then."""
        lambda_a, lambda_b, guard = scales.at(progress)
        still = masked[self.masked]
        base = adapted if self.to_adapted is None else adapted - self.to_adapted[still]
        logits = adapted
        if lambda_a and self.to_adapted is not None:
            logits = logits + lambda_a * self.to_adapted[still]
        if lambda_b and self.to_prompt is not None:
            logits = logits + lambda_b * self.to_prompt[still]
        if guard and self.from_content is not None:
            logits = logits + guard * self.from_content[still]
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
    kept_out = [(branch, one) for branch in branches for one in branch.guarded] if scales.guard else []
    adapters = [branch.adapter for branch in (*branches, *(branch for branch, _ in kept_out))]
    held: _Held | None = None
    turn = 0  # of the steps with guidance, how many there were

    def passes(ids: Tensor, masked: Tensor, progress: float, conditions: Sequence[Condition]) -> Sequence[Tensor]:
        """Logits ``[M,K]`` for each of ``conditions``; the first have ``adapters``, the others none."""
        left = told(float(round((1 - progress) * (steps - 1))))
        count, own = len(conditions), adapters[: len(conditions)]
        if in_turn:
            each = zip(conditions, [*own, *[None] * (count - len(own))], strict=True)
            return [transformer(ids, one.at(left), adapter, masked).float() for one, adapter in each]
        if count not in joined:
            joined[count] = prompt.cat(list(conditions))
        batch, where = (grid.repeat(count, 1, 1) for grid in (ids, masked))
        adapter = (own[0] if own else None) if count == 1 or not own else on_rows(own, len(ids))
        return transformer(batch, joined[count].at(left), adapter, where).float().chunk(count)

    def logits(ids: Tensor, masked: Tensor, progress: float) -> Tensor:
        nonlocal held, turn
        lambda_a, lambda_b, guard = scales.at(progress)
        lambda_a, guard = (lambda_a if branches else 0.0), (guard if kept_out else 0.0)
        reuse = None
        if lambda_a or lambda_b or guard:
            reuse = held if turn % scales.every else None
            turn += 1
        conditions = [branch.condition for branch in branches] or [prompt]
        own = len(conditions)
        apart = bool(branches and (lambda_a or lambda_b))  # whether the base is asked beside the adapted networks
        if reuse is None:
            conditions += [one.condition for _, one in kept_out] if guard else []
            conditions += [prompt] if apart else []
            conditions += [negative] if lambda_b else []
        parts = passes(ids, masked, progress, conditions)
        adapted = parts[0]
        if own > 1:
            adapted = torch.stack([branch.share * part for branch, part in zip(branches, parts, strict=False)]).sum(0)
        if reuse is not None:
            return reuse.added_to(adapted, masked, scales, progress)
        away = _away(adapted, branches, parts[:own], parts[own : own + len(kept_out)], masked) if guard else None
        base = parts[own + len(kept_out) * bool(guard)] if apart else adapted
        if scales.every > 1 and len(parts) > own:
            held = _Held(
                masked,
                adapted - base if apart else None,
                base - parts[-1] if lambda_b else None,
                adapted - away if away is not None else None,
            )
        whole = combine(adapted, base, parts[-1], lambda_a, lambda_b, away, guard)
        return plausibility_filter(whole, (adapted, base), scales.plausible) if len(parts) > own else whole

    return logits


def _away(
    adapted: Tensor, branches: Sequence[Branch], asked: Sequence[Tensor], contents: Sequence[Tensor], masked: Tensor
) -> Tensor:
    """What all branches together would say, ``[M,K]``, if each were asked for its reference's contents.

    ``asked`` is what each says to its prompt, ``contents`` what it says to each content, branch by branch; several of
    one branch count alike. A picture that asks for a content itself is not pushed away from it: its places are as
    ``adapted`` has them, to the bit.
    """
    pushed, answers = torch.zeros_like(adapted), iter(contents)
    picture = masked.nonzero()[:, 0]
    for branch, own in zip(branches, asked, strict=True):
        for one in branch.guarded:
            difference = (next(answers) - own) * one.rows[picture, None]
            pushed = pushed + branch.share / len(branch.guarded) * difference
    return adapted + pushed
