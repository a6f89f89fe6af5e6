"""Masking, the decode loop and the guidance: the laws they keep, whatever the network."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from styledrop_cli.devices import generator
from styledrop_cli.models.layers import AdapterFn
from styledrop_cli.models.transformer import Condition, MaskedTransformer
from styledrop_cli.sampling.decoding import NOISES, LogitsFn, _draw_tokens, correct, decode, halton_ranks
from styledrop_cli.sampling.guidance import Branch, Guarded, Scales, combine, guided, plausibility_filter, top_k_top_p
from styledrop_cli.sampling.masking import mask_ratio, masked_after, random_mask

K, MASK = 10, 10
# Masked after each of 12 steps, as aMUSEd's scheduler has it; the last step always fills what is left.
AFTER_12 = {
    256: [253, 247, 236, 221, 203, 181, 155, 127, 97, 66, 33, 0],
    1024: [1015, 989, 946, 886, 812, 724, 623, 511, 391, 265, 133, 0],
}


def fixed(logits: torch.Tensor) -> LogitsFn:
    """A network that answers the same whatever it is asked."""
    return lambda ids, masked, progress: torch.broadcast_to(logits, (*ids.shape, logits.shape[-1]))[masked]


def network(ids: Tensor, masked: Tensor, progress: float) -> Tensor:
    """Logits that depend on every id of the same picture, on the place and on the progress."""
    places = torch.arange(ids[0].numel() * K).view(*ids.shape[1:], K)
    seen = (ids * torch.arange(1, ids[0].numel() + 1).view(ids.shape[1:])).sum((1, 2))
    return 3 * torch.sin(places + seen[:, None, None, None] * 0.37 + progress)[masked]


def fill(
    ids: Tensor,
    seed: int | list[int] = 0,
    *,
    logits: LogitsFn = network,
    steps: int = 6,
    temperature: float | tuple[float, float] = 4.5,
    schedule: str = "cosine",
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    draws = tiny.generator(seed) if isinstance(seed, int) else [tiny.generator(s) for s in seed]
    return decode(
        ids,
        logits,
        mask_id=MASK,
        steps=steps,
        temperature=temperature,
        generator=draws,
        schedule=schedule,
        on_step=on_step,
    )


def empty(rows: int = 2, side: int = 6) -> Tensor:
    return torch.full((rows, side, side), MASK)


# ---- masks ----


def test_mask_ratio_runs_from_one_to_zero() -> None:
    ends = torch.tensor([0.0, 1.0])
    for schedule in ("cosine", "linear"):
        assert mask_ratio(ends, schedule).tolist() == pytest.approx([1, 0], abs=1e-6)
        assert (mask_ratio(torch.linspace(0, 1, 50), schedule).diff() < 0).all()
    assert float(mask_ratio(torch.tensor(0.5))) == pytest.approx(0.5**0.5)
    with pytest.raises(ValueError, match="'square'.*cosine, linear"):
        mask_ratio(ends, "square")


@pytest.mark.parametrize("tokens", [256, 1024])
def test_masked_after_is_upstreams(tokens: int) -> None:
    assert [masked_after(k, 12, tokens) for k in range(11)] == AFTER_12[tokens][:-1]
    assert masked_after(11, 12, tokens) <= 0


def test_masked_after_of_a_grid_that_is_half_known() -> None:
    assert masked_after(2, 12, 256, start=0.5) == 118
    assert masked_after(2, 12, 256, "linear") == 192


def test_training_masks() -> None:
    masks = random_mask(4000, 256, tiny.generator())
    share = masks.float().mean(1)
    assert masks.dtype == torch.bool
    assert float(share.mean()) == pytest.approx(2 / torch.pi, abs=0.01)  # 0.64, Muse
    assert masks.any(1).all()
    assert float(share.max()) > 0.99
    # Every place is hidden as often as any other.
    assert float(masks.float().mean(0).std()) < 0.02
    assert torch.equal(masks, random_mask(4000, 256, tiny.generator()))
    assert random_mask(500, 1, tiny.generator()).all()
    assert random_mask(500, 3, tiny.generator()).any(1).all()


# ---- the loop ----


@pytest.mark.parametrize("steps", [1, 2, 6, 40])
def test_known_ids_never_change(steps: int) -> None:
    known = torch.randint(K, (3, 6, 6), generator=tiny.generator(1))
    hidden = torch.rand(3, 6, 6, generator=tiny.generator(2)) < torch.tensor([0.1, 0.5, 0.97])[:, None, None]
    start = known.masked_fill(hidden, MASK)
    before = start.clone()
    seen: list[Tensor] = []
    done = fill(start, steps=steps, on_step=lambda step, ids: seen.append(ids.clone()))
    assert len(seen) == steps
    for ids in seen:
        assert torch.equal(ids[~hidden], known[~hidden])
    for earlier, later in itertools.pairwise(seen):
        drawn = earlier != MASK
        assert torch.equal(later[drawn], earlier[drawn])
    assert torch.equal(done, seen[-1])
    assert (done < K).all()
    assert torch.equal(start, before)  # what was given is left alone


def test_nothing_to_fill() -> None:
    known = torch.randint(K, (2, 6, 6), generator=tiny.generator(1))
    assert torch.equal(fill(known), known)
    one = known.clone()
    one[0, 2, 3] = MASK
    done = fill(one)
    assert (done < K).all()
    assert torch.equal(done[one != MASK], known[one != MASK])


def test_same_generator_same_ids() -> None:
    assert torch.equal(fill(empty(), 3), fill(empty(), 3))
    assert not torch.equal(fill(empty(), 3), fill(empty(), 4))
    assert torch.equal(fill(empty(), [3, 4]), fill(empty(), [3, 4]))


def test_a_picture_does_not_depend_on_its_neighbours() -> None:
    together = fill(empty(3), [5, 6, 7])
    for row, seed in enumerate([5, 6, 7]):
        assert torch.equal(fill(empty(1), [seed])[0], together[row])
    assert torch.equal(fill(empty(3), [7, 6, 5]), together.flip(0))


def test_every_step_leaves_the_planned_number_masked() -> None:
    left: list[int] = []
    progress: list[float] = []

    def logits(ids: Tensor, masked: Tensor, share: float) -> Tensor:
        progress.append(share)
        return network(ids, masked, share)

    fill(
        empty(2, 16),
        steps=12,
        logits=logits,
        on_step=lambda step, ids: left.extend((ids == MASK).sum((1, 2)).tolist()),
    )
    assert left[::2] == left[1::2] == AFTER_12[256]
    assert progress == pytest.approx([k / 11 for k in range(12)])


def test_at_least_one_id_is_drawn_at_every_step() -> None:
    left: list[int] = []
    fill(empty(1, 3), steps=9, on_step=lambda step, ids: left.append(int((ids == MASK).sum())))
    assert left == [8, 7, 6, 5, 4, 3, 2, 1, 0]


def test_the_surest_come_first_without_temperature() -> None:
    # At place i every drawn id has probability 1 / choices[i], whichever it is.
    choices = torch.randperm(9, generator=tiny.generator()) + 1
    logits = torch.where(torch.arange(K) < choices[:, None], 0.0, -torch.inf).view(1, 3, 3, K)
    order: list[int] = []

    def watch(step: int, ids: Tensor) -> None:
        order.extend(int(i) for i in (ids.flatten() != MASK).nonzero() if int(i) not in order)

    fill(empty(1, 3), steps=9, logits=fixed(logits), temperature=0.0, on_step=watch)
    assert choices[order].tolist() == list(range(1, 10))


def test_temperature_never_touches_the_id_drawn() -> None:
    wanted = torch.randint(K, (2, 6, 6), generator=tiny.generator())
    certain = 200.0 * torch.nn.functional.one_hot(wanted, K).float()
    assert torch.equal(fill(empty(), logits=fixed(certain), temperature=100.0), wanted)


def test_a_single_temperature_falls_to_zero() -> None:
    assert torch.equal(fill(empty(), temperature=4.5), fill(empty(), temperature=(4.5, 0.0)))
    assert not torch.equal(fill(empty(), temperature=4.5), fill(empty(), temperature=(4.5, 4.5)))


def test_decode_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="not 0"):
        fill(empty(), steps=0)
    with pytest.raises(ValueError, match="3 generators for 2 pictures"):
        fill(empty(2), [1, 2, 3])
    with pytest.raises(ValueError, match="schedule"):
        fill(empty(), schedule="square")


# ---- guidance ----

ADAPTED, BASE, NEGATIVE = (torch.tensor([x]) for x in ([1.0, 2.0], [0.5, 4.0], [-1.0, 3.0]))


def test_combine_is_equation_4() -> None:
    # 1 + 2 (1 - 0.5) + 3 (0.5 - -1) and 2 + 2 (2 - 4) + 3 (4 - 3)
    assert combine(ADAPTED, BASE, NEGATIVE, 2, 3).tolist() == [[6.5, 1.0]]
    assert combine(ADAPTED, BASE, NEGATIVE, 2, 0).tolist() == [[2.0, -2.0]]
    assert combine(ADAPTED, BASE, NEGATIVE, 0, 3).tolist() == [[5.5, 5.0]]


def test_scales_of_zero_are_the_plain_adapted_logits() -> None:
    assert combine(ADAPTED, None, None, 0, 0) is ADAPTED


def test_lambda_b_is_upstreams_scale_less_one() -> None:
    scale = 7.5
    upstream = NEGATIVE + scale * (BASE - NEGATIVE)
    torch.testing.assert_close(combine(BASE, BASE, NEGATIVE, 0, scale - 1), upstream)


def test_ramp_grows_from_zero_to_the_full_scales() -> None:
    assert Scales(2, 4, guard=1).at(0.0) == Scales(2, 4, guard=1).at(0.7) == (2, 4, 1)
    ramp = Scales(2, 4, ramp=True, guard=1)
    assert [ramp.at(p) for p in (0.0, 0.25, 1.0)] == [(0, 0, 0), (0.5, 1, 0.25), (2, 4, 1)]


class Counting(MaskedTransformer):
    """Remembers how many rows each pass had."""

    rows: list[int]

    def forward(
        self, ids: Tensor, condition: Condition, adapter: AdapterFn | None = None, where: Tensor | None = None
    ) -> Tensor:
        self.rows.append(len(ids))
        return super().forward(ids, condition, adapter, where)


@pytest.fixture
def counting() -> Counting:
    network = Counting(tiny.TRANSFORMER)
    network.rows = []
    tiny.randomise(network)
    return network.requires_grad_(False).eval()


@pytest.mark.parametrize(
    ("with_adapter", "scales", "rows"),
    [
        (True, Scales(0, 0), 2),
        (True, Scales(2, 0), 4),
        (True, Scales(0, 3), 6),
        (True, Scales(2, 3), 6),
        (False, Scales(2, 0), 2),
        (False, Scales(2, 3), 4),
    ],
)
@torch.no_grad()
def test_guided_passes(counting: Counting, with_adapter: bool, scales: Scales, rows: int) -> None:
    """One batch with just the passes that count, equal to the same passes run apart."""
    prompt, negative = tiny.condition(counting, 2, 1), tiny.condition(counting, 2, 2)
    ids = tiny.ids(tiny.TRANSFORMER, 2)
    masked = ids == tiny.TRANSFORMER.mask_id
    adapter = tiny.adapter() if with_adapter else None
    made = guided(counting, prompt, negative, alone(prompt, adapter), scales)(ids, masked, 0.3)
    assert counting.rows == [rows]
    adapted, base, away = (
        counting(ids, c, a, masked) for c, a in ((prompt, adapter), (prompt, None), (negative, None))
    )
    wanted = combine(adapted, base, away, scales.lambda_a if with_adapter else 0, scales.lambda_b)
    torch.testing.assert_close(made, wanted, atol=2e-5, rtol=1e-4)
    if scales == Scales(0, 0):
        assert torch.equal(made, adapted)


def test_only_plausible_tokens_are_left() -> None:
    """At least a tenth as likely as the likeliest, to one of the passes; of those the guided logits are untouched."""
    guided_logits = torch.tensor([[5.0, 9.0, -3.0, 7.0]])
    one = torch.tensor([[0.5, 0.4, 0.04, 0.06]]).log()
    other = torch.tensor([[0.9, 0.005, 0.095, 0.0]]).log()
    inf = torch.inf
    assert plausibility_filter(guided_logits, [one], 0.1).tolist() == [[5, 9, -inf, 7]]
    assert plausibility_filter(guided_logits, [other], 0.1).tolist() == [[5, -inf, -3, -inf]]
    assert plausibility_filter(guided_logits, [one, other], 0.1).tolist() == [[5, 9, -3, 7]]
    assert plausibility_filter(guided_logits, [one, other], 1.0).tolist() == [[5, -inf, -inf, -inf]]
    assert plausibility_filter(guided_logits, [other], 0.0) is guided_logits


@torch.no_grad()
def test_implausible_tokens_are_never_drawn_however_strong_the_guidance(counting: Counting) -> None:
    prompt, negative = tiny.condition(counting, 2, 1), tiny.condition(counting, 2, 2)
    ids, adapter = tiny.ids(tiny.TRANSFORMER, 2), tiny.adapter()
    masked = ids == tiny.TRANSFORMER.mask_id
    made = guided(counting, prompt, negative, alone(prompt, adapter), Scales(9, 9, plausible=0.5))(ids, masked, 0.5)
    chances = torch.stack([counting(ids, prompt, adapter, masked), counting(ids, prompt, None, masked)]).softmax(-1)
    likely = (chances >= 0.499 * chances.amax(-1, keepdim=True)).any(0)
    assert likely[made > -torch.inf].all()
    assert (made > -torch.inf).any(-1).all()
    assert not (made > -torch.inf).all()
    plain = guided(counting, prompt, negative, alone(prompt, adapter), Scales(9, 9))(ids, masked, 0.5)
    assert torch.equal(made[made > -torch.inf], plain[made > -torch.inf])


@torch.no_grad()
def test_the_adapter_may_read_the_prompt_in_its_own_way(counting: Counting) -> None:
    prompt, negative, own = (tiny.condition(counting, 2, seed) for seed in (1, 2, 3))
    ids, adapter = tiny.ids(tiny.TRANSFORMER, 2), tiny.adapter()
    masked = ids == tiny.TRANSFORMER.mask_id
    made = guided(counting, prompt, negative, [Branch(own, adapter)], Scales(2, 3))(ids, masked, 0.5)
    passes = ((own, adapter), (prompt, None), (negative, None))
    wanted = combine(*(counting(ids, condition, a, masked) for condition, a in passes), 2, 3)
    torch.testing.assert_close(made, wanted, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_ramp_starts_with_one_pass(counting: Counting) -> None:
    prompt, negative = tiny.condition(counting, 2, 1), tiny.condition(counting, 2, 2)
    logits = guided(counting, prompt, negative, alone(prompt, tiny.adapter()), Scales(2, 3, ramp=True))
    ids = tiny.ids(tiny.TRANSFORMER, 2)
    masked = ids == tiny.TRANSFORMER.mask_id
    assert torch.equal(logits(ids, masked, 0.0), counting(ids, prompt, tiny.adapter(), masked))
    full = guided(counting, prompt, negative, alone(prompt, tiny.adapter()), Scales(2, 3))
    assert torch.equal(logits(ids, masked, 1.0), full(ids, masked, 0.1))


@pytest.mark.parametrize("kind", ["bottleneck", "lora", "prompt"])
def test_network_decodes_alone_as_in_a_batch(kind: str) -> None:
    network, adapter = tiny.transformer(), tiny.adapter(kind)
    mask = tiny.TRANSFORMER.mask_id

    def drawn(prompt: Condition, negative: Condition, seeds: list[int]) -> Tensor:
        return decode(
            torch.full((len(seeds), 4, 4), mask),
            guided(network, prompt, negative, alone(prompt, adapter), Scales(1, 3)),
            mask_id=mask,
            steps=5,
            temperature=4.5,
            generator=[tiny.generator(s) for s in seeds],
        )

    prompt, negative = tiny.condition(network, 3, 1), tiny.condition(network, 3, 2)
    together = drawn(prompt, negative, [8, 9, 10])
    for row in range(3):
        only = torch.tensor([row])
        assert torch.equal(drawn(prompt.select(only), negative.select(only), [8 + row])[0], together[row])


@pytest.mark.parametrize("noise", NOISES)
def test_tokens_are_drawn_as_often_as_they_are_likely(noise: str) -> None:
    """One generator a picture, and a token that cannot be is never drawn."""
    wanted = torch.tensor([0.0, 0.5, 0.0, 0.2, 0.3, 0.0])
    generators = [tiny.generator(1), tiny.generator(2)]
    unknown = torch.ones(2, 20_000, dtype=torch.bool)
    drawn = _draw_tokens(wanted.expand(40_000, 6).contiguous(), unknown, generators, noise).view(2, -1)
    for row in drawn:
        share = row.bincount(minlength=6) / len(row)
        torch.testing.assert_close(share, wanted, atol=0.015, rtol=0)
        assert not share[wanted == 0].any()
    assert not torch.equal(drawn[0], drawn[1])


def test_noise_of_tokens_is_multinomials_whatever_is_known() -> None:
    """Upstream draws for every place: what is known must not move the noise of the rest."""
    logits = 3 * torch.randn(2, 30, 12, generator=tiny.generator(1))
    probabilities = logits.softmax(-1)
    unknown = torch.rand(2, 30, generator=tiny.generator(2)) < 0.4
    wanted = torch.multinomial(probabilities.view(-1, 12), 1, generator=tiny.generator(3)).view(2, 30)[unknown]
    assert torch.equal(_draw_tokens(probabilities[unknown], unknown, tiny.generator(3), "token"), wanted)
    rows = [
        torch.multinomial(p, 1, generator=tiny.generator(g))[:, 0] for p, g in zip(probabilities, (4, 5), strict=True)
    ]
    apart = _draw_tokens(probabilities[unknown], unknown, [tiny.generator(4), tiny.generator(5)], "token")
    assert torch.equal(apart, torch.stack(rows)[unknown])
    with pytest.raises(ValueError, match="'pixel'.*position, token"):
        decode(empty(), network, mask_id=MASK, steps=1, temperature=0, generator=tiny.generator(), noise="pixel")


# ---- guidance that is held, or that has an interval ----


def reference(
    network: MaskedTransformer, prompt: Condition, negative: Condition, adapter: AdapterFn | None, scales: Scales
) -> LogitsFn:
    """What ``guided`` says, each pass by itself, and what is held kept on the whole grid ``[B,H,W,K]``."""
    held: dict[str, Tensor] = {}
    guided_steps: list[float] = []

    def logits(ids: Tensor, masked: Tensor, progress: float) -> Tensor:
        whole_grid = torch.ones_like(masked)

        def on_grid(condition: Condition, adapter: AdapterFn | None = None) -> Tensor:
            return network(ids, condition, adapter, whole_grid).view(*ids.shape, -1)

        adapted = on_grid(prompt, adapter)
        within = scales.start <= progress <= scales.stop
        factor = (progress if scales.ramp else 1.0) if within else 0.0
        if not factor:
            return adapted[masked]
        if len(guided_steps) % scales.every == 0:
            base = on_grid(prompt)
            held.update(to_adapted=adapted - base, to_prompt=base - on_grid(negative))
        guided_steps.append(progress)
        made = adapted + factor * (scales.lambda_a * held["to_adapted"] + scales.lambda_b * held["to_prompt"])
        return plausibility_filter(made, (adapted, adapted - held["to_adapted"]), scales.plausible)[masked]

    return logits


def watched(of: LogitsFn, seen: list[Tensor]) -> LogitsFn:
    def logits(ids: Tensor, masked: Tensor, progress: float) -> Tensor:
        seen.append(of(ids, masked, progress))
        return seen[-1]

    return logits


def draw_tiny(logits: LogitsFn, ids: Tensor, steps: int = 7, first_seed: int = 8) -> Tensor:
    return decode(
        ids,
        logits,
        mask_id=tiny.TRANSFORMER.mask_id,
        steps=steps,
        temperature=4.5,
        generator=[tiny.generator(first_seed + row) for row in range(len(ids))],
    )


def alone(prompt: Condition, adapter: AdapterFn | None) -> list[Branch]:
    """One adapter, told what the base is; none without one."""
    return [Branch(prompt, adapter)] if adapter is not None else []


def all_masked(rows: int) -> Tensor:
    return torch.full((rows, 4, 4), tiny.TRANSFORMER.mask_id)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("with_adapter", [True, False])
@pytest.mark.parametrize(
    "scales",
    [
        Scales(2, 3, every=2),
        Scales(0, 3, ramp=True, every=2),
        Scales(2, 3, ramp=True, plausible=0.2, every=3),
        Scales(0, 1.5, ramp=True, plausible=0.03, every=3, start=0.3),
        Scales(1, 3, plausible=0.1, start=0.3, stop=0.7),
        Scales(1, 3, every=100),
    ],
)
@torch.no_grad()
def test_held_guidance_is_the_plain_reference(
    counting: Counting, scales: Scales, with_adapter: bool, known: bool
) -> None:
    """At every step of a decoding, with ids known at the start too."""
    prompt, negative = tiny.condition(counting, 2, 1), tiny.condition(counting, 2, 2)
    adapter = tiny.adapter() if with_adapter else None
    start = tiny.ids(tiny.TRANSFORMER, 2) if known else all_masked(2)
    scales = scales if with_adapter else replace(scales, lambda_a=0.0)
    made: list[Tensor] = []
    wanted: list[Tensor] = []
    drawn = draw_tiny(watched(guided(counting, prompt, negative, alone(prompt, adapter), scales), made), start)
    plain = draw_tiny(watched(reference(counting, prompt, negative, adapter, scales), wanted), start)
    assert torch.equal(drawn, plain)
    for one, other in zip(made, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    unknown = start == tiny.TRANSFORMER.mask_id
    assert torch.equal(drawn[~unknown], start[~unknown])
    assert (drawn < tiny.TRANSFORMER.mask_id).all()


@torch.no_grad()
def test_guidance_at_every_step_of_the_whole_way_is_plain_guidance(counting: Counting) -> None:
    """To the bit: a function for each step, which can remember nothing, says the same."""
    prompt, negative = tiny.condition(counting, 2, 1), tiny.condition(counting, 2, 2)
    adapter, scales = tiny.adapter(), Scales(1, 3, ramp=True, plausible=0.03)
    made: list[Tensor] = []
    wanted: list[Tensor] = []
    draw_tiny(
        watched(guided(counting, prompt, negative, alone(prompt, adapter), replace(scales, every=1, stop=1.0)), made),
        all_masked(2),
    )

    def forgetful(ids: Tensor, masked: Tensor, progress: float) -> Tensor:
        return guided(counting, prompt, negative, alone(prompt, adapter), scales)(ids, masked, progress)

    draw_tiny(watched(forgetful, wanted), all_masked(2))
    assert all(torch.equal(one, other) for one, other in zip(made, wanted, strict=True))


@pytest.mark.parametrize(
    ("scales", "with_adapter", "branches"),
    [
        (Scales(1, 3), True, [3, 3, 3, 3, 3, 3, 3]),
        (Scales(1, 3, every=2), True, [3, 1, 3, 1, 3, 1, 3]),
        (Scales(1, 3, every=2), False, [2, 1, 2, 1, 2, 1, 2]),
        (Scales(1, 0, every=2), True, [2, 1, 2, 1, 2, 1, 2]),
        (Scales(1, 0, every=2), False, [1, 1, 1, 1, 1, 1, 1]),
        (Scales(0, 0, every=2), True, [1, 1, 1, 1, 1, 1, 1]),
        (Scales(1, 3, ramp=True, every=2), True, [1, 3, 1, 3, 1, 3, 1]),
        (Scales(1, 3, ramp=True, every=3), True, [1, 3, 1, 1, 3, 1, 1]),
        (Scales(1, 3, start=0.3), True, [1, 1, 3, 3, 3, 3, 3]),
        (Scales(1, 3, stop=0.5), True, [3, 3, 3, 3, 1, 1, 1]),
        (Scales(1, 3, every=2, start=0.3, stop=0.9), True, [1, 1, 3, 1, 3, 1, 1]),
        (Scales(1, 3, every=9), True, [3, 1, 1, 1, 1, 1, 1]),
    ],
)
@torch.no_grad()
def test_passes_of_each_step(counting: Counting, scales: Scales, with_adapter: bool, branches: list[int]) -> None:
    prompt, negative = tiny.condition(counting, 2, 1), tiny.condition(counting, 2, 2)
    draw_tiny(
        guided(counting, prompt, negative, alone(prompt, tiny.adapter() if with_adapter else None), scales),
        all_masked(2),
    )
    assert counting.rows == [2 * n for n in branches]


@pytest.mark.parametrize(("scales", "rows"), [(Scales(1, 3, every=2), 6), (Scales(1, 3, ramp=True, every=2), 2)])
@torch.no_grad()
def test_held_guidance_in_a_single_step(counting: Counting, scales: Scales, rows: int) -> None:
    prompt, negative = tiny.condition(counting, 2, 1), tiny.condition(counting, 2, 2)
    done = draw_tiny(guided(counting, prompt, negative, alone(prompt, tiny.adapter()), scales), all_masked(2), steps=1)
    assert (done < tiny.TRANSFORMER.mask_id).all()
    assert counting.rows == [rows]


@pytest.mark.parametrize("kind", ["bottleneck", "lora", "prompt"])
def test_held_guidance_alone_as_in_a_batch(kind: str) -> None:
    """Held rows stay with their picture, whose neighbours have other places left."""
    network, adapter = tiny.transformer(), tiny.adapter(kind)
    prompt, negative = tiny.condition(network, 3, 1), tiny.condition(network, 3, 2)
    scales = Scales(1, 3, ramp=True, plausible=0.03, every=2)
    start = all_masked(3)
    start[1, :2] = 1  # one knows half of it
    with torch.no_grad():
        together = draw_tiny(guided(network, prompt, negative, alone(prompt, adapter), scales), start)
        for row in range(3):
            only = torch.tensor([row])
            logits = guided(
                network, prompt.select(only), negative.select(only), alone(prompt.select(only), adapter), scales
            )
            assert torch.equal(draw_tiny(logits, start[row : row + 1], first_seed=8 + row)[0], together[row])


def test_scales_outside_their_interval_are_zero() -> None:
    scales = Scales(2, 4, ramp=True, start=0.25, stop=0.75, guard=1)
    assert [scales.at(p) for p in (0.2, 0.25, 0.5, 0.75, 0.8)] == [
        (0, 0, 0),
        (0.5, 1, 0.25),
        (1, 2, 0.5),
        (1.5, 3, 0.75),
        (0, 0, 0),
    ]


# ---- the guard: what the reference shows is kept out ----------------------------------------------


def guarding(prompt: Condition, content: Condition, rows: Sequence[bool] = (True, True)) -> list[Branch]:
    """One adapter whose reference shows something, which some of the pictures keep out."""
    return [Branch(prompt, tiny.adapter(), 1.0, [Guarded(content, torch.tensor(rows))])]


@pytest.mark.parametrize("in_turn", [False, True])
@pytest.mark.parametrize("scales", [Scales(0, 0, guard=0.7), Scales(2, 3, guard=0.7), Scales(2, 0, guard=0.7)])
@torch.no_grad()
def test_the_guard_pushes_away_from_the_reference_s_content_in_its_style(
    counting: Counting, scales: Scales, in_turn: bool
) -> None:
    """One pass more, in which the adapted network is asked for the content."""
    prompt, negative, content = (tiny.condition(counting, 2, seed) for seed in (1, 2, 3))
    ids, adapter = tiny.ids(tiny.TRANSFORMER, 2), tiny.adapter()
    masked = ids == tiny.TRANSFORMER.mask_id

    def made(scales: Scales) -> Tensor:
        counting.rows = []
        return guided(counting, prompt, negative, guarding(prompt, content), scales, in_turn=in_turn)(ids, masked, 0.3)

    plain = made(replace(scales, guard=0.0))
    before = sum(counting.rows)
    guarded_logits = made(scales)
    assert sum(counting.rows) == before + 2
    asked, shown = (counting(ids, one, adapter, masked) for one in (prompt, content))
    torch.testing.assert_close(guarded_logits, plain + 0.7 * (asked - shown), atol=5e-5, rtol=1e-4)
    assert (guarded_logits - plain).abs().max() > 0.1


@torch.no_grad()
def test_without_the_guard_it_is_to_the_bit_as_it_was(counting: Counting) -> None:
    """Whatever the branches say that they show, and at the first step of a ramp, and outside of the interval."""
    prompt, negative, content = (tiny.condition(counting, 2, seed) for seed in (1, 2, 3))
    scales, start = Scales(1, 3, ramp=True, plausible=0.03, every=2), all_masked(2)
    made: list[Tensor] = []
    wanted: list[Tensor] = []
    draw_tiny(watched(guided(counting, prompt, negative, guarding(prompt, content), scales), made), start)
    passes = counting.rows
    counting.rows = []
    draw_tiny(watched(guided(counting, prompt, negative, alone(prompt, tiny.adapter()), scales), wanted), start)
    assert counting.rows == passes
    assert all(torch.equal(one, other) for one, other in zip(made, wanted, strict=True))
    late = replace(scales, guard=2.0, start=0.5)
    guarded_late = guided(counting, prompt, negative, guarding(prompt, content), late)
    assert torch.equal(guarded_late(start, start > 0, 0.2), counting(start, prompt, tiny.adapter(), start > 0))


@pytest.mark.parametrize("every", [1, 2])
@torch.no_grad()
def test_a_picture_of_the_content_itself_is_not_pushed_away_from_it(counting: Counting, every: int) -> None:
    prompt, negative, content = (tiny.condition(counting, 2, seed) for seed in (1, 2, 3))
    scales = Scales(1, 3, plausible=0.03, every=every, guard=1.5)
    ids = tiny.ids(tiny.TRANSFORMER, 2)
    masked = ids == tiny.TRANSFORMER.mask_id
    branches = guarding(prompt, content, [True, False])
    logits = guided(counting, prompt, negative, branches, scales)
    plain = guided(counting, prompt, negative, alone(prompt, tiny.adapter()), replace(scales, guard=0.0))
    for progress in (0.3, 0.4):  # the second is held
        own = masked.nonzero()[:, 0] == 1
        made, wanted = logits(ids, masked, progress), plain(ids, masked, progress)
        torch.testing.assert_close(made[own], wanted[own], atol=2e-5, rtol=1e-5)
        assert not torch.allclose(made[~own], wanted[~own], atol=1e-2)


@torch.no_grad()
def test_a_mixture_guards_each_style_by_its_share(counting: Counting) -> None:
    """And several things that one reference, or several, show count alike."""
    prompt, negative, *others = (tiny.condition(counting, 2, seed) for seed in range(1, 6))
    ids, every = tiny.ids(tiny.TRANSFORMER, 2), torch.tensor([True, True])
    masked = ids == tiny.TRANSFORMER.mask_id
    one, two = tiny.adapter(), tiny.adapter("lora")
    branches = [
        Branch(prompt, one, 0.3, [Guarded(others[0], every), Guarded(others[1], every)]),
        Branch(prompt, two, 0.7, [Guarded(others[2], every)]),
    ]
    made = guided(counting, prompt, negative, branches, Scales(0, 3, guard=2.0))(ids, masked, 0.5)
    plain = guided(counting, prompt, negative, branches, Scales(0, 3))(ids, masked, 0.5)
    asked = [counting(ids, prompt, adapter, masked) for adapter in (one, two)]
    shown = [counting(ids, c, a, masked) for c, a in zip(others, (one, one, two), strict=True)]
    pushed = 0.3 * (asked[0] - 0.5 * (shown[0] + shown[1])) + 0.7 * (asked[1] - shown[2])
    torch.testing.assert_close(made, plain + 2.0 * pushed, atol=2e-4, rtol=1e-4)


@torch.no_grad()
def test_what_the_guard_adds_is_held_between_its_passes(counting: Counting) -> None:
    prompt, negative, content = (tiny.condition(counting, 2, seed) for seed in (1, 2, 3))
    ids = tiny.ids(tiny.TRANSFORMER, 2)
    masked = ids == tiny.TRANSFORMER.mask_id
    logits = guided(counting, prompt, negative, guarding(prompt, content), Scales(1, 3, every=2, guard=1))
    first = logits(ids, masked, 0.2)
    later = masked & (torch.arange(masked.numel()).view(masked.shape) % 2 == 0)
    counting.rows = []
    held = logits(ids, later, 0.3)
    assert counting.rows == [2]
    torch.testing.assert_close(held, first[later[masked]], atol=5e-5, rtol=1e-4)


# ---- several branches ------------------------------------------------------------------------------


@pytest.mark.parametrize("scales", [Scales(0, 0), Scales(2, 0), Scales(2, 3), Scales(2, 3, every=2)])
@torch.no_grad()
def test_several_adapters_are_mixed_at_the_logits(counting: Counting, scales: Scales) -> None:
    """StyleDrop 3.4, all passes of a step in one batch; each adapter reads its own prompt."""
    prompt, negative, other = (tiny.condition(counting, 2, seed) for seed in (1, 2, 3))
    ids = tiny.ids(tiny.TRANSFORMER, 2)
    masked = ids == tiny.TRANSFORMER.mask_id
    style, thing = tiny.adapter(), tiny.adapter("lora")
    branches = [Branch(prompt, style, 0.4), Branch(other, thing, 0.6)]
    made = guided(counting, prompt, negative, branches, scales)(ids, masked, 0.5)
    assert len(counting.rows) == 1
    ghat = 0.4 * counting(ids, prompt, style, masked) + 0.6 * counting(ids, other, thing, masked)
    base, away = (counting(ids, c, None, masked) for c in (prompt, negative))
    wanted = combine(ghat, base, away, scales.lambda_a, scales.lambda_b)
    torch.testing.assert_close(made, wanted, atol=3e-5, rtol=1e-4)


@torch.no_grad()
def test_one_voice_in_two_halves_is_one_voice(counting: Counting) -> None:
    prompt, negative = tiny.condition(counting, 2, 1), tiny.condition(counting, 2, 2)
    adapter, scales = tiny.adapter(), Scales(1, 3, ramp=True, every=2)
    halves = [Branch(prompt, adapter, 0.5), Branch(prompt, adapter, 0.5)]
    made: list[Tensor] = []
    wanted: list[Tensor] = []
    draw_tiny(watched(guided(counting, prompt, negative, halves, scales), made), all_masked(2))
    draw_tiny(watched(guided(counting, prompt, negative, alone(prompt, adapter), scales), wanted), all_masked(2))
    for one, other in zip(made, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=3e-5, rtol=1e-4)


# ---- which tokens, and which places --------------------------------------------------------------


def test_only_the_likeliest_tokens_are_left() -> None:
    logits = torch.tensor([[0.5, 0.1, 0.3, 0.1], [0.02, 0.9, 0.04, 0.04]]).log()
    assert torch.equal(top_k_top_p(logits), logits)
    left = top_k_top_p(logits, top_k=2) > -torch.inf
    assert left[0].tolist() == [True, False, True, False]
    assert left[1, 1] and left[1].sum() >= 2
    assert (top_k_top_p(logits, top_p=0.7) > -torch.inf).tolist() == [
        [True, False, True, False],
        [False, True, False, False],
    ]
    assert (top_k_top_p(logits, top_p=0.0) > -torch.inf).sum(-1).tolist() == [1, 1]
    assert torch.equal(top_k_top_p(logits, top_k=9), logits)
    both = top_k_top_p(logits, top_k=2, top_p=0.6)
    assert (both[0] > -torch.inf).tolist() == [True, False, False, False]  # 0.625 of what top-k left is enough


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 4), (16, 16), (5, 7), (32, 32)])
def test_halton_order_visits_every_place_once_and_spreads(height: int, width: int) -> None:
    ranks = halton_ranks(height, width)
    assert sorted(ranks.flatten().tolist()) == list(range(height * width))
    if height == width == 16:  # of the first 16, four in each quarter, or nearly
        early = ranks < 16
        quarters = [early[r : r + 8, c : c + 8].sum().item() for r in (0, 8) for c in (0, 8)]
        assert min(quarters) >= 3 and max(quarters) <= 5


def test_halton_order_keeps_the_schedule_and_what_is_known() -> None:
    """As many are kept at each step as by confidence; each picture depends on its own generator alone."""
    mask, start = tiny.TRANSFORMER.mask_id, all_masked(3)
    start[1, :2] = 1
    kept: dict[str, list[list[int]]] = {"halton": [], "confidence": []}
    for order, counts in kept.items():

        def count(step: int, ids: Tensor, counts: list[list[int]] = counts) -> None:
            counts.append((ids == mask).flatten(1).sum(-1).tolist())

        def drawn(rows: list[int], order: str = order, on_step: Any = None) -> Tensor:
            def uniform(ids: Tensor, masked: Tensor, progress: float) -> Tensor:
                return torch.zeros(int(masked.sum()), mask)

            return decode(
                start[rows],
                uniform,
                mask_id=mask,
                steps=5,
                temperature=2.0,
                generator=[generator(seed) for seed in rows],
                order=order,
                on_step=on_step,
            )

        together = drawn([0, 1, 2], on_step=count)
        assert (together < mask).all()
        assert (together[1, :2] == 1).all()
        assert all(torch.equal(drawn([row])[0], together[row]) for row in range(3))
    assert kept["halton"] == kept["confidence"]


# ---- the second look ----


def test_unlikely_ids_are_replaced_by_the_likeliest_and_no_others() -> None:
    likely = torch.full((4, 6, K), -20.0)
    likely[..., 3] = 0.0  # everywhere
    likely[1, 2, 5] = -1.0  # 0.37 times as likely
    likely[3, 0, 5] = -3.0  # 0.05 times
    ids = torch.full((2, 4, 6), 3)
    ids[0, 0, 0] = ids[0, 1, 2] = ids[0, 3, 0] = ids[1, 2, 2] = 5
    drawn = torch.ones(2, 4, 6, dtype=torch.bool)
    drawn[1, 2, 2] = False  # it was known
    asked: list[Tensor] = []

    def look(ids: Tensor, masked: Tensor, progress: float) -> Tensor:
        assert progress == 1.0 and torch.equal(ids == MASK, masked)
        asked.append(masked)
        return fixed(likely)(ids, masked, progress)

    made = correct(ids, drawn, look, mask_id=MASK, below=0.1)
    changed = (made != ids).nonzero().tolist()
    assert changed == [[0, 0, 0], [0, 3, 0]] and made[0, 0, 0] == made[0, 3, 0] == 3
    assert torch.equal(asked[0] | asked[1], drawn) and not (asked[0] & asked[1]).any()
    for masked in asked:  # all that touches one that is asked for is in sight
        assert not (masked[:, 1:] & masked[:, :-1]).any() and not (masked[:, :, 1:] & masked[:, :, :-1]).any()


def test_the_second_half_sees_what_became_of_the_first() -> None:
    ids = fill(torch.full((2, 4, 4), MASK))
    seen: list[Tensor] = []

    def look(ids: Tensor, masked: Tensor, progress: float) -> Tensor:
        seen.append(ids)
        return network(ids, masked, progress)

    made = correct(ids, torch.ones_like(ids, dtype=torch.bool), look, mask_id=MASK, below=1.0)
    board = (torch.arange(4)[:, None] + torch.arange(4)) % 2 == 0
    assert torch.equal(seen[1][:, board], made[:, board])
    logits = network(seen[1], (~board).expand(2, 4, 4), 1.0)
    assert torch.equal(made[:, ~board].flatten(), logits.argmax(-1))
    assert torch.equal(correct(ids, torch.zeros_like(ids, dtype=torch.bool), look, mask_id=MASK, below=1.0), ids)
