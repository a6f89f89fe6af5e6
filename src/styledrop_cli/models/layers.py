"""Building blocks of the masked transformer, in the published aMUSEd shapes and tensor names.

Shapes: ``B`` batch, ``N`` tokens, ``T`` text length, ``C`` channels of the convolutional stages, ``D`` hidden size,
``H W`` token grid. Upstream: diffusers ``UVit2DModel`` and its attention and normalisation modules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-6

# (site, module, source, value) -> value: at every site the transformer says where it is ("transformer_layers.3.attn2.
# to_q"), which module is at work, what that read and what it made of it, and goes on with what comes back.
AdapterFn = Callable[[str, nn.Module, Tensor, Tensor], Tensor]
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out")  # of each attention


@dataclass(frozen=True)
class Site:
    """A place of a network at which adapters may change a value, as the network declares it.

    ``name`` is what an ``AdapterFn`` is told there. ``kind`` is one of ``PROJECTIONS``, or "attention" or "mlp" after
    that part of a layer, or "mix" where a layer reads the text: the module is then its ``Attention``, of ``heads``.
    ``inputs`` and ``outputs`` are the widths of what is read and made. ``of_text`` says whether it is computed once,
    from the prompt alone. ``layer`` is the number of the layer that it is in, from 1 on, or 0 outside of all layers.
    """

    name: str
    kind: str
    inputs: int
    outputs: int
    heads: int = 1
    of_text: bool = False
    layer: int = 0


def numbered(layers: Iterable[Any], start: int = 1, each: int = 1) -> list[Site]:
    """The sites of ``layers``, ``each`` of which have one number, from ``start`` on."""
    return [replace(site, layer=start + i // each) for i, layer in enumerate(layers) for site in layer.sites()]


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension; the variance is taken in fp32 (arXiv 1910.07467)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def plain(self, x: Tensor) -> Tensor:
        """Without the weight."""
        scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + NORM_EPS)
        return (x * scale).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(x) * self.weight


class LayerNorm(nn.Module):
    """Mean-subtracting norm with a weight and no bias: only the feed-forward block is preceded by this one."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def plain(self, x: Tensor) -> Tensor:
        """Without the weight."""
        return F.layer_norm(x, self.weight.shape, None, None, NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(x) * self.weight


def attend(query: Tensor, keys: Tensor, values: Tensor, times: Tensor | None = None) -> Tensor:
    """Softmax attention, ``[B,heads,N,d]`` over ``[B,heads,T,d]``; the fused kernel where that is the faster one.

    ``times`` ``[T]`` is how often each key stands there, once without it.
    """
    bias = None if times is None else times.to(query.dtype).log()[None]
    if torch.is_grad_enabled() and query.device.type == "cpu":
        # The gradient of the CPU's fused kernel takes longer than all matrix products of so small a network together.
        weights = (query * query.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
        weights = weights if bias is None else weights + bias
        mixed: Tensor = weights.softmax(-1).to(values.dtype) @ values
        return mixed
    return F.scaled_dot_product_attention(query, keys, values, attn_mask=bias)


class Attention(nn.Module):
    """Multi-head attention without biases, called ``path`` in its network."""

    def __init__(self, dim: int, heads: int, path: str) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"attention width {dim} is not a multiple of its {heads} heads")
        self.dim, self.heads, self.path = dim, heads, path
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(dim, dim, bias=False)
        self.to_v = nn.Linear(dim, dim, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim, bias=False)])

    def sites(self, of_text: bool = False) -> list[Site]:
        """Its projections; ``of_text`` if its keys and values are the text's."""
        reads = {"to_k", "to_v"} if of_text else set()
        return [Site(f"{self.path}.{name}", name, self.dim, self.dim, of_text=name in reads) for name in PROJECTIONS]

    def keys_values(self, context: Tensor, adapter: AdapterFn | None = None) -> tuple[Tensor, Tensor]:
        """``[B,T,dim]`` to keys and values ``[B,heads,T,dim/heads]``; for text, once per prompt."""
        return self._project("to_k", context, adapter), self._project("to_v", context, adapter)

    def forward(
        self,
        x: Tensor,
        keys_values: tuple[Tensor, Tensor] | None = None,
        adapter: AdapterFn | None = None,
        times: Tensor | None = None,
    ) -> Tensor:
        """``[B,N,dim]`` to ``[B,N,dim]``; self-attention unless ``keys_values`` are given. ``times`` is ``attend``'s.

        The adapter's sites are the four projections and ``mix`` (queries in, mixed values out, ``[B,heads,N,d]``).
        """
        query = self._project("to_q", x, adapter)
        keys, values = keys_values if keys_values is not None else self.keys_values(x, adapter)
        mixed = attend(query, keys, values, times)
        if adapter is not None:
            mixed = adapter(f"{self.path}.mix", self, query, mixed)
        mixed = mixed.transpose(1, 2).flatten(2)
        out: Tensor = self.to_out[0](mixed)
        return out if adapter is None else adapter(f"{self.path}.to_out", self.to_out[0], mixed, out)

    def _project(self, name: str, x: Tensor, adapter: AdapterFn | None) -> Tensor:
        linear: nn.Linear = getattr(self, name)
        value = linear(x)
        if adapter is not None:
            value = adapter(f"{self.path}.{name}", linear, x, value)
        return self._split(value)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)


class Modulated(nn.Module):
    """A norm followed by a scale and shift computed from the pooled condition (adaLN, zero means untouched)."""

    def __init__(self, norm: RMSNorm | LayerNorm, dim: int, cond_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(cond_dim, 2 * dim, bias=False)
        self.norm = norm

    def modulation(self, cond: Tensor) -> Tensor:
        """``[B,cond_dim]`` to ``[B,1,2*dim]``: what multiplies, the weight included, and the shift, once a prompt."""
        scale, shift = self.linear(F.silu(cond))[:, None].chunk(2, -1)
        return torch.cat([self.norm.weight * (1 + scale), shift], -1)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        gain, shift = modulation.chunk(2, -1)
        return torch.addcmul(shift, self.norm.plain(x), gain)


class GatedProjection(nn.Module):
    """GEGLU: the first half of the projection times the exact GELU of the second (arXiv 2002.05202)."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, 2 * inner, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, -1)
        out: Tensor = value * F.gelu(gate)
        return out


class FeedForward(nn.Module):
    """GEGLU and the way back; the list keeps upstream's names ``net.0.proj`` and ``net.2``."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        down = nn.Linear(inner, dim, bias=False)
        self.net = nn.ModuleList([GatedProjection(dim, inner), nn.Identity(), down])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.net:
            x = layer(x)
        return x


class GlobalResponseNorm(nn.Module):
    """ConvNeXt v2's response norm: L2 over the grid, relative to the channel mean (arXiv 2301.00808)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, dim))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, dim))

    def forward(self, x: Tensor) -> Tensor:
        """``[B,H,W,C]`` to the same shape."""
        # Tensor.norm takes four times as long here; where a channel is all zeros, a root's slope would be infinite.
        response = x.float().square().sum((1, 2), keepdim=True).clamp(min=1e-30).sqrt()
        response = response / (response.mean(-1, keepdim=True) + NORM_EPS)
        out: Tensor = self.gamma * (x * response) + self.beta + x
        return out


def sinusoidal(values: Tensor, dim: int) -> Tensor:
    """``[B]`` raw values to ``[B,dim]`` features, cosines first, periods up to 10,000 (no rescaling)."""
    half = dim // 2
    steps = torch.arange(half, dtype=torch.float32, device=values.device)
    angles = values[:, None].float() * torch.exp(-math.log(10000) * steps / half)[None]
    return torch.cat([angles.cos(), angles.sin()], 1)
