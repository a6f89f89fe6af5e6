"""A CLIP whose text tower is a small head on a frozen text encoder, and whose picture tower is an EfficientNet.

It has no vocabulary of its own: words that none of its captions had mean to it what the encoder takes them for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from styledrop_cli.models.clip import Blocks
from styledrop_cli.models.efficientnet import EfficientNet


@dataclass(frozen=True)
class HeadClipConfig:
    """Sizes; ``text_width`` is that of the frozen encoder's states, ``stages`` are EfficientNet's first ones."""

    kind: str = "head"
    embed_dim: int = 192
    text_width: int = 384
    head_width: int = 192
    head_layers: int = 2
    head_heads: int = 3
    image_size: int = 128
    stages: int = 7

    def __post_init__(self) -> None:
        if self.kind != "head":
            raise ValueError(f"kind is '{self.kind}', not 'head'")
        if not self.head_heads or self.head_width % self.head_heads:
            raise ValueError("head_width is not a multiple of head_heads")
        if not 1 <= self.stages <= 7:
            raise ValueError("stages must be between 1 and 7")


class PictureTower(nn.Module):
    """The last map's mean, projected."""

    def __init__(self, config: HeadClipConfig) -> None:
        super().__init__()
        self.network = EfficientNet(config.stages)
        self.proj = nn.Linear(self.network.channels[-1], config.embed_dim)

    def forward(self, pictures: Tensor) -> Tensor:
        out: Tensor = self.proj(self.network.features(pictures)[-1].mean((2, 3)))
        return out


class HeadClip(nn.Module):
    """Frozen states and pictures into one space."""

    def __init__(self, config: HeadClipConfig) -> None:
        super().__init__()
        self.config = config
        width = config.head_width
        self.text_in = nn.Linear(config.text_width, width)
        self.query = nn.Parameter(0.02 * torch.randn(width))
        self.transformer = Blocks(width, config.head_heads, config.head_layers, quick_gelu=False)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Linear(width, config.embed_dim)
        self.mean_projection = nn.Linear(config.text_width, config.embed_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(2.6593))  # log(1 / 0.07), CLIP's start
        self.visual = PictureTower(config)

    def text_embeds(self, states: Tensor) -> Tensor:
        """Frozen states ``[B,T,W]``, zero where a text is over, to embeddings ``[B,E]``, not normalised."""
        seen = (states != 0).any(-1)
        mean = states.sum(1) / seen.sum(1, keepdim=True).clamp(min=1)
        query = self.query.expand(len(states), 1, -1).to(states.dtype)
        x = torch.cat([query, self.text_in(states).to(query.dtype)], 1)
        mask = torch.cat([seen.new_ones(len(seen), 1), seen], 1)
        for block in self.transformer.resblocks:
            x = block(x, causal=False, mask=mask)
        out: Tensor = self.text_projection(self.ln_final(x[:, 0])) + self.mean_projection(mean)
        return out

    def picture_embeds(self, pictures: Tensor) -> Tensor:
        """Pictures ``[B,3,S,S]`` in [0,1] with S = ``config.image_size`` to embeddings ``[B,E]``, not normalised."""
        out: Tensor = self.visual(pictures * 2 - 1)
        return out
