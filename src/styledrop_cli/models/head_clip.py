"""A CLIP of two small heads: on a frozen text encoder, and on the maps of a frozen EfficientNet.

It has no vocabulary of its own: words that none of its captions had mean to it what the encoder takes them for. And it
knows looks that it was never shown: EfficientNet learnt what things are from photographs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from styledrop_cli.models.clip import Blocks
from styledrop_cli.models.efficientnet import EfficientNet

FAR = 5.0  # spreads
SPREAD = 1e-4  # at least, of a mean that hardly changes


@dataclass(frozen=True)
class HeadClipConfig:
    """Sizes; ``text_width`` is that of the frozen encoder's states.

    Of EfficientNet the first ``stages`` are there, and the maps from stage ``pooled`` on are looked at.
    """

    kind: str = "head"
    embed_dim: int = 192
    text_width: int = 384
    head_width: int = 192
    head_layers: int = 2
    head_heads: int = 3
    image_size: int = 128
    stages: int = 7
    pooled: int = 4
    image_width: int = 768

    def __post_init__(self) -> None:
        if self.kind != "head":
            raise ValueError(f"kind is '{self.kind}', not 'head'")
        if not self.head_heads or self.head_width % self.head_heads:
            raise ValueError("head_width is not a multiple of head_heads")
        if not 1 <= self.pooled <= self.stages <= 7:
            raise ValueError("pooled and stages must be between 1 and 7, and pooled not the larger")


def means(maps: Sequence[Tensor]) -> Tensor:
    """The means of maps ``[B,C,h,w]``, one behind the other: ``[B,W]``."""
    return torch.cat([one.mean((2, 3)) for one in maps], 1)


class PictureTower(nn.Module):
    """A frozen EfficientNet, the means of its maps, and a head on them."""

    def __init__(self, config: HeadClipConfig) -> None:
        super().__init__()
        self.network = EfficientNet(config.stages)
        before = sum(self.network.channels[: config.pooled - 1])
        self.own = slice(before, sum(self.network.channels))  # which of all stages' means are looked at
        width = self.own.stop - before
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.hidden = nn.Linear(width, config.image_width)
        self.proj = nn.Linear(config.image_width, config.embed_dim)

    def fit(self, seen: Tensor) -> None:
        """Make what is ``seen`` ``[N,W]`` comparable: from now on each mean is counted from its own, in its spread."""
        std, mean = torch.std_mean(seen.float(), 0)
        self.mean.copy_(mean)
        self.std.copy_(std + SPREAD)

    def comparable(self, seen: Tensor) -> Tensor:
        """Means of maps ``[B,W]`` by their places among those that ``fit`` had, at most ``FAR`` spreads away."""
        return ((seen - self.mean) / self.std).clamp(-FAR, FAR)

    def read(self, comparable: Tensor) -> Tensor:
        """``[B,W]`` to embeddings ``[B,E]``, not normalised."""
        out: Tensor = self.proj(F.gelu(self.hidden(comparable)))
        return out

    def forward(self, pictures: Tensor) -> Tensor:
        seen = means(self.network.features(pictures * 2 - 1))
        return self.read(self.comparable(seen[:, self.own]))


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
        out: Tensor = self.visual(pictures)
        return out
