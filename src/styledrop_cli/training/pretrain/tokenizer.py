"""The image tokenizer and its enlarged decoder."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from styledrop_cli.base.folder import load_module
from styledrop_cli.corpus.folder import read_pictures
from styledrop_cli.devices import autocast
from styledrop_cli.errors import UsageError
from styledrop_cli.io.tensors import save_part
from styledrop_cli.models.efficientnet import EfficientNet
from styledrop_cli.models.tokenizer import (
    EnlargedConfig,
    EnlargedDecoder,
    ImageTokenizer,
    TokenizerConfig,
    enlarged,
    psnr,
    scalar_quantize,
)
from styledrop_cli.training.distributed import all_gather
from styledrop_cli.training.loop import step_generator
from styledrop_cli.training.pretrain.features import published_features
from styledrop_cli.training.pretrain.job import (
    Job,
    Order,
    adamw,
    flipped,
    halved,
    picked,
    save_sheet,
    split,
)

# Pocket's sizes.
TOKENIZER = TokenizerConfig(
    block_out_channels=(64, 144),
    layers_per_block=1,
    latent_channels=32,
    vq_embed_dim=5,
    num_vq_embeddings=4000,
    norm_num_groups=16,
    patch_size=4,
    linear_path=True,
    levels=(8, 5, 5, 5, 4),
)
ENLARGED = EnlargedConfig()
LEAST_DEVIATION = 1e-3  # of patches along a direction: simple pictures do not differ in as many as there are axes
# How hard the perceptual loss and the critic pull on the pixels, as shares of the reconstruction's pull.
FEATURE_SHARE, CRITIC_SHARE = 0.5, 0.3
# While a tokenizer learns to decode alone: which share of a picture's codes is missed at most.
MOST_BESIDE, MOST_ANYTHING = 0.3, 0.02
CRITIC_FROM = 0.4  # of the way: before, it would judge what is still a blur


class PictureTask(nn.Module):
    """What the tokenizer and the enlarged decoder have in common: how decoded pictures are compared with the originals.

    ``share`` is how much of the training is done.
    """

    def __init__(self, features: EfficientNet | None, critic_from: float) -> None:
        super().__init__()
        self.features = features
        self.critic = PatchCritic()
        self.critic_from = critic_from
        self.share = 0.0

    def compared(self, made: Tensor, wanted: Tensor) -> Tensor:
        """The loss of pictures ``[B,3,S,S]``: of their pixels, their features and the critic's opinion.

        Features and critic are weighted so that the norm of their gradient at the pixels is a fixed share of the
        reconstruction's (VQGAN's adaptive weight, 2012.09841, taken where all losses meet). So the gradient at the
        pixels is added up first, and goes into the network once.
        """
        if not torch.is_grad_enabled():
            return reconstruction_loss(made, wanted)
        pixels = made.detach().float().requires_grad_()
        losses = [reconstruction_loss(pixels, wanted)]
        shares = [1.0]
        if self.features is not None:
            losses.append(feature_loss(self.features, pixels, wanted))
            shares.append(FEATURE_SHARE)
        critic = torch.zeros((), device=made.device)
        if self.share >= self.critic_from:
            losses.append(-self._judged(pixels))
            shares.append(CRITIC_SHARE)
            real, drawn = self.critic(wanted), self.critic(pixels.detach())
            critic = F.relu(1 - real).mean() + F.relu(1 + drawn).mean()
        pulls = [torch.autograd.grad(loss, pixels)[0] for loss in losses]
        norms = all_gather(torch.stack([pull.norm() for pull in pulls])[None]).norm(dim=0)  # those of the whole batch
        weights = torch.tensor(shares, device=made.device) * norms[0] / (norms + 1e-8)
        pull = sum(weight * one for weight, one in zip(weights, pulls, strict=True))
        # A number with this gradient at the pixels, whose value is the reconstruction's.
        guided = (made.float() * pull).sum()
        total: Tensor = guided + (losses[0] - guided).detach() + critic
        return total

    def _judged(self, made: Tensor) -> Tensor:
        """The critic's mean opinion, with gradient to the picture but not to the critic."""
        self.critic.requires_grad_(False)
        # A copy, because the counter of FLOPs follows each module's input back, and cannot where that is a leaf.
        opinion: Tensor = self.critic(made.clone()).mean()
        self.critic.requires_grad_(True)
        return opinion


class _TokenizerTask(PictureTask):
    def __init__(self, tokenizer: ImageTokenizer, features: EfficientNet | None) -> None:
        super().__init__(features, CRITIC_FROM)
        self.tokenizer = tokenizer

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        pictures, missed = batch
        latents = self.tokenizer.latents(pictures).float()
        levels = self.tokenizer.config.levels
        half = torch.tensor([(n - 1) / 2 for n in levels], device=latents.device)[:, None, None]
        # Beyond the grid the clamp lets no gradient through; this pulls the latents back.
        outside = F.relu(latents.abs() - half).mean()
        codes = scalar_quantize(scalar_quantize(latents, levels) + missed, levels)
        return self.compared(self.tokenizer.pixels(codes), pictures) + 0.1 * outside


def missed_levels(count: int, levels: tuple[int, ...], grid: int, generator: torch.Generator) -> Tensor:
    """By how much ``count`` pictures' codes are missed as a base misses them, in levels: ``[count,V,grid,grid]``.

    In every other picture up to ``MOST_BESIDE`` of the codes are a level beside along one axis, which makes flat areas
    mottled, and up to ``MOST_ANYTHING`` are anything, which makes stray blocks.
    """
    shape = (count, 1, grid, grid)
    missing = (torch.arange(count) % 2).view(-1, 1, 1, 1)
    share = missing * torch.rand(count, 1, 1, 1, generator=generator)
    axis = torch.randint(len(levels), shape, generator=generator)
    step = 2 * torch.randint(2, shape, generator=generator) - 1
    step = step * (torch.rand(shape, generator=generator) < MOST_BESIDE * share)
    beside = torch.zeros(count, len(levels), grid, grid, dtype=step.dtype).scatter_(1, axis, step)
    far = torch.stack([torch.randint(1 - n, n, (count, grid, grid), generator=generator) for n in levels], 1)
    return beside + far * (torch.rand(shape, generator=generator) < MOST_ANYTHING * share)


def feature_loss(features: EfficientNet, made: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute difference of each stage's maps relative to their mean; all stages count the same."""
    with torch.no_grad():
        theirs = features.features(wanted * 2 - 1)
    pairs = zip(features.features(made * 2 - 1), theirs, strict=True)
    parts = [F.l1_loss(a, b) / (all_gather(b.abs().mean()[None]).mean() + 1e-3) for a, b in pairs]  # of all processes
    total: Tensor = torch.stack(parts).sum()
    return total


def reconstruction_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """Absolute and squared error of pixels, and absolute error of their differences, which keeps outlines sharp."""
    made, wanted = made.float(), wanted.float()
    edges = sum((made.diff(dim=axis) - wanted.diff(dim=axis)).abs().mean() for axis in (-1, -2))
    return F.l1_loss(made, wanted) + 2 * F.mse_loss(made, wanted) + 0.5 * edges


def patch_basis(pictures: Tensor, factor: int, numbers: int) -> tuple[Tensor, Tensor]:
    """Mean ``[P]`` and leading principal directions times deviation ``[numbers,P]`` of patches, P = 3*factor**2."""
    patches = F.unfold(pictures, factor, stride=factor).transpose(1, 2).flatten(0, 1)
    mean = patches.mean(0)
    _, spread, directions = torch.pca_lowrank(patches - mean, q=numbers + 4, center=False)
    deviation = (spread[:numbers] / len(patches) ** 0.5).clamp(min=LEAST_DEVIATION)
    return mean, directions[:, :numbers].T * deviation[:, None]


def start_from_patches(tokenizer: ImageTokenizer, pictures: Tensor) -> None:
    """Make a new tokenizer the best linear one: PCA of patches in and out; the convolutions add nothing yet."""
    config = tokenizer.config
    assert tokenizer.linear_in is not None and tokenizer.linear_out is not None
    mean, basis = patch_basis(pictures, config.factor, config.vq_embed_dim)
    # Two deviations reach the edge of the grid.
    scale = torch.tensor([(n - 1) / 4 for n in config.levels])[:, None]
    inward = basis / basis.pow(2).sum(1, keepdim=True) * scale
    shape = tokenizer.linear_in.weight.shape
    with torch.no_grad():
        tokenizer.linear_in.weight.copy_(inward.view(shape))
        tokenizer.linear_in.bias.copy_(-(inward @ mean))  # type: ignore[union-attr]
        tokenizer.linear_out.weight.copy_((basis / scale).view(shape))
        for index in range(3):  # one bias a colour: the mean over the patch
            tokenizer.linear_out.bias[index] = mean.view(3, -1)[index].mean()  # type: ignore[index]
        for conv in (tokenizer.quant_conv, tokenizer.decoder.conv_out):
            conv.weight.zero_()
            conv.bias.zero_()  # type: ignore[union-attr]


@torch.no_grad()
def start_from_smaller(tokenizer: ImageTokenizer, smaller: ImageTokenizer, pictures: Tensor) -> None:
    """Start from a trained tokenizer of the same sizes but with fewer axes of codes.

    The first axes are the smaller one's. Each new axis starts linear: as the leading direction of what the smaller one
    loses of ``pictures`` ``[B,3,S,S]``, outside the span of the patches that it adds up.
    """
    assert tokenizer.linear_in is not None and tokenizer.linear_out is not None and smaller.linear_out is not None
    own, axes = tokenizer.state_dict(), smaller.config.vq_embed_dim
    new = tokenizer.config.vq_embed_dim - axes
    for name, value in smaller.state_dict().items():
        if own[name].shape == value.shape:
            own[name].copy_(value)
        elif not name.startswith("quantize."):
            own[name].zero_()
            own[name][tuple(slice(side) for side in value.shape)] = value
    factor = tokenizer.config.factor
    lost = torch.cat([one - smaller.decode(smaller.encode(one)) for one in pictures.split(32)])
    patches = F.unfold(lost, factor, stride=factor).transpose(1, 2).flatten(0, 1)
    span = torch.linalg.qr(smaller.linear_out.weight.flatten(1).T).Q
    patches = patches - (patches @ span) @ span.T
    _, spread, directions = torch.pca_lowrank(patches, q=new + 4, center=False)
    deviation = (spread / len(patches) ** 0.5).clamp(min=LEAST_DEVIATION)
    for axis in range(new):
        direction = directions[:, axis].view(3, factor, factor)
        # Two deviations reach the edge of the grid.
        scale = (tokenizer.config.levels[axes + axis] - 1) / 4 / deviation[axis]
        mean = F.unfold(pictures, factor, stride=factor).transpose(1, 2).flatten(0, 1).mean(0)
        tokenizer.linear_in.weight[axes + axis] = direction * scale
        tokenizer.linear_in.bias[axes + axis] = -scale * (mean @ directions[:, axis])  # type: ignore[index]
        tokenizer.linear_out.weight[axes + axis] = direction / scale


def learns_to_decode(tokenizer: ImageTokenizer) -> None:
    """Let only what turns codes into pixels be trained: the codes of a picture, and what learnt them, stay good."""
    tokenizer.requires_grad_(False)
    for part in (tokenizer.post_quant_conv, tokenizer.decoder, tokenizer.linear_out):
        if part is not None:
            part.requires_grad_(True)


def _started(init_from: Path | None, pictures: Tensor) -> ImageTokenizer:
    """The tokenizer that a training starts with: a new one, that of a model folder, or that one with more codes."""
    fresh = ImageTokenizer(TOKENIZER)
    if init_from is None:
        start_from_patches(fresh, pictures)
        return fresh
    there: ImageTokenizer = load_module(init_from, "tokenizer")
    levels = there.config.levels
    fewer = replace(TOKENIZER, vq_embed_dim=len(levels), levels=levels, num_vq_embeddings=math.prod(levels))
    if there.config != fewer or not levels or levels != TOKENIZER.levels[: len(levels)] or fewer == TOKENIZER:
        return there
    start_from_smaller(fresh, there, pictures)
    return fresh


def scaled_views(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Views ``[B,3,128,128]`` in [0,1] of uint8 pictures of 256 px.

    A third are whole pictures, a third parts at full size, as 32x32 ids show them, and a third something between.
    """
    third = len(pictures) // 3
    between, near, whole = pictures[:third], pictures[third : 2 * third], pictures[2 * third :]
    corners = torch.randint(129, (third, 2), generator=generator).tolist()
    cut = [one[:, y : y + 128, x : x + 128] for one, (x, y) in zip(near, corners, strict=True)]
    side = int(torch.randint(136, 256, (), generator=generator))
    x, y = torch.randint(257 - side, (2,), generator=generator).tolist()
    part = between[:, :, y : y + side, x : x + side].float() / 255
    part = F.interpolate(part, (128, 128), mode="bilinear", antialias=True)
    return torch.cat([part, *(one[None].float() / 255 for one in cut), halved(whole)])


def tokenizer_job(order: Order) -> Job:
    """Train the image tokenizer."""
    out, device = order.out, order.device
    train, held = split(order.records)
    pictures = order.pictures(train, 256)
    measured = halved(read_pictures(held[:256], 256))
    if order.keep_codes:
        if order.init_from is None:
            raise UsageError(
                f"there is no tokenizer in {out} whose codes could be kept", "Name the model it is in with --init-from."
            )
        tokenizer: ImageTokenizer = load_module(order.init_from, "tokenizer")
        learns_to_decode(tokenizer)
    else:
        tokenizer = _started(order.init_from, halved(pictures[:: max(1, len(pictures) // 400)].cpu()))
        tokenizer.requires_grad_(True)
    task = _TokenizerTask(tokenizer, published_features(FEATURE_STAGES))
    task.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    tokenizer.quantize.requires_grad_(False)

    levels, grid = tokenizer.config.levels, 128 // tokenizer.config.factor

    def batches(step: int) -> tuple[Tensor, Tensor]:
        g = step_generator(order.seed, step)
        chosen = picked(pictures, torch.randint(len(pictures), (order.batch,), generator=g), device)
        views = flipped(scaled_views(chosen, g), g)
        missed = missed_levels(len(views), levels, grid, g) if order.keep_codes else torch.zeros(len(views), 1, 1, 1)
        return views.to(device), missed.to(device)

    def figure(task: nn.Module) -> str:
        with autocast(device):
            made = torch.cat([tokenizer.decode(tokenizer.encode(p.to(device))) for p in measured.split(32)])
        return f"held-out PSNR {psnr(made.cpu(), measured):.2f} dB at 128 px"

    def sheet(task: nn.Module, path: Path) -> None:
        show = measured[:16].to(device)
        save_sheet(torch.cat([show, tokenizer.decode(tokenizer.encode(show))]), path)

    def progress(share: float) -> None:
        task.share = share

    return Job(
        task,
        [adamw(tokenizer, 1e-3), critic_optimizer(task.critic)],
        batches,
        figure,
        lambda t: save_part(out, "tokenizer", tokenizer, tokenizer.config),
        sheet,
        progress=progress,
    )


FEATURE_STAGES = 4  # of EfficientNet's seven: the later ones tell what a picture shows, not how it looks


class PatchCritic(nn.Module):
    """Tells real from decoded patches, ``[B,3,S,S]`` to ``[B,1,S/8,S/8]`` (the discriminator of VQGAN, 2012.09841)."""

    def __init__(self, channels: tuple[int, ...] = (32, 64, 96)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inp = 3
        for out in channels:
            conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(inp, out, 4, stride=2, padding=1))
            layers += [conv, nn.LeakyReLU(0.2)]
            inp = out
        self.layers = nn.Sequential(*layers, nn.Conv2d(inp, 1, 3, padding=1))

    def forward(self, pictures: Tensor) -> Tensor:
        out: Tensor = self.layers(pictures * 2 - 1).float()
        return out


def critic_optimizer(critic: PatchCritic) -> torch.optim.Optimizer:
    """Adam with a short memory, because what the critic judges keeps changing."""
    return torch.optim.Adam(critic.parameters(), lr=5e-4, betas=(0.5, 0.9))


# Up to this share of the ids is replaced while the enlarged decoder learns: what a base draws has more errors than what
# a tokenizer reads.
MOST_SPOILT = 0.1


class _DecoderTask(PictureTask):
    def __init__(self, tokenizer: ImageTokenizer, decoder: EnlargedDecoder, features: EfficientNet | None) -> None:
        super().__init__(features, 0.0)
        self.tokenizer = tokenizer.requires_grad_(False)
        self.decoder = decoder

    def forward(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        pictures, spoilt, other = batch
        with torch.no_grad():
            ids = self.tokenizer.encode(F.avg_pool2d(pictures, 2))
            ids = torch.where(spoilt, other, ids)
            small = self.tokenizer.decode(ids)
        return self.compared(self.decoder(small), pictures)


def decoder_job(order: Order) -> Job:
    """Train the enlarged decoder on the ids of a finished tokenizer."""
    out, device = order.out, order.device
    train, held = split(order.records)
    tokenizer: ImageTokenizer = load_module(out, "tokenizer")
    begun = order.init_from
    decoder: EnlargedDecoder = EnlargedDecoder(ENLARGED) if begun is None else load_module(begun, "decoder")
    task = _DecoderTask(tokenizer, decoder.requires_grad_(True), published_features(FEATURE_STAGES))
    task.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pictures, measured = order.pictures(train, 256), read_pictures(held[:128], 256) / 255
    grid, codes = 128 // tokenizer.config.factor, tokenizer.config.num_vq_embeddings

    def batches(step: int) -> tuple[Tensor, Tensor, Tensor]:
        g = step_generator(order.seed, step)
        chosen = picked(pictures, torch.randint(len(pictures), (order.batch,), generator=g), device)
        share = MOST_SPOILT * torch.rand(order.batch, 1, 1, generator=g)
        spoilt = torch.rand(order.batch, grid, grid, generator=g) < share
        other = torch.randint(codes, (order.batch, grid, grid), generator=g)
        return flipped(chosen / 255, g).to(device), spoilt.to(device), other.to(device)

    def shown(enlarge: Callable[[Tensor], Tensor]) -> Tensor:
        small = (tokenizer.decode(tokenizer.encode(F.avg_pool2d(p.to(device), 2))) for p in measured.split(32))
        return torch.cat([enlarge(pictures).clamp(0, 1).cpu() for pictures in small])

    def figure(task: nn.Module) -> str:
        with autocast(device):
            made, plain = (psnr(shown(how), measured) for how in (decoder, enlarged))
        return f"held-out PSNR {made:.2f} dB at 256 px from 16x16 ids, interpolated {plain:.2f}"

    def sheet(task: nn.Module, path: Path) -> None:
        rows = (measured, shown(enlarged), shown(decoder))
        save_sheet(torch.cat([pictures[:8] for pictures in rows]), path)

    return Job(
        task,
        [adamw(decoder, 5e-4), critic_optimizer(task.critic)],
        batches,
        figure,
        lambda t: save_part(out, "decoder", decoder, decoder.config),
        sheet,
    )
