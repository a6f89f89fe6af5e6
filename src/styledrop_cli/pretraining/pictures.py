"""The image tokenizer and its enlarged decoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from styledrop_cli.checkpoints import save_part
from styledrop_cli.corpus import read_pictures
from styledrop_cli.devices import autocast
from styledrop_cli.models.tokenizer import EnlargedDecoder, ImageTokenizer, TokenizerConfig, psnr, scalar_quantize
from styledrop_cli.parts import load_module
from styledrop_cli.pretraining.job import Job, Order, adamw, flipped, halved, picked, save_sheet, split
from styledrop_cli.processes import gathered
from styledrop_cli.training import step_generator

# Pocket's sizes.
TOKENIZER = TokenizerConfig(
    block_out_channels=(64, 144),
    layers_per_block=1,
    latent_channels=32,
    vq_embed_dim=4,
    num_vq_embeddings=1000,
    norm_num_groups=16,
    patch_size=4,
    linear_path=True,
    levels=(8, 5, 5, 5),
)
ENLARGED_CHANNELS = 48
LEAST_DEVIATION = 1e-3  # of patches along a direction: simple pictures differ in fewer of them than ids tell apart
CRITIC_SHARE = 0.5  # of the reconstruction's pull on the pixels


class _TokenizerTask(nn.Module):
    def __init__(self, tokenizer: ImageTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, pictures: Tensor) -> Tensor:
        latents = self.tokenizer.latents(pictures).float()
        levels = self.tokenizer.config.levels
        half = torch.tensor([(n - 1) / 2 for n in levels], device=latents.device)[:, None, None]
        # Beyond the grid the clamp lets no gradient through; this pulls the latents back.
        outside = F.relu(latents.abs() - half).mean()
        return reconstruction_loss(self.tokenizer.pixels(scalar_quantize(latents, levels)), pictures) + 0.1 * outside


def reconstruction_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """Absolute and squared error of pixels, and absolute error of their differences: outlines stay sharp."""
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
    """Make a fresh tokenizer the best linear one: PCA of patches in and out, the convolutions adding nothing yet."""
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


def tokenizer_job(order: Order) -> Job:
    """Train the image tokenizer."""
    out, device = order.out, order.device
    train, held = split(order.records)
    tokenizer: ImageTokenizer = (
        ImageTokenizer(TOKENIZER) if order.init_from is None else load_module(order.init_from, "tokenizer")
    )
    pictures = order.pictures(train, 256)
    measured = halved(read_pictures(held[:256], 256))
    if order.init_from is None:
        start_from_patches(tokenizer, halved(pictures[:: max(1, len(pictures) // 400)].cpu()))
    task = _TokenizerTask(tokenizer.requires_grad_(True)).to(device)
    tokenizer.quantize.requires_grad_(False)

    def batches(step: int) -> Tensor:
        g = step_generator(order.seed, step)
        chosen = picked(pictures, torch.randint(len(pictures), (order.batch,), generator=g), device)
        near = order.batch // 4  # a quarter of the batch at twice the scale, as for 32x32 ids at 256 px
        x, y = torch.randint(129, (2,), generator=g).tolist()
        views = torch.cat([halved(chosen[near:]), chosen[:near, :, y : y + 128, x : x + 128] / 255])
        return flipped(views, g).to(device)

    def figure(task: nn.Module) -> str:
        with autocast(device):
            made = torch.cat([tokenizer.decode(tokenizer.encode(p.to(device))) for p in measured.split(32)])
        return f"held-out PSNR {psnr(made.cpu(), measured):.2f} dB at 128 px"

    def sheet(task: nn.Module, path: Path) -> None:
        show = measured[:16].to(device)
        save_sheet(torch.cat([show, tokenizer.decode(tokenizer.encode(show))]), path)

    return Job(
        task,
        [adamw(task, 1e-3)],
        batches,
        figure,
        lambda t: save_part(out, "tokenizer", tokenizer, tokenizer.config),
        sheet,
    )


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


class _DecoderTask(nn.Module):
    def __init__(self, tokenizer: ImageTokenizer, decoder: EnlargedDecoder) -> None:
        super().__init__()
        self.tokenizer = tokenizer.requires_grad_(False)
        self.decoder = decoder
        self.critic = PatchCritic()

    def forward(self, pictures: Tensor) -> Tensor:
        with torch.no_grad():
            latents = self.tokenizer.latents(F.avg_pool2d(pictures, 2)).float()
            codes = scalar_quantize(latents, self.tokenizer.config.levels)
        made = self.decoder.pixels(codes).float()
        loss = reconstruction_loss(made, pictures)
        fooled = -self._judged(made)
        critic = F.relu(1 - self.critic(pictures)).mean() + F.relu(1 + self.critic(made.detach())).mean()
        # VQGAN's adaptive weight, taken at the pixels: the critic never outweighs the reconstruction.
        (pull,) = torch.autograd.grad(loss, made, retain_graph=True)
        (push,) = torch.autograd.grad(fooled, made, retain_graph=True)
        norms = gathered(torch.stack([pull.norm(), push.norm()])[None]).norm(dim=0)  # those of the whole batch
        weight = CRITIC_SHARE * norms[0] / (norms[1] + 1e-8)
        total: Tensor = loss + weight.detach() * fooled + critic
        return total

    def _judged(self, made: Tensor) -> Tensor:
        """The critic's mean opinion, with gradient to the picture but not to the critic."""
        self.critic.requires_grad_(False)
        opinion: Tensor = self.critic(made).mean()
        self.critic.requires_grad_(True)
        return opinion


def decoder_job(order: Order) -> Job:
    """Train the enlarged decoder on the ids of a finished tokenizer."""
    out, device = order.out, order.device
    train, held = split(order.records)
    tokenizer: ImageTokenizer = load_module(out, "tokenizer")
    if order.init_from is None:
        decoder = EnlargedDecoder(
            replace(tokenizer.config, block_out_channels=(ENLARGED_CHANNELS, *tokenizer.config.block_out_channels))
        )
        decoder.warm_start(tokenizer)
        nn.init.zeros_(decoder.decoder.conv_out.weight)
    else:
        decoder = load_module(order.init_from, "decoder")
    task = _DecoderTask(tokenizer, decoder.requires_grad_(True)).to(device)
    pictures, measured = order.pictures(train, 256), read_pictures(held[:128], 256) / 255

    def batches(step: int) -> Tensor:
        g = step_generator(order.seed, step)
        chosen = picked(pictures, torch.randint(len(pictures), (order.batch,), generator=g), device)
        return flipped(chosen / 255, g).to(device)

    def decoded(pictures: Tensor) -> Tensor:
        ids = tokenizer.encode(F.avg_pool2d(pictures.to(device), 2))
        return decoder.decode(ids, tokenizer.quantize.embedding.weight)

    def figure(task: nn.Module) -> str:
        with autocast(device):
            made = torch.cat([decoded(p) for p in measured.split(32)])
        return f"held-out PSNR {psnr(made.cpu(), measured):.2f} dB at 256 px from 16x16 ids"

    def sheet(task: nn.Module, path: Path) -> None:
        save_sheet(torch.cat([measured[:8], decoded(measured[:8]).cpu()]), path)

    def export(task: nn.Module) -> None:
        save_part(out, "decoder", decoder, decoder.config)

    optimizers: list[torch.optim.Optimizer] = [
        adamw(decoder, 5e-4),
        torch.optim.Adam(task.critic.parameters(), lr=5e-4, betas=(0.5, 0.9)),
    ]
    return Job(task, optimizers, batches, figure, export, sheet)
