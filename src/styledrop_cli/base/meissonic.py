"""The transformers of the Meissonic family, as published: their sizes. Their tensors have our names.

Upstream: github.com/viiika/Meissonic and github.com/M-E-AGI-Lab/Muddit, ``src/transformer.py``. Their image tokenizer,
text encoder and scheduler are of the same classes as aMUSEd's, or do the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from styledrop_cli.base.published_files import Network, read_settings
from styledrop_cli.errors import ModelError
from styledrop_cli.io.tensors import build_config
from styledrop_cli.models.meissonic import MeissonicConfig, MeissonicTransformer

# What upstream may say beside our sizes: nothing is made of the first two, and no guidance is ever told to the network.
FIXED = {"in_channels": None, "patch_size": 1, "guidance_embeds": False}
# What Muddit says beside: how large its text decoder is, which is not read, and that it has no second text encoder.
MUDDIT_FIXED = {**FIXED, "tokenizer_vocab_size": None, "t5_dim": None}
# Upstream's defaults for what its file leaves out, where they are not ours.
DEFAULTS = {
    "num_layers": 19,
    "num_single_layers": 38,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "downsample": False,
    "upsample": False,
}
SIDE = 32  # ids along a side that attention sees, in Meissonic and Monetico
FACTOR = 16  # pixels of a side for each id
TEXT_DECODER = "text_decoder.1.weight"  # what Muddit describes pictures with


def _transformer_config(place: Path) -> MeissonicConfig:
    path = place / "config.json"
    found = DEFAULTS | read_settings(path, FIXED)
    found.setdefault("sample_size", 2 * SIDE if found["downsample"] else SIDE)
    return build_config(MeissonicConfig, found, str(path))


def _muddit_config(place: Path) -> MeissonicConfig:
    """Muddit's two sizes are described alike: the folder of each is called by its pictures' side, ``512``."""
    path = place / "config.json"
    if (t5 := read_settings(path, {}).get("t5_dim")) is not None:
        raise ModelError(f"{path}: t5_dim is {t5!r}, and a second text encoder cannot be run here")
    found = DEFAULTS | read_settings(path, MUDDIT_FIXED)
    side = place.parent.name
    pixels = int(side) if re.fullmatch(r"\d{2,4}", side, re.ASCII) else 2 * SIDE * FACTOR
    found.setdefault("sample_size", pixels // FACTOR)
    return build_config(MeissonicConfig, found, str(path))


def _without_text_decoder(tensors: Mapping[str, Tensor], config: MeissonicConfig) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name != TEXT_DECODER}


# Class -> how a part of it is read.
NETWORKS = {
    "Transformer2DModel": Network(_transformer_config, MeissonicTransformer),
    "SymmetricTransformer2DModel": Network(_muddit_config, MeissonicTransformer, _without_text_decoder),
}
