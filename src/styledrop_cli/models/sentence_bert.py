"""A sentence encoder that knows English: a BERT under its published tensor names, so that published weights fit.

Pocket's is MiniLM (6 layers of 384), fine-tuned so that sentences of like meaning lie close together. Upstream:
transformers ``BertModel`` without its pooler (arXiv 1810.04805, 2002.10957), sentence-transformers' mean pooling.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-12
PAD_ID = 0  # BERT's vocabulary begins with its padding


@dataclass(frozen=True)
class SentenceBertConfig:
    """Sizes; the defaults are all-MiniLM-L6-v2's, which reads up to 512 tokens."""

    kind: str = "bert"
    vocab_size: int = 30522
    context_length: int = 32
    width: int = 384
    heads: int = 12
    layers: int = 6
    inner: int = 1536

    def __post_init__(self) -> None:
        if self.kind != "bert":
            raise ValueError(f"kind is '{self.kind}', not 'bert'")
        if not self.heads or self.width % self.heads:
            raise ValueError("width is not a multiple of heads")
        if self.layers < 1 or self.context_length < 3:
            raise ValueError("layers must be at least 1, context_length 3: a start, a word and an end")

    @property
    def text_width(self) -> int:
        """Of the hidden states."""
        return self.width

    @property
    def embed_dim(self) -> int:
        """Of the summary."""
        return self.width


class Embeddings(nn.Module):
    def __init__(self, config: SentenceBertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.width)
        self.position_embeddings = nn.Embedding(config.context_length, config.width)
        self.token_type_embeddings = nn.Embedding(2, config.width)
        self.LayerNorm = nn.LayerNorm(config.width, NORM_EPS)

    def forward(self, tokens: Tensor) -> Tensor:
        places = self.position_embeddings.weight[: tokens.shape[1]]
        out: Tensor = self.LayerNorm(self.word_embeddings(tokens) + places + self.token_type_embeddings.weight[0])
        return out


class SelfAttention(nn.Module):
    def __init__(self, config: SentenceBertConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        query, keys, values = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for project in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask[:, None, None])
        return mixed.transpose(1, 2).flatten(2)


class Output(nn.Module):
    """A projection added to what it was made from, then a norm."""

    def __init__(self, inner: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, width)
        self.LayerNorm = nn.LayerNorm(width, NORM_EPS)

    def forward(self, made: Tensor, x: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(self.dense(made) + x)
        return out


class Layer(nn.Module):
    def __init__(self, config: SentenceBertConfig) -> None:
        super().__init__()
        attention = {"self": SelfAttention(config), "output": Output(config.width, config.width)}
        self.attention = nn.ModuleDict(attention)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.width, config.inner)})
        self.output = Output(config.inner, config.width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention["output"](self.attention["self"](x, mask), x)
        out: Tensor = self.output(F.gelu(self.intermediate["dense"](x)), x)
        return out


class Encoder(nn.Module):
    def __init__(self, config: SentenceBertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for layer in self.layer:
            x = layer(x, mask)
        return x


class SentenceBert(nn.Module):
    """Tokens to states and a summary, as a CLIP's text tower gives them."""

    def __init__(self, config: SentenceBertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)

    def text_states(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens ``[B,T]``, padded with ``PAD_ID``, to hidden states ``[B,T,W]`` and a summary ``[B,W]``.

        States of the padding are zero, and the rest is what it would be without any. The summary is the mean of the
        others as long as ``sqrt(W)``: by its direction alone texts are compared, and a transformer that reads it finds
        numbers of about 1, as a CLIP's are.
        """
        mask = tokens != PAD_ID
        longest = max(1, int(mask.sum(1).max())) if len(tokens) else 1
        seen = mask[:, :longest]
        states = self.encoder(self.embeddings(tokens[:, :longest]), seen) * seen[..., None]
        mean = states.float().sum(1) / seen.sum(1, keepdim=True).clamp(min=1)
        summary = F.normalize(mean, dim=-1) * self.config.width**0.5
        return F.pad(states, (0, 0, 0, tokens.shape[1] - longest)), summary
