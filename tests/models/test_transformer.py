"""The masked transformer and its adapter: the published sizes, and an adapter that is no part of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import tiny
from styledrop_cli.models.adapter import KINDS
from styledrop_cli.models.layers import GlobalResponseNorm, attend
from styledrop_cli.models.transformer import Condition, MaskedTransformer, TransformerConfig
from styledrop_cli.training.loop import masked_cross_entropy

AMUSED_256 = TransformerConfig()
AMUSED_512 = TransformerConfig(sample_size=32, downsample=True, upsample=True)


def on_meta(config: TransformerConfig) -> MaskedTransformer:
    with torch.device("meta"):
        return MaskedTransformer(config)


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# ---- the published network ----


@pytest.mark.parametrize(
    ("config", "count", "tensors"), [(AMUSED_256, 603_537_664, 474), (AMUSED_512, 608_257_792, 478)]
)
def test_published_sizes(config: TransformerConfig, count: int, tensors: int) -> None:
    network = on_meta(config)
    assert parameters(network) == count
    assert len(network.state_dict()) == tensors
    assert not any("bias" in name or name == "positions" for name in network.state_dict())
    assert config.mask_id == 8255


def test_published_names_and_shapes() -> None:
    shapes = {name: tuple(t.shape) for name, t in on_meta(AMUSED_512).state_dict().items()}
    for name, shape in {
        "embed.embeddings.weight": (8256, 768),
        "embed.conv.weight": (768, 768, 1, 1),
        "cond_embed.linear_1.weight": (1024, 2048),
        "down_block.downsample.conv.weight": (768, 768, 2, 2),
        "down_block.res_blocks.2.channelwise_norm.gamma": (1, 1, 1, 3072),
        "down_block.res_blocks.0.depthwise.weight": (768, 1, 3, 3),
        "up_block.attention_blocks.1.kv_mapper.weight": (768, 1024),
        "up_block.upsample.norm.weight": (768,),
        "transformer_layers.21.norm3.linear.weight": (2048, 1024),
        "transformer_layers.0.attn2.to_out.0.weight": (1024, 1024),
        "transformer_layers.0.ff.net.0.proj.weight": (5632, 1024),
        "transformer_layers.0.ff.net.2.weight": (1024, 2816),
        "mlm_layer.conv2.weight": (8192, 768, 1, 1),
    }.items():
        assert shapes[name] == shape


# ---- ids in, logits out ----


@pytest.mark.parametrize("resample", [False, True])
@pytest.mark.parametrize("positions", [0, 2])
def test_logits(resample: bool, positions: int) -> None:
    config = replace(tiny.TRANSFORMER, downsample=resample, upsample=resample, positions=positions)
    network = tiny.transformer(config)
    ids = tiny.ids(config, 3)
    logits = network(ids, tiny.condition(network, 3))
    assert logits.shape == (3, 4, 4, config.codebook_size)
    assert logits.isfinite().all()
    # Convolutions and attention see the whole grid: another id in one corner moves the logits of the other.
    other = ids.clone()
    other[:, 0, 0] = (other[:, 0, 0] + 1) % config.codebook_size
    assert not torch.allclose(network(other, tiny.condition(network, 3))[:, -1, -1], logits[:, -1, -1])


def test_logits_follow_text_summary_and_micro_conditions() -> None:
    network = tiny.transformer()
    ids, config = tiny.ids(tiny.TRANSFORMER, 1), tiny.TRANSFORMER
    text, pooled = torch.ones(1, 7, config.encoder_hidden_size), torch.ones(1, config.cond_embed_dim)
    micro = torch.tensor([[256.0, 256, 0, 0, 6]])
    plain = network(ids, network.condition(text, pooled, micro))
    for changed in (
        (2 * text * torch.arange(7)[:, None], pooled, micro),
        (text, -pooled, micro),
        (text, pooled, micro / 2),
    ):
        assert not torch.allclose(network(ids, network.condition(*changed)), plain)


def test_positions_fit_another_grid() -> None:
    network = tiny.transformer()
    ids = torch.randint(24, (1, 8, 6), generator=tiny.generator())
    assert network(ids, tiny.condition(network, 1)).shape == (1, 8, 6, 24)


def test_features_are_what_the_head_reads() -> None:
    network = tiny.transformer()
    ids, condition = tiny.ids(tiny.TRANSFORMER, 2), tiny.condition(network, 2)
    torch.testing.assert_close(network.mlm_layer(network.features(ids, condition)), network(ids, condition))


def test_conditions_are_joined_and_picked() -> None:
    network = tiny.transformer()
    one, two = tiny.condition(network, 1, 1), tiny.condition(network, 1, 2)
    both = Condition.cat([one, two])
    picked = both.select(torch.tensor([1, 0, 1]))
    assert (len(one), len(both), len(picked)) == (1, 2, 3)
    ids = tiny.ids(tiny.TRANSFORMER, 1)
    logits = network(ids.expand(3, -1, -1), picked)
    torch.testing.assert_close(logits[[1]], network(ids, one))
    torch.testing.assert_close(logits[[0]], network(ids, two))
    torch.testing.assert_close(logits[0], logits[2])


def test_wrong_shapes_are_named() -> None:
    network = tiny.transformer()
    condition = tiny.condition(network, 2)
    with pytest.raises(ValueError, match=r"\[2,H,W\]"):
        network(tiny.ids(tiny.TRANSFORMER, 3), condition)
    with pytest.raises(ValueError, match=r"\[2,H,W\]"):
        network(torch.zeros(2, 16, dtype=torch.long), condition)
    with pytest.raises(ValueError, match=r"\(1, 7, 5\), expected \[B,T,16\]"):
        network.condition(torch.zeros(1, 7, 5), torch.zeros(1, 16), torch.zeros(1, 5))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vocab_size": 24}, "no mask token"),
        ({"micro_cond_embed_dim": 16}, "5 x"),
        ({"upsample": False}, "together"),
        ({"vocab_size": 24, "upsample": False}, "no mask token.*together"),
    ],
)
def test_impossible_sizes(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(tiny.TRANSFORMER, **changes)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="32 .* 3 heads"):
        MaskedTransformer(replace(tiny.TRANSFORMER, num_attention_heads=3))


def test_fresh_weights() -> None:
    """Same generator, same weights; the modulations start at zero, so that every prompt starts alike."""
    made = [MaskedTransformer(tiny.TRANSFORMER) for _ in range(2)]
    for network in made:
        network.initialise(tiny.generator(5))
    first, second = (m.state_dict() for m in made)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not first["transformer_layers.0.norm1.linear.weight"].any()
    assert 0.01 < float(first["transformer_layers.0.attn1.to_q.weight"].std()) < 0.03


# ---- the loss ----


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_the_cross_entropy_of_the_hidden_ids(smoothing: float) -> None:
    network = tiny.transformer()
    ids = torch.randint(24, (3, 4, 4), generator=tiny.generator())
    masked = torch.rand(3, 4, 4, generator=tiny.generator(1)) < 0.5
    condition = tiny.condition(network, 3)
    logits = network(ids.masked_fill(masked, tiny.TRANSFORMER.mask_id), condition)
    wanted = F.cross_entropy(logits[masked], ids[masked], label_smoothing=smoothing)
    before = ids.clone()
    loss = masked_cross_entropy(network, ids, masked, condition, label_smoothing=smoothing)
    torch.testing.assert_close(loss, wanted)
    assert torch.equal(ids, before)


@pytest.mark.parametrize("places", [1, 7])
def test_attention_is_the_same_with_and_without_a_gradient(places: int) -> None:
    query = torch.randn(2, 3, places, 8, generator=tiny.generator(1))
    keys, values = torch.randn(2, 2, 3, 5, 8, generator=tiny.generator(2)).unbind(0)
    with torch.no_grad():
        fused = attend(query, keys, values)
    torch.testing.assert_close(attend(query, keys, values), fused)


def test_a_channel_of_zeros_has_a_finite_slope() -> None:
    norm = GlobalResponseNorm(3)
    tiny.randomise(norm)
    x = torch.randn(1, 2, 2, 3, generator=tiny.generator())
    x[..., 1] = 0
    x.requires_grad_(True)
    out = norm(x)
    response = x.detach().norm(dim=(1, 2), keepdim=True)
    scaled = x * response / (response.mean(-1, keepdim=True) + 1e-6)
    torch.testing.assert_close(out, norm.gamma * scaled + norm.beta + x)
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


# ---- the first step: every id is masked ----

UNIFORM = replace(tiny.TRANSFORMER, positions=0, sample_size=20)  # ten places a side behind the downsampling


@pytest.mark.parametrize("kind", ["none", *KINDS])
@pytest.mark.parametrize("blocks", [1, 3])
def test_places_that_are_bound_to_be_alike_are_worked_on_once(
    kind: str, blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(UNIFORM, num_res_blocks=blocks)
    network = tiny.transformer(config)
    make, sizes = KINDS.get(kind, (None, None))
    adapter = make(sizes(), network).requires_grad_(False) if make and sizes else None
    if adapter is not None:
        tiny.randomise(adapter, 1)
    ids = torch.full((2, 20, 20), config.mask_id)
    condition = tiny.condition(network, 2)
    lengths: list[int] = []
    network.transformer_layers[0].register_forward_pre_hook(lambda module, given: lengths.append(given[0].shape[1]))
    made = network(ids, condition, adapter)
    one = ids.clone()
    one[0, 3, 4] = 5  # as soon as one is known all places differ
    differs = network(one, condition, adapter)
    assert lengths == [(2 * blocks + 1) ** 2, 100]
    assert float((differs - made).abs().max()) > 1e-3

    monkeypatch.setattr(MaskedTransformer, "_alike", lambda *given: None)
    torch.testing.assert_close(made, network(ids, condition, adapter), atol=2e-5, rtol=1e-4)


def test_a_network_with_positions_or_few_places_has_none_alike() -> None:
    ids = torch.full((1, 20, 20), UNIFORM.mask_id)
    assert tiny.transformer(UNIFORM)._alike(ids, torch.Size((10, 10))) is not None
    assert tiny.transformer(UNIFORM)._alike(ids, torch.Size((4, 4))) is None
    assert tiny.transformer(UNIFORM)._alike(ids, torch.Size((10, 12))) is None
    seen: list[int] = []
    network = tiny.transformer(replace(UNIFORM, positions=10))
    network.transformer_layers[0].register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[1]))
    network(ids, tiny.condition(network, 1))
    assert seen == [100]
