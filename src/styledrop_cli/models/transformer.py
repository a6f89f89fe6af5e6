"""The masked-token transformer: ids and a prompt in, logits over the codebook out.

The network is the published aMUSEd one, tensor for tensor, so its weights load unchanged (upstream: diffusers
``UVit2DModel``). Pocket's one addition, learned positions, is a config key that is off by default.

An adapter is an argument, never a part: the transformer's own tensors are the base model's and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from styledrop_cli.models.layers import (
    AdapterFn,
    Attention,
    FeedForward,
    GlobalResponseNorm,
    LayerNorm,
    Modulated,
    RMSNorm,
    Site,
    numbered,
    sinusoidal,
)

LARGEST_GRID = 256  # ids along a side: attention is over all of them at once


class TokenTransformer(Protocol):
    """What drawing and training ask of a network, whatever its layers are."""

    config: Any  # with codebook_size, sample_size, hidden_size and mask_id

    @property
    def sites(self) -> list[Site]:
        """Where adapters may change it."""

    @property
    def branches_in_turn(self) -> bool:
        """Whether the passes of a step are as fast one after the other as in one batch, which needs more memory."""

    def condition(self, text: Tensor, pooled: Tensor, micro: Tensor, adapter: AdapterFn | None = None) -> Any:
        """What a prompt contributes to every step, as ``MaskedTransformer.condition``."""

    def ahead(self, condition: Any, left: Sequence[float]) -> Any:
        """The same with what follows from it at the steps to come, so many ``left`` after each, if anything does."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All of its weights."""

    def __call__(
        self, ids: Tensor, condition: Any, adapter: AdapterFn | None = None, where: Tensor | None = None
    ) -> Tensor:
        """Logits, as ``MaskedTransformer.forward``."""


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes, in upstream's names; the defaults are aMUSEd-256.

    ``vocab_size`` counts the codebook, padding and the mask token, which is the last. ``positions`` is the side of
    a learned grid of positions added where attention runs, 0 for none.
    """

    codebook_size: int = 8192
    vocab_size: int = 8256
    hidden_size: int = 1024
    num_hidden_layers: int = 22
    num_attention_heads: int = 16
    intermediate_size: int = 2816
    in_channels: int = 768
    block_out_channels: int = 768
    num_res_blocks: int = 3
    block_num_heads: int = 12
    encoder_hidden_size: int = 768
    cond_embed_dim: int = 768
    micro_cond_encode_dim: int = 256
    micro_cond_embed_dim: int = 1280
    sample_size: int = 16
    downsample: bool = False
    upsample: bool = False
    positions: int = 0

    def __post_init__(self) -> None:
        problems = []
        if self.vocab_size <= self.codebook_size:
            problems.append(
                f"vocab_size {self.vocab_size} leaves no mask token beyond codebook_size {self.codebook_size}"
            )
        if self.micro_cond_embed_dim != 5 * self.micro_cond_encode_dim:
            problems.append(
                f"micro_cond_embed_dim {self.micro_cond_embed_dim} is not 5 x "
                f"micro_cond_encode_dim {self.micro_cond_encode_dim}"
            )
        if self.downsample != self.upsample:
            problems.append("downsample and upsample must be on or off together")
        if not 1 <= self.sample_size <= LARGEST_GRID:
            problems.append(f"sample_size {self.sample_size} is not from 1 to {LARGEST_GRID}")
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def mask_id(self) -> int:
        """The id that stands for 'not yet known'."""
        return self.vocab_size - 1


@dataclass(frozen=True)
class Condition:
    """Everything a prompt contributes, computed once and used at every decoding step.

    ``modulations`` and ``keys_values`` are in the order in which the blocks consume them. ``added`` ``[B,h,w,D]``, if
    there is any, is laid over the grid of positions before the first layer (super-resolution).
    """

    modulations: tuple[Tensor, ...]
    keys_values: tuple[tuple[Tensor, Tensor], ...]
    added: Tensor | None = None

    def __len__(self) -> int:
        return self.keys_values[0][0].shape[0]

    @staticmethod
    def cat(conditions: list[Condition]) -> Condition:
        """Join prompts into one batch, in order."""
        return Condition(
            tuple(torch.cat(parts) for parts in zip(*(c.modulations for c in conditions), strict=True)),
            tuple(
                (torch.cat([k for k, _ in parts]), torch.cat([v for _, v in parts]))
                for parts in zip(*(c.keys_values for c in conditions), strict=True)
            ),
            torch.cat(added) if (added := [c.added for c in conditions if c.added is not None]) else None,
        )

    def at(self, left: float | Tensor) -> Condition:
        """The same with so many steps ``left``: this network is not told."""
        return self

    def select(self, rows: Tensor) -> Condition:
        """The prompts at ``rows`` (an index tensor), repeated as often as they are named."""
        return Condition(
            tuple(m[rows] for m in self.modulations),
            tuple((k[rows], v[rows]) for k, v in self.keys_values),
            None if self.added is None else self.added[rows],
        )


class _Feed:
    """Hands the blocks their share of a ``Condition``, in order."""

    def __init__(self, condition: Condition) -> None:
        self._modulations = iter(condition.modulations)
        self._keys_values = iter(condition.keys_values)

    def modulation(self) -> Tensor:
        return next(self._modulations)

    def keys_values(self) -> tuple[Tensor, Tensor]:
        return next(self._keys_values)


class ResBlock(nn.Module):
    """ConvNeXt v2 block; scale and shift come after the residual sum. Works on ``[B,H,W,C]``."""

    def __init__(self, dim: int, cond_dim: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.norm = RMSNorm(dim)
        self.channelwise_linear_1 = nn.Linear(dim, 4 * dim, bias=False)
        self.channelwise_norm = GlobalResponseNorm(4 * dim)
        self.channelwise_linear_2 = nn.Linear(4 * dim, dim, bias=False)
        self.cond_embeds_mapper = nn.Linear(cond_dim, 2 * dim, bias=False)

    def modulation(self, cond: Tensor) -> Tensor:
        scale, shift = self.cond_embeds_mapper(nn.functional.silu(cond))[:, None, None].chunk(2, -1)
        return torch.cat([1 + scale, shift], -1)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        y = self.depthwise(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y = nn.functional.gelu(self.channelwise_linear_1(self.norm(y)))
        x = x + self.channelwise_linear_2(self.channelwise_norm(y))
        gain, shift = modulation.chunk(2, -1)
        return torch.addcmul(shift, x, gain)


class AttentionBlock(nn.Module):
    """Two cross-attentions to the text (upstream has no self-attention here)."""

    def __init__(self, dim: int, hidden: int, heads: int, path: str) -> None:
        super().__init__()
        self.kv_mapper = nn.Linear(hidden, dim, bias=False) if hidden != dim else None
        self.norm1 = RMSNorm(dim)
        self.attn1 = Attention(dim, heads, f"{path}.attn1")
        self.norm2 = RMSNorm(dim)
        self.attn2 = Attention(dim, heads, f"{path}.attn2")

    def sites(self) -> list[Site]:
        return [*self.attn1.sites(of_text=True), *self.attn2.sites(of_text=True)]

    def keys_values(self, context: Tensor, adapter: AdapterFn | None) -> list[tuple[Tensor, Tensor]]:
        if self.kv_mapper is not None:
            context = self.kv_mapper(nn.functional.silu(context))
        return [self.attn1.keys_values(context, adapter), self.attn2.keys_values(context, adapter)]

    def forward(self, x: Tensor, feed: _Feed, adapter: AdapterFn | None) -> Tensor:
        tokens: Tensor = x.flatten(1, 2)
        tokens = tokens + self.attn1(self.norm1(tokens), feed.keys_values(), adapter)
        tokens = tokens + self.attn2(self.norm2(tokens), feed.keys_values(), adapter)
        out: Tensor = tokens.view(x.shape)
        return out


class Resample(nn.Module):
    """RMSNorm and a 2x2 convolution, strided down or transposed up."""

    def __init__(self, dim: int, up: bool) -> None:
        super().__init__()
        self.norm = RMSNorm(dim)
        kind = nn.ConvTranspose2d if up else nn.Conv2d
        self.conv = kind(dim, dim, 2, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(self.norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return out


class ConvStage(nn.Module):
    """The convolutional stage on either side of the transformer layers."""

    def __init__(self, config: TransformerConfig, path: str, *, down: bool = False, up: bool = False) -> None:
        super().__init__()
        dim, hidden = config.block_out_channels, config.hidden_size
        self.downsample = Resample(dim, up=False) if down else None
        self.res_blocks: Any = nn.ModuleList(ResBlock(dim, hidden) for _ in range(config.num_res_blocks))
        self.attention_blocks: Any = nn.ModuleList(
            AttentionBlock(dim, hidden, config.block_num_heads, f"{path}.attention_blocks.{i}")
            for i in range(config.num_res_blocks)
        )
        self.upsample = Resample(dim, up=True) if up else None

    def sites(self) -> list[Site]:
        return [site for block in self.attention_blocks for site in block.sites()]

    def modulations(self, cond: Tensor) -> list[Tensor]:
        return [block.modulation(cond) for block in self.res_blocks]

    def keys_values(self, context: Tensor, adapter: AdapterFn | None) -> list[tuple[Tensor, Tensor]]:
        return [pair for block in self.attention_blocks for pair in block.keys_values(context, adapter)]

    def forward(self, x: Tensor, feed: _Feed, adapter: AdapterFn | None) -> Tensor:
        if self.downsample is not None:
            x = self.downsample(x)
        for res_block, attention_block in zip(self.res_blocks, self.attention_blocks, strict=True):
            x = attention_block(res_block(x, feed.modulation()), feed, adapter)
        if self.upsample is not None:
            x = self.upsample(x)
        return x


class TransformerLayer(nn.Module):
    """Self-attention, cross-attention to the text and feed-forward, each behind a modulated norm."""

    def __init__(self, config: TransformerConfig, path: str) -> None:
        super().__init__()
        dim, heads = config.hidden_size, config.num_attention_heads
        self.path = path
        self.norm1 = Modulated(RMSNorm(dim), dim, dim)
        self.attn1 = Attention(dim, heads, f"{path}.attn1")
        self.norm2 = Modulated(RMSNorm(dim), dim, dim)
        self.attn2 = Attention(dim, heads, f"{path}.attn2")
        self.norm3 = Modulated(LayerNorm(dim), dim, dim)
        self.ff = FeedForward(dim, config.intermediate_size)

    def sites(self) -> list[Site]:
        dim, mixed = self.attn2.dim, f"{self.attn2.path}.mix"
        after = [Site(f"{self.path}.{part}", part, dim, dim) for part in ("attention", "mlp")]
        own = [*self.attn1.sites(), *self.attn2.sites(of_text=True)]
        return [*own, Site(mixed, "mix", dim, dim, self.attn2.heads), *after]

    def modulations(self, cond: Tensor) -> list[Tensor]:
        return [norm.modulation(cond) for norm in (self.norm1, self.norm2, self.norm3)]

    def keys_values(self, context: Tensor, adapter: AdapterFn | None) -> list[tuple[Tensor, Tensor]]:
        return [self.attn2.keys_values(context, adapter)]

    def forward(self, x: Tensor, feed: _Feed, adapter: AdapterFn | None, times: Tensor | None = None) -> Tensor:
        x = x + self.attn1(self.norm1(x, feed.modulation()), None, adapter, times)
        x = x + self.attn2(self.norm2(x, feed.modulation()), feed.keys_values(), adapter)
        if adapter is not None:
            x = adapter(f"{self.path}.attention", self, x, x)
        x = x + self.ff(self.norm3(x, feed.modulation()))
        return x if adapter is None else adapter(f"{self.path}.mlp", self, x, x)


class TokenEmbedding(nn.Module):
    """Ids ``[B,H,W]`` to ``[B,H,W,C]``."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(config.vocab_size, config.in_channels)
        self.layer_norm = RMSNorm(config.in_channels)
        self.conv = nn.Conv2d(config.in_channels, config.block_out_channels, 1, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        # A 1x1 convolution is a linear map of the channels; kept as Conv2d for its published weight shape.
        return nn.functional.linear(self.layer_norm(self.embeddings(ids)), self.conv.weight[:, :, 0, 0])


class MaskedHead(nn.Module):
    """Features ``[...,C]`` to logits ``[...,K]``."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(config.block_out_channels, config.in_channels, 1, bias=False)
        self.layer_norm = RMSNorm(config.in_channels)
        self.conv2 = nn.Conv2d(config.in_channels, config.codebook_size, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer_norm(nn.functional.linear(x, self.conv1.weight[:, :, 0, 0]))
        return nn.functional.linear(x, self.conv2.weight[:, :, 0, 0])


class ConditionEmbedding(nn.Module):
    """The pooled text and the five micro-conditions to one vector ``[B,D]``."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.cond_embed_dim + config.micro_cond_embed_dim
        self.linear_1 = nn.Linear(width, config.hidden_size, bias=False)
        self.linear_2 = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear_2(nn.functional.silu(self.linear_1(x)))
        return out


def laid_over(features: Tensor, grid: torch.Size) -> Tensor:
    """Features ``[B,h,w,D]`` on a grid of another size ``[B,H,W,D]``, each where it lies in the picture."""
    if features.shape[1:3] == grid:
        return features
    planes = nn.functional.interpolate(features.permute(0, 3, 1, 2), size=grid, mode="bilinear", align_corners=False)
    return planes.permute(0, 2, 3, 1)


class MaskedTransformer(nn.Module):
    """Predicts every masked id of a grid at once, given the known ones and a prompt (Muse, arXiv 2301.00704)."""

    branches_in_turn = False

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        dim, hidden = config.block_out_channels, config.hidden_size
        self.encoder_proj = nn.Linear(config.encoder_hidden_size, hidden, bias=False)
        self.encoder_proj_layer_norm = RMSNorm(hidden)
        self.embed = TokenEmbedding(config)
        self.cond_embed = ConditionEmbedding(config)
        self.down_block = ConvStage(config, "down_block", down=config.downsample)
        self.project_to_hidden_norm = RMSNorm(dim)
        self.project_to_hidden = nn.Linear(dim, hidden, bias=False)
        self.transformer_layers = nn.ModuleList(
            TransformerLayer(config, f"transformer_layers.{i}") for i in range(config.num_hidden_layers)
        )
        self.project_from_hidden_norm = RMSNorm(hidden)
        self.project_from_hidden = nn.Linear(hidden, dim, bias=False)
        self.up_block = ConvStage(config, "up_block", up=config.upsample)
        self.mlm_layer = MaskedHead(config)
        self.positions = (
            nn.Parameter(torch.zeros(config.positions, config.positions, hidden)) if config.positions else None
        )

    @property
    def sites(self) -> list[Site]:
        """Where it can be adapted. An adapter's weights are drawn in this order."""
        return [*self.down_block.sites(), *numbered(self.transformer_layers), *self.up_block.sites()]

    def _blocks(self) -> list[Any]:
        """The blocks that adapters, modulations and the text reach, in the order in which they run."""
        return [self.down_block, *self.transformer_layers, self.up_block]

    def initialise(self, generator: torch.Generator) -> None:
        """Fresh weights for pre-training: truncated normal 0.02, modulations and residual outputs near zero."""
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2 or "channelwise_norm" in name:
                continue
            modulation = ".linear.weight" in name or "cond_embeds_mapper" in name
            with torch.no_grad():
                if modulation:
                    parameter.zero_()
                else:
                    nn.init.trunc_normal_(parameter, std=0.02, generator=generator)

    def condition(self, text: Tensor, pooled: Tensor, micro: Tensor, adapter: AdapterFn | None = None) -> Condition:
        """Compute what the prompt alone decides; an ``adapter`` may change how the text is read (``to_k``, ``to_v``).

        ``text`` ``[B,T,E]``: the text encoder's hidden states, padding included and attended to, as upstream.
        ``pooled`` ``[B,P]``: its projected summary. ``micro`` ``[B,5]``: original width, height, crop left, crop
        top and aesthetic score, raw values.
        """
        config = self.config
        if text.ndim != 3 or text.shape[-1] != config.encoder_hidden_size:
            raise ValueError(f"text has shape {tuple(text.shape)}, expected [B,T,{config.encoder_hidden_size}]")
        context = self.encoder_proj_layer_norm(self.encoder_proj(text))
        features = sinusoidal(micro.flatten(), config.micro_cond_encode_dim).reshape(len(micro), -1)
        cond = self.cond_embed(torch.cat([pooled, features.to(pooled.dtype)], 1))
        modulations = tuple(modulation for block in self._blocks() for modulation in block.modulations(cond))
        return Condition(modulations, tuple(self.keys_values(context, adapter)))

    def ahead(self, condition: Condition, left: Sequence[float]) -> Condition:
        """The same: this network is not told how many steps are left."""
        return condition

    def keys_values(self, context: Tensor, adapter: AdapterFn | None = None) -> list[tuple[Tensor, Tensor]]:
        """What every cross-attention reads of ``context`` ``[B,T,D]``, in the order of the blocks."""
        return [pair for block in self._blocks() for pair in block.keys_values(context, adapter)]

    def _alike(self, ids: Tensor, grid: torch.Size) -> tuple[Tensor, Tensor, Tensor] | None:
        """Kinds of rows of ``grid``, and of columns, that are bound to be alike: the first of each, each's, how many.

        Where all ids are one (the first step: all are masked) a place differs from another by its distance to the
        border alone, and only as far as the convolutions see: the layers need to work on one place of each kind.
        """
        sees, side = self.config.num_res_blocks, grid[0]
        if side != grid[1] or side < 2 * sees + 3 or torch.compiler.is_compiling():  # a compiled step is for all ids
            return None
        if not bool((ids == ids[0, 0, 0]).all()):
            return None
        last = torch.arange(side - sees, side, device=ids.device)
        first = torch.cat([torch.arange(sees + 1, device=ids.device), last])
        kinds = torch.arange(side, device=ids.device)
        back = kinds.clamp(max=sees) + (kinds - (side - sees - 1)).clamp(min=0)
        return first, back, torch.bincount(back)

    def features(self, ids: Tensor, condition: Condition, adapter: AdapterFn | None = None) -> Tensor:
        """Ids ``[B,H,W]`` to the features ``[B,H,W,C]`` that ``mlm_layer`` turns into logits."""
        if ids.ndim != 3 or len(ids) != len(condition):
            raise ValueError(f"ids have shape {tuple(ids.shape)}, expected [{len(condition)},H,W]")
        feed = _Feed(condition)
        x = self.down_block(self.embed(ids), feed, adapter)
        grid = x.shape[1:3]
        hidden = self.project_to_hidden(self.project_to_hidden_norm(x))
        if self.positions is not None:
            hidden = hidden + laid_over(self.positions[None], grid)
        if condition.added is not None:
            hidden = hidden + laid_over(condition.added, grid)
        times = None
        alike = self._alike(ids, grid) if self.positions is None and condition.added is None else None
        if alike is not None:
            first, back, count = alike
            hidden, times = hidden[:, first][:, :, first], torch.outer(count, count).flatten()
        side = hidden.shape[1:3]
        hidden = hidden.flatten(1, 2)
        for layer in self.transformer_layers:
            hidden = layer(hidden, feed, adapter, times)
        if alike is not None:
            hidden, side = hidden.unflatten(1, side)[:, back][:, :, back].flatten(1, 2), grid
        x = self.project_from_hidden(self.project_from_hidden_norm(hidden)).unflatten(1, side)
        out: Tensor = self.up_block(x, feed, adapter)
        return out

    def forward(
        self, ids: Tensor, condition: Condition, adapter: AdapterFn | None = None, where: Tensor | None = None
    ) -> Tensor:
        """Ids ``[B,H,W]`` in ``[0, vocab_size)`` to logits ``[B,H,W,K]``, or ``[M,K]`` of the M places ``where``."""
        features = self.features(ids, condition, adapter)
        out: Tensor = self.mlm_layer(features if where is None else features[where])
        return out
