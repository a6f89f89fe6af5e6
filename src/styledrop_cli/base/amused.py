"""aMUSEd's parts as ours: sizes, names of tensors and the text vocabulary.

Upstream: diffusers ``UVit2DModel`` and ``VQModel``, transformers ``CLIPTextModelWithProjection`` and ``CLIPTokenizer``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from styledrop_cli.base.prompt_tokens import BytePairTokenizer, as_merges, read_merges, vocabulary_of
from styledrop_cli.base.published_files import Network, read_object, read_settings
from styledrop_cli.errors import ModelError
from styledrop_cli.io.tensors import build_config
from styledrop_cli.models.clip import Clip, ClipConfig
from styledrop_cli.models.tokenizer import ImageTokenizer, TokenizerConfig
from styledrop_cli.models.transformer import MaskedTransformer, TransformerConfig

# Settings that our networks do not have: what upstream must say there, or leave out. None stands for anything.
FIXED: dict[str, dict[str, Any]] = {
    "transformer": {
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "use_bias": False,
        "ln_elementwise_affine": True,
        "layer_norm_eps": 1e-6,
    },
    "vqvae": {
        "in_channels": 3,
        "out_channels": 3,
        "act_fn": "silu",
        "norm_type": "group",
        "mid_block_add_attention": False,
        "lookup_from_codebook": True,
        "sample_size": None,
        "scaling_factor": None,
        "force_upcast": None,
        "down_block_types": None,
        "up_block_types": None,
    },
}
TRANSFORMER_DEFAULTS = {"sample_size": 64}  # upstream's, where it is not ours
# Upstream's name of each of CLIP's sizes, ours, and upstream's default.
CLIP_SIZES = (
    ("vocab_size", "vocab_size", 49408),
    ("hidden_size", "text_width", 512),
    ("num_hidden_layers", "text_layers", 12),
    ("num_attention_heads", "text_heads", 8),
    ("max_position_embeddings", "context_length", 77),
    ("projection_dim", "embed_dim", 512),
)
# Upstream's and our names of the text encoder's tensors; {} is the layer's number. Ours packs queries, keys and values.
CLIP_NAMES = (
    ("text_model.embeddings.token_embedding.weight", "token_embedding.weight"),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.final_layer_norm.weight", "ln_final.weight"),
    ("text_model.final_layer_norm.bias", "ln_final.bias"),
)
CLIP_LAYER = "text_model.encoder.layers.{}."
CLIP_BLOCK = "transformer.resblocks.{}."
CLIP_LAYER_NAMES = (
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("self_attn.out_proj", "attn.out_proj"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
)
CLIP_PACKED = tuple(f"self_attn.{name}_proj" for name in "qkv")
CLIP_IGNORED = "text_model.embeddings.position_ids"  # counts from 0 on, in files of older releases
CLIP_PICTURES = ("vision_model.", "visual_projection.", "logit_scale")  # what a whole CLIP has beside its text tower
LOGIT_SCALE = 4.6052  # log(100), where CLIP's training ends; a text encoder alone does not keep it


# ---- settings ----------------------------------------------------------------------------------------------------


def _transformer_config(place: Path) -> TransformerConfig:
    path = place / "config.json"
    found = TRANSFORMER_DEFAULTS | read_settings(path, FIXED["transformer"])
    if unknown := {"positions"} & set(found):  # pocket's own, which upstream does not have
        raise ModelError(f"{place} has unknown settings: {', '.join(unknown)}")
    return build_config(TransformerConfig, found, str(path))


def _tokenizer_config(place: Path) -> TokenizerConfig:
    path = place / "config.json"
    found = read_settings(path, FIXED["vqvae"])
    if found.get("vq_embed_dim") is None:
        found["vq_embed_dim"] = found.get("latent_channels", TokenizerConfig.latent_channels)
    own = {"patch_size", "linear_path", "levels"} & set(found)
    if own:
        raise ModelError(f"{place} has unknown settings: {', '.join(sorted(own))}")
    return build_config(TokenizerConfig, found, str(path))


def _clip_config(place: Path) -> ClipConfig:
    path = place / "config.json"
    return _text_config(path, read_object(path))


def _text_config(path: Path, found: Mapping[str, Any]) -> ClipConfig:
    sizes = {ours: found.get(theirs, default) for theirs, ours, default in CLIP_SIZES}
    activation = found.get("hidden_act", "quick_gelu")
    if activation not in ("quick_gelu", "gelu") or found.get("layer_norm_eps", 1e-5) != 1e-5:
        raise ModelError(f"{path}: {activation}, {found.get('layer_norm_eps')} is not a CLIP that can be run here")
    config = build_config(ClipConfig, sizes | {"quick_gelu": activation == "quick_gelu"}, str(path))
    if found.get("intermediate_size", 2048) != 4 * config.text_width:
        raise ModelError(f"{path}: intermediate_size is {found.get('intermediate_size')}, not 4 x {config.text_width}")
    return config


def _whole_clip_config(place: Path) -> ClipConfig:
    """Of the text tower; a description may leave out what is CLIP's default."""
    path = place / "config.json"
    found = read_object(path)
    text = found.get("text_config")
    if not isinstance(text, dict):
        raise ModelError(f"{path} says nothing of a text tower")
    newer = found.get("text_config_dict")  # goes before, in files of older releases
    said = text | (newer if isinstance(newer, dict) else {})
    return _text_config(path, said | {name: found[name] for name in ("projection_dim",) if name in found})


def read_text_vocabulary(place: Path, clip: ClipConfig) -> BytePairTokenizer:
    """The vocabulary in a folder: ``merges.txt`` and ``vocab.json`` or, in newer releases, ``tokenizer.json``."""
    path, about = place / "vocab.json", place / "special_tokens_map.json"
    if not (path.exists() and (place / "merges.txt").exists()) and (place / "tokenizer.json").exists():
        path, about = place / "tokenizer.json", place / "tokenizer_config.json"
        model = read_object(path).get("model")
        held, pairs = (model.get("vocab"), model.get("merges")) if isinstance(model, dict) else (None, None)
        lines = [_pair(one) for one in pairs] if isinstance(pairs, list) else []
        merges = as_merges(lines, path)
    else:
        held, merges = read_object(path), read_merges(place / "merges.txt")
    vocabulary = vocabulary_of(merges)
    if held != vocabulary or len(vocabulary) != clip.vocab_size:
        raise ModelError(f"{path} does not go with its merges, or with a CLIP of {clip.vocab_size} tokens")
    pad = read_object(about).get("pad_token", "<|endoftext|>")
    pad = pad.get("content") if isinstance(pad, dict) else pad
    if not isinstance(pad, str) or pad not in vocabulary:
        raise ModelError(f"{about}: the padding {pad!r} is no token of its vocabulary")
    return BytePairTokenizer(merges, clip.context_length, pad)


def _pair(merge: object) -> list[str]:
    """A merge as ``tokenizer.json`` writes it: two tokens in a text, or in a list of them."""
    if isinstance(merge, str):
        return merge.split()
    return merge if isinstance(merge, list) and all(isinstance(token, str) for token in merge) else []


# ---- weights -----------------------------------------------------------------------------------------------------


def clip_pairs(layers: int) -> dict[str, str]:
    """Upstream's name to ours, of every tensor that is the same in both."""
    pairs = dict(CLIP_NAMES)
    for layer in range(layers):
        theirs, ours = CLIP_LAYER.format(layer), CLIP_BLOCK.format(layer)
        for kind in ("weight", "bias"):
            pairs |= {f"{theirs}{a}.{kind}": f"{ours}{b}.{kind}" for a, b in CLIP_LAYER_NAMES}
    return pairs


def clip_from_published(tensors: Mapping[str, Tensor], config: ClipConfig) -> dict[str, Tensor]:
    """The text encoder's tensors under our names; names that are not upstream's are left for the strict load."""
    pairs = clip_pairs(config.text_layers)
    rest = {name: tensor for name, tensor in tensors.items() if name != CLIP_IGNORED}
    made: dict[str, Tensor] = {"logit_scale": torch.tensor(LOGIT_SCALE)}
    for layer in range(config.text_layers):
        for kind in ("weight", "bias"):
            names = [f"{CLIP_LAYER.format(layer)}{name}.{kind}" for name in CLIP_PACKED]
            packed = [rest[name] for name in names if name in rest]
            if len(packed) == len(names) and len({(part.shape, part.dtype) for part in packed}) == 1 and packed[0].ndim:
                made[f"{CLIP_BLOCK.format(layer)}attn.in_proj_{kind}"] = torch.cat([rest.pop(name) for name in names])
    if "text_projection.weight" in rest and rest["text_projection.weight"].ndim == 2:
        made["text_projection"] = rest.pop("text_projection.weight").T
    return made | {pairs.get(name, name): tensor for name, tensor in rest.items()}


def clip_from_whole(tensors: Mapping[str, Tensor], config: ClipConfig) -> dict[str, Tensor]:
    """As ``clip_from_published``, of a CLIP that has a tower for pictures, too: what is of that is left out."""
    read = {name: tensor for name, tensor in tensors.items() if not name.startswith(CLIP_PICTURES)}
    return clip_from_published(read, config)


# Class -> how a part of it is read.
NETWORKS = {
    "UVit2DModel": Network(_transformer_config, MaskedTransformer),
    "VQModel": Network(_tokenizer_config, ImageTokenizer),
    "CLIPTextModelWithProjection": Network(_clip_config, Clip, clip_from_published),
    "CLIPModel": Network(_whole_clip_config, Clip, clip_from_whole),
}
