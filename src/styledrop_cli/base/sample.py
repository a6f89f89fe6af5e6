"""Drawing tokens: from prompts, adapters and settings to grids of ids, by a base or its super-resolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from styledrop_cli.devices import fast_bfloat16, generator
from styledrop_cli.models.adapter import Adapter, at_strength
from styledrop_cli.models.layers import AdapterFn
from styledrop_cli.models.superres import SuperResTransformer
from styledrop_cli.models.transformer import Condition, TokenTransformer
from styledrop_cli.sampling.decoding import LogitsFn, correct, decode
from styledrop_cli.sampling.guidance import Branch, Guarded, Scales, guided, plausibility_filter, top_k_top_p
from styledrop_cli.settings import SampleSettings

if TYPE_CHECKING:
    from styledrop_cli.base.base import Base

CAST = "transformer in bfloat16"  # a part beside the others: half as large, and not upstream's numbers
ANOTHER_STREAM = 0x5DEECE66D  # so that super-resolution does not draw the base's random numbers again


@dataclass(frozen=True)
class AdapterShare:
    """One of several adapters that draw together: its prompt for each picture, and its share of the logits.

    Without an adapter it is the base. The shares of all add up to 1. ``contents`` has, for each thing that its
    reference shows, the prompt that asks for it in place of each picture's own; None where the picture asks for that
    very thing. They are what ``settings.guard`` keeps out.
    """

    adapter: Adapter | None
    prompts: Sequence[str]
    share: float = 1.0
    contents: Sequence[Sequence[str | None]] = ()


# None: the base alone. One adapter: it reads the same prompts as the base. Several: each reads its own.
AdapterOrShares = Adapter | Sequence[AdapterShare] | None


@torch.no_grad()
def sample(
    base: Base,
    prompts: list[str],
    seeds: list[int],
    settings: SampleSettings,
    adapter: AdapterOrShares = None,
    on_step: Callable[[int, Tensor], None] | None = None,
    ids: Tensor | None = None,
) -> Tensor:
    """Draw one grid of ids a prompt, ``[B,H,W]``; each depends on its own prompt and seed alone.

    Where ``ids`` ``[B,H,W]`` are given, only those that are ``mask_id`` are drawn. With ``settings.correct`` what was
    drawn is looked at once more, see ``sampling.decoding.correct``.
    """
    with base.arithmetic(settings.precision):
        made = _decode(base, "transformer", ids, guide(base, prompts, settings, adapter), seeds, settings, on_step)
        if not settings.correct:
            return made
        drawn = torch.ones_like(made, dtype=torch.bool) if ids is None else ids == base.mask_id
        # What guidance remembers is of other ids; and all tokens are compared, whatever their rank.
        every = replace(settings, guidance_every=1, top_k=0, top_p=1.0)
        return correct(made, drawn, guide(base, prompts, every, adapter), mask_id=base.mask_id, below=settings.correct)


def guide(base: Base, prompts: Sequence[str], settings: SampleSettings, adapter: AdapterOrShares = None) -> LogitsFn:
    """The logits that ``sample`` asks for at each step, for one drawing of ``B`` prompts; see ``sampling.decoding``."""
    return _guide(base, "transformer", None, prompts, settings, adapter)


@torch.no_grad()
def refine(
    base: Base,
    ids: Tensor,
    prompts: list[str],
    seeds: list[int],
    settings: SampleSettings,
    adapter: AdapterOrShares = None,
) -> Tensor:
    """Ids ``[B,h,w]`` as ``sample`` draws them to those of the larger picture, ``[B,H,W]``, by super-resolution.

    ``adapter`` is the super-resolution transformer's own. Raises ValueError if the base has no such transformer.
    """
    if base.superres is None:
        raise ValueError(f"{base.name} has no super-resolution transformer")
    # What is seen small is drawn surest first, and held to what is likely by `superres_plausible` alone.
    settings = replace(
        settings,
        steps=settings.superres_steps,
        order="confidence",
        top_k=0,
        top_p=1.0,
        lambda_a=settings.superres_lambda_a,
        lambda_b=settings.superres_lambda_b,
        guard=0.0,  # what the picture shows is settled
    )
    with base.arithmetic():
        logits = _guide(base, "superres", ids, prompts, settings, adapter)

        def sharp(ids: Tensor, masked: Tensor, progress: float) -> Tensor:
            made = logits(ids, masked, progress)
            return plausibility_filter(made, [made], settings.superres_plausible)

        return _decode(base, "superres", None, sharp, [seed ^ ANOTHER_STREAM for seed in seeds], settings)


def _guide(
    base: Base,
    part: str,
    low_res: Tensor | None,
    prompts: Sequence[str],
    settings: SampleSettings,
    adapter: AdapterOrShares,
) -> LogitsFn:
    network: TokenTransformer = base.parts.get(part)

    def condition(texts: Sequence[str], adapter: Adapter | None = None, scaled: AdapterFn | None = None) -> Condition:
        distinct = list(dict.fromkeys(texts))
        rows = torch.tensor([distinct.index(text) for text in texts], device=base.device)
        reader = scaled if adapter is not None and adapter.reads_text else None
        read = network.condition(*base.text_states(distinct, network), reader)
        made: Condition = network.ahead(read, base.all_told(settings.steps)).select(rows)
        if low_res is None:
            return made
        assert isinstance(network, SuperResTransformer)
        return network.beside(made, low_res, scaled)

    prompt = condition(prompts)
    branches = []
    shares = [AdapterShare(adapter, prompts)] if isinstance(adapter, Adapter) else adapter or ()
    for one in shares:
        who = one.adapter
        scaled = at_strength(who, settings.strength) if who is not None else None
        # Where an adapter has no say in what is computed beforehand, it shares what the base has.
        apart = who is not None and scaled is not None and (who.reads_text or low_res is not None)
        own = apart or list(one.prompts) != list(prompts)
        heard = condition(one.prompts, who, scaled) if own else prompt
        guarded_from = [
            Guarded(
                condition([text or usual for text, usual in zip(texts, one.prompts, strict=True)], who, scaled),
                torch.tensor([text is not None for text in texts], device=base.device),
            )
            for texts in (one.contents if settings.guard and scaled is not None else ())
            if any(text is not None for text in texts)
        ]
        branches.append(Branch(heard, scaled, one.share, guarded_from))
    if all(branch.adapter is None and branch.condition is prompt for branch in branches):
        branches = []  # at strength 0 the base is alone
    negative = condition([settings.negative] * len(prompts))
    # What only prompts need is read no more: in mapped files a seventh of the transformer, and all of the encoder.
    base.done_with("clip")
    cast = settings.precision == "bf16" and CAST in base.parts and fast_bfloat16(base.device)
    base.parts.release(part, again=not cast)
    del network, condition
    scales = Scales(
        settings.lambda_a,
        settings.lambda_b,
        settings.ramp,
        settings.plausible,
        settings.guidance_every,
        settings.guidance_from,
        settings.guidance_to,
        settings.guard,
    )
    network = base.parts.get(CAST if cast else part)
    told, in_turn = partial(base.told, steps=settings.steps), network.branches_in_turn
    logits = guided(network, prompt, negative, branches, scales, settings.steps, told, in_turn=in_turn)
    return lambda ids, masked, progress: top_k_top_p(logits(ids, masked, progress), settings.top_k, settings.top_p)


def _decode(
    base: Base,
    part: str,
    ids: Tensor | None,
    logits_fn: LogitsFn,
    seeds: Sequence[int],
    settings: SampleSettings,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Ids ``[B,H,W]``, drawn where ``ids`` are masked, or everywhere."""
    sizes = base.parts.config(part)
    if ids is None:
        ids = torch.full((len(seeds), sizes.sample_size, sizes.sample_size), sizes.mask_id, device=base.device)
    return decode(
        ids,
        logits_fn,
        mask_id=sizes.mask_id,
        steps=settings.steps,
        temperature=settings.temperature,
        generator=[generator(seed) for seed in seeds],
        schedule=base.schedule,
        noise=settings.noise,
        order=settings.order,
        on_step=on_step,
    )
