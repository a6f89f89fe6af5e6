"""The image tokenizer: the published sizes, pocket's additions, and the enlarged decoder."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import tiny
from styledrop_cli.models.tokenizer import (
    EnlargedDecoder,
    ImageTokenizer,
    TokenizerConfig,
    Upsample,
    enlarged,
    psnr,
    scalar_grid,
    scalar_quantize,
)
from styledrop_cli.training.pretrain.features import published_features
from styledrop_cli.training.pretrain.tokenizer import (
    CRITIC_SHARE,
    FEATURE_SHARE,
    TOKENIZER,
    PictureTask,
    feature_loss,
    missed_levels,
    patch_basis,
    reconstruction_loss,
    scaled_views,
    start_from_patches,
    start_from_smaller,
)

PLAIN = TokenizerConfig((8, 8, 16), 1, 8, 6, 32, 4)


def made(config: TokenizerConfig, seed: int = 0) -> ImageTokenizer:
    tokenizer = ImageTokenizer(config)
    tiny.randomise(tokenizer, seed)
    return tokenizer.requires_grad_(False)


def pictures(rows: int = 2, side: int = 16) -> torch.Tensor:
    """Smooth made-up pictures ``[rows,3,side,side]`` in [0,1]."""
    coarse = torch.rand(rows, 3, 4, 4, generator=tiny.generator())
    return F.interpolate(coarse, size=side, mode="bilinear").clamp(0, 1)


def test_published_sizes() -> None:
    with torch.device("meta"):
        tokenizer = ImageTokenizer(TokenizerConfig())
    assert sum(p.numel() for p in tokenizer.parameters()) == 146_244_675
    shapes = {name: tuple(t.shape) for name, t in tokenizer.state_dict().items()}
    assert len(shapes) == 277
    assert TokenizerConfig().factor == 16
    for name, shape in {
        "encoder.conv_out.weight": (64, 768, 3, 3),
        "encoder.down_blocks.3.downsamplers.0.conv.weight": (512, 512, 3, 3),
        "encoder.down_blocks.1.resnets.0.conv_shortcut.weight": (256, 128, 1, 1),
        "encoder.mid_block.resnets.1.norm2.bias": (768,),
        "quant_conv.weight": (64, 64, 1, 1),
        "quantize.embedding.weight": (8192, 64),
        "decoder.up_blocks.4.resnets.2.conv2.weight": (128, 128, 3, 3),
        "decoder.up_blocks.0.upsamplers.0.conv.weight": (768, 768, 3, 3),
        "decoder.conv_out.weight": (3, 128, 3, 3),
    }.items():
        assert shapes[name] == shape


@pytest.mark.parametrize("config", [PLAIN, tiny.TOKENIZER], ids=["published", "pocket"])
def test_pictures_to_ids_and_back(config: TokenizerConfig) -> None:
    tokenizer = made(config)
    assert config.factor == 4
    ids = tokenizer.encode(pictures(2, 16))
    assert ids.shape == (2, 4, 4)
    assert ids.dtype == torch.int64
    assert 0 <= int(ids.min()) <= int(ids.max()) < config.num_vq_embeddings
    assert len(ids.unique()) > 1
    shown = tokenizer.decode(ids)
    assert shown.shape == (2, 3, 16, 16)
    assert 0 <= float(shown.min()) <= float(shown.max()) <= 1
    # Fully convolutional: any multiple of the factor.
    assert tokenizer.encode(pictures(1, 32)[..., :24]).shape == (1, 8, 6)


@pytest.mark.parametrize("shape", [(2, 3, 16, 18), (2, 1, 16, 16), (3, 16, 16)])
def test_wrong_pictures_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        made(PLAIN).encode(torch.zeros(shape))


def test_an_id_is_the_nearest_row_of_the_codebook() -> None:
    tokenizer = made(PLAIN)
    latents = tokenizer.latents(pictures())
    rows = latents.permute(0, 2, 3, 1)[..., None, :] - tokenizer.quantize.embedding.weight
    assert torch.equal(tokenizer.quantize(latents), rows.pow(2).sum(-1).argmin(-1))
    codes = tokenizer.quantize.embedding.weight[:4]
    assert tokenizer.quantize(codes.T[None, :, :, None]).flatten().tolist() == [0, 1, 2, 3]


# ---- finite scalar quantization ----


@pytest.mark.parametrize("levels", [(4, 3, 2), (8, 5, 5, 5), (7,)])
def test_scalar_quantization_is_the_nearest_row_of_its_grid(levels: tuple[int, ...]) -> None:
    grid = scalar_grid(levels)
    assert grid.shape == (torch.tensor(levels).prod(), len(levels))
    assert len(grid.unique(dim=0)) == len(grid)
    assert float(grid.mean().abs()) < 1e-6
    latents = 3 * torch.randn(5, len(levels), 6, 6, generator=tiny.generator())
    quantized = scalar_quantize(latents, levels)
    rows = latents.permute(0, 2, 3, 1).reshape(-1, len(levels))
    nearest = grid[torch.cdist(rows, grid).argmin(1)]
    torch.testing.assert_close(quantized.permute(0, 2, 3, 1).reshape(-1, len(levels)), nearest)


def test_scalar_quantization_passes_the_gradient_inside_the_grid() -> None:
    latents = torch.tensor([0.3, 9.0, -9.0]).view(1, 1, 1, 3).requires_grad_()
    scalar_quantize(latents, (5,)).sum().backward()
    assert latents.grad is not None
    assert latents.grad.flatten().tolist() == [1, 0, 0]


def test_a_grid_is_a_frozen_codebook() -> None:
    tokenizer = ImageTokenizer(tiny.TOKENIZER)
    assert torch.equal(tokenizer.quantize.embedding.weight, scalar_grid((4, 3, 2)))
    assert not tokenizer.quantize.embedding.weight.requires_grad
    assert ImageTokenizer(PLAIN).quantize.embedding.weight.requires_grad


def test_training_and_decoding_see_the_same_codes() -> None:
    tokenizer = made(tiny.TOKENIZER)
    latents = tokenizer.latents(pictures())
    trained = tokenizer.pixels(scalar_quantize(latents, tiny.TOKENIZER.levels)).clamp(0, 1)
    torch.testing.assert_close(tokenizer.decode(tokenizer.quantize(latents)), trained, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("levels", [(4, 3, 3), (24,), (4, 6)])
def test_levels_must_make_the_codebook(levels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="24 x 3"):
        replace(tiny.TOKENIZER, levels=levels)


def test_pocket_is_sixteen_by_sixteen_ids_of_128_pixels() -> None:
    assert 16 * TOKENIZER.factor == 128


# ---- the linear start ----


def test_a_basis_of_all_directions_rebuilds_every_patch() -> None:
    patches = F.unfold(pictures(8, 16), 2, stride=2).transpose(1, 2).flatten(0, 1)
    mean, basis = patch_basis(pictures(8, 16), 2, 6)
    inward = basis / basis.pow(2).sum(1, keepdim=True)
    shown = (patches - mean) @ inward.T @ basis + mean
    assert float((shown - patches).pow(2).mean()) < 0.05 * float((patches - mean).pow(2).mean())
    # A unit along a direction is one standard deviation.
    torch.testing.assert_close(((patches - mean) @ inward.T).std(0), torch.ones(6), atol=0.05, rtol=0)


def test_started_from_patches_a_tokenizer_is_linear_and_already_shows_something() -> None:
    torch.manual_seed(0)
    config = replace(tiny.TOKENIZER, vq_embed_dim=4, levels=(8, 5, 5, 5), num_vq_embeddings=1000)
    tokenizer, shown = ImageTokenizer(config).requires_grad_(False), pictures(32, 32)
    fresh = psnr(tokenizer.decode(tokenizer.encode(shown)), shown)
    start_from_patches(tokenizer, shown)
    started = psnr(tokenizer.decode(tokenizer.encode(shown)), shown)
    assert started > 18 > fresh + 3
    assert not tokenizer.quant_conv(torch.randn(1, 8, 2, 2)).any()  # the convolutions add nothing yet


# ---- the enlarged decoder ----


def test_an_untrained_enlarged_decoder_interpolates() -> None:
    small = made(tiny.TOKENIZER).decode(torch.randint(24, (2, 4, 4), generator=tiny.generator()))
    shown = EnlargedDecoder(tiny.ENLARGED)(small)
    assert shown.shape == (2, 3, 32, 32)
    assert torch.equal(shown, F.interpolate(small, scale_factor=2, mode="bicubic", align_corners=False))


def test_an_enlarged_decoder_adds_what_it_learnt_where_it_belongs() -> None:
    """Each pixel it adds follows from the pixels around its own place alone."""
    decoder = EnlargedDecoder(tiny.ENLARGED)
    tiny.randomise(decoder)
    decoder.requires_grad_(False)
    small = torch.rand(1, 3, 64, 64, generator=tiny.generator())
    other = small.clone()
    other[..., 60:, 60:] = 0
    one, two = decoder(small), decoder(other)
    assert torch.equal(one[..., :64, :64], two[..., :64, :64])
    assert not torch.equal(one[..., 120:, 120:], two[..., 120:, 120:])
    assert not torch.equal(one, enlarged(small))


def test_doubling_in_one_convolution() -> None:
    """Without gradients an upsampling is one transposed convolution: the same numbers from fewer products."""
    upsample = Upsample(6)
    picture = torch.randn(2, 6, 5, 7, generator=tiny.generator(1))
    plain = upsample(picture)
    assert plain.requires_grad
    with torch.no_grad():
        made = upsample(picture)
    assert made.shape == (2, 6, 10, 14)
    torch.testing.assert_close(made, plain.detach(), atol=1e-5, rtol=1e-5)


# ---- more codes than before ----


def test_a_tokenizer_grows_new_axes_and_forgets_nothing() -> None:
    torch.manual_seed(0)
    config = replace(tiny.TOKENIZER, vq_embed_dim=2, levels=(8, 5), num_vq_embeddings=40)
    smaller, shown = ImageTokenizer(config).requires_grad_(False), pictures(32, 32)
    start_from_patches(smaller, shown)
    wider = replace(config, vq_embed_dim=3, levels=(8, 5, 5), num_vq_embeddings=200)
    grown = ImageTokenizer(wider).requires_grad_(False)
    start_from_smaller(grown, smaller, shown)
    # Its ids say what the smaller one's say, and one axis more, the last.
    assert torch.equal(grown.encode(shown) // 5, smaller.encode(shown))
    assert len((grown.encode(shown) % 5).unique()) == 5
    before, now = (psnr(t.decode(t.encode(shown)), shown) for t in (smaller, grown))
    assert now > before + 0.5


@pytest.mark.parametrize("shown", [torch.full((32, 3, 32, 32), 0.5), torch.zeros(32, 3, 32, 32)])
def test_pictures_of_one_colour_start_finite_tokenizers(shown: torch.Tensor) -> None:
    torch.manual_seed(0)
    config = replace(tiny.TOKENIZER, vq_embed_dim=2, levels=(8, 5), num_vq_embeddings=40)
    smaller = ImageTokenizer(config).requires_grad_(False)
    start_from_patches(smaller, shown)
    grown = ImageTokenizer(replace(config, vq_embed_dim=3, levels=(8, 5, 5), num_vq_embeddings=200))
    start_from_smaller(grown.requires_grad_(False), smaller, shown)
    for tokenizer in (smaller, grown):
        assert all(t.isfinite().all() for t in tokenizer.state_dict().values())


# ---- the losses ----


def test_every_loss_pulls_on_the_pixels_by_its_share() -> None:
    """In a task of pixels alone, the gradient is the reconstruction's plus the others at their fixed proportions."""
    torch.manual_seed(0)
    wanted, made = pictures(4, 32), pictures(4, 32).flip(0).requires_grad_()
    task = PictureTask(published_features(2), critic_from=0.5)

    def pull_of(loss: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(loss, made)[0]

    pixels = pull_of(reconstruction_loss(made, wanted))
    assert task.features is not None
    features = pull_of(feature_loss(task.features, made, wanted))
    expected = pixels + FEATURE_SHARE * features * pixels.norm() / features.norm()
    early = task.compared(made, wanted)
    torch.testing.assert_close(early, reconstruction_loss(made, wanted))  # before the critic, its value is this
    torch.testing.assert_close(pull_of(early), expected, rtol=1e-3, atol=1e-6)
    task.share = 0.5
    late = pull_of(task.compared(made, wanted)) - expected
    assert float(late.norm() / pixels.norm()) == pytest.approx(CRITIC_SHARE, rel=0.02)


def test_the_critic_learns_to_tell_and_never_pulls_its_own_way() -> None:
    torch.manual_seed(0)
    task = PictureTask(None, critic_from=0.0)
    wanted, made = pictures(8, 32), torch.rand(8, 3, 32, 32, generator=tiny.generator())
    optimizer = torch.optim.Adam(task.critic.parameters(), lr=2e-3)
    for _ in range(40):
        optimizer.zero_grad()
        task.compared(made, wanted).backward()
        optimizer.step()
    with torch.no_grad():
        assert float(task.critic(wanted).mean()) > 0.3 > -0.3 > float(task.critic(made).mean())


def test_measured_it_is_the_error_of_the_pixels_alone() -> None:
    task = PictureTask(None, critic_from=0.0)
    with torch.no_grad():
        assert torch.equal(
            task.compared(pictures(), pictures().flip(0)), reconstruction_loss(pictures(), pictures().flip(0))
        )


def test_a_third_of_the_views_is_whole_and_a_third_at_full_size() -> None:
    whole = (255 * pictures(6, 256)).byte()
    views = scaled_views(whole, tiny.generator())
    assert views.shape == (6, 3, 128, 128)
    assert 0 <= float(views.min()) <= float(views.max()) <= 1
    torch.testing.assert_close(views[4:], F.avg_pool2d(whole[4:].float() / 255, 2))
    for view, picture in zip(views[2:4], whole[2:4], strict=True):
        places = picture.float().div(255).unfold(1, 128, 1).unfold(2, 128, 1)[0]
        assert any(bool((places[y] == view[0]).all((-1, -2)).any()) for y in range(129))


def test_a_decoder_is_shown_codes_that_a_base_would_miss() -> None:
    levels = (8, 5, 5, 5)
    missed = missed_levels(400, levels, 16, tiny.generator())
    assert missed.shape == (400, 4, 16, 16)
    assert not missed[::2].any()  # half of the pictures are as they are
    axes = (missed[1::2] != 0).sum(1)
    beside, anything = (axes == 1).float().mean(), (axes > 1).float().mean()
    assert 0.12 < float(beside) < 0.17  # half of the most
    assert 0.008 < float(anything) < 0.012
    assert float(missed[1::2].abs().amax(1)[axes == 1].median()) == 1
    quantizer = made(replace(PLAIN, vq_embed_dim=4, num_vq_embeddings=1000, levels=levels)).quantize
    moved = scalar_quantize(missed.float(), levels)
    assert torch.equal(quantizer.embedding(quantizer(moved)).permute(0, 3, 1, 2), moved)  # codes that there are
