"""A compact CLIP whose tensors carry open_clip's names, so that either library loads the other's files.

The text tower is the generator's frozen text encoder; the picture tower names a reference's content. Upstream:
open_clip ``CLIP`` and ``VisionTransformer`` (arXiv 2103.00020).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class ClipConfig:
    """Sizes; the text defaults are CLIP ViT-L/14's. ``image_size`` 0 leaves the picture tower out."""

    embed_dim: int = 768
    vocab_size: int = 49408
    context_length: int = 77
    text_width: int = 768
    text_heads: int = 12
    text_layers: int = 12
    image_size: int = 0
    patch_size: int = 16
    image_width: int = 192
    image_heads: int = 3
    image_layers: int = 6
    quick_gelu: bool = False

    def __post_init__(self) -> None:
        if self.text_width % self.text_heads or self.image_width % self.image_heads:
            raise ValueError("a width is not a multiple of its heads")
        if self.text_layers < 1 or self.context_length < 3:
            raise ValueError("text_layers must be at least 1, context_length 3: a start, a word and an end")


class PackedAttention(nn.Module):
    """Self-attention with one packed projection, under ``nn.MultiheadAttention``'s names."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, causal: bool, mask: Tensor | None = None) -> Tensor:
        """``mask`` ``[B,T]`` says what of ``x`` ``[B,T,dim]`` is there to be seen; everything without it."""
        packed = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        query, keys, values = packed.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = None if mask is None else mask[:, None, None]
        mixed = F.scaled_dot_product_attention(query, keys, values, seen, is_causal=causal)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    def __init__(self, dim: int, quick_gelu: bool) -> None:
        super().__init__()
        self.c_fc = nn.Linear(dim, 4 * dim)
        self.c_proj = nn.Linear(4 * dim, dim)
        self.quick_gelu = quick_gelu

    def forward(self, x: Tensor) -> Tensor:
        x = self.c_fc(x)
        x = x * torch.sigmoid(1.702 * x) if self.quick_gelu else F.gelu(x)
        out: Tensor = self.c_proj(x)
        return out


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, quick_gelu: bool) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(dim)
        self.attn = PackedAttention(dim, heads)
        self.ln_2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, quick_gelu)

    def forward(self, x: Tensor, causal: bool, mask: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.ln_1(x), causal, mask)
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class Blocks(nn.Module):
    def __init__(self, dim: int, heads: int, layers: int, quick_gelu: bool) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(dim, heads, quick_gelu) for _ in range(layers))
        for block in self.resblocks:
            assert isinstance(block, Block)
            nn.init.normal_(block.attn.in_proj_weight, std=dim**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=dim**-0.5 * (2 * layers) ** -0.5)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * dim) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=dim**-0.5 * (2 * layers) ** -0.5)


class PictureTower(nn.Module):
    """A plain vision transformer with a class token."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        width, grid = config.image_width, config.image_size // config.patch_size
        scale = width**-0.5
        self.conv1 = nn.Conv2d(3, width, config.patch_size, stride=config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(grid**2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Blocks(width, config.image_heads, config.image_layers, config.quick_gelu)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, config.embed_dim))

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.conv1(pictures).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1).to(x.dtype), x], 1)
        x = self.ln_pre(x + self.positional_embedding)
        for block in self.transformer.resblocks:
            x = block(x, causal=False)
        out: Tensor = self.ln_post(x[:, 0]) @ self.proj
        return out


class Clip(nn.Module):
    """Text and picture towers into one space."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.text_width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(config.context_length, config.text_width))
        self.transformer = Blocks(config.text_width, config.text_heads, config.text_layers, config.quick_gelu)
        self.ln_final = nn.LayerNorm(config.text_width)
        self.text_projection = nn.Parameter(config.text_width**-0.5 * torch.randn(config.text_width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(2.6593))  # log(1 / 0.07), CLIP's start
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        self.visual = PictureTower(config) if config.image_size else None

    def text_states(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens ``[B,T]`` (the end token has the highest id) to hidden states and a summary.

        Hidden states ``[B,T,W]`` are those before the last block, without the final norm, as aMUSEd takes them;
        the summary ``[B,E]`` is the projected state of the end token, not normalised.
        """
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        *blocks, last = self.transformer.resblocks
        for block in blocks:
            x = block(x, causal=True)
        final = self.ln_final(last(x, causal=True))
        summary = final[torch.arange(len(final), device=final.device), tokens.argmax(-1)]
        return x, summary @ self.text_projection

    def picture_embeds(self, pictures: Tensor) -> Tensor:
        """Pictures ``[B,3,S,S]`` in [0,1] with S = ``config.image_size`` to embeddings ``[B,E]``, not normalised."""
        if self.visual is None:
            raise ValueError("this CLIP has no picture tower")
        out: Tensor = self.visual(pictures * 2 - 1)
        return out
