"""Number for number beside diffusers, where it is installed: the networks, the tokenizer and the sampler of aMUSEd."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny
from amused_folder import save_published
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.base.prompt_tokens import read_merges, vocabulary_of
from styledrop_cli.base.registry import POCKET
from styledrop_cli.io.tensors import load_strictly
from styledrop_cli.models.clip import Clip, ClipConfig
from styledrop_cli.models.tokenizer import ImageTokenizer, TokenizerConfig
from styledrop_cli.models.transformer import MaskedTransformer, TransformerConfig
from styledrop_cli.sampling.decoding import decode

pytestmark = pytest.mark.parity

SMALLEST = TransformerConfig(
    codebook_size=8,
    vocab_size=32,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=1,
    intermediate_size=8,
    in_channels=8,
    block_out_channels=8,
    num_res_blocks=1,
    block_num_heads=1,
    encoder_hidden_size=8,
    cond_embed_dim=8,
    micro_cond_encode_dim=2,
    micro_cond_embed_dim=10,
    downsample=True,
    upsample=True,
)
LIKE_256 = TransformerConfig(
    codebook_size=64,
    vocab_size=96,
    hidden_size=64,
    num_hidden_layers=4,
    num_attention_heads=4,
    intermediate_size=176,
    in_channels=32,
    block_out_channels=48,
    num_res_blocks=3,
    block_num_heads=3,
    encoder_hidden_size=48,
    cond_embed_dim=48,
    micro_cond_encode_dim=16,
    micro_cond_embed_dim=80,
)
LARGE: dict[str, Any] = {"sample_size": 32, "downsample": True, "upsample": True}  # aMUSEd-512
LIKE_512 = replace(LIKE_256, **LARGE)
ONE_LEVEL = TokenizerConfig((8,), 1, 8, 8, 32, 8)
FIVE_LEVELS = TokenizerConfig((16, 32, 32, 48, 64), 2, 16, 16, 128, 16)


@pytest.fixture(scope="module")
def diffusers() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return tiny.beside_torchvision("diffusers", "UVit2DModel", "VQModel", "AmusedScheduler")
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"diffusers cannot be imported: {error}")


def upstream_transformer(diffusers: Any, config: TransformerConfig) -> Any:
    names = {name: value for name, value in vars(config).items() if name != "positions"}
    return diffusers.UVit2DModel(**names)


def upstream_tokenizer(diffusers: Any, config: TokenizerConfig) -> Any:
    levels = len(config.block_out_channels)
    return diffusers.VQModel(
        block_out_channels=config.block_out_channels,
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        latent_channels=config.latent_channels,
        vq_embed_dim=config.vq_embed_dim,
        layers_per_block=config.layers_per_block,
        norm_num_groups=config.norm_num_groups,
        num_vq_embeddings=config.num_vq_embeddings,
        mid_block_add_attention=False,
        lookup_from_codebook=True,
    )


def same_weights(upstream: nn.Module, ours: nn.Module) -> None:
    tiny.randomise(upstream)
    load_strictly(ours, upstream.state_dict(), "upstream")
    for module in (upstream, ours):
        module.requires_grad_(False).eval()


def close(made: Tensor, wanted: Tensor, what: str, record: Any) -> None:
    difference = float((made - wanted).abs().max())
    record(f"max |difference| {what}", difference)
    assert wanted.std() > 1e-3
    assert difference <= 1e-5 * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize("config", [SMALLEST, LIKE_256, LIKE_512], ids=["smallest", "256", "512"])
def test_logits(diffusers: Any, config: TransformerConfig, record_property: Any) -> None:
    upstream, ours = upstream_transformer(diffusers, config), MaskedTransformer(config)
    same_weights(upstream, ours)
    draws = tiny.generator(1)
    ids = torch.randint(config.vocab_size, (2, 16, 16), generator=draws)
    text = torch.randn(2, 77, config.encoder_hidden_size, generator=draws)
    pooled = torch.randn(2, config.cond_embed_dim, generator=draws)
    micro = torch.tensor([[256.0, 256, 0, 0, 6], [300, 200, 5, 9, 6]])
    wanted = upstream(ids, text, pooled, micro).permute(0, 2, 3, 1)
    close(ours(ids, ours.condition(text, pooled, micro)), wanted, "of the logits", record_property)


@pytest.mark.parametrize("config", [ONE_LEVEL, FIVE_LEVELS], ids=["one level", "five levels"])
def test_pictures_to_ids_and_back(diffusers: Any, config: TokenizerConfig, record_property: Any) -> None:
    upstream, ours = upstream_tokenizer(diffusers, config), ImageTokenizer(config)
    same_weights(upstream, ours)
    pictures = torch.rand(2, 3, 64, 64, generator=tiny.generator(1))
    latents = upstream.encode(pictures).latents
    close(ours.latents(pictures), latents, "of the latents", record_property)
    ids = upstream.quantize(latents)[2][2].view(2, *latents.shape[2:])
    assert torch.equal(ours.encode(pictures), ids)
    shape = (*ids.shape, config.vq_embed_dim)
    wanted = upstream.decode(ids, force_not_quantize=True, shape=shape).sample
    codes = ours.quantize.embedding(ids).permute(0, 3, 1, 2).contiguous()  # as upstream lays them out
    close(ours.pixels(codes), wanted, "of the pictures", record_property)
    # Our own layout of the same numbers lets the convolutions choose another order of summing.
    torch.testing.assert_close(ours.decode(ids), wanted.clamp(0, 1), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "config",
    [TransformerConfig(), replace(TransformerConfig(), **LARGE)],
    ids=["256", "512"],
)
def test_published_transformer_names(diffusers: Any, config: TransformerConfig) -> None:
    with torch.device("meta"):
        upstream, ours = upstream_transformer(diffusers, config), MaskedTransformer(config)
    assert shapes(ours) == shapes(upstream)


def test_published_tokenizer_names(diffusers: Any) -> None:
    with torch.device("meta"):
        upstream, ours = upstream_tokenizer(diffusers, TokenizerConfig()), ImageTokenizer(TokenizerConfig())
    assert shapes(ours) == shapes(upstream)


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in module.state_dict().items()}


@pytest.mark.parametrize("steps", [1, 5, 12])
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("known", [0.0, 0.4])
def test_decoding_is_bit_equal(diffusers: Any, steps: int, schedule: str, known: float) -> None:
    """The same generator, the same draws in the same order: also where a part of the picture is given."""
    mask, draws = 95, tiny.generator(1)
    every_logits = 3 * torch.randn(steps, 2, 16, 16, 64, generator=draws)
    start = torch.randint(64, (2, 16, 16), generator=draws)
    hidden = torch.rand(16, 16, generator=draws) >= known
    start = start.masked_fill(hidden, mask)

    scheduler = diffusers.AmusedScheduler(mask_token_id=mask, masking_schedule=schedule)
    scheduler.set_timesteps(steps, (2, 0))
    wanted, generator, after = start, tiny.generator(7), []
    for step, time in enumerate(scheduler.timesteps):
        logits = every_logits[step].permute(0, 3, 1, 2)
        share = float(hidden.float().mean())
        wanted = scheduler.step(logits, time, wanted, starting_mask_ratio=share, generator=generator).prev_sample
        after.append(wanted)

    turns = iter(every_logits)
    made: list[Tensor] = []
    decode(
        start,
        lambda ids, masked, progress: next(turns)[masked],
        mask_id=mask,
        steps=steps,
        temperature=(2, 0),
        generator=tiny.generator(7),
        schedule=schedule,
        on_step=lambda step, ids: made.append(ids),
    )
    assert len(made) == len(after) == steps
    assert all(torch.equal(a, b) for a, b in zip(made, after, strict=True))


# ---- whole published folders, in both directions ----


@pytest.fixture(scope="module")
def pipelines(diffusers: Any) -> Any:
    try:
        return tiny.beside_torchvision("diffusers", "AmusedPipeline").AmusedPipeline
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"diffusers' pipeline cannot be imported: {error}")


def opened(pipelines: Any, folder: Path, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated
        made = pipelines.from_pretrained(folder, **options)
    made.set_progress_bar_config(disable=True)
    return made


TEXTS = (
    "",
    "a cat",
    "A Cat, in  [V] style!",
    "it's 2 naïve cafés; don't — 猫 🐱",
    "red " * 60,
)


def test_what_we_write_upstream_reads(pipelines: Any, tmp_path: Path, record_property: Any) -> None:
    """Text tokens and states, padding included, every step's ids, and the picture: the same seed, the same noise."""
    folder = tiny.write_published(tmp_path / "ours")
    upstream, ours = opened(pipelines, folder), load_base(str(folder), tiny.CPU)
    tokens = upstream.tokenizer(
        list(TEXTS),
        return_tensors="pt",
        padding="max_length",
        truncation=True,
        max_length=upstream.tokenizer.model_max_length,
    ).input_ids
    assert torch.equal(ours.text_tokenizer(list(TEXTS)), tokens)
    with torch.no_grad():
        wanted = upstream.text_encoder(tokens, return_dict=True, output_hidden_states=True)
    text, pooled = ours.clip.text_states(tokens)
    close(text, wanted.hidden_states[-2], "of the text states", record_property)
    close(pooled, wanted.text_embeds, "of the text's summary", record_property)
    same_picture(upstream, ours, 12, record_property)


def same_picture(upstream: Any, ours: Base, steps: int, record: Any) -> None:
    """Upstream's guidance scale is our lambda_b and one; the ids must be the same, every one."""
    settings = ours.sampling(steps=steps, seed=7)
    assert settings.lambda_b == 9.0
    texts = ["a cat", "a red dog"]
    made = ours.sample(texts, [7, 8], settings)
    for text, seed, ids in zip(texts, (7, 8), made, strict=True):
        options = {"num_inference_steps": steps, "generator": tiny.generator(seed), "return_dict": False}
        assert torch.equal(upstream(text, output_type="latent", **options)[0][0], ids)
        options["generator"] = tiny.generator(seed)
        picture = torch.from_numpy(upstream(text, output_type="np", **options)[0][0]).permute(2, 0, 1)
        drawn = ours.pictures(ids[None], ours.sizes[0])[0]
        record("max |difference| of the picture", float((drawn - picture).abs().max()))
        torch.testing.assert_close(drawn, picture, atol=1e-4, rtol=0)
        assert picture.std() > 0.01


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize("shards", [False, True], ids=["whole", "in shards"])
def test_what_upstream_writes_we_read(
    pipelines: Any, tmp_path: Path, half: bool, shards: bool, record_property: Any
) -> None:
    """As its own releases save a pipeline: other settings in the descriptions, perhaps fp16, perhaps in shards."""
    upstream = opened(pipelines, tiny.write_published(tmp_path / "ours"))
    written = tmp_path / "theirs"
    # An fp16 file holds rounded weights: upstream reads them back for the comparison.
    (upstream.to(torch.float16) if half else upstream).save_pretrained(
        written, variant="fp16" if half else None, max_shard_size="300KB" if shards else "10GB"
    )
    assert bool(list(written.glob("transformer/*index*.json"))) == shards
    again = opened(pipelines, written, variant="fp16" if half else None, torch_dtype=torch.float32)
    same_picture(again, load_base(str(written), tiny.CPU), 5, record_property)


@pytest.mark.slow
@pytest.mark.parametrize("size", [256, 512])
def test_the_real_size(diffusers: Any, pipelines: Any, tmp_path: Path, size: int, record_property: Any) -> None:
    """600 million random weights: logits, text states, ids and pixels, and a picture of two steps."""
    config = TransformerConfig() if size == 256 else replace(TransformerConfig(), **LARGE)
    merges = read_merges(POCKET / "merges.txt")  # CLIP's own, as far as pocket needs them
    clip = ClipConfig(vocab_size=len(vocabulary_of(merges)), quick_gelu=True)
    networks = (MaskedTransformer(config), ImageTokenizer(TokenizerConfig()), Clip(clip))
    for network in networks:
        tiny.randomise(network)
    save_published(tmp_path / "model", *networks, merges)
    del networks, network
    upstream, ours = opened(pipelines, tmp_path / "model"), load_base(str(tmp_path / "model"), tiny.CPU)
    draws = tiny.generator(1)
    ids = torch.randint(config.vocab_size, (1, config.sample_size, config.sample_size), generator=draws)
    text, pooled, micro = ours.text_states(["a cat in watercolor style"])
    tokens = ours.text_tokenizer(["a cat in watercolor style"])
    with torch.no_grad():
        states = upstream.text_encoder(tokens, return_dict=True, output_hidden_states=True)
        close(text, states.hidden_states[-2], "of the text states", record_property)
        wanted = upstream.transformer(ids, text, pooled, micro).permute(0, 2, 3, 1)
        made = ours.transformer(ids, ours.condition(["a cat in watercolor style"]))
        record_property("max |difference| of the logits", float((made - wanted).abs().max()))
        torch.testing.assert_close(made, wanted, atol=1e-4, rtol=0)
        picture = torch.rand(1, 3, 128, 128, generator=draws)
        latents = upstream.vqvae.encode(picture).latents
        codes = upstream.vqvae.quantize(latents)[2][2].view(1, 8, 8)
        assert torch.equal(ours.tokenizer.encode(picture), codes)
    same_picture(upstream, ours, 2, record_property)
