"""Meissonic number for number beside diffusers' and transformers' parts, where they are installed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny
from amused_folder import save_published
from meissonic_upstream import UpstreamPipeline, UpstreamTransformer
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.base.prompt_tokens import read_merges, vocabulary_of
from styledrop_cli.base.registry import MUDDIT, POCKET
from styledrop_cli.io.tensors import load_strictly
from styledrop_cli.models.clip import Clip, ClipConfig
from styledrop_cli.models.meissonic import STEP_SCALE, MeissonicConfig, MeissonicTransformer
from styledrop_cli.models.tokenizer import ImageTokenizer, TokenizerConfig
from styledrop_cli.sampling.decoding import decode

pytestmark = pytest.mark.parity

SMALL = tiny.MEISSONIC
WHOLE = replace(SMALL, downsample=False, upsample=False)
FAMILY = {name: tiny.FAMILIES[name] for name in ("meissonic", "monetico")}  # compressing, and not
UNWANTED = "blurry, a dog"
GUIDANCE = 9.0


@pytest.fixture(scope="module")
def diffusers() -> Any:
    return tiny.stock_parts("VQModel", "AmusedScheduler")


@pytest.fixture(scope="module")
def pipeline(diffusers: Any) -> Callable[..., UpstreamPipeline]:
    try:
        transformers = tiny.beside_torchvision("transformers", "CLIPTextModelWithProjection", "CLIPTokenizer")
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"transformers cannot be imported: {error}")
    return partial(UpstreamPipeline, diffusers, transformers)


def pair(diffusers: Any, config: MeissonicConfig) -> tuple[UpstreamTransformer, MeissonicTransformer]:
    """Upstream's network and ours, of the same random weights."""
    upstream, ours = UpstreamTransformer(diffusers, config), MeissonicTransformer(config)
    tiny.randomise(upstream)
    load_strictly(ours, upstream.state_dict(), "upstream")
    for module in (upstream, ours):
        module.requires_grad_(False).eval()
    return upstream, ours


def grid(config: MeissonicConfig) -> Tensor:
    return torch.randint(config.vocab_size, (2, 8, 8), generator=tiny.generator(2))


def told(config: MeissonicConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Words, summaries and micro-conditions of two prompts."""
    draws = tiny.generator(1)
    words = torch.randn(2, 7, config.joint_attention_dim, generator=draws)
    summary = torch.randn(2, config.pooled_projection_dim, generator=draws)
    return words, summary, torch.tensor([[128.0, 128, 0, 0, 6], [300, 200, 5, 9, 6]])


def both(upstream: UpstreamTransformer, ours: MeissonicTransformer, left: Any) -> tuple[Tensor, Tensor]:
    """Logits of both, told so many steps ``left``."""
    ids, (words, summary, micro) = grid(ours.config), told(ours.config)
    said = words.to(ours.context_embedder.weight.dtype), summary, micro
    wanted = upstream(ids, *said, torch.as_tensor(left, dtype=torch.float32).reshape(-1))
    return ours(ids, ours.condition(*said).at(left)).float(), wanted.float()


def close(made: Tensor, wanted: Tensor, what: str, record: Any, tolerance: float = 1e-5) -> None:
    difference = float((made - wanted).abs().max())
    record(f"max |difference| {what}", difference)
    assert wanted.std() > 1e-3
    assert difference <= tolerance * max(1.0, float(wanted.abs().max()))


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


# ---- the network ----


@pytest.mark.parametrize("config", [SMALL, WHOLE], ids=["compressing", "not compressing"])
@pytest.mark.parametrize("left", [0, 3, 47, 63 / 64, 707.1], ids=str)
def test_logits(diffusers: Any, config: MeissonicConfig, left: float, record_property: Any) -> None:
    """Told what Meissonic is (whole steps), Muddit (a fraction), and what training tells (a thousandth of a share)."""
    close(*both(*pair(diffusers, config), left), "of the logits", record_property)


def test_each_row_is_told_its_own_step(diffusers: Any, record_property: Any) -> None:
    close(*both(*pair(diffusers, SMALL), torch.tensor([3.0, 12.0])), "of the logits", record_property)


def test_published_names(diffusers: Any) -> None:
    with torch.device("meta"):
        upstream, ours = UpstreamTransformer(diffusers, MeissonicConfig()), MeissonicTransformer(MeissonicConfig())
    assert shapes(ours) == shapes(upstream)


@pytest.mark.parametrize(("kind", "rounding"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)], ids=["bf16", "fp16"])
def test_in_half_precision_the_step_is_not_rounded(
    diffusers: Any, kind: torch.dtype, rounding: float, record_property: Any
) -> None:
    """Upstream multiplies the step in the network's number type. Where that is exact, both say the same.

    Where it is not, upstream hears of another step, and that step told to ours gives upstream's logits again.
    """
    upstream, ours = pair(diffusers, SMALL)
    exact = both(upstream, ours, 63)[0]
    upstream, ours = upstream.to(kind), ours.to(kind)
    roughly = 40 * rounding  # of the largest logit: six blocks, each rounding every value
    close(*both(upstream, ours, 32), "of the logits at step 32", record_property, roughly)
    rounded = float(torch.tensor(63.0, dtype=kind) * STEP_SCALE) / STEP_SCALE
    assert rounded == pytest.approx({torch.bfloat16: 62.976, torch.float16: 63.008}[kind])
    made, wanted = both(upstream, ours, 63)
    close(both(upstream, ours, rounded)[0], wanted, "of the logits at upstream's step", record_property, roughly)
    record_property("rms difference from fp32 at step 63, ours", float((made - exact).square().mean().sqrt()))
    record_property("rms difference from fp32 at step 63, upstream's", float((wanted - exact).square().mean().sqrt()))
    assert (made - exact).square().mean() < (wanted - exact).square().mean() / 4
    if kind == torch.float16:  # beyond 65504 it is infinite
        made, wanted = both(upstream, ours, 66)
        assert wanted.isnan().all() and made.isfinite().all()


# ---- the sampler ----


@pytest.mark.parametrize("steps", [1, 5, 12])
@pytest.mark.parametrize("temperature", [(2, 0), (4.5, 0.01)], ids=str)
@pytest.mark.parametrize("known", [0.0, 0.4])
def test_the_sampler_is_bit_equal(diffusers: Any, steps: int, temperature: tuple[float, float], known: float) -> None:
    """Guided logits of every step in, ids out: the same generator, the same draws in the same order."""
    mask, draws = 71, tiny.generator(1)
    logits = 3 * torch.randn(steps, 1, 8, 8, 64, generator=draws)
    hidden = torch.rand(8, 8, generator=draws) >= known
    start = torch.randint(64, (1, 8, 8), generator=draws).masked_fill(hidden, mask)
    scheduler = diffusers.AmusedScheduler(mask_token_id=mask, masking_schedule="cosine")
    scheduler.set_timesteps(steps, temperature)
    wanted, generator, after = start, tiny.generator(7), []
    share = float(hidden.float().mean())
    for step, left in enumerate(scheduler.timesteps):
        assert int(left) == steps - 1 - step
        given = logits[step].permute(0, 3, 1, 2)
        wanted = scheduler.step(given, left, wanted, starting_mask_ratio=share, generator=generator).prev_sample
        after.append(wanted)
    made: list[Tensor] = []
    turns = iter(logits)
    decode(
        start,
        lambda ids, masked, progress: next(turns)[masked],
        mask_id=mask,
        steps=steps,
        temperature=temperature,
        generator=[tiny.generator(7)],
        noise="token",
        on_step=lambda step, ids: made.append(ids),
    )
    assert len(made) == steps and all(torch.equal(a, b) for a, b in zip(made, after, strict=True))


# ---- whole folders ----

TEXTS = ["", "a cat", "A Cat, in  [V] style!", "it's 2 naïve cafés; don't — 猫 🐱", "red " * 60]


@pytest.mark.parametrize("family", FAMILY)
@pytest.mark.parametrize("half", [False, True], ids=["fp32 files", "fp16 files"])
def test_a_published_folder(
    pipeline: Callable[..., UpstreamPipeline], tmp_path: Path, family: str, half: bool, record_property: Any
) -> None:
    """Texts, pictures to ids and back, and a picture of each number of steps, ids equal."""
    folder = FAMILY[family](tmp_path / family, half=half)  # type: ignore[call-arg]
    upstream, ours = pipeline(folder, half=half), load_base(str(folder), tiny.CPU)
    assert not ours.clip.config.quick_gelu
    tokens = upstream.tokens(TEXTS)
    assert torch.equal(ours.text_tokenizer(TEXTS), tokens)
    assert tokens[0, 2:].tolist() == [0] * (tokens.shape[1] - 2)
    same_text(upstream, ours, TEXTS, record_property)
    same_pixels(upstream, ours, 32, record_property)
    for steps in (1, 4, 12):
        same_picture(upstream, ours, steps, record_property)


def test_a_picture_by_muddits_steps(
    pipeline: Callable[..., UpstreamPipeline], tmp_path: Path, record_property: Any
) -> None:
    folder = tiny.write_meissonic(tmp_path / "relative")
    upstream, ours = pipeline(folder), load_base(str(folder), tiny.CPU)
    ours.spec = replace(ours.spec, told=MUDDIT.told)
    upstream.fraction = True
    same_picture(upstream, ours, 5, record_property)
    upstream.fraction = False
    with pytest.raises(AssertionError, match="ids differ"):
        same_picture(upstream, ours, 5, record_property)


def same_text(upstream: UpstreamPipeline, ours: Base, texts: list[str], record: Any) -> None:
    words, summary = upstream.text(texts)
    states, pooled, _ = ours.text_states(texts)
    close(states, words, "of the text states", record)
    close(pooled, summary, "of the text's summary", record)


def same_pixels(upstream: UpstreamPipeline, ours: Base, side: int, record: Any) -> None:
    pictures = torch.rand(2, 3, side, side, generator=tiny.generator(1))
    ids = upstream.encode(pictures)
    assert torch.equal(ours.tokenizer.encode(pictures), ids)
    assert ids.unique().numel() > 2
    wanted = upstream.pictures(ids)
    record("max |difference| of decoded pictures", float((ours.tokenizer.decode(ids) - wanted).abs().max()))
    torch.testing.assert_close(ours.tokenizer.decode(ids), wanted, atol=1e-4, rtol=0)


@torch.no_grad()
def same_picture(upstream: UpstreamPipeline, ours: Base, steps: int, record: Any) -> None:
    """Upstream's guidance scale is our lambda_b and one; the ids must be the same, every one."""
    settings = ours.sampling(steps=steps, negative=UNWANTED)
    assert settings.lambda_b == GUIDANCE - 1
    texts, seeds = ["a cat", "a red dog"], [7, 8]
    made = ours.sample(texts, seeds, settings)
    for text, seed, ids in zip(texts, seeds, made, strict=True):
        options = {"side": ours.grid, "steps": steps, "guidance": GUIDANCE, "generator": tiny.generator(seed)}
        wanted = upstream.ids(text, UNWANTED, **options)
        assert torch.equal(wanted[0], ids), f"{int((wanted[0] != ids).sum())} ids differ in {steps} steps"
        picture, drawn = upstream.pictures(wanted), ours.pictures(ids[None], ours.sizes[0])
        record(f"max |difference| of the picture of {steps} steps", float((drawn - picture).abs().max()))
        torch.testing.assert_close(drawn, picture, atol=1e-4, rtol=0)
        assert picture.std() > 0.01


# ---- the published sizes ----


@pytest.mark.slow
def test_the_real_size(pipeline: Callable[..., UpstreamPipeline], tmp_path: Path, record_property: Any) -> None:
    """A billion random weights: names, text, pixels, logits, and a picture of two steps, of 16 x 16 ids."""
    config = MeissonicConfig(sample_size=16)
    merges = read_merges(POCKET / "merges.txt")  # CLIP's own, as far as pocket needs them
    sizes = {"text_width": 1024, "text_heads": 16, "text_layers": 24, "embed_dim": 1024}
    clip = ClipConfig(vocab_size=len(vocabulary_of(merges)), **sizes)
    with torch.device("meta"):
        transformer = MeissonicTransformer(config)
    rest = ImageTokenizer(TokenizerConfig()), Clip(clip)
    for network in rest:
        tiny.randomise(network)
    save_published(tmp_path / "model", transformer, *rest, merges)
    del rest, network
    # Both sides map the transformer's file: its 4 GB are in memory once at most.
    upstream, ours = pipeline(tmp_path / "model"), load_base(str(tmp_path / "model"), tiny.CPU)
    same_text(upstream, ours, ["a cat in watercolor style!"], record_property)
    same_pixels(upstream, ours, 128, record_property)
    ids = torch.randint(config.vocab_size, (1, 16, 16), generator=tiny.generator(2))
    words, summary, micro = ours.text_states(["a cat in watercolor style"])
    for left in (0.0, 47.0):
        wanted = upstream.transformer(ids, words, summary, micro, torch.tensor([left]))
        made = ours.transformer(ids, ours.transformer.condition(words, summary, micro).at(left))
        close(made, wanted, f"of the logits at step {left:g}", record_property, 3e-5)
    same_picture(upstream, ours, 2, record_property)
    shutil.rmtree(tmp_path)  # of tests that passed, too, the folders of three runs are kept
