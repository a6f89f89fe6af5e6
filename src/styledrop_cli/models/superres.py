"""The super-resolution transformer: a small grid of ids and a prompt in, logits of a larger grid's ids out.

Muse's second stage (arXiv 2301.00704, 2.5): the low-resolution ids pass through self-attention layers of their own,
and the layers over the masked high-resolution ids cross-attend to them beside the text. ``SuperResConfig()`` has
Muse's grids, 16x16 to 64x64 ids. Because a low-resolution position lies where its high-resolution ones do, its
features can also simply be added there; a network of a million weights learns from that at once what cross-attention
takes long to find (``low_res_context`` off).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from styledrop_cli.models.layers import AdapterFn, Attention, FeedForward, LayerNorm, RMSNorm, Site
from styledrop_cli.models.transformer import Condition, MaskedTransformer, TransformerConfig


@dataclass(frozen=True)
class SuperResConfig(TransformerConfig):
    """Sizes beside those of the transformer over the high-resolution ids.

    ``low_res_codebook_size`` and ``low_res_size`` are the low-resolution grid's, ``low_res_layers`` its layers, and
    ``low_res_context`` says whether it is read by cross-attention as well.
    """

    sample_size: int = 64
    low_res_codebook_size: int = 8192
    low_res_size: int = 16
    low_res_layers: int = 16
    low_res_context: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low_res_layers < 1 or self.low_res_size < 1:
            raise ValueError("low_res_layers and low_res_size must be at least 1")


class LowResLayer(nn.Module):
    """Self-attention and feed-forward, each behind a norm; adapted at the same places as the transformer's layers."""

    def __init__(self, config: SuperResConfig, path: str) -> None:
        super().__init__()
        dim = config.hidden_size
        self.path = path
        self.norm1 = RMSNorm(dim)
        self.attn1 = Attention(dim, config.num_attention_heads, f"{path}.attn1")
        self.norm2 = LayerNorm(dim)
        self.ff = FeedForward(dim, config.intermediate_size)

    def sites(self) -> list[Site]:
        dim = self.attn1.dim
        return [*self.attn1.sites(), *(Site(f"{self.path}.{part}", part, dim, dim) for part in ("attention", "mlp"))]

    def forward(self, x: Tensor, adapter: AdapterFn | None) -> Tensor:
        x = x + self.attn1(self.norm1(x), None, adapter)
        if adapter is not None:
            x = adapter(f"{self.path}.attention", self, x, x)
        x = x + self.ff(self.norm2(x))
        return x if adapter is None else adapter(f"{self.path}.mlp", self, x, x)


class LowResEncoder(nn.Module):
    """Low-resolution ids ``[B,h,w]`` to features ``[B,h,w,D]``."""

    def __init__(self, config: SuperResConfig) -> None:
        super().__init__()
        dim, side = config.hidden_size, config.low_res_size
        self.embeddings = nn.Embedding(config.low_res_codebook_size, config.in_channels)
        self.layer_norm = RMSNorm(config.in_channels)
        self.project = nn.Linear(config.in_channels, dim, bias=False)
        self.positions = nn.Parameter(torch.zeros(side, side, dim))
        self.layers: Any = nn.ModuleList(
            LowResLayer(config, f"low_res.layers.{i}") for i in range(config.low_res_layers)
        )
        self.norm = RMSNorm(dim)

    def forward(self, ids: Tensor, adapter: AdapterFn | None) -> Tensor:
        x: Tensor = (self.project(self.layer_norm(self.embeddings(ids))) + self.positions).flatten(1, 2)
        for layer in self.layers:
            x = layer(x, adapter)
        out: Tensor = self.norm(x).unflatten(1, ids.shape[1:])
        return out


class SuperResTransformer(MaskedTransformer):
    """Predicts every masked id of a large grid, given the small one: first ``condition``, then ``beside``."""

    config: SuperResConfig

    def __init__(self, config: SuperResConfig) -> None:
        super().__init__(config)
        self.low_res = LowResEncoder(config)

    @property
    def sites(self) -> list[Site]:
        return [*super().sites, *(site for layer in self.low_res.layers for site in layer.sites())]

    def beside(self, condition: Condition, low_res: Tensor, adapter: AdapterFn | None = None) -> Condition:
        """What the prompts contribute together with low-resolution ids ``[B,h,w]``, one grid a prompt.

        Keys and values are linear in what is read, so the grid's simply stand beside the text's, which are computed
        once a prompt. Raises ValueError for a grid of another size.
        """
        side = self.config.low_res_size
        if low_res.shape != (len(condition), side, side):
            raise ValueError(f"low_res has shape {tuple(low_res.shape)}, expected {(len(condition), side, side)}")
        features = self.low_res(low_res, adapter)
        condition = replace(condition, added=features)
        if not self.config.low_res_context:
            return condition
        context = features.flatten(1, 2)
        read = self.keys_values(context, adapter)
        both = zip(condition.keys_values, read, strict=True)
        joined = tuple((torch.cat([k, k2], 2), torch.cat([v, v2], 2)) for (k, v), (k2, v2) in both)
        return replace(condition, keys_values=joined)
