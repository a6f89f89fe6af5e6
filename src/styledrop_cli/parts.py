"""The parts of a base model: what each is made of, how one of a folder of ours is loaded, and whether several fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from styledrop_cli.checkpoints import build_config, load_strictly, network_of, read_config, read_tensors
from styledrop_cli.errors import ModelError
from styledrop_cli.models.clip import Clip, ClipConfig
from styledrop_cli.models.superres import SuperResConfig, SuperResTransformer
from styledrop_cli.models.tokenizer import EnlargedDecoder, ImageTokenizer, TokenizerConfig
from styledrop_cli.models.transformer import MaskedTransformer, TransformerConfig
from styledrop_cli.text import TextTokenizer, read_merges

# Part -> its class and the class of its sizes.
PARTS: dict[str, tuple[type[nn.Module], type[Any]]] = {
    "tokenizer": (ImageTokenizer, TokenizerConfig),
    "decoder": (EnlargedDecoder, TokenizerConfig),
    "clip": (Clip, ClipConfig),
    "scorer": (Clip, ClipConfig),
    "transformer": (MaskedTransformer, TransformerConfig),
    "superres": (SuperResTransformer, SuperResConfig),
}


def load_module(folder: Path, part: str) -> Any:
    """One part of a model folder, frozen and in evaluation mode.

    Raises ModelError if the folder has no such part, or its file does not fit its sizes.
    """
    sizes = read_config(folder)["parts"].get(part)
    if sizes is None:
        raise ModelError(f"{folder} has no {part} yet", f"Make it with 'styledrop pretrain {part}'.")
    make, kind = PARTS[part]
    source = f"the {part} of {folder}"
    config = build_config(kind, sizes, source)
    path = folder / f"{part}.safetensors"
    tensors, _ = read_tensors(path)
    module = network_of(lambda: make(config), source, sum(tensor.numel() for tensor in tensors.values()))
    load_strictly(module, tensors, str(path))
    return module.requires_grad_(False).eval()


def read_text_tokenizer(folder: Path, config: ClipConfig) -> TextTokenizer:
    """The text vocabulary of a model folder; raises ModelError if it is not the one its CLIP was trained with."""
    tokenizer = TextTokenizer(read_merges(folder / "merges.txt"), config.context_length)
    if tokenizer.size != config.vocab_size:
        raise ModelError(
            f"{folder / 'merges.txt'} makes {tokenizer.size} tokens, but the CLIP beside it has {config.vocab_size}"
        )
    return tokenizer


def refuse_misfits(
    folder: Path,
    transformer: TransformerConfig,
    tokenizer: TokenizerConfig,
    clip: ClipConfig,
    decoder: TokenizerConfig | None = None,
    superres: SuperResConfig | None = None,
) -> None:
    """Raise ModelError for parts each of which is sound, and that do not go together."""
    pairs = {
        "the transformer's text is its CLIP's": (transformer.encoder_hidden_size, clip.text_width),
        "the transformer's summary is its CLIP's": (transformer.cond_embed_dim, clip.embed_dim),
        "the transformer's ids are the tokenizer's": (transformer.codebook_size, tokenizer.num_vq_embeddings),
    }
    if decoder is not None:
        pairs["the decoder's codes are the tokenizer's"] = (decoder.vq_embed_dim, tokenizer.vq_embed_dim)
        pairs["the decoder is twice as large"] = (decoder.factor, 2 * tokenizer.factor)
    if superres is not None:
        pairs |= {
            "super-resolution's text is the CLIP's": (superres.encoder_hidden_size, clip.text_width),
            "super-resolution's summary is the CLIP's": (superres.cond_embed_dim, clip.embed_dim),
            "super-resolution's ids are the tokenizer's": (superres.codebook_size, tokenizer.num_vq_embeddings),
            "super-resolution reads the transformer's ids": (superres.low_res_codebook_size, transformer.codebook_size),
            "super-resolution reads the transformer's grid": (superres.low_res_size, transformer.sample_size),
            "super-resolution's grid is twice as large": (superres.sample_size, 2 * transformer.sample_size),
        }
    if wrong := [f"{what} ({a}, {b})" for what, (a, b) in pairs.items() if a != b]:
        raise ModelError(f"the parts of {folder} do not fit: it is not so that {'; '.join(wrong)}")


class Parts:
    """The networks of a base model by name, each loaded when it is first asked for and, once let go, again."""

    def __init__(self, loaders: Mapping[str, Callable[[], nn.Module]]) -> None:
        self.loaders = dict(loaders)
        self._here: dict[str, nn.Module] = {}

    @classmethod
    def of(cls, **networks: nn.Module | None) -> Parts:
        """Networks that are here already; None where a base has none."""
        return cls({name: partial(_same, network) for name, network in networks.items() if network is not None})

    def get(self, name: str) -> Any:
        """The network called ``name``, or None."""
        if name not in self._here and name in self.loaders:
            self._here[name] = self.loaders[name]()
        return self._here.get(name)

    def release(self, name: str) -> None:
        """Let a network go: its memory is free once nobody else holds it."""
        self._here.pop(name, None)


def _same(network: nn.Module) -> nn.Module:
    return network
