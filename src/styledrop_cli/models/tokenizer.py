"""The VQ image tokenizer: pictures to a grid of ids and back.

The network is the published aMUSEd one, tensor for tensor (upstream: diffusers ``VQModel``). Pocket's additions are
config keys that are off by default: ``patch_size`` (pixel unshuffling, so that no convolution runs at full
resolution), ``linear_path`` (a linear patch projection beside the convolutions, started from PCA), and ``levels``
(finite scalar quantization, arXiv 2309.15505, whose grid is written out as an ordinary codebook).

From 1024 px on its layers work in strips, see ``strips``.

Shapes: pictures ``[B,3,S,S]`` in [0,1]; ids ``[B,S/f,S/f]``; latents ``[B,V,S/f,S/f]``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from styledrop_cli.models.strips import convolve, double, halve, is_large

GROUP_EPS = 1e-6
LARGEST_FACTOR = 64  # pixels per id along a side


@dataclass(frozen=True)
class TokenizerConfig:
    """Sizes, in upstream's names; the defaults are aMUSEd's. Channels run from full resolution downwards."""

    block_out_channels: tuple[int, ...] = (128, 256, 256, 512, 768)
    layers_per_block: int = 2
    latent_channels: int = 64
    vq_embed_dim: int = 64
    num_vq_embeddings: int = 8192
    norm_num_groups: int = 32
    patch_size: int = 1
    linear_path: bool = False
    levels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.block_out_channels or not 1 <= self.factor <= LARGEST_FACTOR:
            raise ValueError(f"an id stands for more than {LARGEST_FACTOR} pixels of a side, or for none")
        if self.levels and (len(self.levels) != self.vq_embed_dim or math.prod(self.levels) != self.num_vq_embeddings):
            raise ValueError(
                f"levels {self.levels} make {math.prod(self.levels)} codes of {len(self.levels)} numbers, but the "
                f"codebook is {self.num_vq_embeddings} x {self.vq_embed_dim}"
            )

    @property
    def factor(self) -> int:
        """Pixels per id along a side."""
        return int(self.patch_size * 2 ** (len(self.block_out_channels) - 1))


class ResnetBlock(nn.Module):
    def __init__(self, inp: int, out: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inp, eps=GROUP_EPS)
        self.conv1 = nn.Conv2d(inp, out, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out, eps=GROUP_EPS)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inp, out, 1) if inp != out else None

    def forward(self, x: Tensor) -> Tensor:
        h = convolve(self.conv1, x, self.norm1)
        if not is_large(x):
            h = convolve(self.conv2, h, self.norm2)
            return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))
        h = convolve(self.conv2, h, self.norm2, into=h)  # not more maps than these two
        return h.add_(x) if self.conv_shortcut is None else convolve(self.conv_shortcut, x, into=h, add=True)


class Downsample(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return halve(self.conv, x)


class Upsample(nn.Module):
    """Nearest neighbours, then a convolution."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
            return out
        return double(doubling(self.conv.weight), self.conv.bias, x)


def doubling(weight: Tensor) -> Tensor:
    """A 3x3 convolution ``[O,I,3,3]`` of a picture doubled to its nearest neighbours, as a transposed one.

    ``[I,O,4,4]``, with stride 2 and padding 1. Of the nine pixels that each sum is over, several are the same one: four
    products do for nine.
    """
    turned = weight.flip(-1, -2).transpose(0, 1)
    return sum((F.pad(turned, (x, 1 - x, y, 1 - y)) for x in (0, 1) for y in (0, 1)), torch.zeros(()))


class _Level(nn.Module):
    """One resolution: residual blocks and, but for the last, the step to the next."""

    def __init__(self, inp: int, out: int, blocks: int, groups: int, step: nn.Module | None, down: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(inp if i == 0 else out, out, groups) for i in range(blocks))
        self.downsamplers = nn.ModuleList([step]) if step is not None and down else None
        self.upsamplers = nn.ModuleList([step]) if step is not None and not down else None


class _Middle(nn.Module):
    def __init__(self, dim: int, groups: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(dim, dim, groups) for _ in range(2))


def steps_of(levels: Any) -> Iterator[nn.Module]:
    """What a map goes through in ``levels``, in order."""
    return (step for level in levels for step in (*level.resnets, *(level.downsamplers or level.upsamplers or ())))


def through(steps: Iterable[nn.Module], x: Tensor) -> Tensor:
    """``x`` after all ``steps``. No map but the last one is held by anyone: at 1024 px one is a gigabyte."""
    for step in steps:
        x = step(x)
    return x


class Encoder(nn.Module):
    """Pictures ``[B,3,S,S]`` to ``[B,latent_channels,S/f,S/f]``."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        channels, groups = config.block_out_channels, config.norm_num_groups
        self.patch_size = config.patch_size
        self.conv_in = nn.Conv2d(3 * config.patch_size**2, channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        inp = channels[0]
        for index, out in enumerate(channels):
            step = Downsample(out) if index < len(channels) - 1 else None
            self.down_blocks.append(_Level(inp, out, config.layers_per_block, groups, step, down=True))
            inp = out
        self.mid_block = _Middle(inp, groups)
        self.conv_norm_out = nn.GroupNorm(groups, inp, eps=GROUP_EPS)
        self.conv_out = nn.Conv2d(inp, config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        steps = (self.conv_in, *steps_of(self.down_blocks), *self.mid_block.resnets)
        x = through(steps, F.pixel_unshuffle(x, self.patch_size))
        return convolve(self.conv_out, x, self.conv_norm_out)


class Decoder(nn.Module):
    """``[B,latent_channels,h,w]`` to pictures ``[B,3,f*h,f*w]``."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        channels, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.patch_size = config.patch_size
        self.conv_in = nn.Conv2d(config.latent_channels, channels[0], 3, padding=1)
        self.mid_block = _Middle(channels[0], groups)
        self.up_blocks = nn.ModuleList()
        inp = channels[0]
        for index, out in enumerate(channels):
            step = Upsample(out) if index < len(channels) - 1 else None
            self.up_blocks.append(_Level(inp, out, config.layers_per_block + 1, groups, step, down=False))
            inp = out
        self.conv_norm_out = nn.GroupNorm(groups, inp, eps=GROUP_EPS)
        self.conv_out = nn.Conv2d(inp, 3 * config.patch_size**2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = through((self.conv_in, *self.mid_block.resnets, *steps_of(self.up_blocks)), x)
        return F.pixel_shuffle(convolve(self.conv_out, x, self.conv_norm_out), self.patch_size)


class Quantizer(nn.Module):
    """The codebook ``[K,V]``; a latent's id is its nearest row."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.num_vq_embeddings, config.vq_embed_dim)
        if config.levels:
            self.embedding.weight.requires_grad_(False)
            with torch.no_grad():
                self.embedding.weight.copy_(scalar_grid(config.levels))

    def forward(self, latents: Tensor) -> Tensor:
        """``[B,V,h,w]`` to ids ``[B,h,w]``."""
        rows = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
        nearest = torch.cdist(rows, self.embedding.weight).argmin(1)
        return nearest.view(len(latents), *latents.shape[2:])


def scalar_grid(levels: tuple[int, ...]) -> Tensor:
    """Every combination of levels, spaced by one and centred on zero, ``[prod(levels), len(levels)]``."""
    axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in levels]
    return torch.cartesian_prod(*axes).view(-1, len(levels))


def scalar_quantize(latents: Tensor, levels: tuple[int, ...]) -> Tensor:
    """Clamp and round ``[B,V,h,w]`` to the grid, with the gradient of the clamped value (straight-through).

    Equal to the nearest row of ``scalar_grid``, because spacing is one along every axis.
    """
    half = torch.tensor([(n - 1) / 2 for n in levels], device=latents.device)[:, None, None]
    clamped = torch.minimum(torch.maximum(latents, -half), half)
    return clamped + ((clamped + half).round() - half - clamped).detach()


@torch.no_grad()
def psnr(made: Tensor, wanted: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, the mean over pictures ``[B,3,H,W]`` in [0,1]."""
    error = (made.float() - wanted.float()).pow(2).mean((1, 2, 3)).clamp(min=1e-10)
    return float((-10 * error.log10()).mean())


@torch.no_grad()
def edges_kept(made: Tensor, wanted: Tensor) -> float:
    """How far the edges of ``made`` are those of ``wanted``, pictures ``[B,3,H,W]`` in [0,1]: 1 is all of them.

    With g the gradient of the lightness, from pixel to pixel:  2 <g(made), g(wanted)> / (|g(made)|^2 + |g(wanted)|^2),
    the mean over the pictures, in [-1,1]. 0 is a picture without any of the edges, or with others alone.
    Pictures of one colour have no edges to lose: 1.
    """

    def gradient(pictures: Tensor) -> Tensor:
        grey = pictures.float().mean(1)
        return torch.cat([grey.diff(dim=-1).flatten(1), grey.diff(dim=-2).flatten(1)], 1)

    ours, theirs = gradient(made), gradient(wanted)
    both = ours.pow(2).sum(1) + theirs.pow(2).sum(1)
    kept = 2 * (ours * theirs).sum(1) / both.clamp(min=1e-12)
    return float(torch.where(theirs.pow(2).sum(1) > 1e-6, kept, 1.0).mean())


class ImageTokenizer(nn.Module):
    """Encoder, codebook and decoder."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quant_conv = nn.Conv2d(config.latent_channels, config.vq_embed_dim, 1)
        self.quantize = Quantizer(config)
        self.post_quant_conv = nn.Conv2d(config.vq_embed_dim, config.latent_channels, 1)
        self.decoder = Decoder(config)
        self.linear_in = self.linear_out = None
        if config.linear_path:
            self.linear_in = nn.Conv2d(3, config.vq_embed_dim, config.factor, stride=config.factor)
            self.linear_out = nn.ConvTranspose2d(config.vq_embed_dim, 3, config.factor, stride=config.factor)

    def latents(self, pictures: Tensor) -> Tensor:
        """Pictures ``[B,3,S,S]`` in [0,1], S a multiple of ``config.factor``, to latents ``[B,V,S/f,S/f]``."""
        factor = self.config.factor
        if pictures.ndim != 4 or pictures.shape[1] != 3 or pictures.shape[2] % factor or pictures.shape[3] % factor:
            raise ValueError(
                f"pictures have shape {tuple(pictures.shape)}, expected [B,3,H,W] with sides a multiple of {factor}"
            )
        latents: Tensor = self.quant_conv(self.encoder(pictures))
        return latents if self.linear_in is None else latents + self.linear_in(pictures)

    def pixels(self, codes: Tensor) -> Tensor:
        """Quantized latents ``[B,V,h,w]`` to pictures ``[B,3,f*h,f*w]``, not clamped."""
        pictures: Tensor = self.decoder(self.post_quant_conv(codes))
        return pictures if self.linear_out is None else pictures + self.linear_out(codes)

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures ``[B,3,S,S]`` in [0,1] to ids ``[B,S/f,S/f]``."""
        ids: Tensor = self.quantize(self.latents(pictures))
        return ids

    def decode(self, ids: Tensor) -> Tensor:
        """Ids ``[B,h,w]`` to pictures ``[B,3,f*h,f*w]``, clamped to [0,1] as upstream."""
        return self.pixels(self.quantize.embedding(ids).permute(0, 3, 1, 2)).clamp(0, 1)


@dataclass(frozen=True)
class EnlargedConfig:
    """Sizes of the enlarged decoder: the width of its maps and how many residual blocks they go through."""

    channels: int = 64
    blocks: int = 4


class _Residual(nn.Module):
    """Two convolutions beside the identity, without normalisation, which would level out flat grounds (1707.02921)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(F.gelu(self.conv1(x)))
        return out


class EnlargedDecoder(nn.Module):
    """Shows what the tokenizer decodes twice as large: 16x16 ids at 256 px where the tokenizer gives 128.

    A small network adds to plain interpolation what that lacks. Untrained it adds nothing. Muse trains a larger decoder
    of the ids instead (arXiv 2301.00704, 2.6), which begins far below interpolation and takes hours to come to it.
    """

    def __init__(self, config: EnlargedConfig) -> None:
        super().__init__()
        self.config = config
        self.conv_in = nn.Conv2d(3 * 2**2, config.channels, 3, padding=1)
        self.blocks = nn.Sequential(*(_Residual(config.channels) for _ in range(config.blocks)))
        self.conv_out = nn.Conv2d(config.channels, 3 * 4**2, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(self, small: Tensor) -> Tensor:
        """Decoded pictures ``[B,3,S,S]``, S even, to pictures ``[B,3,2*S,2*S]``, not clamped."""
        maps = self.blocks(self.conv_in(F.pixel_unshuffle(small, 2)))
        return enlarged(small) + F.pixel_shuffle(self.conv_out(maps), 4)


def enlarged(small: Tensor) -> Tensor:
    """Pictures ``[B,3,S,S]`` interpolated to ``[B,3,2*S,2*S]``, not clamped."""
    return F.interpolate(small, scale_factor=2, mode="bicubic", align_corners=False)
