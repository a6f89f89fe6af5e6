"""What is trained on a style: small adapters of three kinds, beside a transformer that stays as it is.

All kinds keep one contract. An adapter is called with ``(site, module, source, value)`` wherever the transformer can
be adapted (see ``layers.AdapterFn``) and returns the value to go on with: the very same tensor where it has nothing
to add. A fresh one changes nothing. Its configuration and the sites that the transformer declares say what it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from styledrop_cli.models.layers import PROJECTIONS, AdapterFn, Attention, Site, attend
from styledrop_cli.models.transformer import TokenTransformer

PLACES = ("attention", "mlp")  # kinds of site after which bottlenecks lie, as many of each


class Adapter(nn.Module):
    """The contract, and nothing more: this one changes nothing."""

    kind: ClassVar[str]
    config: Any
    reads_text = False  # whether it changes what the prompt alone contributes

    @property
    def stored_config(self) -> dict[str, Any]:
        """Its configuration as a file holds it: without ``layers`` where it is in all, as before there was a choice."""
        return {name: value for name, value in asdict(self.config).items() if name != "layers" or value}

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights anew, so that the adapter still changes nothing."""
        raise NotImplementedError

    def forward(self, site: str, module: nn.Module, source: Tensor, value: Tensor) -> Tensor:
        raise NotImplementedError


def _chosen(transformer: TokenTransformer, layers: Sequence[int]) -> list[Site]:
    """The sites in some ``layers``, by their numbers from 1 on, or all without any; ValueError for one that is not."""
    sites = transformer.sites
    last = max(site.layer for site in sites)
    if wrong := [layer for layer in layers if not 1 <= layer <= last]:
        raise ValueError(f"there is no layer {wrong[0]}: this base has 1 to {last}")
    return [site for site in sites if site.layer in layers] if layers else sites


def _positive(what: str, value: float) -> None:
    if value <= 0:
        raise ValueError(f"{what} must be positive, not {value}")


# ---- bottlenecks: StyleDrop's own --------------------------------------------------------------------------------


@dataclass(frozen=True)
class BottleneckConfig:
    """``width`` is H of the paper; ``shared`` whether all layers share one pair of matrices, with offsets.

    ``layers`` are the numbers of those that have bottlenecks, from 1 on; none stands for all. So it is for every kind.
    """

    width: int = 4
    shared: bool = True
    layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _positive("width", self.width)


class BottleneckAdapter(Adapter):
    """``h + GELU(h Wd) Wu`` after the cross-attention and after the MLP of each layer (App. B.1.1, no biases).

    Not shared: ``Wd [2,L,D,H]`` and ``Wu [2,L,H,D]``, the first dimension being the place. Shared: one ``Wd``, one
    ``Wu`` a place with per-layer offsets ``[L,1,H]`` and ``[L,1,D]`` added to them. Up weights and offsets start at
    zero; down weights are truncated normal, std 0.02.
    """

    kind = "bottleneck"

    def __init__(self, config: BottleneckConfig, transformer: TokenTransformer) -> None:
        super().__init__()
        self.config: BottleneckConfig = config
        chosen = _chosen(transformer, config.layers)
        sites = [[site for site in chosen if site.kind == place] for place in PLACES]
        places, layers, dim = len(sites), len(sites[0]), sites[0][0].outputs
        copies = 1 if config.shared else layers
        self.down = nn.Parameter(torch.zeros(places, copies, dim, config.width))
        self.up = nn.Parameter(torch.zeros(places, copies, config.width, dim))
        if config.shared:
            self.down_offset = nn.Parameter(torch.zeros(places, layers, 1, config.width))
            self.up_offset = nn.Parameter(torch.zeros(places, layers, 1, dim))
        self._cut_of: tuple[object, ...] = ()
        self._where = {site.name: (i, layer) for i, place in enumerate(sites) for layer, site in enumerate(place)}

    def initialise(self, generator: torch.Generator) -> None:
        nn.init.trunc_normal_(self.down, std=0.02, generator=generator)

    def forward(self, site: str, module: nn.Module, source: Tensor, value: Tensor) -> Tensor:
        if site not in self._where:
            return value
        down, up = self.matrices(site)
        return value + F.gelu(value @ down) @ up

    @property
    def adapted(self) -> list[str]:
        """The names of the sites that it changes."""
        return list(self._where)

    def matrices(self, site: str) -> tuple[Tensor, Tensor]:
        """Down ``[D,H]`` and up ``[H,D]`` at a site that it changes."""
        place, layer = self._where[site]
        if self.config.shared:
            return (
                self.down[place, 0] + self.down_offset[place, layer],
                self.up[place, 0] + self.up_offset[place, layer],
            )
        downs, ups = self._cut()
        return downs[place][layer], ups[place][layer]

    def _cut(self) -> tuple[list[Sequence[Tensor]], list[Sequence[Tensor]]]:
        """All sites' matrices, cut apart once for as long as they are the same.

        Cut at each site by itself, each would have a gradient as large as all of them together, most of it zero.
        """
        now = (self.down.data_ptr(), self.down._version, self.up._version, torch.is_grad_enabled())
        if self._cut_of != now:
            self._pieces = [place.unbind() for place in self.down], [place.unbind() for place in self.up]
            self._cut_of = now
        return self._pieces


# ---- low-rank updates --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoraConfig:
    """``targets`` are names of attention projections; the update is scaled by ``alpha / rank``."""

    rank: int = 4
    alpha: float = 4.0
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v")
    layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _positive("rank", self.rank)
        _positive("alpha", self.alpha)
        unknown = [t for t in self.targets if t not in PROJECTIONS]
        if unknown or not self.targets:
            raise ValueError(f"targets must be of {', '.join(PROJECTIONS)}, not {', '.join(unknown) or 'none'}")


class LoraAdapter(Adapter):
    """``W x + (alpha / rank) x A B`` on attention projections (arXiv 2106.09685).

    ``A [in,rank]`` starts normal, std ``1 / rank``, ``B [rank,out]`` at zero. A site's dots are slashes in the names
    of its tensors, ``a.transformer_layers/0/attn1/to_q``.
    """

    kind = "lora"

    def __init__(self, config: LoraConfig, transformer: TokenTransformer) -> None:
        super().__init__()
        self.config: LoraConfig = config
        self.a = nn.ParameterDict()
        self.b = nn.ParameterDict()
        wanted = [site for site in _chosen(transformer, config.layers) if site.kind in config.targets]
        if not wanted:
            raise ValueError(f"there is no {' or '.join(config.targets)} in the layers {config.layers}")
        attentions = [list(own) for _, own in groupby(wanted, lambda site: site.name.rpartition(".")[0])]
        # Weights are drawn one attention after the other, in the order of the targets within it.
        sites = [site for own in attentions for site in sorted(own, key=lambda site: config.targets.index(site.kind))]
        self.reads_text = any(site.of_text for site in sites)
        for site in sites:
            name = site.name.replace(".", "/")
            self.a[name] = nn.Parameter(torch.zeros(site.inputs, config.rank))
            self.b[name] = nn.Parameter(torch.zeros(config.rank, site.outputs))
        self._names = {name.replace("/", "."): name for name in self.a}

    def initialise(self, generator: torch.Generator) -> None:
        for a in self.a.values():
            nn.init.normal_(a, std=1 / self.config.rank, generator=generator)

    def forward(self, site: str, module: nn.Module, source: Tensor, value: Tensor) -> Tensor:
        name = self._names.get(site)
        if name is None:
            return value
        update: Tensor = (source @ self.a[name]) @ self.b[name]
        return value + update * (self.config.alpha / self.config.rank)


# ---- learned text ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PromptConfig:
    """``vectors`` learned text vectors a layer."""

    vectors: int = 16
    layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _positive("vectors", self.vectors)


class PromptAdapter(Adapter):
    """Learned vectors beside the text's, ``[L,P,D]``, read by each layer's own cross-attention.

    They have a softmax of their own, whose result is added through ``tanh(gate)``, one gate a head ``[L,heads]``. The
    gates start at zero (arXiv 2303.16199), so that a fresh adapter changes nothing.
    """

    kind = "prompt"

    def __init__(self, config: PromptConfig, transformer: TokenTransformer) -> None:
        super().__init__()
        self.config: PromptConfig = config
        sites = [site for site in _chosen(transformer, config.layers) if site.kind == "mix"]
        self.vectors = nn.Parameter(torch.zeros(len(sites), config.vectors, sites[0].inputs))
        self.gate = nn.Parameter(torch.zeros(len(sites), sites[0].heads))
        self._layers = {site.name: layer for layer, site in enumerate(sites)}

    def initialise(self, generator: torch.Generator) -> None:
        nn.init.normal_(self.vectors, generator=generator)  # as long as the normalised text they stand beside

    def forward(self, site: str, module: nn.Module, source: Tensor, value: Tensor) -> Tensor:
        if site not in self._layers:
            return value
        layer = self._layers[site]
        read = cast(Attention, module).keys_values(self.vectors[layer][None])
        keys, values = (t.expand(len(source), -1, -1, -1) for t in read)
        gate = self.gate[layer].tanh()[:, None, None]
        return value + gate * attend(source, keys, values)


# Kind -> its class and that of its configuration: what a file's header names.
KINDS: dict[str, tuple[type[Adapter], type[Any]]] = {
    "bottleneck": (BottleneckAdapter, BottleneckConfig),
    "lora": (LoraAdapter, LoraConfig),
    "prompt": (PromptAdapter, PromptConfig),
}


def at_strength(adapter: Adapter, strength: float) -> AdapterFn | None:
    """``value + strength * (adapter(value) - value)``: so much of what an adapter of any kind adds.

    At 1 it is the adapter itself, to the bit; at 0 there is none, and nothing is computed for it.
    """
    if strength == 1:
        return adapter
    if strength == 0:
        return None

    def scaled(site: str, module: nn.Module, source: Tensor, value: Tensor) -> Tensor:
        after = adapter(site, module, source, value)
        mixed: Tensor = value if after is value else value + strength * (after - value)
        return mixed

    return scaled


def on_rows(adapters: Sequence[AdapterFn | None], rows: int) -> AdapterFn:
    """Apply the first of ``adapters`` to the first ``rows`` of a batch, the next to the next ``rows``, and so on.

    The rest of the batch is left as it is: branches with different adapters, and without one, in one pass.
    """

    def partly(site: str, module: nn.Module, source: Tensor, value: Tensor) -> Tensor:
        before = value[: rows * len(adapters)].split(rows)
        after = [
            own if adapter is None else adapter(site, module, read, own)
            for adapter, read, own in zip(adapters, source.split(rows), before, strict=False)
        ]
        if all(now is then for now, then in zip(after, before, strict=True)):
            return value
        return torch.cat([*after, value[rows * len(adapters) :]])

    return partly
