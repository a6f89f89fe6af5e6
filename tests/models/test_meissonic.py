"""Meissonic's network: what holds by itself, and number for number beside diffusers' parts where it is installed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import tiny
from conftest import draw
from styledrop_cli.adapters.file import examples_of, new_adapter, open_adapter, share
from styledrop_cli.adapters.header import AdapterFile, load_adapter, save_adapter
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.base.registry import MEISSONIC
from styledrop_cli.errors import ModelError
from styledrop_cli.models.adapter import KINDS, Adapter
from styledrop_cli.models.meissonic import MeissonicCondition, MeissonicConfig, MeissonicTransformer
from styledrop_cli.sampling.guidance import Branch, Guarded, Scales, guided
from styledrop_cli.sampling.masking import random_mask, steps_left
from styledrop_cli.settings import PRESETS, TrainSettings
from styledrop_cli.training.adapter import train_adapter
from styledrop_cli.training.loop import masked_cross_entropy

SMALL = tiny.MEISSONIC
WHOLE = MeissonicConfig(**{**vars(SMALL), "downsample": False, "upsample": False})
OUTPUT = Path("adapter.safetensors")
MONETICO = MeissonicConfig(sample_size=32, downsample=False, upsample=False)


def network(config: MeissonicConfig = SMALL) -> MeissonicTransformer:
    made = MeissonicTransformer(config)
    tiny.randomise(made)
    return made.requires_grad_(False).eval()


def prompt(net: MeissonicTransformer, rows: int = 2, seed: int = 1) -> MeissonicCondition:
    return net.condition(*told(net.config, rows, seed))


def told(config: MeissonicConfig, rows: int = 2, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Words, summaries and micro-conditions of so many prompts."""
    draws = tiny.generator(seed)
    words = torch.randn(rows, 7, config.joint_attention_dim, generator=draws)
    summary = torch.randn(rows, config.pooled_projection_dim, generator=draws)
    return words, summary, torch.tensor([[128.0, 128, 0, 0, 6], [300, 200, 5, 9, 6]])[:rows]


def grid(config: MeissonicConfig = SMALL, rows: int = 2, side: int = 8) -> Tensor:
    return torch.randint(config.vocab_size, (rows, side, side), generator=tiny.generator(2))


@pytest.mark.parametrize(("config", "weights"), [(MeissonicConfig(), 1_006_946_304), (MONETICO, 998_555_648)])
def test_the_published_sizes(config: MeissonicConfig, weights: int) -> None:
    """Meissonic's files hold 4.028 GB in fp32, Monetico's 3.994 GB."""
    with torch.device("meta"):
        made = MeissonicTransformer(config)
    assert sum(parameter.numel() for parameter in made.parameters()) == weights
    names = set(made.state_dict())
    assert len(names) == 867 - (0 if config.downsample else 4)
    assert {"transformer_blocks.13.attn.add_k_proj.bias", "single_transformer_blocks.27.proj_out.weight"} <= names


@pytest.mark.parametrize("config", [SMALL, WHOLE], ids=["compressing", "not compressing"])
def test_rows_do_not_hear_of_each_other(config: MeissonicConfig) -> None:
    net, ids = network(config), grid(config)
    condition = prompt(net).at(torch.tensor([3.0, 11.0]))
    both = net(ids, condition)
    assert both.shape == (2, 8, 8, config.codebook_size)
    for row in range(2):
        alone = net(ids[row : row + 1], condition.select(torch.tensor([row])))
        torch.testing.assert_close(alone[0], both[row], atol=1e-5, rtol=1e-4)


def test_only_some_places_are_asked_for() -> None:
    net, ids = network(), grid()
    where = torch.rand(ids.shape, generator=tiny.generator(3)) < 0.3
    condition = prompt(net)
    torch.testing.assert_close(net(ids, condition, None, where), net(ids, condition)[where])


def test_step_prompt_and_place_have_a_say() -> None:
    net, ids = network(), grid()
    plain = net(ids, prompt(net))
    for other in (prompt(net).at(1), prompt(net, seed=5)):
        assert (net(ids, other) - plain).abs().max() > 1e-3
    alike = torch.full_like(ids, SMALL.mask_id)
    assert net(alike, prompt(net)).flatten(1, 2).std(1).max() > 1e-4  # places differ by their rotary angles alone


def test_conditions_join_and_part() -> None:
    net = network()
    first, second = prompt(net), prompt(net, seed=4).at(7)
    joined = MeissonicCondition.cat([first, second])
    assert len(joined) == 4
    again = joined.select(torch.tensor([2, 3]))
    assert all(torch.equal(getattr(again, name), getattr(second, name)) for name in ("text", "summary", "left"))


@pytest.mark.parametrize("kind", ["bottleneck", "lora", "prompt"])
def test_adapters_begin_as_nothing_and_reach_every_block(kind: str) -> None:
    net, ids = network(), grid()
    make, sizes = KINDS[kind]
    adapter = make(sizes(), cast(Any, net))
    adapter.initialise(tiny.generator(1))
    plain = net(ids, prompt(net))
    assert torch.equal(net(ids, prompt(net), adapter), plain)
    blocks = {site.name.rpartition(".attn")[0] or site.name.rpartition(".")[0] for site in net.sites}
    assert len(blocks) == SMALL.num_layers + SMALL.num_single_layers
    tiny.randomise(adapter)
    adapter.requires_grad_(False)
    heard: set[str] = set()

    def listening(site: str, module: nn.Module, source: Tensor, value: Tensor) -> Tensor:
        after: Tensor = adapter(site, module, source, value)
        heard.update([site] if after is not value else [])
        return after

    assert (net(ids, prompt(net), listening) - plain).abs().max() > 1e-3
    assert len({name.split(".attn")[0].removesuffix(".mlp").removesuffix(".attention") for name in heard}) == len(
        blocks
    )
    assert heard <= {site.name for site in net.sites}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vocab_size": 64}, "no mask token"),
        ({"pooled_projection_dim": 32}, "not the width 64"),
        ({"axes_dims_rope": (4, 6, 4)}, "do not fill a head of 16"),
        ({"axes_dims_rope": (4, 5, 7)}, "must be even"),
        ({"upsample": False}, "on or off together"),
        ({"num_single_layers": 3}, "num_single_layers 3 is odd"),
        ({"sample_size": 7}, "sample_size 7"),
        ({"sample_size": 1000}, "sample_size 1000"),
    ],
)
def test_impossible_sizes(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MeissonicConfig(**{**vars(SMALL), **change})


def test_text_of_another_encoder() -> None:
    net = network()
    with pytest.raises(ValueError, match=r"expected \[B,T,24\]"):
        net.condition(torch.zeros(1, 7, 25), torch.zeros(1, 64), torch.zeros(1, 5))


# ---- a published folder ----


PUBLISHED = tiny.PUBLISHED_MEISSONIC


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_meissonic(tmp_path_factory.mktemp("meissonic") / "small")


def test_a_folder_is_of_its_family(folder: Path, tmp_path: Path) -> None:
    base = load_base(str(folder), tiny.CPU)
    assert base.spec.sampling["steps"] == 48 and base.sampling().lambda_b == 8
    assert base.parts.config("transformer") == PUBLISHED
    assert load_base(str(tiny.write_meissonic(tmp_path / "src", "src.transformer")), tiny.CPU).spec == base.spec


def test_it_draws_the_same_whatever_is_drawn_beside(folder: Path) -> None:
    base = load_base(str(folder), tiny.CPU)
    settings = base.sampling(steps=3)
    both = base.sample(["a cat", "a dog"], [1, 2], settings)
    assert torch.equal(base.sample(["a dog"], [2], settings)[0], both[1])
    assert int(both.max()) < PUBLISHED.codebook_size


@pytest.mark.parametrize(
    ("told", "wanted"),
    [("left", [3, 2, 1, 0]), ("share", [0.75, 0.5, 0.25, 0]), ("masked", [1000, 923.88, 707.107, 382.683])],
)
def test_drawing_and_training_tell_the_same_steps(
    folder: Path, told: str, wanted: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, heard = load_base(str(folder), tiny.CPU), []
    base.spec = replace(base.spec, told=told, sampling=base.spec.sampling | {"steps": 4})
    at = MeissonicCondition.at

    def noted(self: MeissonicCondition, left: Any) -> MeissonicCondition:
        heard.extend(torch.as_tensor(left).reshape(-1).tolist())
        return at(self, left)

    monkeypatch.setattr(MeissonicCondition, "at", noted)
    base.sample(["a cat"], [1], base.sampling())
    assert heard[::2] == heard[1::2] == pytest.approx(wanted, abs=1e-3)  # the prompt, and what to keep away from
    heard.clear()
    draw().save("ref.png")
    given: dict[str, Any] = {"pictures": [Path("ref.png")], "style": "ink", "contents": ["a cat"], "output": OUTPUT}
    train_adapter(base, settings=base.training(steps=8, views=2, width=1, batch_size=4), **given)
    drawn = {round(one, 3) for one in wanted}
    assert len(heard) == 32 and {round(one, 3) for one in heard} == drawn


def test_the_fast_preset_asks_for_half_as_much_at_each_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, passes = load_base(str(folder), tiny.CPU), []
    adapter = KINDS["bottleneck"][0](KINDS["bottleneck"][1](), base.transformer).requires_grad_(False)
    tiny.randomise(adapter)
    forward = MeissonicTransformer.forward

    def counted(self: MeissonicTransformer, ids: Tensor, *given: Any) -> Tensor:
        passes.append(len(ids))
        return forward(self, ids, *given)

    monkeypatch.setattr(MeissonicTransformer, "forward", counted)
    for preset in ({}, PRESETS["fast"] | {"precision": "fp32"}):
        base.sample(["a cat"], [1], base.sampling(**({"steps": 8, "lambda_a": 2.0} | preset)), adapter)
    assert len(passes) == 8 * 3 + 2 * 3 + 6  # adapter, base and negative text; then all three at every fourth step


def hidden_loss(base: Base, file: AdapterFile, adapter: Adapter | None) -> float:
    """The loss of what the adapter learnt from, of parts that it was not trained with."""
    draws, examples = tiny.generator(9), examples_of(file)
    ids = examples.views["views.ids"].long().repeat(8, 1, 1)
    masked = random_mask(len(ids), ids[0].numel(), draws).view(ids.shape)
    condition = base.condition(["a cat in ink style"] * len(ids))
    condition = condition.at(steps_left(masked.float().mean((1, 2)), base.sampling().steps))
    with torch.no_grad():
        return float(masked_cross_entropy(base.transformer, ids, masked, condition, adapter))


@pytest.mark.parametrize("kind", KINDS)
def test_a_style_is_learnt_and_drawn_with(folder: Path, kind: str) -> None:
    draw().save("ref.png")
    base, kept = load_base(str(folder), tiny.CPU), {}

    def keep(step: int, total: int, loss: float) -> None:
        kept[step] = loss

    settings = base.training(kind, steps=30, views=2, width=1, lr=0.05, batch_size=4)
    given: dict[str, Any] = {"pictures": [Path("ref.png")], "style": "ink", "contents": ["a cat"]}
    train_adapter(base, settings=settings, output=OUTPUT, on_step=keep, **given)
    assert len(kept) == 30
    file, again = load_adapter(OUTPUT), load_base(str(folder), tiny.CPU)
    assert file.header.recommended["lambda_b"] == 8.0
    adapter = open_adapter(again, file).base
    assert adapter.kind == kind
    assert hidden_loss(again, file, adapter) < hidden_loss(again, file, None) - 0.01
    save_adapter(Path("again.safetensors"), file.tensors, file.header, {})
    twin = open_adapter(again, load_adapter(Path("again.safetensors"))).base
    sampling = again.sampling(steps=3, lambda_a=2.0)
    drawn = [again.sample(["a cat"], [1], sampling, one) for one in (adapter, twin, None)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    none = again.sample(["a cat"], [1], again.sampling(steps=3, lambda_a=2.0, strength=0.0), adapter)
    assert torch.equal(none, drawn[2])


@pytest.mark.parametrize("config", [SMALL, WHOLE], ids=["compressing", "not compressing"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_of_an_adapter_learns(config: MeissonicConfig, kind: str) -> None:
    """At each site by itself: a gradient that is zero there would be a site that the network never asks."""
    net, ids = network(config), grid(config).clamp(max=config.codebook_size - 1)
    make, sizes = KINDS[kind]
    adapter = make(sizes(**({"shared": False} if kind == "bottleneck" else {})), cast(Any, net))
    tiny.randomise(adapter)
    masked = torch.rand(ids.shape, generator=tiny.generator(4)) < 0.5
    masked_cross_entropy(net, ids, masked, prompt(net), adapter).backward()
    for name, one in adapter.named_parameters():
        assert one.grad is not None, name
        # Stacked by place and layer, or by layer.
        parts = one.grad if kind == "lora" else one.grad.flatten(0, 1) if kind == "bottleneck" else one.grad
        sites = parts[None] if kind == "lora" else parts
        assert all(site.abs().max() > 0 for site in sites), name


@pytest.mark.parametrize(
    ("kind", "sites", "weights"),
    [
        ("bottleneck", 56, 3_670_016),  # 2 x 1024 x 32 behind each half of 14 blocks, and behind each of 28
        ("lora", 126, 4_128_768),  # 2 x 1024 x 16 on three projections of 42 blocks
        ("prompt", 42, 42 * (16 * 1024 + 8)),
    ],
)
def test_adapters_of_the_published_size(kind: str, sites: int, weights: int) -> None:
    with torch.device("meta"):
        net = MeissonicTransformer(MeissonicConfig())
    settings = TrainSettings.of(kind, **{**MEISSONIC.training, **MEISSONIC.kinds[kind]})
    adapter = new_adapter(cast(Any, net), settings)
    assert sum(one.numel() for one in adapter.parameters()) == weights
    assert share(adapter, cast(Any, net)) < 0.0042
    asked = {"bottleneck": ("attention", "mlp"), "lora": ("to_q", "to_k", "to_v"), "prompt": ("mix",)}[kind]
    assert sum(site.kind in asked for site in net.sites) == sites


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"guidance_embeds": True}, "guidance_embeds is True, and only False can be run here"),
        ({"t5_dim": 4096}, "t5_dim"),
        ({"num_layers": 3}, "transformer_blocks.2"),
    ],
)
def test_a_relative_that_it_is_not(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        load_base(str(tiny.write_meissonic(tmp_path / "other", **changed)), tiny.CPU).transformer  # noqa: B018


@pytest.mark.parametrize(("share", "left"), [(1.0, 47), (0.0, 0), (0.7071, 23)])
def test_a_share_that_is_masked_tells_the_step(share: float, left: int) -> None:
    assert int(steps_left(torch.tensor(share), 48)) == left


def test_what_is_computed_ahead_is_the_same() -> None:
    net, ids = network(), grid()
    plain = prompt(net)
    ready = net.ahead(plain, range(6))
    assert ready.ahead is not None and ready.select(torch.tensor([1])).modulations() is not None
    for left in (5, torch.tensor([0.0, 3.0])):
        torch.testing.assert_close(net(ids, ready.at(left)), net(ids, plain.at(left)), atol=1e-5, rtol=1e-4)
    assert ready.at(7).modulations() is None and MeissonicCondition.cat([ready, plain]).ahead is None
    torch.testing.assert_close(net(ids, ready.at(7)), net(ids, plain.at(7)))
    assert net.ahead(plain, range(1000)) is plain  # too many to keep


def test_branches_in_turn_are_those_of_a_batch() -> None:
    net, ids = network(), grid(rows=1)
    first, second, negative = (prompt(net, 1, seed) for seed in (1, 2, 3))
    adapter = KINDS["bottleneck"][0](KINDS["bottleneck"][1](), cast(Any, net)).requires_grad_(False)
    tiny.randomise(adapter)
    kept_out = [Guarded(second, torch.tensor([True]))]
    for branches in (
        [],
        [Branch(first, adapter)],
        [Branch(first, adapter, 0.5), Branch(second, None, 0.5)],
        [Branch(first, adapter, 0.5, kept_out), Branch(second, None, 0.5)],
    ):
        scales = Scales(2.0, 3.0, guard=1.0)
        made = [
            guided(cast(Any, net), first, negative, branches, scales, 12, in_turn=in_turn)(ids, ids < 40, 0.5)
            for in_turn in (False, True)
        ]
        torch.testing.assert_close(*made, atol=1e-4, rtol=1e-4)
