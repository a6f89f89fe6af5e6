"""What a base reads its prompts with: a frozen network and the vocabulary that goes with it.

Which one is the ``text`` part's ``kind`` in ``config.json``: ``clip``, the text tower of the base's CLIP (pocket's up
to its second version, the published bases'), or ``bert``, a sentence encoder of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from styledrop_cli.base.prompt_tokens import TextTokenizer
from styledrop_cli.models.clip import Clip, ClipConfig
from styledrop_cli.models.sentence_bert import SentenceBert, SentenceBertConfig

TextConfig: TypeAlias = ClipConfig | SentenceBertConfig


@dataclass(frozen=True)
class TextEncoder:
    """A network with ``text_states``, on any device, and its tokenizer."""

    network: Clip | SentenceBert
    tokenizer: TextTokenizer

    @property
    def width(self) -> int:
        """Of the states."""
        return self.network.config.text_width

    @property
    def summary_width(self) -> int:
        """Of the summary."""
        return self.network.config.embed_dim

    @property
    def knows_english(self) -> bool:
        """Whether it was taught more words than a base's captions have."""
        return isinstance(self.network, SentenceBert)

    @torch.no_grad()
    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """``B`` texts to states ``[B,T,W]``, T the length of the context, and summaries ``[B,P]``.

        A summary is not normalised; texts are compared by its direction.
        """
        device = next(self.network.parameters()).device
        return self.network.text_states(self.tokenizer(texts).to(device))
