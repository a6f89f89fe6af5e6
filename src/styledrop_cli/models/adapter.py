"""The StyleDrop adapter: two small bottlenecks per transformer layer, everything else frozen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from styledrop_cli.models.transformer import SITES, AdapterFn


@dataclass(frozen=True)
class AdapterConfig:
    """``layers`` and ``dim`` must be the base transformer's; ``width`` is the bottleneck H of the paper."""

    layers: int
    dim: int
    width: int = 4
    shared: bool = True

    def __post_init__(self) -> None:
        if min(self.layers, self.dim, self.width) < 1:
            raise ValueError(
                f"adapter sizes must be positive: layers {self.layers}, dim {self.dim}, width {self.width}"
            )


class BottleneckAdapter(nn.Module):
    """``h + GELU(h Wd) Wu`` after the cross-attention and after the MLP of each layer (App. B.1.1, no biases).

    Not shared: ``Wd [2,L,D,H]`` and ``Wu [2,L,H,D]``, the first dimension being the site. Shared: one ``Wd``, one
    ``Wu`` a site with per-layer offsets ``[L,1,H]`` and ``[L,1,D]`` added to them. Up weights and offsets start at
    zero, so a fresh adapter changes nothing; down weights are truncated normal, std 0.02.
    """

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.config = config
        sites, layers, dim, width = len(SITES), config.layers, config.dim, config.width
        copies = 1 if config.shared else layers
        self.down = nn.Parameter(torch.empty(sites, copies, dim, width))
        self.up = nn.Parameter(torch.zeros(sites, copies, width, dim))
        if config.shared:
            self.down_offset = nn.Parameter(torch.zeros(sites, layers, 1, width))
            self.up_offset = nn.Parameter(torch.zeros(sites, layers, 1, dim))
        self.initialise(torch.Generator().manual_seed(0))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the down weights anew; the rest stays zero."""
        nn.init.trunc_normal_(self.down, std=0.02, generator=generator)

    def forward(self, hidden: Tensor, layer: int, site: str) -> Tensor:
        """``[B,N,D]`` to ``[B,N,D]`` at one layer (0-based) and site (``attention`` or ``mlp``)."""
        which = SITES.index(site)
        if self.config.shared:
            down = self.down[which, 0] + self.down_offset[which, layer]
            up = self.up[which, 0] + self.up_offset[which, layer]
        else:
            down, up = self.down[which, layer], self.up[which, layer]
        return hidden + nn.functional.gelu(hidden @ down) @ up


def on_rows(adapter: AdapterFn, rows: int) -> AdapterFn:
    """Apply ``adapter`` to the first ``rows`` of a batch only: branches with and without it in one pass."""

    def partly(hidden: Tensor, layer: int, site: str) -> Tensor:
        return torch.cat([adapter(hidden[:rows], layer, site), hidden[rows:]])

    return partly
