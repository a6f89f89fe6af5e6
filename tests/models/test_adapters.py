"""The kinds of adapter: the laws that all keep, then what each one is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tiny
from styledrop_cli import settings
from styledrop_cli.io.tensors import read_tensors, save_tensors
from styledrop_cli.models.adapter import (
    KINDS,
    BottleneckAdapter,
    BottleneckConfig,
    LoraAdapter,
    LoraConfig,
    PromptConfig,
    at_strength,
    on_rows,
)
from styledrop_cli.models.layers import AdapterFn, Attention
from styledrop_cli.models.meissonic import MeissonicTransformer
from styledrop_cli.models.transformer import MaskedTransformer
from styledrop_cli.settings import TrainSettings
from styledrop_cli.training.loop import masked_cross_entropy
from styledrop_cli.training.pretrain.transformers import BASE

EVERY: list[tuple[str, dict[str, Any]]] = [
    ("bottleneck", {"shared": False}),
    ("bottleneck", {"shared": True}),
    ("lora", {}),
    ("lora", {"targets": ("to_out",)}),
    ("lora", {"targets": ("to_k", "to_out"), "rank": 2, "alpha": 6.0}),
    ("prompt", {"vectors": 3}),
    ("bottleneck", {"shared": False, "layers": (2,)}),
    ("bottleneck", {"shared": True, "layers": (1, 3)}),
    ("lora", {"layers": (1, 3)}),
    ("prompt", {"vectors": 3, "layers": (3,)}),
]
every = pytest.mark.parametrize(("kind", "config"), EVERY, ids=[f"{k}-{i}" for i, (k, _) in enumerate(EVERY)])


def logits(network: MaskedTransformer, adapter: AdapterFn | None, rows: int = 2) -> Tensor:
    """Of made-up ids and prompts, read and worked on with the adapter."""
    draws = tiny.generator()
    text = torch.randn(rows, 7, 16, generator=draws)
    pooled = torch.randn(rows, 16, generator=draws)
    micro = torch.tensor([[256.0, 256, 0, 0, 6]]).expand(rows, 5)
    made: Tensor = network(tiny.ids(tiny.TRANSFORMER, rows), network.condition(text, pooled, micro, adapter), adapter)
    return made


def test_the_settings_name_every_kind() -> None:
    assert list(settings.KINDS) == list(KINDS)
    assert all(make.kind == kind for kind, (make, _) in KINDS.items())


# ---- laws ----


@every
def test_a_fresh_one_changes_no_logit(kind: str, config: dict[str, Any]) -> None:
    network = tiny.transformer()
    plain = logits(network, None)
    assert torch.equal(logits(network, tiny.fresh_adapter(kind, **config)), plain)
    assert not torch.allclose(logits(network, tiny.adapter(kind, **config)), plain)


@every
def test_it_is_no_part_of_the_transformer(kind: str, config: dict[str, Any]) -> None:
    network, adapter = tiny.transformer(), tiny.adapter(kind, **config)
    before = {name: t.clone() for name, t in network.state_dict().items()}
    logits(network, adapter)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(p is q for p in adapter.parameters() for q in network.parameters())
    assert not any(isinstance(m, MaskedTransformer) for m in adapter.modules())


@every
def test_every_weight_has_a_say(kind: str, config: dict[str, Any]) -> None:
    network, adapter = tiny.transformer(), tiny.adapter(kind, **config)
    plain = logits(network, adapter)
    for name, parameter in adapter.named_parameters():
        kept = parameter.clone()
        for index in range(len(parameter)):
            parameter[index] += 0.3
            assert not torch.equal(logits(network, adapter), plain), f"{name}[{index}]"
            parameter.copy_(kept)


@every
def test_gradients_reach_the_adapter_and_nothing_else(kind: str, config: dict[str, Any]) -> None:
    network = tiny.transformer()
    adapter = tiny.adapter(kind, **config).requires_grad_(True)
    text = torch.randn(2, 7, 16, generator=tiny.generator())
    micro = torch.tensor([[256.0, 256, 0, 0, 6]]).expand(2, 5)
    condition = network.condition(text, text[:, 0], micro, adapter)
    ids = tiny.ids(tiny.TRANSFORMER, 2, share=0.0)
    masked_cross_entropy(network, ids, ids > 10, condition, adapter).backward()
    assert all(p.grad is not None and p.grad.any() for p in adapter.parameters())
    assert all(p.grad is None for p in network.parameters())


@every
def test_it_reads_the_text_only_where_it_says_so(kind: str, config: dict[str, Any]) -> None:
    """What a prompt contributes is computed once for adapters that leave it alone."""
    network, adapter = tiny.transformer(), tiny.adapter(kind, **config)
    text = torch.randn(2, 7, 16, generator=tiny.generator())
    micro = torch.tensor([[256.0, 256, 0, 0, 6]]).expand(2, 5)
    plain, read = (network.condition(text, text[:, 0], micro, a) for a in (None, adapter))
    same = all(
        torch.equal(a, b)
        for one, other in zip(plain.keys_values, read.keys_values, strict=True)
        for a, b in zip(one, other, strict=True)
    )
    assert same != adapter.reads_text
    assert adapter.reads_text == (kind == "lora" and "to_k" in adapter.config.targets)


@every
def test_on_rows_leaves_the_others_alone(kind: str, config: dict[str, Any]) -> None:
    network, adapter = tiny.transformer(), tiny.adapter(kind, **config)
    ids, condition = tiny.ids(tiny.TRANSFORMER, 5), tiny.condition(network, 5)
    mixed = network(ids, condition, on_rows([adapter], 2))
    torch.testing.assert_close(mixed[:2], network(ids, condition, adapter)[:2])
    torch.testing.assert_close(mixed[2:], network(ids, condition)[2:])
    assert not torch.allclose(mixed[:2], network(ids, condition)[:2])


@every
def test_at_full_strength_it_is_itself_and_at_none_there_is_none(kind: str, config: dict[str, Any]) -> None:
    adapter = tiny.adapter(kind, **config)
    assert at_strength(adapter, 1) is adapter
    assert at_strength(adapter, 0) is None


@every
@pytest.mark.parametrize("strength", [0.25, 2.0])
def test_strength_scales_what_each_kind_adds(kind: str, config: dict[str, Any], strength: float) -> None:
    """As the weights that stand last in its formula do: the text's and the sites' alike."""
    network, adapter, scaled = tiny.transformer(), tiny.adapter(kind, **config), tiny.adapter(kind, **config)
    with torch.no_grad():
        if kind == "prompt":  # tanh(gate) scales it; twice that must be possible
            for one in (adapter, scaled):
                one.gate.clamp_(-0.4, 0.4)  # type: ignore[operator, union-attr]
        for name, parameter in scaled.named_parameters():
            if name == "gate":
                parameter.copy_((strength * parameter.tanh()).atanh())
            elif name.startswith(("up", "b.")):
                parameter.mul_(strength)
    made = at_strength(adapter, strength)
    assert made is not None
    torch.testing.assert_close(logits(network, made), logits(network, scaled), atol=1e-4, rtol=1e-3)
    assert not torch.allclose(logits(network, made), logits(network, adapter))


@every
def test_strength_leaves_alone_what_the_adapter_does(kind: str, config: dict[str, Any]) -> None:
    made, value = at_strength(tiny.adapter(kind, **config), 0.5), torch.ones(1, 4, 32)
    assert made is not None
    assert made("nowhere", nn.Identity(), value, value) is value  # so that branches are not copied for nothing


@every
def test_saved_and_loaded_it_is_the_same(kind: str, config: dict[str, Any]) -> None:
    from pathlib import Path

    network, adapter = tiny.transformer(), tiny.adapter(kind, **config)
    save_tensors(Path("a.safetensors"), adapter.state_dict())
    other = tiny.fresh_adapter(kind, **config)
    other.load_state_dict(read_tensors(Path("a.safetensors"))[0])
    assert torch.equal(logits(network, other), logits(network, adapter))


@every
def test_the_same_seed_makes_the_same_one(kind: str, config: dict[str, Any]) -> None:
    one, two = tiny.fresh_adapter(kind, **config), tiny.fresh_adapter(kind, **config)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    one.initialise(tiny.generator(2))
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("kind", list(KINDS))
def test_it_acts_in_its_layers_alone(kind: str) -> None:
    """Elsewhere the very same value comes back; and the fewer layers, the fewer weights."""
    network, adapter, changed = tiny.transformer(), tiny.adapter(kind, layers=(1, 3)), set()

    def watched(site: str, module: nn.Module, source: Tensor, value: Tensor) -> Tensor:
        after = adapter(site, module, source, value)
        if after is not value:
            changed.add(site)
        return after

    logits(network, watched)
    numbers = {site.name: site.layer for site in network.sites}
    assert {numbers[site] for site in changed} == {1, 3}
    assert {numbers[site] for site in numbers if site.startswith(("down_block", "up_block"))} == {0}
    sizes = [sum(p.numel() for p in tiny.adapter(kind, layers=layers).parameters()) for layers in ((2,), (1, 3))]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("kind", ["bottleneck", "prompt"])
def test_all_layers_by_their_numbers_are_all_layers(kind: str) -> None:
    every, named = (tiny.adapter(kind, layers=layers) for layers in ((), (1, 2, 3)))
    assert torch.equal(logits(tiny.transformer(), every), logits(tiny.transformer(), named))
    assert "layers" not in every.stored_config and named.stored_config["layers"] == (1, 2, 3)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("layers", [(4,), (0, 1)])
def test_layers_that_are_not_there(kind: str, layers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"there is no layer {layers[0]}: this base has 1 to 3"):
        tiny.adapter(kind, layers=layers)


def test_a_layer_of_meissonic_has_both_places_of_a_bottleneck() -> None:
    """One-stream blocks have one each, and count in pairs; of targets that a layer lacks nothing could be learnt."""
    network = MeissonicTransformer(tiny.MEISSONIC)
    places: dict[int, list[str]] = {}
    for site in network.sites:
        if site.kind in ("attention", "mlp"):
            places.setdefault(site.layer, []).append(site.kind)
    assert places == {layer: ["attention", "mlp"] for layer in (1, 2, 3, 4)}
    made = BottleneckAdapter(BottleneckConfig(2, False, (2, 4)), network)
    assert made.adapted == [
        "transformer_blocks.1.attention",
        "single_transformer_blocks.2.attention",
        "transformer_blocks.1.mlp",
        "single_transformer_blocks.3.mlp",
    ]
    with pytest.raises(ValueError, match="no to_out in the layers"):
        LoraAdapter(LoraConfig(2, 2.0, ("to_out",), (3,)), network)


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_default_one_is_below_one_percent_of_pocket(kind: str) -> None:
    with torch.device("meta"):
        network = MaskedTransformer(BASE)
        make, sizes = KINDS[kind]
        chosen = TrainSettings.of(kind)
        config = {"bottleneck": {"width": chosen.width, "shared": chosen.shared}, "lora": {"rank": chosen.width}}
        adapter = make(sizes(**config.get(kind, {"vectors": chosen.width})), network)
    own, whole = (sum(p.numel() for p in m.parameters()) for m in (adapter, network))
    assert 0 < own < 0.01 * whole


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BottleneckConfig(width=0), "width must be positive, not 0"),
        (lambda: LoraConfig(rank=-1), "rank must be positive, not -1"),
        (lambda: LoraConfig(alpha=0), "alpha must be positive, not 0"),
        (lambda: LoraConfig(targets=("to_q", "mlp")), "targets must be of to_q, to_k, to_v, to_out, not mlp"),
        (lambda: LoraConfig(targets=()), "not none"),
        (lambda: PromptConfig(vectors=0), "vectors must be positive, not 0"),
    ],
)
def test_impossible_sizes(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_the_sites() -> None:
    """Where an adapter is asked, and what it is shown."""
    network = tiny.transformer()
    seen: dict[str, tuple[type[nn.Module], torch.Size, torch.Size]] = {}

    def note(site: str, module: nn.Module, source: Tensor, value: Tensor) -> Tensor:
        assert site not in seen
        seen[site] = (type(module), source.shape, value.shape)
        return value

    network(tiny.ids(tiny.TRANSFORMER, 2), tiny.condition(network, 2), note)
    hidden = torch.Size((2, 4, 32))  # 2x2 places, where attention runs
    for layer in range(3):
        path = f"transformer_layers.{layer}"
        assert seen[f"{path}.attention"][1:] == seen[f"{path}.mlp"][1:] == (hidden, hidden)
        assert seen[f"{path}.attn1.to_k"] == (nn.Linear, hidden, hidden)
        assert seen[f"{path}.attn2.to_q"] == seen[f"{path}.attn2.to_out"] == (nn.Linear, hidden, hidden)
        assert seen[f"{path}.attn2.mix"][0] is Attention
        assert seen[f"{path}.attn2.mix"][1:] == (torch.Size((2, 2, 4, 16)),) * 2
        assert f"{path}.attn2.to_k" not in seen  # the text is read once, in `condition`
    assert "down_block.attention_blocks.0.attn1.to_q" in seen
    assert "up_block.attention_blocks.0.attn2.to_out" in seen


# ---- bottlenecks ----


@pytest.mark.parametrize(
    ("shared", "shapes"),
    [
        (False, {"down": (2, 3, 32, 4), "up": (2, 3, 4, 32)}),
        (
            True,
            {
                "down": (2, 1, 32, 4),
                "up": (2, 1, 4, 32),
                "down_offset": (2, 3, 1, 4),
                "up_offset": (2, 3, 1, 32),
            },
        ),
    ],
)
def test_what_bottlenecks_hold(shared: bool, shapes: dict[str, tuple[int, ...]]) -> None:
    adapter = tiny.fresh_adapter(width=4, shared=shared)
    assert {name: tuple(t.shape) for name, t in adapter.state_dict().items()} == shapes
    for name, tensor in adapter.state_dict().items():
        assert tensor.any() == (name == "down"), name


def test_the_bottleneck_formula() -> None:
    """h + GELU(h Wd) Wu, with the layer's offsets added where the weights are shared (App. B.1.1)."""
    hidden, module = torch.randn(1, 4, 32, generator=tiny.generator()), nn.Identity()
    own, shared = tiny.adapter(shared=False), tiny.adapter(shared=True)
    weights = dict(own.named_parameters())
    wanted = hidden + F.gelu(hidden @ weights["down"][1, 2]) @ weights["up"][1, 2]
    torch.testing.assert_close(own("transformer_layers.2.mlp", module, hidden, hidden), wanted)
    weights = dict(shared.named_parameters())
    down = weights["down"][0, 0] + weights["down_offset"][0, 1]
    up = weights["up"][0, 0] + weights["up_offset"][0, 1]
    wanted = hidden + F.gelu(hidden @ down) @ up
    torch.testing.assert_close(shared("transformer_layers.1.attention", module, hidden, hidden), wanted)


def test_below_the_first_bottleneck_nothing_is_differentiated() -> None:
    network, adapter = tiny.transformer(), tiny.adapter().requires_grad_(True)
    inner: list[Tensor] = []
    network.project_to_hidden.register_forward_hook(lambda module, args, out: inner.append(out))
    network(tiny.ids(tiny.TRANSFORMER, 2), tiny.condition(network, 2), adapter).sum().backward()
    assert not inner[0].requires_grad


# ---- LoRA ----


def test_what_lora_holds() -> None:
    adapter = tiny.fresh_adapter("lora", rank=2, targets=("to_k", "to_out"))
    shapes = {name: tuple(t.shape) for name, t in adapter.state_dict().items()}
    attentions = [
        *(f"transformer_layers/{i}/attn{n}" for i in range(3) for n in (1, 2)),
        *(f"{stage}_block/attention_blocks/0/attn{n}" for stage in ("down", "up") for n in (1, 2)),
    ]
    assert set(shapes) == {f"{ab}.{a}/{t}" for ab in "ab" for a in attentions for t in ("to_k", "to_out")}
    assert shapes["a.transformer_layers/0/attn1/to_k"] == (32, 2)
    assert shapes["b.transformer_layers/0/attn1/to_k"] == (2, 32)
    assert shapes["a.down_block/attention_blocks/0/attn1/to_out"] == (24, 2)
    for name, tensor in adapter.state_dict().items():
        assert tensor.any() == name.startswith("a."), name


def test_lora_is_a_change_of_the_weights() -> None:
    """Folded into the frozen matrices, W + (alpha / rank) A B, it draws the same (arXiv 2106.09685)."""
    adapter = tiny.adapter("lora", rank=2, alpha=6.0, targets=("to_q", "to_k", "to_v", "to_out"))
    network, folded = tiny.transformer(), tiny.transformer()
    tensors = adapter.state_dict()
    for path, module in folded.named_modules():
        if isinstance(module, Attention):
            for target in ("to_q", "to_k", "to_v", "to_out"):
                linear = module.to_out[0] if target == "to_out" else getattr(module, target)
                name = f"{path}.{target}".replace(".", "/")
                with torch.no_grad():
                    linear.weight += 3.0 * (tensors[f"a.{name}"] @ tensors[f"b.{name}"]).T
    torch.testing.assert_close(logits(network, adapter), logits(folded, None), atol=1e-4, rtol=1e-3)


# ---- learned text ----


def test_what_learned_text_holds() -> None:
    adapter = tiny.fresh_adapter("prompt", vectors=5)
    assert {name: tuple(t.shape) for name, t in adapter.state_dict().items()} == {
        "vectors": (3, 5, 32),
        "gate": (3, 2),
    }
    assert not adapter.state_dict()["gate"].any()


def test_learned_text_is_read_as_the_text_is() -> None:
    """A softmax of its own over the layer's own keys and values, through a gate a head."""
    adapter, network = tiny.adapter("prompt", vectors=5), tiny.transformer()
    attention = network.transformer_layers[1].attn2
    assert isinstance(attention, Attention)
    query, value = torch.randn(2, 3, 2, 4, 16, generator=tiny.generator()).unbind(0)
    made = adapter("transformer_layers.1.attn2.mix", attention, query, value)
    vectors, gate = adapter.state_dict()["vectors"][1], adapter.state_dict()["gate"][1].tanh()
    keys, values = (linear(vectors).view(5, 2, 16).transpose(0, 1) for linear in (attention.to_k, attention.to_v))
    weights = (query @ keys.transpose(-1, -2) / 16**0.5).softmax(-1)
    torch.testing.assert_close(made, value + gate[:, None, None] * (weights @ values))


def test_bottlenecks_cut_apart_once_follow_their_weights() -> None:
    """Whatever changes them: a step in place, a file that is loaded; and a step may be taken back without one."""
    network, adapter = tiny.transformer(), tiny.adapter("bottleneck", shared=False).requires_grad_(True)
    condition, ids = tiny.condition(network, 1), tiny.ids(tiny.TRANSFORMER, 1)

    def slope() -> torch.Tensor:
        adapter.zero_grad()
        network(ids, condition, adapter).sum().backward()
        assert isinstance(adapter, BottleneckAdapter) and adapter.up.grad is not None
        return adapter.up.grad.clone()

    first, before = slope(), network(ids, condition, adapter)
    assert torch.equal(slope(), first)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.mul_(0.5)
    assert not torch.equal(slope(), first)
    assert not torch.equal(network(ids, condition, adapter), before)
    with torch.no_grad():
        assert torch.equal(network(ids, condition, adapter), network(ids, condition, adapter.requires_grad_(False)))
    doubled = {name: 2 * value for name, value in adapter.state_dict().items()}
    adapter.load_state_dict(doubled, assign=True)
    assert torch.equal(network(ids, condition, adapter), before)
