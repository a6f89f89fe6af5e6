"""The transformer of the Meissonic family: ids, a prompt and a step in, logits over the codebook out.

Published as ``MeissonFlow/Meissonic`` and relatives (arXiv 2410.08261), whose tensors load unchanged. Picture and text
pass 14 blocks as two streams that meet in one attention, then 28 blocks as one sequence (the blocks of FLUX, arXiv
2403.03206). Unlike aMUSEd's transformer it is told how many steps are left.

Shapes: ``B`` pictures, ``H W`` grid of ids, ``h w`` the grid that attention sees (half of it where the network
compresses), ``N = h*w``, ``T`` text tokens, ``D`` hidden width, ``K`` codebook size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from styledrop_cli.models.layers import NORM_EPS, AdapterFn, RMSNorm, Site, numbered, sinusoidal
from styledrop_cli.models.transformer import LARGEST_GRID, Resample

WAVES = 256  # features of the step and of each micro-condition
MICRO = 5  # width, height, crop left, crop top, aesthetic score
STEP_SCALE = 1000  # the step is multiplied by this inside the network, as upstream does
ALIKE = 1e-4  # steps that differ by less are one
MOST_AHEAD = 256  # modulations are computed ahead for at most so many prompts and steps: a megabyte each in fp32


@dataclass(frozen=True)
class MeissonicConfig:
    """Sizes, in upstream's names; the defaults are the published ones at 1024 px.

    ``sample_size`` is the number of ids along a side that the weights were trained for; upstream's config does not
    hold it. ``axes_dims_rope`` are the channels of a head that turn with the (unused) first axis, the row and the
    column.
    """

    codebook_size: int = 8192
    vocab_size: int = 8256
    num_layers: int = 14
    num_single_layers: int = 28
    attention_head_dim: int = 128
    num_attention_heads: int = 8
    joint_attention_dim: int = 1024
    pooled_projection_dim: int = 1024
    axes_dims_rope: tuple[int, ...] = (16, 56, 56)
    sample_size: int = 64
    downsample: bool = True
    upsample: bool = True

    def __post_init__(self) -> None:
        problems = []
        if self.vocab_size <= self.codebook_size:
            problems.append(
                f"vocab_size {self.vocab_size} leaves no mask token beyond codebook_size {self.codebook_size}"
            )
        if self.pooled_projection_dim != self.hidden_size:
            problems.append(f"pooled_projection_dim {self.pooled_projection_dim} is not the width {self.hidden_size}")
        if len(self.axes_dims_rope) != 3 or sum(self.axes_dims_rope) != self.attention_head_dim:
            problems.append(f"axes_dims_rope {self.axes_dims_rope} do not fill a head of {self.attention_head_dim}")
        if any(width % 2 for width in self.axes_dims_rope):
            problems.append(f"axes_dims_rope {self.axes_dims_rope} must be even")
        if self.num_single_layers % 2:
            problems.append(f"num_single_layers {self.num_single_layers} is odd: adapters take them in pairs")
        if self.downsample != self.upsample:
            problems.append("downsample and upsample must be on or off together")
        if not 1 <= self.sample_size <= LARGEST_GRID or self.sample_size % (1 + self.downsample):
            problems.append(f"sample_size {self.sample_size} is not a grid of at most {LARGEST_GRID} that it can halve")
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def hidden_size(self) -> int:
        """D."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def encoder_hidden_size(self) -> int:
        """Width of the text encoder's states."""
        return self.joint_attention_dim

    @property
    def cond_embed_dim(self) -> int:
        """Width of the text encoder's summary."""
        return self.pooled_projection_dim

    @property
    def mask_id(self) -> int:
        """The id that stands for 'not yet known'."""
        return self.vocab_size - 1


@dataclass(frozen=True)
class MeissonicCondition:
    """What a prompt contributes to every step: its states ``text`` ``[B,T,D]`` and its summary ``[B,D]``.

    ``left`` ``[B]`` is how many steps are left after the one to come, in the convention of the weights. What follows
    from prompt and step alone may be there already: ``ahead`` ``[B,S,P,D]``, all P vectors that shift, scale and gate
    the blocks, at each of the ``steps`` ``[S]``.
    """

    text: Tensor
    summary: Tensor
    left: Tensor
    steps: Tensor | None = None
    ahead: Tensor | None = None

    def __len__(self) -> int:
        return len(self.text)

    @staticmethod
    def cat(conditions: Sequence[MeissonicCondition]) -> MeissonicCondition:
        """Join prompts into one batch, in order."""
        steps, ahead = conditions[0].steps, [c.ahead for c in conditions]
        known = steps is not None and all(c.steps is not None and torch.equal(c.steps, steps) for c in conditions)
        return MeissonicCondition(
            torch.cat([c.text for c in conditions]),
            torch.cat([c.summary for c in conditions]),
            torch.cat([c.left for c in conditions]),
            steps if known else None,
            torch.cat([a for a in ahead if a is not None]) if known else None,
        )

    def select(self, rows: Tensor) -> MeissonicCondition:
        """The prompts at ``rows`` (an index tensor), repeated as often as they are named."""
        ahead = None if self.ahead is None else self.ahead[rows]
        return MeissonicCondition(self.text[rows], self.summary[rows], self.left[rows], self.steps, ahead)

    def at(self, left: float | Tensor) -> MeissonicCondition:
        """The same prompts with so many steps ``left``: one number for all, or ``[B]``."""
        values = torch.as_tensor(left, dtype=torch.float32, device=self.left.device)
        return replace(self, left=values.expand(len(self)))

    def modulations(self) -> Tensor | None:
        """Of ``ahead`` what is due now, ``[B,P,D]``; None if it is not there for all rows."""
        if self.steps is None or self.ahead is None:
            return None
        apart, index = (self.steps - self.left[:, None]).abs().min(-1)
        return self.ahead[torch.arange(len(self), device=index.device), index] if bool((apart < ALIKE).all()) else None


class ScaledNorm(RMSNorm):
    """RMS norm that multiplies by its weight in the weight's own number type, as upstream's does."""

    def forward(self, x: Tensor) -> Tensor:
        """``[...,D]`` to the same shape."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        y = x * torch.rsqrt(length.square() / x.shape[-1] + NORM_EPS)
        half = self.weight.dtype in (torch.float16, torch.bfloat16)
        return (y.to(self.weight.dtype) if half else y) * self.weight


def modulated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Layer norm of ``[B,n,D]`` without weights, scaled by one and ``scale`` and shifted, ``[B,1,D]`` each."""
    if len(x) == 1:  # at once, in a third of the time
        gain, offset = (1 + scale).flatten().to(x.dtype), shift.flatten().to(x.dtype)
        return F.layer_norm(x, x.shape[-1:], gain, offset, NORM_EPS)
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=NORM_EPS), 1 + scale)


def tanh_gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form; ``x`` is overwritten where no gradient asks for it."""
    return F.gelu(x, approximate="tanh") if torch.is_grad_enabled() else torch.ops.aten.gelu_(x, approximate="tanh")


def rotary(places: Tensor, widths: Sequence[int]) -> Tensor:
    """Integer ``places`` ``[n,3]`` to the rotations of pairs of channels, complex numbers ``[n,d/2]`` of length 1."""
    angles = [
        places[:, axis, None].double() * 10_000.0 ** -(torch.arange(0, width, 2, device=places.device).double() / width)
        for axis, width in enumerate(widths)
    ]
    each = torch.cat(angles, -1)
    return torch.complex(each.cos().float(), each.sin().float())


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """Rotate neighbouring pairs of channels of ``[B,n,heads,d]``, in fp32."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn[:, None]).flatten(-2).to(x.dtype)


def finite_in_half(x: Tensor) -> Tensor:
    """Clip what fp16 would call infinite; other number types pass."""
    return x.clip(-65504, 65504) if x.dtype == torch.float16 else x


class TwoLayers(nn.Module):
    """Linear, SiLU, linear: ``[B,read]`` to ``[B,D]``."""

    def __init__(self, read: int, width: int, *, bias: bool) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(read, width, bias=bias)
        self.linear_2 = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear_2(F.silu(self.linear_1(x)))
        return out


class Modulation(nn.Module):
    """The condition ``[M,D]``, behind its activation, to ``parts`` vectors ``[M,parts,D]``: shift, scale, gate."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(width, parts * width)

    def forward(self, condition: Tensor) -> Tensor:
        out: Tensor = self.linear(condition).unflatten(-1, (self.parts, -1))
        return out


class JointAttention(nn.Module):
    """Attention of the picture's tokens and, with ``joint``, of the text's, which have projections of their own.

    The adapter's sites are ``to_q``, ``to_k``, ``to_v``, ``to_out`` and ``mix`` (rotated queries in, mixed values out,
    ``[B,heads,n,d]``); with ``joint`` the projections' sites are the picture's alone.
    """

    def __init__(self, config: MeissonicConfig, path: str, *, joint: bool) -> None:
        super().__init__()
        width, head = config.hidden_size, config.attention_head_dim
        self.width, self.heads, self.path, self.joint = width, config.num_attention_heads, path, joint
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.norm_q, self.norm_k = ScaledNorm(head), ScaledNorm(head)
        if joint:
            self.add_q_proj, self.add_k_proj, self.add_v_proj = (nn.Linear(width, width) for _ in range(3))
            self.norm_added_q, self.norm_added_k = ScaledNorm(head), ScaledNorm(head)
            self.to_out = nn.ModuleList([nn.Linear(width, width)])
            self.to_add_out = nn.Linear(width, width)

    def sites(self) -> list[Site]:
        """Its projections of the picture's tokens, and where learned text may be read beside the prompt."""
        names = ("to_q", "to_k", "to_v", "to_out") if self.joint else ("to_q", "to_k", "to_v")
        projections = [Site(f"{self.path}.{name}", name, self.width, self.width) for name in names]
        return [*projections, Site(f"{self.path}.mix", "mix", self.width, self.width, self.heads)]

    def keys_values(self, context: Tensor, adapter: AdapterFn | None = None) -> tuple[Tensor, Tensor]:
        """Keys and values ``[B,heads,T,d]`` of states ``[B,T,D]`` that stand where the text stands, not rotated."""
        keys, values = self._told(context, adapter)
        return keys.transpose(1, 2), values.transpose(1, 2)

    def forward(
        self, x: Tensor, text: Tensor | None, turn: Tensor, adapter: AdapterFn | None
    ) -> tuple[Tensor, Tensor | None]:
        """``[B,n,D]`` and, with ``joint``, text ``[B,T,D]`` to the same, text first in the sequence."""
        query, keys, values = (self._project(name, x, adapter) for name in ("to_q", "to_k", "to_v"))
        query, keys = self.norm_q(query), self.norm_k(keys)
        if text is not None:
            added = self._project("add_q_proj", text, None)
            told = self._told(text, None)
            query = torch.cat((self.norm_added_q(added), query), 1)
            keys, values = torch.cat((told[0], keys), 1), torch.cat((told[1], values), 1)
        query, keys, values = (one.transpose(1, 2) for one in (turned(query, turn), turned(keys, turn), values))
        mixed = F.scaled_dot_product_attention(query, keys, values)
        if adapter is not None:
            mixed = adapter(f"{self.path}.mix", self, query, mixed)
        mixed = mixed.transpose(1, 2).flatten(2)
        if text is None:
            return mixed, None
        length = text.shape[1]
        out: Tensor = self.to_out[0](mixed[:, length:])
        if adapter is not None:
            out = adapter(f"{self.path}.to_out", self.to_out[0], mixed[:, length:], out)
        return out, self.to_add_out(mixed[:, :length])

    def _told(self, context: Tensor, adapter: AdapterFn | None) -> tuple[Tensor, Tensor]:
        """``keys_values``, ``[B,T,heads,d]``."""
        names = ("add_k_proj", "add_v_proj") if self.joint else ("to_k", "to_v")
        keys, values = (self._project(name, context, adapter) for name in names)
        return (self.norm_added_k if self.joint else self.norm_k)(keys), values

    def _project(self, name: str, x: Tensor, adapter: AdapterFn | None) -> Tensor:
        """``[B,n,D]`` to ``[B,n,heads,d]``."""
        linear: nn.Linear = getattr(self, name)
        value = linear(x)
        if adapter is not None:
            value = adapter(f"{self.path}.{name}", linear, x, value)
        out: Tensor = value.unflatten(-1, (self.heads, -1))
        return out


class TanhGelu(nn.Module):
    """A linear layer and GELU in its tanh form."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        return tanh_gelu(self.proj(x))


class Mlp(nn.Module):
    """Four times as wide inside; the list keeps upstream's names ``net.0.proj`` and ``net.2``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(TanhGelu(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class TwoStreamBlock(nn.Module):
    """Picture and text, each with its own weights, meet in one attention."""

    def __init__(self, config: MeissonicConfig, path: str) -> None:
        super().__init__()
        width = config.hidden_size
        self.path = path
        self.norm1, self.norm1_context = Modulation(width, 6), Modulation(width, 6)
        self.attn = JointAttention(config, f"{path}.attn", joint=True)
        self.ff, self.ff_context = Mlp(width), Mlp(width)

    def sites(self) -> list[Site]:
        """The attention's, and the picture after each half of the block."""
        width = self.attn.width
        return [*self.attn.sites(), *(Site(f"{self.path}.{half}", half, width, width) for half in ("attention", "mlp"))]

    def modulations(self, condition: Tensor) -> list[Tensor]:
        """What shifts, scales and gates the picture, then the text, ``[M,6,D]`` each."""
        return [self.norm1(condition), self.norm1_context(condition)]

    def forward(
        self, image: Tensor, text: Tensor, modulation: Sequence[Tensor], turn: Tensor, adapter: AdapterFn | None
    ) -> tuple[Tensor, Tensor]:
        """Picture ``[B,N,D]`` and text ``[B,T,D]`` to the same; ``modulation`` are twelve, ``[B,1,D]`` each."""
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation[:6]
        told = modulation[6:]
        seen, heard = self.attn(modulated(image, scale, shift), modulated(text, told[1], told[0]), turn, adapter)
        image = torch.addcmul(image, gate, seen)
        if adapter is not None:
            image = adapter(f"{self.path}.attention", self, image, image)
        image = torch.addcmul(image, mlp_gate, self.ff(modulated(image, mlp_scale, mlp_shift)))
        if adapter is not None:
            image = adapter(f"{self.path}.mlp", self, image, image)
        text = torch.addcmul(text, told[2], heard)
        text = torch.addcmul(text, told[5], self.ff_context(modulated(text, told[4], told[3])))
        return image, finite_in_half(text)


class OneStreamBlock(nn.Module):
    """Text and picture as one sequence ``[B,T+N,D]``; attention and MLP side by side, one projection behind both.

    ``place`` is the kind of its only site for a bottleneck, after the block: "attention" or "mlp".
    """

    def __init__(self, config: MeissonicConfig, path: str, place: str) -> None:
        super().__init__()
        width = config.hidden_size
        self.path, self.place = path, place
        self.norm = Modulation(width, 3)
        self.attn = JointAttention(config, f"{path}.attn", joint=False)
        self.proj_mlp = nn.Linear(width, 4 * width)
        self.proj_out = nn.Linear(5 * width, width)

    def sites(self) -> list[Site]:
        """The attention's, and the picture after the block."""
        width = self.attn.width
        return [*self.attn.sites(), Site(f"{self.path}.{self.place}", self.place, width, width)]

    def modulations(self, condition: Tensor) -> list[Tensor]:
        """What shifts, scales and gates both, ``[M,3,D]``."""
        return [self.norm(condition)]

    def forward(
        self, x: Tensor, told: int, modulation: Sequence[Tensor], turn: Tensor, adapter: AdapterFn | None
    ) -> Tensor:
        """``told`` is how many tokens in front are the text's; ``modulation`` are three, ``[B,1,D]`` each."""
        shift, scale, gate = modulation
        y = modulated(x, scale, shift)
        mixed, _ = self.attn(y, None, turn, adapter)
        inner, width = tanh_gelu(self.proj_mlp(y)), mixed.shape[-1]
        # One projection of both side by side, upstream; in two halves they need not be copied beside each other.
        weight = self.proj_out.weight
        out = F.linear(mixed, weight[:, :width], self.proj_out.bias) + F.linear(inner, weight[:, width:])
        x = finite_in_half(torch.addcmul(x, gate, out))
        if adapter is None:
            return x
        image = x[:, told:]
        after = adapter(f"{self.path}.{self.place}", self, image, image)
        return x if after is image else torch.cat((x[:, :told], after), 1)


class Stage(nn.Module):
    """A 2x2 resampling under upstream's name, or nothing."""

    def __init__(self, name: str, width: int, *, up: bool, there: bool) -> None:
        super().__init__()
        self.name = name
        if there:
            self.add_module(name, MeissonicResample(width, up=up))

    def forward(self, x: Tensor) -> Tensor:
        """``[B,H,W,D]``."""
        out: Tensor = getattr(self, self.name)(x) if hasattr(self, self.name) else x
        return out


class MeissonicResample(Resample):
    """``Resample`` with upstream's kind of norm."""

    def __init__(self, dim: int, up: bool) -> None:
        super().__init__(dim, up)
        self.norm = ScaledNorm(dim)


class IdEmbedding(nn.Module):
    """Ids ``[B,H,W]`` to ``[B,H,W,D]``."""

    def __init__(self, config: MeissonicConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.embeddings = nn.Embedding(config.vocab_size, width)
        self.layer_norm = ScaledNorm(width)
        self.conv = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        # A 1x1 convolution is a linear map of the channels; kept as Conv2d for its published weight shape.
        return F.linear(self.layer_norm(self.embeddings(ids)), self.conv.weight[:, :, 0, 0])


class Head(nn.Module):
    """Features ``[...,D]`` to logits ``[...,K]``."""

    def __init__(self, config: MeissonicConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.conv1 = nn.Conv2d(width, width, 1, bias=False)
        self.layer_norm = ScaledNorm(width)
        self.conv2 = nn.Conv2d(width, config.codebook_size, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer_norm(F.linear(x, self.conv1.weight[:, :, 0, 0]))
        return F.linear(x, self.conv2.weight[:, :, 0, 0])


class StepAndText(nn.Module):
    """Holds the two small networks whose outputs are added up to the condition."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.timestep_embedder = TwoLayers(WAVES, width, bias=True)
        self.text_embedder = TwoLayers(width, width, bias=True)


class MeissonicTransformer(nn.Module):
    """Predicts every masked id of a grid at once, given the known ones, a prompt and the step."""

    def __init__(self, config: MeissonicConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.time_text_embed = StepAndText(width)
        self.cond_embed = TwoLayers(config.pooled_projection_dim + MICRO * WAVES, width, bias=False)
        self.context_embedder = nn.Linear(config.joint_attention_dim, width)
        self.encoder_proj_layer_norm = ScaledNorm(width)
        self.embed = IdEmbedding(config)
        self.down_block = Stage("downsample", width, up=False, there=config.downsample)
        self.project_to_hidden_norm = ScaledNorm(width)
        self.project_to_hidden = nn.Linear(width, width, bias=False)
        self.transformer_blocks: Any = nn.ModuleList(
            TwoStreamBlock(config, f"transformer_blocks.{i}") for i in range(config.num_layers)
        )
        # Bottlenecks need as many sites of one kind as of the other, so that one-stream blocks take turns.
        self.single_transformer_blocks: Any = nn.ModuleList(
            OneStreamBlock(config, f"single_transformer_blocks.{i}", ("attention", "mlp")[i % 2])
            for i in range(config.num_single_layers)
        )
        self.project_from_hidden_norm = ScaledNorm(width)
        self.project_from_hidden = nn.Linear(width, width, bias=False)
        self.up_block = Stage("upsample", width, up=True, there=config.upsample)
        self.mlm_layer = Head(config)

    @property
    def sites(self) -> list[Site]:
        """Where adapters may change it, in the order in which they come."""
        two, one = self.transformer_blocks, self.single_transformer_blocks
        return [*numbered(two), *numbered(one, start=1 + len(two), each=2)]  # a pair has a bottleneck's two places

    @property
    def branches_in_turn(self) -> bool:
        """On a processor: a thousand places keep it busy, and what a block makes of one branch stays near it."""
        return self.context_embedder.weight.device.type == "cpu"

    def condition(
        self, text: Tensor, pooled: Tensor, micro: Tensor, adapter: AdapterFn | None = None
    ) -> MeissonicCondition:
        """What the prompt alone decides, at step 0.

        ``text`` ``[B,T,E]``: the text encoder's states before its last layer, padding included. ``pooled`` ``[B,D]``:
        its projected summary. ``micro`` ``[B,5]``: width, height, crop left, crop top and aesthetic score, raw values.
        """
        wide = self.config.joint_attention_dim
        if text.ndim != 3 or text.shape[-1] != wide:
            raise ValueError(f"text has shape {tuple(text.shape)}, expected [B,T,{wide}]")
        kind = self.context_embedder.weight.dtype
        features = sinusoidal(micro.flatten(), WAVES).reshape(len(micro), -1)
        summary = self.cond_embed(torch.cat((pooled, features), -1).to(kind))
        return MeissonicCondition(
            self.encoder_proj_layer_norm(self.context_embedder(text)),
            self.time_text_embed.text_embedder(summary),
            torch.zeros(len(text), device=text.device),
        )

    def forward(
        self,
        ids: Tensor,
        condition: MeissonicCondition,
        adapter: AdapterFn | None = None,
        where: Tensor | None = None,
    ) -> Tensor:
        """Ids ``[B,H,W]`` in ``[0, vocab_size)`` to logits ``[B,H,W,K]``, or ``[M,K]`` of the M places ``where``.

        The grid may be of another size than the trained one, if it can be halved where the network compresses.
        """
        if ids.ndim != 3 or len(ids) != len(condition):
            raise ValueError(f"ids have shape {tuple(ids.shape)}, expected [{len(condition)},H,W]")
        due = condition.modulations()
        due = self._modulations(condition.summary, condition.left) if due is None else due
        modulations = iter(due[:, :, None].unbind(1))  # twelve a two-stream block, three a one-stream block
        x = self.down_block(self.embed(ids))
        (height, width), text = x.shape[1:3], condition.text
        image = self.project_to_hidden(self.project_to_hidden_norm(x.flatten(1, 2)))
        turn = self._turn(text.shape[1], height, width, ids.device)
        for block in self.transformer_blocks:
            image, text = block(image, text, list(islice(modulations, 12)), turn, adapter)
        length, both = text.shape[1], torch.cat((text, image), 1)
        for block in self.single_transformer_blocks:
            both = block(both, length, list(islice(modulations, 3)), turn, adapter)
        image = self.project_from_hidden(self.project_from_hidden_norm(both[:, length:]))
        features = self.up_block(image.unflatten(1, (height, width)))
        out: Tensor = self.mlm_layer(features if where is None else features[where])
        return out

    def ahead(self, condition: MeissonicCondition, left: Sequence[float]) -> MeissonicCondition:
        """The same ``condition`` with all that follows from it at the steps to come, ``left`` after each of them.

        A quarter of the weights is for that alone, and is not needed any more then. Of many prompts it stays as it is.
        """
        rows, count = len(condition), len(left)
        if rows * count > MOST_AHEAD:
            return condition
        steps = torch.tensor(left, dtype=torch.float32, device=condition.left.device)
        every = self._modulations(condition.summary.repeat_interleave(count, 0), steps.repeat(rows))
        return replace(condition, steps=steps, ahead=every.unflatten(0, (rows, count)))

    def _modulations(self, summary: Tensor, left: Tensor) -> Tensor:
        """Summaries ``[M,D]`` and steps ``[M]`` to what shifts, scales and gates the blocks, in order, ``[M,P,D]``."""
        # Always in fp32: upstream rounds the product to half precision first, which gives other waves, and in fp16
        # infinite ones from 66 steps on.
        waves = sinusoidal(left * STEP_SCALE, WAVES).to(self.context_embedder.weight.dtype)
        told = F.silu(self.time_text_embed.timestep_embedder(waves) + summary)
        blocks = (*self.transformer_blocks, *self.single_transformer_blocks)
        return torch.cat([vectors for block in blocks for vectors in block.modulations(told)], 1)

    def _turn(self, text: int, height: int, width: int, device: torch.device) -> Tensor:
        """The rotary angles of ``text`` tokens, all at place 0, and of the grid's cells, row by row."""
        rows, columns = torch.meshgrid(
            torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
        )
        cells = torch.stack((torch.zeros_like(rows), rows, columns), -1).flatten(0, 1)
        return rotary(torch.cat((cells.new_zeros(text, 3), cells)), self.config.axes_dims_rope)
