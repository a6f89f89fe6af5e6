"""The compact CLIP: its laws here, and open_clip's own network beside it with the same weights."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from styledrop_cli.io.tensors import load_strictly
from styledrop_cli.models.clip import Clip, ClipConfig
from styledrop_cli.training.pretrain.clip import contrastive_loss

# One shape with and one without rectangular text-to-picture widths, both activations.
SHAPES = [
    tiny.CLIP,
    replace(tiny.CLIP, text_width=24, text_heads=3, text_layers=3, image_layers=2, quick_gelu=True),
]


def made(config: ClipConfig, seed: int = 0) -> Clip:
    clip = Clip(config)
    tiny.randomise(clip, seed)
    return clip.requires_grad_(False).eval()


def tokens(config: ClipConfig, rows: int = 3) -> Tensor:
    """Texts of several lengths, between start and end, padded with the end as ours are."""
    end = config.vocab_size - 1
    made = torch.randint(end - 1, (rows, config.context_length), generator=tiny.generator())
    made[:, 0] = end - 1
    for row in range(rows):
        made[row, 2 + 3 * row :] = end
    return made


def test_published_size() -> None:
    with torch.device("meta"):
        clip = Clip(ClipConfig(quick_gelu=True))
    # transformers counts the text tower without the temperature.
    assert sum(p.numel() for p in clip.parameters()) - 1 == 123_650_304


def test_states_and_summary() -> None:
    clip = made(tiny.CLIP)
    states, summary = clip.text_states(tokens(tiny.CLIP))
    assert states.shape == (3, 32, 16)
    assert summary.shape == (3, 16)
    assert clip.picture_embeds(torch.rand(2, 3, 16, 16, generator=tiny.generator())).shape == (2, 16)


def test_text_is_read_from_left_to_right() -> None:
    """What comes after the end token changes neither the summary nor an earlier state."""
    clip, texts = made(tiny.CLIP), tokens(tiny.CLIP)
    states, summary = clip.text_states(texts)
    other = texts.clone()
    other[0, 3:] = 5  # the first text ends at place 2
    changed, same = clip.text_states(other)
    torch.testing.assert_close(same[0], summary[0])
    torch.testing.assert_close(changed[0, :3], states[0, :3])
    assert not torch.allclose(changed[0, 3:], states[0, 3:])


def test_no_picture_tower() -> None:
    clip = Clip(replace(tiny.CLIP, image_size=0))
    assert not any(name.startswith("visual") for name in clip.state_dict())
    with pytest.raises(ValueError, match="no picture tower"):
        clip.picture_embeds(torch.zeros(1, 3, 16, 16))


def test_contrastive_loss_prefers_the_right_pairs() -> None:
    clip, texts = made(tiny.CLIP), tokens(tiny.CLIP)
    _, summary = clip.text_states(texts)
    order = torch.tensor([1, 2, 0])

    def loss(shown: Tensor, read: Tensor) -> float:
        clip.picture_embeds = lambda pictures: shown  # type: ignore[method-assign]
        return float(contrastive_loss(clip, torch.empty(0), read))

    assert loss(summary, texts) < loss(summary[order], texts)
    # Equal captions count as each other's: exchanging their pictures changes nothing.
    twice = texts[torch.tensor([0, 0, 2])]
    shown = torch.randn(3, 16, generator=tiny.generator())
    assert loss(shown, twice) == pytest.approx(loss(shown[torch.tensor([1, 0, 2])], twice), rel=1e-5)


# ---- beside open_clip ----


@pytest.fixture(scope="module")
def open_clip() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return tiny.beside_torchvision("open_clip")
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"open_clip cannot be imported: {error}")


@pytest.mark.parity
@pytest.mark.parametrize("config", SHAPES, ids=["gelu", "quick gelu"])
def test_open_clips_network_computes_the_same(open_clip: Any, config: ClipConfig) -> None:
    upstream = open_clip.model.CLIP(
        config.embed_dim,
        open_clip.model.CLIPVisionCfg(
            layers=config.image_layers,
            width=config.image_width,
            head_width=config.image_width // config.image_heads,
            patch_size=config.patch_size,
            image_size=config.image_size,
        ),
        open_clip.model.CLIPTextCfg(
            context_length=config.context_length,
            vocab_size=config.vocab_size,
            width=config.text_width,
            heads=config.text_heads,
            layers=config.text_layers,
        ),
        quick_gelu=config.quick_gelu,
    )
    tiny.randomise(upstream)
    upstream.requires_grad_(False).eval()
    clip = Clip(config).eval()
    load_strictly(clip, upstream.state_dict(), "open_clip")  # every name and shape is shared

    before_the_last: list[Tensor] = []
    upstream.transformer.resblocks[-1].register_forward_pre_hook(lambda module, args: before_the_last.append(args[0]))
    texts, shown = tokens(config), torch.rand(2, 3, 16, 16, generator=tiny.generator())
    with torch.no_grad():
        states, summary = clip.text_states(texts)
        torch.testing.assert_close(summary, upstream.encode_text(texts), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(states, before_the_last[0], atol=1e-5, rtol=1e-5)
        wanted = upstream.encode_image(shown * 2 - 1)
        torch.testing.assert_close(clip.picture_embeds(shown), wanted, atol=1e-5, rtol=1e-5)
