"""The parts of a base model: how they are loaded from a folder of ours, and whether they fit together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from styledrop_cli.base.prompt_tokens import (
    BytePairTokenizer,
    TextTokenizer,
    WordPieceTokenizer,
    read_merges,
    read_pieces,
)
from styledrop_cli.base.registry import BaseSpec, row_of_ours
from styledrop_cli.base.text_encoder import TextConfig, TextEncoder
from styledrop_cli.errors import ModelError
from styledrop_cli.io.files import file_hash
from styledrop_cli.io.tensors import (
    CONFIG,
    build_config,
    from_eight_bits,
    load_strictly,
    network_of,
    read_config,
    read_tensors,
)
from styledrop_cli.models.clip import Clip, ClipConfig
from styledrop_cli.models.head_clip import HeadClip, HeadClipConfig
from styledrop_cli.models.sentence_bert import SentenceBert, SentenceBertConfig
from styledrop_cli.models.superres import SuperResConfig, SuperResTransformer
from styledrop_cli.models.tokenizer import EnlargedConfig, EnlargedDecoder, ImageTokenizer, TokenizerConfig
from styledrop_cli.models.transformer import MaskedTransformer, TransformerConfig

CLIP_TEXT = {"kind": "clip"}  # what the text part is where it is not named: the text tower of the CLIP

# Part -> kind -> its class and the class of its sizes. The first kind is that of a part which does not name one.
PARTS: dict[str, dict[str, tuple[type[nn.Module], type[Any]]]] = {
    "tokenizer": {"": (ImageTokenizer, TokenizerConfig)},
    "decoder": {"": (EnlargedDecoder, EnlargedConfig)},
    "text": {"bert": (SentenceBert, SentenceBertConfig)},
    "clip": {"": (Clip, ClipConfig), "head": (HeadClip, HeadClipConfig)},
    "scorer": {"": (Clip, ClipConfig), "head": (HeadClip, HeadClipConfig)},
    "transformer": {"": (MaskedTransformer, TransformerConfig)},
    "superres": {"": (SuperResTransformer, SuperResConfig)},
}


@dataclass(frozen=True)
class Part:
    """A network of a base: its sizes, and what loads it, frozen, on the CPU.

    ``load(finite=True)`` reads every value, and raises ModelError for one that is not finite; ``load(halved=True)`` may
    give it as ``devices.halve`` would leave it. ``mapped``: loading costs nothing, because the file is read where and
    when its values are used, so that it may be let go and loaded again. ``in_turn``: it is let go though loading costs
    something, because memory is dearer than that.
    """

    config: Any
    load: Callable[..., nn.Module]
    mapped: bool = False
    in_turn: bool = False

    @classmethod
    def here(cls, network: nn.Module) -> Part:
        """A network that is loaded already."""
        return cls(network.config, lambda finite=False, halved=False: network)


class Parts:
    """The networks of a base by name, each loaded when it is first asked for."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self.known = dict(parts)
        self._here: dict[str, nn.Module] = {}

    @classmethod
    def of(cls, **networks: nn.Module | None) -> Parts:
        """Networks that are here already; None where a base has none."""
        return cls({name: Part.here(network) for name, network in networks.items() if network is not None})

    def __contains__(self, name: str) -> bool:
        return name in self.known

    def config(self, name: str) -> Any:
        """The sizes of a network, which need not be loaded for it."""
        return self.known[name].config

    def get(self, name: str) -> Any:
        """The network called ``name``, or None."""
        if name not in self._here and name in self.known:
            with torch.autocast("cpu", enabled=False):  # a file may be read in the middle of a drawing in bfloat16
                self._here[name] = self.known[name].load()
        return self._here.get(name)

    def release(self, name: str, again: bool = False) -> None:
        """Let a network go if that pays: its memory is free once nobody else holds it.

        It pays if it can be had ``again`` for nothing and, if it is not needed at once, for a network ``in_turn``.
        """
        part = self.known.get(name)
        if part is not None and (part.mapped or (part.in_turn and not again)):
            self._here.pop(name, None)


@dataclass(frozen=True)
class Opened:
    """A model folder whose description was read: what a ``Base`` is made of, on any device.

    ``fingerprint`` identifies the transformer's weights, by which an adapter remembers its base. ``schedule`` is that
    of the masks. ``text_encoder`` is the name of the one it reads with, "" where there is no choice.
    """

    name: str
    spec: BaseSpec
    parts: Mapping[str, Part]
    text_tokenizer: TextTokenizer
    fingerprint: Callable[[], str]
    schedule: str = "cosine"
    text_encoder: str = ""


def open_ours(folder: Path) -> Opened:
    """Load a model folder made by ``styledrop pretrain``, whose networks are small enough to be read at once.

    Raises ModelError for a part that is missing, broken or does not fit, or a vocabulary that is not its encoder's.
    """
    config, own = read_config(folder), text_part(folder)
    wanted = {own, "clip", "transformer", "tokenizer"} | ({"decoder", "superres"} & set(config["parts"]))
    parts = {part: Part.here(load_module(folder, part)) for part in sorted(wanted)}
    refuse_misfits(folder, **{name: part.config for name, part in parts.items() if name != "decoder"})
    tokenizer = read_text_tokenizer(folder, parts[own].config)
    fingerprint, name = partial(file_hash, folder / "transformer.safetensors"), str(config.get("name", folder.name))
    return Opened(name, row_of_ours(name), parts, tokenizer, fingerprint)


def load_module(folder: Path, part: str) -> Any:
    """One part of a model folder, frozen and in evaluation mode.

    Raises ModelError if the folder has no such part, or its file does not fit its sizes.
    """
    sizes = read_config(folder)["parts"].get(part)
    if sizes is None:
        raise ModelError(f"{folder} has no {part} yet", f"Make it with 'styledrop pretrain {part}'.")
    source, kinds = f"the {part} of {folder}", PARTS[part]
    said = sizes.get("kind") if isinstance(sizes, dict) else None
    kind = next(iter(kinds)) if said is None else said
    if kind not in tuple(kinds):
        known = ", ".join(f"'{one}'" for one in kinds if one)
        raise ModelError(f"{source} is of a kind that is not known here: {kind!r:.40}", f"Known: {known or 'none'}.")
    make, sizes_class = kinds[kind]
    config = build_config(sizes_class, sizes, source)
    path = folder / f"{part}.safetensors"
    tensors, _ = read_tensors(path)
    tensors = from_eight_bits(tensors, str(path))
    module = network_of(lambda: make(config), source, sum(tensor.numel() for tensor in tensors.values()))
    load_strictly(module, tensors, str(path))
    return module.requires_grad_(False).eval()


def text_part(folder: Path) -> str:
    """The part whose network reads a model folder's prompts: ``text`` or, of the kind ``clip``, ``clip``."""
    made = (folder / CONFIG).exists()
    return "text" if made and read_config(folder)["parts"].get("text", CLIP_TEXT) != CLIP_TEXT else "clip"


def load_text(folder: Path, device: torch.device) -> TextEncoder:
    """The text encoder of a model folder, on ``device``.

    Raises ModelError if a part of it is missing or broken, or its vocabulary is not the network's.
    """
    network = load_module(folder, text_part(folder))
    if isinstance(network, HeadClip):
        raise ModelError(
            f"{folder} has no text encoder, which its clip reads with", "Make it with 'styledrop pretrain text'."
        )
    return TextEncoder(network.to(device), read_text_tokenizer(folder, network.config))


def read_text_tokenizer(folder: Path, config: TextConfig) -> TextTokenizer:
    """The text vocabulary of a model folder; raises ModelError if it is not the one its encoder was trained with."""
    if isinstance(config, ClipConfig):
        return read_byte_pairs(folder, config)
    path = folder / "vocab.txt"
    tokenizer = WordPieceTokenizer(read_pieces(path), config.context_length)
    if tokenizer.size != config.vocab_size:
        raise ModelError(f"{path} has {tokenizer.size} pieces, but the text encoder beside it has {config.vocab_size}")
    return tokenizer


def read_byte_pairs(folder: Path, config: ClipConfig) -> BytePairTokenizer:
    """``read_text_tokenizer`` of a CLIP."""
    tokenizer = BytePairTokenizer(read_merges(folder / "merges.txt"), config.context_length)
    if tokenizer.size != config.vocab_size:
        raise ModelError(
            f"{folder / 'merges.txt'} makes {tokenizer.size} tokens, but the CLIP beside it has {config.vocab_size}"
        )
    return tokenizer


def refuse_misfits(
    folder: Path,
    transformer: TransformerConfig,
    tokenizer: TokenizerConfig,
    clip: ClipConfig | HeadClipConfig,
    text: TextConfig | None = None,
    superres: SuperResConfig | None = None,
) -> None:
    """Raise ModelError for parts each of which is sound, and that do not go together.

    Without a ``text`` part of its own, a base reads with its ``clip``.
    """
    if (text is None) != isinstance(clip, ClipConfig):
        kinds = "a text encoder of its own" if text is not None else "no text encoder"
        raise ModelError(
            f"the parts of {folder} do not fit: beside {kinds} its clip is of the wrong kind",
            "Make it anew with 'styledrop pretrain clip'.",
        )
    read = text if text is not None else clip
    assert not isinstance(read, HeadClipConfig)
    owner = "CLIP" if text is None else "text encoder"
    pairs = {
        f"the transformer's text is its {owner}'s": (transformer.encoder_hidden_size, read.text_width),
        f"the transformer's summary is its {owner}'s": (transformer.cond_embed_dim, read.embed_dim),
        "the transformer's ids are the tokenizer's": (transformer.codebook_size, tokenizer.num_vq_embeddings),
    }
    if isinstance(clip, HeadClipConfig):
        refuse_other_text(folder, clip, read.text_width)
    if superres is not None:
        pairs |= {
            f"super-resolution's text is the {owner}'s": (superres.encoder_hidden_size, read.text_width),
            f"super-resolution's summary is the {owner}'s": (superres.cond_embed_dim, read.embed_dim),
            "super-resolution's ids are the tokenizer's": (superres.codebook_size, tokenizer.num_vq_embeddings),
            "super-resolution reads the transformer's ids": (superres.low_res_codebook_size, transformer.codebook_size),
            "super-resolution reads the transformer's grid": (superres.low_res_size, transformer.sample_size),
            "super-resolution's grid is twice as large": (superres.sample_size, 2 * transformer.sample_size),
        }
    if wrong := [f"{what} ({a}, {b})" for what, (a, b) in pairs.items() if a != b]:
        raise ModelError(f"the parts of {folder} do not fit: it is not so that {'; '.join(wrong)}")


def refuse_other_text(folder: Path, clip: HeadClipConfig, width: int) -> None:
    """Raise ModelError for a CLIP whose head reads other states than the text encoder makes, which are ``width``."""
    if clip.text_width != width:
        raise ModelError(
            f"the parts of {folder} do not fit: a clip reads states of {clip.text_width}, and its text encoder makes "
            f"{width}",
            "Make it anew with 'styledrop pretrain clip', or scorer.",
        )
